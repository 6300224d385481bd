"""The network: sizes, random weights, and what its options change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from scdrugmap.data.genes import Genes
from scdrugmap.errors import UsageError
from scdrugmap.model.load import load_model
from scdrugmap.modelkit import SequenceModel, Tokens, synthetic_vocabulary
from scdrugmap_plugin_cellplm import LATENT, SIZES, SPEC, Options, files
from scdrugmap_plugin_cellplm.model import CellPLM, build, flow

N_CELLS, N_GENES = 40, 300


def model(variant: str = "tiny", seed: int = 0, **options: object) -> SequenceModel:
    return build(Options.model_validate({"variant": variant, **options}), None, seed)


def tokens_of(made: SequenceModel) -> Tokens:
    """Cells in which few genes are frequent and most are rare."""
    random = np.random.default_rng(0)
    counts = random.poisson(random.gamma(0.2, 2.0, (1, N_GENES)), (N_CELLS, N_GENES))
    names = synthetic_vocabulary("ensembl")[:N_GENES]
    made.tokenizer.bind(Genes.from_names(list(names), kind="ensembl"))
    rows = csr_matrix(counts.astype(np.float32))
    return made.tokenizer.encode(rows, np.array([f"c{n}" for n in range(N_CELLS)], object))


def embed(made: SequenceModel, index: slice = slice(None)) -> torch.Tensor:
    tokens = tokens_of(made).take(np.arange(N_CELLS)[index])
    with torch.inference_mode():
        return made.module(made.collate(tokens))


@pytest.mark.parametrize(
    ("latent", "millions"),
    # Counted by building the original: 55.59 with clusters, with a norm that nothing reads (2,048)
    # and the branches of spreads, which are left out here.
    [("gmvae", 55.31), ("vae", 55.01)],
)
def test_published_sizes_have_the_published_number_of_parameters(
    latent: str, millions: float
) -> None:
    sizes = {**SIZES, "latent": latent}
    with torch.device("meta"):
        network = CellPLM(19_374, **sizes)  # type: ignore[arg-type]
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.01)


def test_frequent_and_rare_genes_are_summed_alike() -> None:
    made = model()
    tokens = tokens_of(made)
    batch = made.collate(tokens)
    assert 0 < len(batch["gene"]) < N_GENES
    assert len(batch["rare"]) > 0
    table = made.module.embedder.genes.embedding.weight.detach().numpy()
    counts = np.zeros((N_CELLS, len(table)), np.float32)
    counts[np.repeat(np.arange(N_CELLS), tokens.lengths), tokens.flat["id"]] = tokens.flat["value"]
    with torch.inference_mode():
        found = made.module.embedder.genes(batch).numpy()
    np.testing.assert_allclose(found, counts @ table, rtol=0, atol=1e-6)


def test_one_cell_is_a_sequence_too() -> None:
    assert embed(model(), slice(0, 1)).isfinite().all()


def test_cells_see_each_other_and_windows_end_their_sight() -> None:
    torch.testing.assert_close(
        embed(model(context=30), slice(0, 30)), embed(model(), slice(0, 30)), rtol=0, atol=1e-6
    )
    for context in (10, 15):  # 15: the last window is shorter
        windows = torch.cat(
            [embed(model(), slice(start, start + context)) for start in range(0, N_CELLS, context)]
        )
        found = embed(model(context=context))
        torch.testing.assert_close(found, windows, rtol=0, atol=1e-5)
        assert (found - embed(model())).abs().max() > 1e-4


def test_context_beyond_the_sample_changes_nothing() -> None:
    torch.testing.assert_close(embed(model(context=10**9)), embed(model()), rtol=0, atol=0)


def test_order_of_the_cells_of_a_sequence_does_not_matter() -> None:
    torch.testing.assert_close(
        embed(model(), slice(None, None, -1)).flip(0), embed(model()), rtol=0, atol=1e-5
    )


def test_flow_of_equal_cells_is_their_common_value() -> None:
    q, k, v = (torch.rand(1, 2, 1, 4).expand(1, 2, 5, 4) for _ in range(3))
    found = flow(q, k, v)
    # Sinks take 5 sources in equal parts; allocation is the sigmoid of what flows in.
    expected = torch.sigmoid(torch.ones(())) * v
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_statistics_of_attention_are_float32_in_mixed_precision() -> None:
    made = model()
    batch = made.collate(tokens_of(made))
    seen = []
    attention = made.module.layers[0].attention
    attention.out_proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = made.module(batch)
    assert seen == [torch.float32]
    full = embed(model())
    assert torch.nn.functional.cosine_similarity(mixed.float(), full).min() > 0.999


def test_random_weights_depend_on_the_seed_alone() -> None:
    first, second, other = (embed(model(seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.allclose(first, other)


def test_clusters_give_three_embeddings_and_the_plain_space_one() -> None:
    found = {
        variant: [embed(model(variant, cluster=c)) for c in ("argmax", "expected", "sampled")]
        for variant in ("tiny", "tiny-clusters")
    }
    assert torch.equal(found["tiny"][0], found["tiny"][1])
    assert torch.equal(found["tiny"][0], found["tiny"][2])
    first, second, third = found["tiny-clusters"]
    for one, other in ((first, second), (first, third), (second, third)):
        assert not torch.allclose(one, other, atol=1e-4)


def test_the_seed_is_part_of_the_identity_only_where_it_acts() -> None:
    assert model("tiny-clusters", cluster="sampled").traits.stochastic
    assert not model("tiny-clusters").traits.stochastic
    assert not model("tiny-clusters", cluster="expected").traits.stochastic
    assert not model("tiny", cluster="sampled").traits.stochastic


def test_traits_follow_the_options() -> None:
    plain, limited = model().traits, model(max_genes=50).traits
    assert plain.vocabulary_size == len(synthetic_vocabulary("ensembl"))
    assert (plain.max_tokens, plain.gene_order_matters) == (None, False)
    assert (limited.max_tokens, limited.gene_order_matters) == (50, True)


@pytest.mark.parametrize("name", ["context", "max_genes"])
def test_options_below_one_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}=0"):
        load_model("cellplm", settings={name: "0"}, weights="random")


def test_every_published_variant_has_its_files_and_its_latent_space() -> None:
    published = {variant.name: variant for variant in SPEC.variants if variant.published}
    assert list(published) == [item.name for item in SPEC.weights] == list(LATENT)
    for item in SPEC.weights:
        assert tuple(file.path for file in item.files) == files(item.name)
        assert published[item.name].sizes["latent"] == LATENT[item.name]


def test_default_targets_are_those_of_the_paper() -> None:
    from scdrugmap.model.lora import add_adapters

    # Published sizes, on no device: 4 layers, 3 targets, 2 matrices of 8 x 1024.
    assert SPEC.lora is not None
    with torch.device("meta"):
        network = CellPLM(10, **SIZES)  # type: ignore[arg-type]
    network.to_empty(device="cpu")
    add_adapters(network, SPEC.lora, seed=0)
    count = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert count == 196_608
