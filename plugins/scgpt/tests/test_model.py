"""The network: sizes, random weights, and what its options change."""

from __future__ import annotations

import torch

from scdrugmap.model.load import load_model
from scdrugmap.modelkit import synthetic_vocabulary
from scdrugmap_plugin_scgpt import SIZES, SPEC, Options
from scdrugmap_plugin_scgpt.model import ScGPT, build

BATCH = {"id": torch.tensor([[7, 3, 5], [7, 2, 9]]), "value": torch.tensor([[-2.0, 1, 50]] * 2)}


def test_published_sizes_have_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        network = ScGPT(60_697, 60_694, normalize=True, **SIZES)  # type: ignore[arg-type]

    def count(part: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in part.parameters())

    assert count(network.gene_encoder) == 31_077_888
    assert count(network.value_encoder) == 264_704
    assert [count(layer) for layer in network.layers] == [1_577_984] * 12


def test_random_weights_cover_the_packaged_gene_table_and_the_special_tokens() -> None:
    model = build(Options(variant="tiny"), None, 0)
    n_genes = len(synthetic_vocabulary("symbol"))
    assert model.traits.vocabulary_size == n_genes
    assert model.module.gene_encoder.embedding.num_embeddings == n_genes + 3


def test_random_weights_depend_on_the_seed_alone() -> None:
    outputs = [build(Options(variant="tiny"), None, seed).module(BATCH) for seed in (0, 0, 1)]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2])


def test_normalised_embeddings_have_length_one_and_the_same_direction() -> None:
    plain = build(Options(variant="tiny", normalize=False), None, 0).module(BATCH)
    scaled = build(Options(variant="tiny"), None, 0).module(BATCH)
    torch.testing.assert_close(scaled, plain / plain.norm(dim=1, keepdim=True))


def test_large_values_are_cut_as_in_the_original() -> None:
    module = build(Options(variant="tiny"), None, 0).module
    large = {**BATCH, "value": torch.tensor([[-2.0, 1, 512], [-2.0, 1, 512]])}
    larger = {**BATCH, "value": torch.tensor([[-2.0, 1, 9e9], [-2.0, 1, 1e12]])}
    assert torch.equal(module(large), module(larger))


def test_the_seed_is_part_of_the_identity_only_where_it_acts() -> None:
    vocabulary = len(synthetic_vocabulary("symbol"))
    assert not build(Options(variant="tiny", overlong="first"), None, 0).traits.stochastic
    assert not build(Options(variant="tiny", max_length=vocabulary + 1), None, 0).traits.stochastic
    assert build(Options(variant="tiny"), None, 0).traits.stochastic
    assert build(
        Options(variant="tiny", overlong="first", bins="legacy"), None, 0
    ).traits.stochastic


def test_every_published_variant_has_a_set_of_weights_of_its_name() -> None:
    published = [variant.name for variant in SPEC.variants if variant.published]
    assert published == [item.name for item in SPEC.weights]
    assert "tiny" not in published


def test_the_paper_adapts_out_proj_alone() -> None:
    from scdrugmap.model.lora import find_targets

    module = load_model("scgpt", settings={"variant": "tiny"}, weights="random").model.module
    assert SPEC.lora is not None
    assert len(find_targets(module, SPEC.lora.targets)) == 8
    found = find_targets(module, r".*out_proj")
    assert found == ("layers.0.attention.out_proj", "layers.1.attention.out_proj")
