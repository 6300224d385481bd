"""The plugin computes what the original code computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from scdrugmap.data.cells import open_cells
from scdrugmap.model.embed import embed_cells, embed_rows
from scdrugmap.modelkit import Tokens
from scdrugmap.testing import Cells, embed, encode

from .conftest import INPUT, original

Golden = dict[str, np.ndarray]

# Values reach 3.2; the original's own float32 and float64 runs differ by 1.5e-6, its padded and
# single runs by 2e-6.
TOLERANCE = 5e-6


def original_order(tokens: Tokens) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ids and values of each cell, T and S behind the genes as in the original."""
    found = []
    for first, last in zip(tokens.start[:-1], tokens.start[1:], strict=True):
        order = [*range(first + 2, last), first + 1, first]
        found.append((tokens.flat["id"][order], tokens.flat["value"][order]))
    return found


def golden_batch(golden: Golden, cell: int, kind: torch.dtype) -> dict[str, torch.Tensor]:
    """One cell's tokens, made by the original, as our network takes them."""
    n = golden["tok_t4_length"][cell]
    order = [n - 1, n - 2, *range(n - 2)]
    return {
        "id": torch.from_numpy(golden["tok_t4_ids"][[cell]][:, order]),
        "value": torch.from_numpy(golden["tok_t4_values"][[cell]][:, order]).to(kind),
    }


def test_tokens_are_those_of_the_original(golden: Golden, cells: Cells) -> None:
    tokens = encode(original(), cells)
    np.testing.assert_array_equal(tokens.lengths, golden["tok_t4_length"])
    for cell, (ids, values) in enumerate(original_order(tokens)):
        np.testing.assert_array_equal(ids, golden["tok_t4_ids"][cell, : len(ids)])
        np.testing.assert_allclose(values, golden["tok_t4_values"][cell, : len(ids)], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("emb_ce_t4_all", {}),
        ("emb_ce_t4_max", {"pool": "max"}),
        ("emb_ce_f2_all", {"target_resolution": "f2"}),
        ("emb_rde_a1.5_all", {"model": "rde", "target_resolution": "a1.5"}),
    ],
)
def test_embeddings_agree(
    golden: Golden, cells: Cells, name: str, settings: dict[str, str]
) -> None:
    found = embed(original(**settings), cells)
    np.testing.assert_allclose(found, golden[name], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("pre_normalized", ["true", "none"])
def test_embeddings_of_log_normalised_values_agree(
    golden: Golden, cells: Cells, pre_normalized: str
) -> None:
    logs = cells._replace(rows=csr_matrix(golden["prenormT_input_X"]))
    found = embed(original(pre_normalized=pre_normalized), logs)
    np.testing.assert_allclose(found, golden["emb_ce_t4_all_prenormT"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("token_budget", [1, 10_000])
def test_batches_change_nothing(golden: Golden, cells: Cells, token_budget: int) -> None:
    rows, genes, names = cells
    found = embed_rows(original().model, genes, rows, names, token_budget=token_budget)
    np.testing.assert_allclose(found, golden["emb_ce_t4_all"], rtol=0, atol=TOLERANCE)


def test_embeddings_agree_through_the_whole_pipeline(golden: Golden) -> None:
    with open_cells(INPUT) as cells:
        embedded = embed_cells(cells, original(), device="cpu", quiet=True)
    np.testing.assert_allclose(embedded.values, golden["emb_ce_t4_all"], rtol=0, atol=TOLERANCE)


def test_float64_run_agrees(golden: Golden) -> None:
    module = original().model.module.double()
    with torch.inference_mode():
        found = [module(golden_batch(golden, cell, torch.float64))[0] for cell in range(16)]
    np.testing.assert_allclose(np.stack(found), golden["emb_ce_t4_all_float64"], rtol=0, atol=1e-12)


def test_gradients_agree(golden: Golden) -> None:
    module = original().model.module
    output = module(golden_batch(golden, int(golden["grad_cell_index"]), torch.float32))[0]
    loss = (output * torch.linspace(-1, 1, len(output))).sum()
    loss.backward()
    # 1e-4: what the original's float32 run allows.
    assert float(loss.detach()) == pytest.approx(float(golden["grad_loss"]), rel=1e-4)
    attention = [getattr(module.layers[0].attention, f"{part}_proj") for part in "qkv"]
    ours = {
        "token_emb.mlp.weight": [module.tokens.value.linear1.weight],
        "token_emb.mlp2.weight": [module.tokens.value.linear2.weight],
        "token_emb.emb.weight": [module.tokens.value.bins.weight],
        "pos_emb.weight": [module.tokens.position.weight],
        "encoder.transformer_encoder.0.self_attn.in_proj_weight": [p.weight for p in attention],
        "encoder.transformer_encoder.1.linear1.weight": [
            module.layers[1].feed_forward.linear1.weight
        ],
        "encoder.norm.weight": [module.norm.weight],
    }
    assert set(ours) == set(golden["grad_names"].tolist())
    for name, norm in zip(golden["grad_names"].tolist(), golden["grad_norms"], strict=True):
        found = float(torch.cat([p.grad.flatten() for p in ours[name]]).norm())
        assert found == pytest.approx(float(norm), rel=1e-4), name


def test_vectors_of_genes_agree(golden: Golden, cells: Cells) -> None:
    loaded = original(model="gene")
    tokens = encode(loaded, cells)
    with torch.inference_mode():
        batch = loaded.model.collate(tokens.take(np.arange(4)))
        found = loaded.model.gene_module(batch)
        expression = loaded.model.gene_module.expression(batch)
    np.testing.assert_allclose(found, golden["gene_t4_first4"], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(
        expression, golden["gene_expression_t4_first4"], rtol=0, atol=TOLERANCE
    )


def test_vectors_of_genes_of_the_original_depend_on_the_batch_and_ours_can(
    golden: Golden, cells: Cells
) -> None:
    loaded = original(model="gene")
    for layer in loaded.model.gene_module.decoder.layers:
        layer.attention.stabilizer = "batch"
    with torch.inference_mode():
        batch = loaded.model.collate(encode(loaded, cells).take(np.arange(4)))
        found = loaded.model.gene_module(batch)
    np.testing.assert_allclose(found, golden["gene_batch_t4_first4"], rtol=0, atol=TOLERANCE)
