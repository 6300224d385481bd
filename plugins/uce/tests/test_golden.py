"""The plugin computes what the original code computes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from scdrugmap.data.genes import Genes
from scdrugmap.model.embed import embed_rows
from scdrugmap.model.load import LoadedModel
from scdrugmap.modelkit import PublishedFolder, Tokens
from scdrugmap_plugin_uce import SPEC
from scdrugmap_plugin_uce.model import TABLE, TokenEncoder
from scdrugmap_plugin_uce.tokenizer import Tokenizer, draw_genes, sampling_weights
from scdrugmap_plugin_uce.weights import read_published

from .conftest import FOLDER, encode, original

Cells = tuple[csr_matrix, Genes, np.ndarray]
Golden = dict[str, np.ndarray]

# The original's own float32 and float64 runs differ by 4e-7 (by 6e-7 in a batch).
TOLERANCE = 2e-6
# States before the norm are of magnitude 10.
STATE_TOLERANCE = 2e-5


class GoldenSeeds(Tokenizer):
    """Draws each cell from a generator of given seed, as the golden data were made."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, golden: Golden) -> GoldenSeeds:
        made = cls.__new__(cls)
        made.__dict__.update(tokenizer.__dict__)
        made.seeds = iter(golden["seeds"].tolist())
        return made

    def legacy_generator(self, key: np.uint64) -> np.random.RandomState:
        return np.random.RandomState(next(self.seeds))


@lru_cache
def published_ids() -> np.ndarray:
    """Row of the published token table of each of our tokens."""
    vocabulary = read_published(PublishedFolder(FOLDER), SPEC.variant()).vocabulary
    human = vocabulary["species"]["human"]
    genes = human["first"] + np.arange(len(human["symbols"]))
    return np.concatenate([np.arange(4), genes, vocabulary["chromosome_first"] + np.arange(59)])


def seeded(golden: Golden, cells: Cells, **settings: str) -> tuple[LoadedModel, Tokens]:
    loaded = original(sampler="legacy", **settings)
    loaded.model.tokenizer = GoldenSeeds.of(loaded.model.tokenizer, golden)
    return loaded, encode(loaded, cells)


def golden_batch(golden: Golden, index: slice | list[int]) -> dict[str, torch.Tensor]:
    """The original's tokens of some cells, as the network takes them."""
    keep = golden["mask"][index] > 0
    longest = int(keep.sum(1).max())
    ours = np.full(published_ids().max() + 1, -1)
    ours[published_ids()] = np.arange(len(published_ids()))
    batch = {"id": torch.from_numpy(ours[golden["tokens"][index][:, :longest]])}
    return batch if keep.all() else {**batch, "keep": torch.from_numpy(keep[:, :longest])}


def test_known_genes_and_their_places_are_exact(golden: Golden, cells: Cells) -> None:
    tokenizer = original().model.tokenizer
    _, genes, _ = cells
    coverage = tokenizer.bind(genes)
    names = genes.published[coverage.matched]
    assert names.tolist() == golden["gene_names"].tolist()
    found = [tokenizer.genes[name.upper()] for name in names]
    np.testing.assert_array_equal(published_ids()[4 + np.array(found)], golden["gene_token_ids"])
    human = read_published(PublishedFolder(FOLDER), SPEC.variant()).vocabulary["species"]["human"]
    np.testing.assert_array_equal(np.array(human["chromosomes"])[found], golden["gene_chrom_codes"])
    np.testing.assert_array_equal(np.array(human["starts"])[found], golden["gene_starts"])


def test_sampling_weights_agree(golden: Golden, cells: Cells) -> None:
    rows, genes, _ = cells
    known = original().model.tokenizer.bind(genes).matched
    for cell, expected in enumerate(golden["weights"]):
        found = sampling_weights(rows[cell].toarray()[0, known])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)


def test_drawn_genes_are_exact(golden: Golden) -> None:
    for cell, expected in enumerate(golden["sampled_idx"]):
        found = draw_genes(golden["weights"][cell], golden["uniforms"][cell])
        np.testing.assert_array_equal(found, expected)


def test_sentences_of_given_draws_are_exact(golden: Golden, cells: Cells) -> None:
    tokenizer = original().model.tokenizer
    tokenizer.bind(cells[1])
    of_name = {name: tokenizer.genes[name.upper()] for name in golden["gene_names"].tolist()}
    drawn = np.array(list(of_name.values()))[golden["sampled_idx"]]
    ranks = np.full((16, len(tokenizer.chromosomes)), 99, np.int32)
    for cell, order in enumerate(golden["chrom_order"]):
        order = order[order >= 0]
        ranks[cell, tokenizer.chromosomes.searchsorted(order)] = np.arange(len(order))
    ids, _, lengths = tokenizer.sentences(drawn, ranks)
    np.testing.assert_array_equal(lengths, golden["lengths"])
    np.testing.assert_array_equal(published_ids()[ids], golden["tokens"][golden["mask"] > 0])


def test_seeded_tokens_are_exact_from_counts_to_sentences(golden: Golden, cells: Cells) -> None:
    loaded, tokens = seeded(golden, cells)
    batch = loaded.model.collate(tokens)
    longest = int(golden["lengths"].max())
    np.testing.assert_array_equal(tokens.lengths, golden["lengths"])
    np.testing.assert_array_equal(batch["keep"], golden["mask"][:, :longest] > 0)
    np.testing.assert_array_equal(published_ids()[batch["id"]], golden["tokens"][:, :longest])


def test_embeddings_of_single_cells_agree(golden: Golden) -> None:
    module = original().model.module
    with torch.inference_mode():
        found = np.concatenate([module(golden_batch(golden, [cell])) for cell in range(16)])
    np.testing.assert_allclose(found, golden["embedding"], rtol=0, atol=TOLERANCE)


