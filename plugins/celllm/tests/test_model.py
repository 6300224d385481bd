"""The network: sizes, random weights, options, and what stays fixed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scdrugmap.errors import UsageError
from scdrugmap.model.load import load_model, parse_options
from scdrugmap.model.lora import add_adapters, find_targets
from scdrugmap.modelkit import randomize, synthetic_vocabulary
from scdrugmap.testing import Cells, embed
from scdrugmap_plugin_celllm import SIZES, SPEC, TINY, Options
from scdrugmap_plugin_celllm.model import CellLM, build

from .conftest import original

BATCH = {
    "level": torch.tensor([[6, 5, 0, 7, 7], [6, 1, 2, 3, 7]]),
    "gene": torch.tensor([[6, 1, 4, 7, 7], [6, 0, 2, 5, 7]]),
    "count": torch.tensor([[1, 1, 1, 7, 0], [1, 1, 1, 1, 6]]),
}


def network(pool: str = "cls", n_genes: int = 6, **sizes: object) -> CellLM:
    torch.manual_seed(0)
    given = {name: size for name, size in {**TINY, **sizes}.items() if name != "max_seq_len"}
    return CellLM(n_genes, pool=pool, **given)  # type: ignore[arg-type]


def test_published_sizes_have_the_published_number_of_parameters() -> None:
    published = network(n_genes=19_379, **SIZES)
    # Published with the head of pre-training: 8 x 512 weights and 8 more.
    n_parameters = sum(p.numel() for p in published.parameters()) + 4_104
    assert round(n_parameters / 1e6, 2) == 51.93
    assert round(published.tokens.gene.weight.numel() / 1e6, 2) == 9.92
    assert SPEC.lora is not None
    add_adapters(published, SPEC.lora)
    assert sum(p.numel() for p in published.parameters() if p.requires_grad) == 368_640


def test_adapters_sit_on_three_projections_of_each_layer() -> None:
    module = load_model("celllm", settings={"variant": "tiny"}, weights="random").model.module
    assert SPEC.lora is not None
    assert len(find_targets(module, SPEC.lora.targets)) == 6


def test_random_weights_cover_the_packaged_gene_table() -> None:
    model = build(Options(variant="tiny"), None, 0)
    n_genes = len(synthetic_vocabulary("symbol"))
    assert model.traits.vocabulary_size == n_genes
    assert model.traits.max_tokens == 6000
    assert model.module.tokens.gene.num_embeddings == n_genes + 2


def test_cls_alone_in_the_last_layer_is_cls_of_all() -> None:
    torch.testing.assert_close(network()(BATCH), network().states(BATCH)[:, 0])


def test_the_mean_is_over_all_tokens_but_padding() -> None:
    states = network().states(BATCH)
    expected = torch.stack([states[0, :3].mean(0), states[1, :4].mean(0)])
    torch.testing.assert_close(network("mean")(BATCH), expected)


def test_the_amount_of_padding_matters_as_in_the_original(counts: Cells) -> None:
    longer = embed(original(input="counts", max_seq_len="400"), counts)
    assert np.abs(longer - embed(original(input="counts"), counts)).max() > 0.01


def test_the_length_is_that_of_the_checkpoint_unless_told_otherwise() -> None:
    assert original().model.traits.max_tokens == 160
    assert original(max_seq_len="90").model.traits.max_tokens == 90
    assert original(max_seq_len="9000").model.traits.max_tokens == 402


@pytest.mark.parametrize("setting", [("max_seq_len", "1"), ("pool", "max"), ("input", "raw")])
def test_values_that_mean_nothing_are_refused(setting: tuple[str, str]) -> None:
    name, value = setting
    with pytest.raises(UsageError, match=f"{name}="):
        parse_options(Options, {name: value}, "celllm")


def test_projections_and_gene_vectors_stay_while_training() -> None:
    trained = network().train()
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in trained.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        trained(BATCH).square().sum().backward()
        optimizer.step()
    after = trained.state_dict()
    kept = [name for name, tensor in before.items() if torch.equal(tensor, after[name])]
    assert kept == [
        "tokens.gene.weight",
        "layers.0.attention.projection",
        "layers.1.attention.projection",
    ]


def test_the_random_control_draws_projections_and_gene_vectors_anew() -> None:
    drawn = network()
    before = {name: tensor.clone() for name, tensor in drawn.state_dict().items()}
    randomize(drawn, 3)
    after = drawn.state_dict()
    for name in ("tokens.gene.weight", "layers.1.attention.projection"):
        assert not torch.equal(before[name], after[name]), name
    of_cls, of_padding = after["tokens.gene.weight"][-2:]
    assert (of_cls == 1).all()
    assert (of_padding == 0).all()
