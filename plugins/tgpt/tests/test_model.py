"""The network: sizes, random weights, and what its options change."""

from __future__ import annotations

import math

import pytest
import torch

from scdrugmap.errors import UsageError
from scdrugmap.model.load import load_model
from scdrugmap.model.lora import add_adapters, find_targets
from scdrugmap.modelkit import SequenceModel, randomize, synthetic_vocabulary
from scdrugmap_plugin_tgpt import SIZES, SPEC, Options
from scdrugmap_plugin_tgpt.model import TGPT, build

IDS = torch.tensor([[1, 9, 5, 7], [1, 2, 3, 0]])
KEEP = torch.tensor([[True] * 4, [True, True, True, False]])


def tiny(seed: int = 0, **options: object) -> SequenceModel:
    return build(Options.model_validate({"variant": "tiny", **options}), None, seed)


def spread(part: torch.nn.Linear) -> float:
    return float(part.weight.detach().std())


def published() -> TGPT:
    with torch.device("meta"):
        return TGPT(21_150, 0, token_types=True, pool="genes", **SIZES)  # type: ignore[arg-type]


def test_published_sizes_have_the_published_number_of_parameters() -> None:
    assert sum(parameter.numel() for parameter in published().parameters()) == 123_478_016


def test_random_weights_cover_the_packaged_gene_table_and_the_special_tokens() -> None:
    model, n_genes = tiny(), len(synthetic_vocabulary("symbol"))
    assert model.module.embedding.tokens.num_embeddings == n_genes + 4
    # Eight names, of RNA families, are written like words of prompts.
    assert n_genes - 8 <= model.traits.vocabulary_size <= n_genes


def test_random_weights_depend_on_the_seed_alone() -> None:
    outputs = [tiny(seed).module({"id": IDS}) for seed in (0, 0, 1)]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2])


def test_random_matrices_that_end_a_block_are_smaller() -> None:
    module = tiny().module
    for _ in range(2):
        for layer in module.layers:
            assert spread(layer.attention.q_proj) == pytest.approx(0.02, rel=0.1)
            for part in (layer.attention.out_proj, layer.feed_forward.linear2):
                assert spread(part) == pytest.approx(0.02 / math.sqrt(4), rel=0.1)
        randomize(module, 3)  # the untrained control is drawn alike


def test_token_types_add_the_vector_of_padding_to_every_position() -> None:
    with_types, without = tiny().module.embedding, tiny(token_types=False).module.embedding
    pad_vector = without.tokens.weight[0]
    torch.testing.assert_close(with_types(IDS), without(IDS) + pad_vector)
    assert pad_vector.abs().max() > 0


@pytest.mark.parametrize(
    ("pool", "first", "second"), [("genes", [1, 2, 3], [1, 2]), ("all", [0, 1, 2, 3], [0, 1, 2])]
)
def test_means_leave_padding_out(pool: str, first: list[int], second: list[int]) -> None:
    module = tiny(pool=pool).module
    hidden = module.states(IDS)
    expected = torch.stack([hidden[0, first].mean(0), hidden[1, second].mean(0)])
    torch.testing.assert_close(module({"id": IDS, "keep": KEEP}), expected)


def test_last_gene_is_the_last_token_that_is_no_padding() -> None:
    module = tiny(pool="last").module
    hidden = module.states(IDS)
    expected = torch.stack([hidden[0, 3], hidden[1, 2]])
    torch.testing.assert_close(module({"id": IDS, "keep": KEEP}), expected)
    torch.testing.assert_close(module({"id": IDS}), hidden[:, 3])


def test_the_end_changes_no_state_of_a_gene() -> None:
    module = tiny().module
    ids = torch.tensor([[1, 9, 5, 7, 2]])
    torch.testing.assert_close(module.states(ids)[:, :4], module.states(ids[:, :4]))


def test_longer_cells_than_the_network_has_positions_are_refused() -> None:
    with pytest.raises(UsageError, match="max_length is 1025, but the network has 1024 positions"):
        tiny(max_length=1025)
    assert tiny(max_length=1024).traits.max_tokens == 1023


def test_only_ties_by_column_read_the_order_of_the_file() -> None:
    assert not tiny(unknown="token").traits.gene_order_matters
    assert tiny(ties="column").traits.gene_order_matters
    assert not tiny(ties="column").traits.stochastic


def test_every_published_variant_has_a_set_of_weights_of_its_name() -> None:
    assert [variant.name for variant in SPEC.variants if variant.published] == [
        item.name for item in SPEC.weights
    ]


def test_adapters_sit_on_queries_keys_and_values() -> None:
    module = load_model("tgpt", settings={"variant": "tiny"}, weights="random").model.module
    assert SPEC.lora is not None
    assert len(find_targets(module, SPEC.lora.targets)) == 6
    network = published()
    add_adapters(network, SPEC.lora, seed=0)
    adapters = [p for name, p in network.named_parameters() if "lora_" in name]
    # Three projections of rank 8 per layer; the original adapts them as one.
    assert sum(parameter.numel() for parameter in adapters) == 8 * 3 * 8 * (1024 + 1024)
