"""The plugin computes what the original code computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from scdrugmap.data.cells import open_cells
from scdrugmap.data.genes import Genes
from scdrugmap.model.embed import embed_cells
from scdrugmap.model.load import LoadedModel
from scdrugmap.modelkit import Tokens, pad
from scdrugmap_plugin_scgpt.tokenizer import Tokenizer

from .conftest import GOLDEN, MAX_LENGTH, encode, original

Cells = tuple[csr_matrix, Genes, np.ndarray]
Golden = dict[str, np.ndarray]

# float32 sums in another order: the original's two own paths differ by up to 5e-6.
STATE_TOLERANCE = 3e-5
EMBEDDING_TOLERANCE = 1e-5


class OriginalOrder(Tokenizer):
    """Draws from two shared generators, cell after cell, as the original's collator does."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, seed: int) -> OriginalOrder:
        made = cls.__new__(cls)
        made.__dict__.update(tokenizer.__dict__)
        made.numpy = np.random.RandomState(seed)
        made.torch = torch.Generator().manual_seed(seed)
        return made

    def draws(self, ids: np.ndarray, key: np.uint64) -> np.ndarray:
        return self.numpy.rand(len(ids))

    def choose(self, ids: np.ndarray, room: int, key: np.uint64) -> np.ndarray:
        return torch.randperm(len(ids), generator=self.torch)[:room].numpy()


def assert_tokens(loaded: LoadedModel, tokens: Tokens, golden: Golden, kind: str) -> None:
    batch = loaded.model.collate(tokens)
    np.testing.assert_array_equal(batch["id"], golden[f"{kind}_gene_ids"])
    np.testing.assert_array_equal(batch["value"], golden[f"{kind}_values"])
    if f"{kind}_pad_mask" in golden:
        np.testing.assert_array_equal(~batch["keep"].numpy(), golden[f"{kind}_pad_mask"])


def states(loaded: LoadedModel, tokens: Tokens) -> np.ndarray:
    with torch.inference_mode():
        return loaded.model.module(loaded.model.collate(tokens)).numpy()


def test_deterministic_tokens_are_exact(golden: Golden, cells: Cells) -> None:
    loaded = original()
    assert_tokens(loaded, encode(loaded, cells), golden, "det")


def test_seeded_tokens_are_exact_when_drawn_in_the_order_of_the_original(
    golden: Golden, cells: Cells
) -> None:
    loaded = original(bins="legacy", overlong="sample", normalize="false")
    # NumPy draws the bins before torch draws the sample: two generators, so the order is kept.
    loaded.model.tokenizer = OriginalOrder.of(loaded.model.tokenizer, 0)
    tokens = encode(loaded, cells)
    assert_tokens(loaded, tokens, golden, "seeded")
    np.testing.assert_allclose(
        states(loaded, tokens), golden["seeded_cls_raw"], rtol=0, atol=STATE_TOLERANCE
    )


def test_seeded_embeddings_agree(golden: Golden, cells: Cells) -> None:
    loaded = original(bins="legacy", overlong="sample")
    loaded.model.tokenizer = OriginalOrder.of(loaded.model.tokenizer, 0)
    np.testing.assert_allclose(
        states(loaded, encode(loaded, cells)),
        golden["seeded_emb"],
        rtol=0,
        atol=EMBEDDING_TOLERANCE,
    )


def test_tokens_cut_before_binning_are_exact(golden: Golden, cells: Cells) -> None:
    loaded = original(cut="before_binning", normalize="false")
    tokens = encode(loaded, cells)
    assert_tokens(loaded, tokens, golden, "pretrunc")
    np.testing.assert_allclose(
        states(loaded, tokens), golden["pretrunc_cls_raw"], rtol=0, atol=STATE_TOLERANCE
    )


def test_middle_bins_lie_between_the_lowest_and_the_highest(golden: Golden, cells: Cells) -> None:
    loaded = original()
    value = loaded.model.collate(encode(loaded, cells))["value"].numpy()
    assert (golden["det_bin_low"] <= value).all()
    assert (value <= golden["det_bin_high"]).all()


def test_embeddings_agree_through_the_whole_pipeline(golden: Golden) -> None:
    with open_cells(GOLDEN / "input.h5ad") as cells:
        embedded = embed_cells(cells, original(), device="cpu", quiet=True)
    np.testing.assert_allclose(embedded.values, golden["det_emb"], rtol=0, atol=EMBEDDING_TOLERANCE)


