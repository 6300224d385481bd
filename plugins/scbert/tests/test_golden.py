"""The plugin computes what the original code computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from scdrugmap.data.cells import open_cells
from scdrugmap.model.embed import embed_cells, embed_rows
from scdrugmap.modelkit import performer
from scdrugmap.testing import Cells, embed, encode
from scdrugmap_plugin_scbert.tokenizer import log2_scaled

from .conftest import CHECKPOINT, INPUT, original

Golden = dict[str, np.ndarray]

# States reach 3; the original's float32 states differ from its float64 ones by 2.8e-6, pooled ones
# by 4e-7; cells in one batch, each with its own maximum, from single ones by 2.9e-6.
TOLERANCE = 5e-6


def batch(golden: Golden, *cells: int) -> dict[str, torch.Tensor]:
    return {"level": torch.from_numpy(golden["tokens"][list(cells)])}


def test_tokens_are_those_of_the_original(golden: Golden, cells: Cells) -> None:
    tokens = encode(original(), cells)
    np.testing.assert_array_equal(tokens.flat["level"].reshape(16, 241), golden["tokens"])


def test_scaled_values_are_those_of_the_original(golden: Golden, cells: Cells) -> None:
    rows, genes, _ = cells
    tokenizer = original().model.tokenizer
    tokenizer.bind(genes)
    cell, place, values, total = tokenizer._known(rows)
    found = csr_matrix((log2_scaled(values, total[cell]), (cell, place)), (16, 240)).toarray()
    np.testing.assert_allclose(found, golden["log2_normalised_X"], rtol=1e-6)


def test_states_and_logits_agree(golden: Golden) -> None:
    with torch.inference_mode():
        states = original().model.module.states(batch(golden, 0, 1))
    np.testing.assert_allclose(states, golden["encodings_first2"], rtol=0, atol=TOLERANCE)
    head = torch.load(CHECKPOINT / "panglao_pretrain.pth", weights_only=True)["model_state_dict"]
    logits = states @ head["to_out.weight"].T + head["to_out.bias"]
    np.testing.assert_allclose(logits, golden["logits_first2"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("pool", ["mean", "last", "max"])
def test_embeddings_agree(golden: Golden, cells: Cells, pool: str) -> None:
    found = embed(original(pool=pool), cells)
    np.testing.assert_allclose(found, golden[f"emb_{pool}"], rtol=0, atol=TOLERANCE)


def test_largest_key_of_the_batch_gives_the_original_in_one_batch(
    golden: Golden, cells: Cells
) -> None:
    found = embed(original(stabilizer="batch"), cells)
    np.testing.assert_allclose(found, golden["emb_mean_one_batch"], rtol=0, atol=TOLERANCE)
    assert np.abs(found - golden["emb_mean"]).max() > 0.01


@pytest.mark.parametrize("features", [1, 20_000, 10**9])
@pytest.mark.parametrize("stabilizer", ["cell", "batch"])
def test_tiles_change_nothing(
    golden: Golden,
    cells: Cells,
    features: int,
    stabilizer: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(performer, "CPU_TILE", features)
    name = "emb_mean" if stabilizer == "cell" else "emb_mean_one_batch"
    found = embed(original(stabilizer=stabilizer), cells)
    np.testing.assert_allclose(found, golden[name], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("token_budget", [1, 10_000])
def test_batches_change_nothing(golden: Golden, cells: Cells, token_budget: int) -> None:
    rows, genes, names = cells
    found = embed_rows(original().model, genes, rows, names, token_budget=token_budget)
    np.testing.assert_allclose(found, golden["emb_mean"], rtol=0, atol=TOLERANCE)


def test_embeddings_agree_through_the_whole_pipeline(golden: Golden) -> None:
    with open_cells(INPUT) as cells:
        embedded = embed_cells(cells, original(), device="cpu", quiet=True)
    np.testing.assert_allclose(embedded.values, golden["emb_mean"], rtol=0, atol=TOLERANCE)


def test_float64_run_agrees(golden: Golden) -> None:
    module = original().model.module.double()
    published = torch.load(CHECKPOINT / "panglao_pretrain.pth", weights_only=True)
    # The positions are published in 64 bits, and read in 32.
    module.tokens.position.weight.copy_(published["model_state_dict"]["pos_emb.emb.weight"])
    with torch.inference_mode():
        found = module(batch(golden, *range(16)))
    np.testing.assert_allclose(found, golden["emb_mean_float64"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("features", [20_000, 10**9])
def test_gradients_agree(golden: Golden, features: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(performer, "CPU_TILE", features)
    module = original().model.module
    output = module(batch(golden, int(golden["grad_cell_index"])))[0]
    loss = (output * torch.linspace(-1, 1, len(output))).sum()
    loss.backward()
    # 1e-4: what the original's float32 run allows.
    assert float(loss.detach()) == pytest.approx(float(golden["grad_loss"]), rel=1e-5)
    first, second = module.layers
    ours = {
        "token_emb.weight": module.tokens.level,
        "performer.net.layers.0.0.norm.weight": first.norm1,
        "performer.net.layers.0.0.fn.to_q.weight": first.attention.q_proj,
        "performer.net.layers.0.0.fn.to_k.weight": first.attention.k_proj,
        "performer.net.layers.1.0.fn.to_v.weight": second.attention.v_proj,
        "performer.net.layers.1.1.fn.fn.w1.weight": second.feed_forward.linear1,
        "norm.weight": module.norm,
    }
    assert set(ours) == set(golden["grad_names"].tolist())
    for name, norm in zip(golden["grad_names"].tolist(), golden["grad_norms"], strict=True):
        assert float(ours[name].weight.grad.norm()) == pytest.approx(float(norm), rel=1e-4), name
