"""The network: sizes, random weights, pooling, and what its options change."""

from __future__ import annotations

import torch

from scdrugmap.model.load import load_model
from scdrugmap.model.lora import find_targets
from scdrugmap.modelkit import synthetic_vocabulary
from scdrugmap_plugin_scfoundation import SIZES, SPEC, Options
from scdrugmap_plugin_scfoundation.model import ScFoundation, build

BATCH = {
    "id": torch.tensor([[7, 6, 2, 3], [7, 6, 1, 8]]),
    "value": torch.tensor([[3.0, 4, 1, 2], [2, 4, 5, 0]]),
    "keep": torch.tensor([[True] * 4, [True, True, True, False]]),
}


def tiny(pool: str = "all") -> ScFoundation:
    return build(Options.model_validate({"variant": "tiny", "pool": pool}), None, 0).module


def count(part: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


def test_published_sizes_have_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        encoder = {key: size for key, size in SIZES.items() if not key.startswith("decoder_")}
        network = ScFoundation(19_267, pool="all", **encoder)  # type: ignore[arg-type]
    assert count(network.tokens.position) == 14_797_056
    assert count(network.layers) + count(network.norm) == 85_056_000
    # Published with two more vectors, of masks and padding, which no cell uses.
    assert count(network.tokens.value) == 88_636 - 2 * 768


def test_random_weights_cover_the_packaged_gene_table_the_depths_and_padding() -> None:
    model = build(Options(variant="tiny"), None, 0)
    n_genes = len(synthetic_vocabulary("symbol"))
    assert model.traits.vocabulary_size == n_genes
    assert model.module.tokens.position.num_embeddings == n_genes + 3


def test_random_weights_depend_on_the_seed_alone() -> None:
    outputs = [build(Options(variant="tiny"), None, seed).module(BATCH) for seed in (0, 0, 1)]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2])


def test_pooling_joins_both_depths_the_maximum_and_the_mean_of_the_genes() -> None:
    network = tiny()
    states = network.states(BATCH)
    first, second = states[0, 2:], states[1, 2:3]
    expected = torch.stack(
        [
            torch.cat([states[0, 0], states[0, 1], first.amax(0), first.mean(0)]),
            torch.cat([states[1, 0], states[1, 1], second[0], second[0]]),
        ]
    )
    torch.testing.assert_close(network(BATCH), expected)


def test_pool_max_takes_the_depths_too_and_no_padding() -> None:
    network = tiny("max")
    states = network.states(BATCH)
    expected = torch.stack([states[0].amax(0), states[1, :3].amax(0)])
    assert torch.equal(network(BATCH), expected)


def test_traits_follow_the_options() -> None:
    options = Options(variant="tiny", pool="max", max_genes=50)
    assert build(options, None, 0).traits.dim == 32
    assert build(options, None, 0).traits.max_tokens == 52
    assert build(Options(variant="tiny"), None, 0).traits.dim == 4 * 32


def test_adapters_sit_on_three_projections_of_each_layer() -> None:
    module = load_model("scfoundation", settings={"variant": "tiny"}, weights="random").model.module
    assert SPEC.lora is not None
    assert len(find_targets(module, SPEC.lora.targets)) == 6


def test_published_weights_are_marked_as_non_commercial() -> None:
    assert [item.commercial_use for item in SPEC.weights] == [False]
    assert "non-commercial" in SPEC.weights_licence