def test_unnormalised_embeddings_agree(golden: Golden, cells: Cells) -> None:
    loaded = original(normalize="false")
    np.testing.assert_allclose(
        states(loaded, encode(loaded, cells)),
        golden["det_cls_raw"],
        rtol=0,
        atol=STATE_TOLERANCE,
    )


@pytest.mark.parametrize(("cell", "name"), [(3, "det_hidden_long"), (0, "det_hidden_cell0_valid")])
def test_hidden_states_of_all_positions_agree(
    golden: Golden, cells: Cells, cell: int, name: str
) -> None:
    loaded = original()
    tokens = encode(loaded, cells)
    with torch.inference_mode():
        hidden = loaded.model.module.states(loaded.model.collate(tokens))[cell].numpy()
    np.testing.assert_allclose(
        hidden[: tokens.lengths[cell]], golden[name], rtol=0, atol=STATE_TOLERANCE
    )


def test_float64_run_agrees(golden: Golden, cells: Cells) -> None:
    loaded = original(normalize="false")
    loaded.model.module.double()
    batch = loaded.model.collate(encode(loaded, cells))
    batch["value"] = batch["value"].double()
    with torch.inference_mode():
        found = loaded.model.module(batch).numpy()
    # The padding value, the order of sums and nothing else is left at this precision.
    np.testing.assert_allclose(found, golden["det_cls_raw_float64"], rtol=0, atol=1e-9)


def test_gradients_agree(golden: Golden, cells: Cells) -> None:
    loaded = original(normalize="false")
    module = loaded.model.module
    embedded = module(loaded.model.collate(encode(loaded, cells)))
    loss = (embedded @ torch.from_numpy(golden["grad_w"])).square().mean()
    loss.backward()
    # 1e-4: the original's float32 and float64 runs differ by 2e-6.
    assert float(loss.detach()) == pytest.approx(float(golden["grad_loss"]), rel=1e-4)
    attention = [getattr(module.layers[0].attention, f"{part}_proj") for part in "qkv"]
    ours = {
        "encoder.embedding.weight": [module.gene_encoder.embedding.weight],
        "value_encoder.linear1.weight": [module.value_encoder.linear1.weight],
        "transformer_encoder.layers.0.self_attn.Wqkv.weight": [p.weight for p in attention],
        "transformer_encoder.layers.1.linear2.weight": [
            module.layers[1].feed_forward.linear2.weight
        ],
        "transformer_encoder.layers.1.norm2.weight": [module.layers[1].norm2.weight],
    }
    norms = {key.removeprefix("gradnorm:") for key in golden if key.startswith("gradnorm:")}
    assert norms == set(ours)
    for name, parameters in ours.items():
        norm = float(torch.cat([p.grad.flatten() for p in parameters]).norm())
        assert norm == pytest.approx(float(golden[f"gradnorm:{name}"]), rel=1e-4), name
    # Elements are sums in which most cancels, so their error is relative to the whole.
    expected = golden["grad:value_encoder.linear1.bias"]
    error = module.value_encoder.linear1.bias.grad.numpy() - expected
    assert np.linalg.norm(error) < 1e-4 * np.linalg.norm(expected)
    pad_row = module.gene_encoder.embedding.weight.grad[loaded.model.padding["id"]]
    assert not pad_row.any()


def test_batch_size_and_padding_change_nothing(golden: Golden, cells: Cells) -> None:
    loaded = original()
    tokens = encode(loaded, cells)
    for cell in range(tokens.n_cells):
        alone = states(loaded, tokens.take(np.array([cell])))
        np.testing.assert_allclose(alone[0], golden["det_emb"][cell], atol=EMBEDDING_TOLERANCE)


def test_reading_only_the_first_position_equals_the_full_path(cells: Cells) -> None:
    loaded = original(normalize="false")
    batch = pad(encode(loaded, cells), loaded.model.padding)
    with torch.inference_mode():
        short = loaded.model.module(batch)
        full = loaded.model.module.states(batch)[:, 0]
    # Other matrix shapes, other order of sums.
    np.testing.assert_allclose(short, full, rtol=0, atol=5e-6)
    assert batch["id"].shape[1] == MAX_LENGTH