def test_masked_batch_equals_single_cells(golden: Golden) -> None:
    with torch.inference_mode():
        found = original().model.module(golden_batch(golden, slice(None)))
    np.testing.assert_allclose(found, golden["embedding"], rtol=0, atol=TOLERANCE)


def test_legacy_padding_equals_the_batch_of_the_original(golden: Golden) -> None:
    with torch.inference_mode():
        found = original(padding="legacy").model.module(golden_batch(golden, slice(None)))
    np.testing.assert_allclose(found, golden["embedding_batch16"], rtol=0, atol=TOLERANCE)
    assert np.abs(golden["embedding_batch16"] - golden["embedding"]).max() > 0.1


@pytest.mark.parametrize("token_budget", [1, 10_000])
def test_embeddings_agree_from_counts_to_vectors(
    golden: Golden, cells: Cells, token_budget: int
) -> None:
    model = original(sampler="legacy").model
    model.tokenizer = GoldenSeeds.of(model.tokenizer, golden)
    rows, genes, names = cells
    found = embed_rows(model, genes, rows, names, token_budget=token_budget)
    np.testing.assert_allclose(found, golden["embedding"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "padding", "index"),
    [
        ("embedding_f64", "mask", slice(None)),
        ("embedding_batch16_f64", "legacy", slice(None)),
    ],
)
def test_float64_runs_agree(golden: Golden, name: str, padding: str, index: slice) -> None:
    module = original(padding=padding).model.module
    weights = torch.load(FOLDER / "4layer_model.torch", weights_only=True)
    state = {**module.state_dict(), TABLE: table(weights, torch.float64)[published_ids()]}
    module.double().load_state_dict(state)
    with torch.inference_mode():
        found = module(golden_batch(golden, index))
    np.testing.assert_allclose(found, golden[name], rtol=0, atol=1e-12)


def encoder_of(weights: dict[str, torch.Tensor], kind: torch.dtype) -> TokenEncoder:
    encoder = TokenEncoder(48, 40)
    names = {"linear": "encoder.0", "norm": "encoder.2"}
    encoder.load_state_dict(
        {
            f"{ours}.{part}": weights[f"{theirs}.{part}"]
            for ours, theirs in names.items()
            for part in ("weight", "bias")
        }
    )
    return encoder.to(kind)


def table(weights: dict[str, torch.Tensor], kind: torch.dtype) -> torch.Tensor:
    """The encoded tokens, as the original computes them for every sentence anew."""
    with torch.no_grad():
        return encoder_of(weights, kind)(weights["pe_embedding.weight"].to(kind))


def test_states_of_one_cell_agree_layer_by_layer(golden: Golden) -> None:
    module = original().model.module
    batch = golden_batch(golden, [0])
    found = []
    hooks = [
        layer.register_forward_hook(lambda *args: found.append(args[2])) for layer in module.layers
    ]
    with torch.inference_mode():
        states = module.states(batch)
        encoded, output = module.tokens(batch["id"]), module.decoder(states)
    for hook in hooks:
        hook.remove()
    for name, values in [
        ("cell0_encoder", encoded),
        ("cell0_layer0", found[0]),
        ("cell0_layer1", found[1]),
        ("cell0_gene_output", output),
    ]:
        np.testing.assert_allclose(
            values[0], golden[name], rtol=0, atol=STATE_TOLERANCE, err_msg=name
        )
    np.testing.assert_allclose(
        output[0, 0], golden["cls_unnormalised"][0], rtol=0, atol=STATE_TOLERANCE
    )


def test_reading_only_the_first_position_equals_the_full_path(golden: Golden) -> None:
    module = original().model.module
    batch = golden_batch(golden, slice(None))
    with torch.inference_mode():
        full = torch.nn.functional.normalize(module.decoder(module.states(batch))[:, 0], dim=-1)
        short = module(batch)
    np.testing.assert_allclose(short, full, rtol=0, atol=TOLERANCE)


def test_gradients_agree(golden: Golden) -> None:
    module = original().model.module
    weights = torch.load(FOLDER / "4layer_model.torch", weights_only=True)
    encoder = encoder_of(weights, torch.float32)
    # The table is what the encoder makes of the vectors: so its gradient goes on to the encoder.
    encoded = encoder(weights["pe_embedding.weight"][published_ids()])
    loss = torch.zeros(())
    for cell in range(4):
        output = torch.func.functional_call(
            module, {TABLE: encoded}, (golden_batch(golden, [cell]),)
        )
        loss = loss + (output[0] * torch.from_numpy(golden["grad_target"][cell])).sum() / 4
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(golden["grad_loss_f64"]), abs=1e-6)
    attention = [getattr(module.layers[0].attention, f"{part}_proj") for part in "qkv"]
    ours = {
        "encoder.0.weight": [encoder.linear.weight],
        "transformer_encoder.layers.0.self_attn.in_proj_weight": [p.weight for p in attention],
        "transformer_encoder.layers.1.linear1.weight": [
            module.layers[1].feed_forward.linear1.weight
        ],
        "decoder.0.0.weight": [module.decoder[0].linear.weight],
        "transformer_encoder.layers.0.norm1.weight": [module.layers[0].norm1.weight],
    }
    assert set(ours) == set(golden["grad_names"].tolist())
    for name, norm in zip(golden["grad_names"].tolist(), golden["grad_norms_f64"], strict=True):
        found = float(torch.cat([p.grad.flatten() for p in ours[name]]).norm())
        assert found == pytest.approx(float(norm), rel=1e-4), name
