"""The plugin computes what the original code computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scdrugmap.data.cells import open_cells
from scdrugmap.model.embed import embed_cells, embed_rows
from scdrugmap.model.load import LoadedModel
from scdrugmap.modelkit import Tokens, performer
from scdrugmap.testing import Cells, embed, encode

from .conftest import GOLDEN, INPUT, original

Golden = dict[str, np.ndarray]
Given = tuple[str, Cells]

# States are about 1.2; the original's float32 states differ from its float64 ones by 2.3e-6.
TOLERANCE = 5e-6

N_CELLS, LENGTH, N_GENES = 16, 160, 400
CLS, PAD = 6, 7
NO_KNOWN_GENE = 15


def in_full(tokens: Tokens) -> dict[str, np.ndarray]:
    """Write every token of padding: (16, 160) levels and genes."""
    found = {
        "level": np.full((N_CELLS, LENGTH), PAD),
        "gene": np.full((N_CELLS, LENGTH), N_GENES + 1),
    }
    for cell, (start, stop) in enumerate(zip(tokens.start, tokens.start[1:], strict=False)):
        for name, values in found.items():
            values[cell, : stop - start] = tokens.flat[name][start:stop]
    return found


def states(loaded: LoadedModel, cells: Cells) -> torch.Tensor:
    """States of all cells in one batch; as in the original those of padding are zero."""
    batch = loaded.model.collate(encode(loaded, cells))
    with torch.inference_mode():
        found = loaded.model.module.states(batch)
    return F.pad(found * (batch["level"] != PAD).unsqueeze(-1), (0, 0, 0, LENGTH - found.shape[1]))


def test_tokens_are_those_of_the_original(golden: Golden, given: Given) -> None:
    name, cells = given
    tokens = encode(original(input=name), cells)
    found = in_full(tokens)
    np.testing.assert_array_equal(found["level"], golden[f"{name}__tokens"])
    np.testing.assert_array_equal(found["gene"], golden[f"{name}__gene_pos"])
    is_pad = tokens.flat["level"] == PAD
    n_padding = LENGTH - golden[f"{name}__length"]
    assert tokens.flat["count"][is_pad].tolist() == n_padding[n_padding > 0].tolist()
    assert (tokens.flat["count"][~is_pad] == 1).all()
    assert np.flatnonzero(~tokens.usable).tolist() == [NO_KNOWN_GENE]


def test_states_agree(golden: Golden, given: Given) -> None:
    name, cells = given
    found = states(original(input=name, key_max="batch"), cells)
    np.testing.assert_allclose(
        found[:3], golden[f"{name}__encodings_first3"], rtol=0, atol=TOLERANCE
    )
    np.testing.assert_allclose(
        found[14], golden[f"{name}__encodings_longcell"], rtol=0, atol=TOLERANCE
    )


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_embeddings_are_those_of_single_cells(golden: Golden, given: Given, pool: str) -> None:
    name, cells = given
    found = embed(original(input=name, pool=pool), cells)
    np.testing.assert_allclose(found, golden[f"{name}__{pool}_single"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_largest_key_of_the_batch_gives_the_original_in_one_batch(
    golden: Golden, given: Given, pool: str
) -> None:
    name, cells = given
    found = embed(original(input=name, pool=pool, key_max="batch"), cells)
    np.testing.assert_allclose(found, golden[f"{name}__{pool}"], rtol=0, atol=TOLERANCE)
    assert np.abs(found - golden[f"{name}__{pool}_single"]).max() > 0.01


@pytest.mark.parametrize(("key_max", "suffix"), [("batch", ""), ("cell", "_single")])
def test_the_task_model_on_our_states_agrees(
    golden: Golden, given: Given, key_max: str, suffix: str
) -> None:
    name, cells = given
    loaded = original(input=name, key_max=key_max)
    x = states(loaded, cells)
    head = torch.load(GOLDEN / "ctc_finetune.pth", weights_only=True)["model_state_dict"]

    def linear(part: str, x: torch.Tensor) -> torch.Tensor:
        return x @ head[f"{part}.weight"].flatten(0, -2).T + head[f"{part}.bias"]

    places = torch.from_numpy(in_full(encode(loaded, cells))["gene"])
    each = F.relu(linear("conv", x).squeeze(-1))  # (16, 160), by position
    pooled = torch.zeros(N_CELLS, N_GENES + 2).scatter(1, places, each)[:, : N_GENES + 1]
    hidden = linear("pred_head.1", F.relu(pooled))
    logits = linear("pred_head.7", F.relu(linear("pred_head.4", F.relu(hidden))))
    expected = {"ctc_hidden": hidden, "ctc_logits": logits}
    if key_max == "batch":
        expected["ctc_pooled"] = pooled
    for array, found in expected.items():
        np.testing.assert_allclose(
            found, golden[f"{name}__{array}{suffix}"], rtol=0, atol=TOLERANCE, err_msg=array
        )


@pytest.mark.parametrize("key_max", ["cell", "batch"])
def test_one_token_for_all_padding_gives_what_padding_in_full_gives(
    counts: Cells, key_max: str
) -> None:
    loaded = original(input="counts", key_max=key_max)
    collapsed = embed(loaded, counts)
    full = {name: torch.from_numpy(v) for name, v in in_full(encode(loaded, counts)).items()}
    full["count"] = torch.ones(N_CELLS, LENGTH)
    with torch.inference_mode():
        expected = loaded.model.module(full)
    np.testing.assert_allclose(collapsed, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("features", [1, 20_000])
@pytest.mark.parametrize("key_max", ["cell", "batch"])
def test_tiles_change_nothing(
    golden: Golden,
    counts: Cells,
    features: int,
    key_max: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(performer, "CPU_TILE", features)
    name = "counts__cls_single" if key_max == "cell" else "counts__cls"
    found = embed(original(input="counts", key_max=key_max), counts)
    np.testing.assert_allclose(found, golden[name], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("token_budget", [1, 400, 10_000])
def test_batches_change_nothing(golden: Golden, counts: Cells, token_budget: int) -> None:
    loaded = original(input="counts")
    rows, genes, names = counts
    found = embed_rows(loaded.model, genes, rows, names, token_budget=token_budget)
    usable = slice(NO_KNOWN_GENE)
    np.testing.assert_allclose(
        found[usable], golden["counts__cls_single"][usable], rtol=0, atol=TOLERANCE
    )
    assert np.isnan(found[NO_KNOWN_GENE]).all()


def test_embeddings_agree_through_the_whole_pipeline(golden: Golden) -> None:
    with open_cells(INPUT) as cells:
        embedded = embed_cells(cells, original(input="counts"), device="cpu", quiet=True)
    usable = slice(NO_KNOWN_GENE)
    np.testing.assert_allclose(
        embedded.values[usable], golden["counts__cls_single"][usable], rtol=0, atol=TOLERANCE
    )


@pytest.mark.parametrize("features", [400_000, 10**9])
def test_gradients_agree(
    golden: Golden, counts: Cells, features: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(performer, "CPU_TILE", features)
    loaded = original(input="counts", key_max="batch")
    module = loaded.model.module
    cls = module(loaded.model.collate(encode(loaded, counts)))
    w, b, labels = (
        torch.from_numpy(golden[f"grad__{n}"]) for n in ("head_w", "head_b", "labels_onehot")
    )
    loss = F.binary_cross_entropy_with_logits(cls @ w + b, labels)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(golden["grad__loss"]), rel=1e-5)
    first, second = module.layers
    ours = {
        "token_emb.weight": module.tokens.level,
        "performer.net.layers.0.0.fn.to_q.weight": first.attention.q_proj,
        "performer.net.layers.0.0.fn.to_v.weight": first.attention.v_proj,
        "performer.net.layers.1.1.fn.fn.w2.weight": second.feed_forward.linear2,
        "performer.net.layers.0.0.norm.weight": first.norm1,
    }
    assert set(ours) == set(golden["grad__names"].tolist())
    for name, norm in zip(golden["grad__names"].tolist(), golden["grad__norms"], strict=True):
        # 1e-4: ten times less than what the original's float32 run allows.
        assert float(ours[name].weight.grad.norm()) == pytest.approx(float(norm), rel=1e-4), name
