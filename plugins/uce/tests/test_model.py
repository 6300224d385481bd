"""The network: sizes, random weights, and what its options change."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scdrugmap.errors import UsageError
from scdrugmap.model.load import load_model
from scdrugmap.model.lora import find_targets
from scdrugmap.modelkit import synthetic_vocabulary
from scdrugmap_plugin_uce import LAYERS, SIZES, SPEC, Options
from scdrugmap_plugin_uce.model import UCE, TokenEncoder, build, sinusoids

from .conftest import encode, original

TINY = {"variant": "tiny", "sample_size": 16}


def count(part: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


@pytest.mark.parametrize(
    ("variant", "published"), [("4-layer", 91_177_472), ("33-layer", 661_823_232)]
)
def test_published_sizes_have_the_published_number_of_parameters(
    variant: str, published: int
) -> None:
    with torch.device("meta"):
        network = UCE(10, **SPEC.variant(variant).sizes)  # type: ignore[arg-type]
        encoder = TokenEncoder(5120, int(SIZES["dim"]))
    assert len(network.layers) == LAYERS[variant]
    assert count(network) - count(network.tokens) + count(encoder) == published


def test_adapters_of_the_paper_have_the_stated_number_of_parameters() -> None:
    with torch.device("meta"):
        network = UCE(10, **SIZES)  # type: ignore[arg-type]
    assert SPEC.lora is not None
    found = find_targets(network, SPEC.lora.targets)
    assert found == tuple(f"layers.{layer}.attention.out_proj" for layer in range(4))
    assert sum(SPEC.lora.r * 2 * 1280 for _ in found) == 81_920


def test_random_weights_cover_the_packaged_gene_table() -> None:
    model = build(Options(**TINY), None, 0)
    n_genes = len(synthetic_vocabulary("symbol"))
    assert model.traits.vocabulary_size == n_genes
    assert model.module.tokens.num_embeddings == 4 + n_genes + 24


def test_positions_are_sines_and_cosines() -> None:
    found = sinusoids(1536, 40).double().numpy()
    position, pair = np.arange(1536)[:, None], np.arange(20)
    angle = position * 10000.0 ** (-2 * pair / 40)
    # float32: angles up to 1535 are known to about 1e-4.
    np.testing.assert_allclose(found[:, ::2], np.sin(angle), atol=2e-4)
    np.testing.assert_allclose(found[:, 1::2], np.cos(angle), atol=2e-4)


def test_positions_are_those_of_the_checkpoint() -> None:
    found = original().model.module.positions
    torch.testing.assert_close(found, sinusoids(1536, 40), rtol=0, atol=1e-6)


def test_embeddings_have_length_one(cells: tuple) -> None:
    loaded = original(n_samples="3")
    with torch.inference_mode():
        found = loaded.model.module(loaded.model.collate(encode(loaded, cells)))
    assert found.shape == (16, 24)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(16))


def test_several_sentences_are_averaged(cells: tuple) -> None:
    loaded = original(n_samples="3")
    tokens = encode(loaded, cells)
    batch = loaded.model.collate(tokens)
    assert len(batch["id"]) == 48
    single = original().model.module
    with torch.inference_mode():
        found = loaded.model.module(batch)
        mean = single(batch).view(16, 3, 24).mean(1)
    torch.testing.assert_close(found, mean / mean.norm(dim=1, keepdim=True), rtol=0, atol=1e-6)
    # Their place in a batch with others changes nothing.
    part = loaded.model.collate(tokens.take(np.array([5, 2])))
    with torch.inference_mode():
        torch.testing.assert_close(loaded.model.module(part), found[[5, 2]], rtol=0, atol=1e-6)


def test_more_sentences_make_the_embedding_less_random(cells: tuple) -> None:
    def spread(n_samples: int) -> float:
        runs = []
        for seed in (0, 1):
            loaded = original(n_samples=str(n_samples))
            loaded.model.tokenizer.seed = seed
            with torch.inference_mode():
                runs.append(loaded.model.module(loaded.model.collate(encode(loaded, cells))))
        return float((runs[0] - runs[1]).norm(dim=1).mean())

    assert spread(10) < 0.6 * spread(1)


def test_padding_with_attention_depends_on_the_batch_and_masked_padding_does_not(
    cells: tuple,
) -> None:
    for padding, differs in (("mask", False), ("legacy", True)):
        loaded = original(padding=padding)
        tokens = encode(loaded, cells)
        short = int(tokens.lengths.argmin())
        with torch.inference_mode():
            together = loaded.model.module(loaded.model.collate(tokens))[short]
            alone = loaded.model.module(loaded.model.collate(tokens.take(np.array([short]))))[0]
        assert (float((together - alone).abs().max()) > 0.01) is differs


def test_heads_that_do_not_divide_the_width_are_an_error() -> None:
    with pytest.raises(UsageError, match="a network 40 wide cannot have 7 attention heads"):
        original(nhead="7")


def test_the_number_of_heads_changes_the_result(cells: tuple) -> None:
    found = []
    for heads in ("4", "20"):
        loaded = original(nhead=heads)
        with torch.inference_mode():
            found.append(loaded.model.module(loaded.model.collate(encode(loaded, cells))))
    assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_more_genes_than_a_sentence_has_room_for_are_an_error() -> None:
    with pytest.raises(UsageError, match=r"sentences of at least 203 tokens; at most 160"):
        load_model(
            "uce",
            settings={"variant": "tiny", "sample_size": "200", "pad_length": "160"},
            weights="random",
        )


def test_traits_follow_the_options() -> None:
    model = build(Options(**TINY, n_samples=2), None, 0)
    assert model.traits.max_tokens == 2 * (1 + 16 + 2 * 16)
    assert model.traits.stochastic
    assert not model.traits.gene_order_matters
    assert build(Options(**TINY, sampler="legacy"), None, 0).traits.gene_order_matters


def test_the_untrained_control_draws_the_table_anew_and_keeps_the_positions() -> None:
    from .conftest import FOLDER, SIZES

    plain = original().model.module
    control = load_model("uce", settings=SIZES, weights=FOLDER, randomize=1).model.module
    assert torch.equal(control.positions, plain.positions)
    assert not torch.allclose(control.tokens.weight, plain.tokens.weight)
    assert float(control.tokens.weight.detach().std()) == pytest.approx(1, abs=0.05)
