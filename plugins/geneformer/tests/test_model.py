"""The network: sizes, random weights, and what its options change."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scdrugmap.errors import UsageError
from scdrugmap.model.load import load_model
from scdrugmap.model.lora import find_targets
from scdrugmap.modelkit import Tokens, randomize, synthetic_vocabulary
from scdrugmap_plugin_geneformer import FOLDERS, SPEC, Options
from scdrugmap_plugin_geneformer.model import SPREAD, Geneformer, build

BATCH = {
    "id": torch.tensor([[2, 9, 7, 5, 3], [2, 8, 3, 0, 0]]),
    "keep": torch.tensor([[True] * 5, [True] * 3 + [False] * 2]),
}


@pytest.mark.parametrize(
    ("variant", "n_tokens", "published"),
    [
        ("V1-10M", 25_426, 10_288_722),
        ("V1-12L", 25_426, 39_591_250),
        ("V2-104M", 20_275, 104_386_867),
        ("V2-316M", 20_275, 316_354_867),
    ],
)
def test_published_sizes_have_the_published_number_of_parameters(
    variant: str, n_tokens: int, published: int
) -> None:
    sizes = {k: v for k, v in SPEC.variant(variant).sizes.items() if k != "generation"}
    with torch.device("meta"):
        network = Geneformer(n_tokens, 0, uncounted=(), emb_mode="cls", **sizes)  # type: ignore[arg-type]
    dim = int(sizes["dim"])
    head = dim * dim + dim + 2 * dim + n_tokens  # the pre-training head, which we leave out
    assert sum(parameter.numel() for parameter in network.parameters()) + head == published


def test_random_weights_cover_the_packaged_gene_table_and_the_special_tokens() -> None:
    n_genes = len(synthetic_vocabulary("ensembl"))
    for variant, n_specials in (("tiny", 4), ("tiny-V1", 2)):
        model = build(Options(variant=variant), None, 0)
        assert model.traits.vocabulary_size == n_genes
        assert model.module.embeddings.words.num_embeddings == n_genes + n_specials


def test_random_weights_depend_on_the_seed_alone() -> None:
    outputs = [build(Options(variant="tiny"), None, seed).module(BATCH) for seed in (0, 0, 1)]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2])


def test_random_control_draws_as_the_original_does() -> None:
    module = build(Options(variant="tiny"), None, 0).module
    randomize(module, 5)
    words = module.embeddings.words.weight.detach()
    assert float(words.std()) == pytest.approx(SPREAD, rel=0.01)
    assert not words[0].any()
    assert not module.layers[0].attention.q_proj.bias.any()
    assert bool((module.layers[0].norm1.weight == 1).all())


def test_the_layer_that_is_not_read_is_left_out() -> None:
    assert len(build(Options(variant="tiny"), None, 0).module.layers) == 1
    assert len(build(Options(variant="tiny", emb_layer=0), None, 0).module.layers) == 2


def test_second_to_last_of_one_layer_is_the_sum_of_gene_and_rank() -> None:
    module = build(Options(variant="tiny"), None, 0).module
    module.layers = module.layers[:0]
    assert torch.equal(module(BATCH), module.embeddings(BATCH["id"])[:, 0])


def test_mean_counts_genes_alone() -> None:
    module = build(Options(variant="tiny", emb_mode="cell"), None, 0).module
    states = module.states(BATCH)
    torch.testing.assert_close(module(BATCH)[0], states[0, 1:4].mean(0))
    torch.testing.assert_close(module(BATCH)[1], states[1, 1])


def test_legacy_padding_counts_all_positions_and_costs_the_full_length() -> None:
    options = Options(variant="tiny", emb_mode="cell", padding="legacy")
    model = build(options, None, 0)
    ids = np.array([2, 9, 3], np.int32)
    tokens = Tokens(np.array([0, 3]), {"id": ids}, {})
    batch = model.collate(tokens)
    assert set(batch) == {"id"}
    assert batch["id"].shape == (1, 512)
    assert model.cost(tokens).tolist() == [512]
    torch.testing.assert_close(model.module(batch), model.module.states(batch).mean(1))


def test_mode_follows_the_generation() -> None:
    assert build(Options(variant="tiny"), None, 0).module.emb_mode == "cls"
    assert build(Options(variant="tiny-V1"), None, 0).module.emb_mode == "cell"


def test_cls_of_the_first_generation_is_an_error() -> None:
    with pytest.raises(UsageError, match="have no <cls>"):
        build(Options(variant="tiny-V1", emb_mode="cls"), None, 0)


@pytest.mark.parametrize(
    ("setting", "value"), [("emb_layer", "1"), ("emb_layer", "-2"), ("emb_mode", "gene")]
)
def test_options_out_of_range_are_errors(setting: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"{setting}={value}"):
        load_model("geneformer", settings={"variant": "tiny", setting: value}, weights="random")


def test_every_published_variant_has_weights_and_folders_of_its_name() -> None:
    published = [variant.name for variant in SPEC.variants if variant.published]
    assert published == [item.name for item in SPEC.weights] == list(FOLDERS)


def test_adapters_sit_on_query_key_and_value_as_in_the_paper() -> None:
    model = build(Options(variant="V1-10M", emb_layer=0), None, 0)
    assert SPEC.lora is not None
    found = find_targets(model.module, SPEC.lora.targets)
    assert len(found) == 6 * 3
    width = model.traits.dim
    assert len(found) * SPEC.lora.r * 2 * width == 73_728
