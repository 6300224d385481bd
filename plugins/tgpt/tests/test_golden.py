"""The plugin computes what the original code computes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix
from torch import nn

from scdrugmap.data.cells import open_cells
from scdrugmap.data.genes import Genes
from scdrugmap.model.embed import embed_cells
from scdrugmap.model.load import LoadedModel
from scdrugmap.modelkit import Tokens, pad

from .conftest import CHECKPOINT, GOLDEN, encode, original

Cells = tuple[csr_matrix, Genes, np.ndarray]
Golden = dict[str, np.ndarray]

# float32 sums in another order: two releases of transformers differ by up to 4e-6, states are of
# size 1.
TOLERANCE = 5e-6

AS_THE_ORIGINAL = {"unknown": "token", "ties": "column"}


def states(loaded: LoadedModel, tokens: Tokens) -> np.ndarray:
    with torch.inference_mode():
        return loaded.model.module(loaded.model.collate(tokens)).numpy()


def assert_tokens(loaded: LoadedModel, tokens: Tokens, golden: Golden, kind: str = "") -> None:
    batch = loaded.model.collate(tokens)
    np.testing.assert_array_equal(batch["id"], golden[f"{kind}input_ids"])
    np.testing.assert_array_equal(batch["keep"], golden[f"{kind}attention_mask"])


def assert_close(found: np.ndarray, expected: np.ndarray, atol: float = TOLERANCE) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def test_tokens_of_the_columns_are_exact(golden: Golden, cells: Cells) -> None:
    loaded = original(unknown="token")
    encode(loaded, cells)
    np.testing.assert_array_equal(loaded.model.tokenizer._ids, golden["gene_token_ids"])


def test_tokens_with_both_ends_are_exact(golden: Golden, cells: Cells) -> None:
    loaded = original(pool="all")
    assert_tokens(loaded, encode(loaded, cells), golden)


def test_tokens_without_the_end_are_those_of_the_original_but_for_the_end(
    golden: Golden, cells: Cells
) -> None:
    tokens = encode(original(), cells)
    for cell, ids in enumerate(golden["input_ids"]):
        expected = ids[(ids != 2) & (golden["attention_mask"][cell] == 1)]
        found = tokens.flat["id"][tokens.start[cell] : tokens.start[cell + 1]]
        np.testing.assert_array_equal(found, expected)


def test_tokens_with_unknown_genes_are_exact(golden: Golden, cells: Cells) -> None:
    loaded = original(pool="all", **AS_THE_ORIGINAL)
    assert_tokens(loaded, encode(loaded, cells), golden, "unk_")


@pytest.mark.parametrize(
    ("file", "settings"),
    [("gene_rankings", {}), ("gene_rankings_with_unknown", AS_THE_ORIGINAL)],
)
def test_columns_of_the_tokens_are_the_published_lines(
    cells: Cells, file: str, settings: dict[str, str]
) -> None:
    tokens = encode(original(**settings), cells)
    lines = (GOLDEN / f"{file}.txt").read_text("utf-8").splitlines()
    for cell, line in enumerate(lines):
        column = tokens.flat["column"][tokens.start[cell] + 1 : tokens.start[cell + 1]]
        assert cells[1].published[column].tolist() == line.split()[:62]


def test_embeddings_agree_through_the_whole_pipeline(golden: Golden) -> None:
    with open_cells(GOLDEN / "input.h5ad") as opened:
        embedded = embed_cells(opened, original(), device="cpu", quiet=True)
    assert_close(embedded.values, golden["embedding"])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("embedding", {}),
        ("embedding_no_token_type", {"token_types": "false"}),
        ("embedding_masked_mean_with_specials", {"pool": "all"}),
        ("embedding_last_gene", {"pool": "last"}),
        ("unk_embedding", AS_THE_ORIGINAL),
    ],
)
def test_embeddings_agree(
    golden: Golden, cells: Cells, name: str, settings: dict[str, str]
) -> None:
    loaded = original(**settings)
    assert_close(states(loaded, encode(loaded, cells)), golden[name])


@pytest.mark.parametrize(
    ("name", "settings"), [("embedding_f64", {}), ("unk_embedding_f64", AS_THE_ORIGINAL)]
)
def test_float64_runs_agree(
    golden: Golden, cells: Cells, name: str, settings: dict[str, str]
) -> None:
    loaded = original(**settings)
    loaded.model.module.double()
    # Nothing but the order of sums is left at this precision.
    assert_close(states(loaded, encode(loaded, cells)), golden[name], 1e-12)


def test_embeddings_of_the_scdrugmap_repository_agree_from_its_tokens(golden: Golden) -> None:
    """It averages all positions without a mask; its tokens rank genes of zero count, too."""
    module = original(pool="all", token_types="false").model.module
    with torch.inference_mode():
        found = module({"id": torch.from_numpy(golden["scdrugmap_input_ids"])}).numpy()
    assert_close(found, golden["scdrugmap_embedding"])


def test_hidden_states_of_every_layer_agree(golden: Golden, cells: Cells) -> None:
    loaded = original(pool="all")
    module = loaded.model.module
    seen: list[np.ndarray] = []

    def keep(part: nn.Module, given: object, output: torch.Tensor) -> None:
        seen.append(output[0].numpy())

    for part in (module.embedding, module.layers[0], module.norm):
        part.register_forward_hook(keep)
    states(loaded, encode(loaded, cells).take(np.array([0])))
    assert_close(np.stack(seen), golden["hidden_states_cell0"])


def test_last_states_of_all_real_positions_agree(golden: Golden, cells: Cells) -> None:
    loaded = original(pool="all")
    batch = loaded.model.collate(encode(loaded, cells))
    with torch.inference_mode():
        hidden = loaded.model.module.states(batch["id"])
    keep = batch["keep"].numpy()
    assert_close(hidden.numpy()[keep], golden["last_hidden_state"][keep])


def test_loss_of_the_language_model_agrees(golden: Golden, cells: Cells) -> None:
    loaded = original(pool="all")
    module, batch = loaded.model.module, loaded.model.collate(encode(loaded, cells))
    with torch.inference_mode():
        logits = module.states(batch["id"]) @ module.embedding.tokens.weight.T
        labels = batch["id"].long().masked_fill(~batch["keep"], -100)
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert float(loss) == pytest.approx(float(golden["lm_loss"]), abs=1e-5)


def test_gradients_agree(golden: Golden, cells: Cells) -> None:
    loaded = original()
    module = loaded.model.module
    embedded = module(loaded.model.collate(encode(loaded, cells)))
    loss = (embedded * torch.from_numpy(golden["grad_target"])).sum(1).mean()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(golden["grad_loss"]), abs=1e-5)
    attention = module.layers[0].attention
    ours = {
        "wte.weight": [module.embedding.tokens],
        "wpe.weight": [module.embedding.positions],
        "h.0.attn.c_attn.weight": [attention.q_proj, attention.k_proj, attention.v_proj],
        "h.1.mlp.c_fc.weight": [module.layers[1].feed_forward.linear1],
        "ln_f.weight": [module.norm],
    }
    assert set(ours) == set(golden["grad_names"].tolist())
    for name, norm in zip(golden["grad_names"].tolist(), golden["grad_norms"], strict=True):
        found = float(torch.cat([part.weight.grad.flatten() for part in ours[name]]).norm())
        # The original's float32 and float64 runs differ by less than 1e-5 of the norm.
        assert found == pytest.approx(float(norm), rel=1e-4), name


def test_batch_size_and_padding_change_nothing(golden: Golden, cells: Cells) -> None:
    loaded = original()
    tokens = encode(loaded, cells)
    for cell in range(tokens.n_cells):
        alone = states(loaded, tokens.take(np.array([cell])))
        assert_close(alone[0], golden["embedding"][cell])


def test_last_gene_is_found_with_and_without_padding(golden: Golden, cells: Cells) -> None:
    loaded = original(pool="last")
    tokens = encode(loaded, cells)
    assert "keep" in pad(tokens, loaded.model.padding)
    alone = states(loaded, tokens.take(np.array([6])))
    assert_close(alone[0], golden["embedding_last_gene"][6])


def test_a_line_looked_up_word_by_word_gives_the_tokens_of_the_library(golden: Golden) -> None:
    content = json.loads((CHECKPOINT / "tokenizer.json").read_text("utf-8"))
    vocabulary = content["model"]["vocab"]
    lines = (GOLDEN / "gene_rankings.txt").read_text("utf-8").splitlines()
    for ids, line in zip(golden["input_ids"], lines, strict=True):
        words = [word.replace("-", "_").replace(".", "_") for word in line.split()[:62]]
        expected = [1, *(vocabulary[word] for word in words), 2]
        assert ids[: len(expected)].tolist() == expected
