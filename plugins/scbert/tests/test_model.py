"""The network: sizes, random weights, pooling, and the fixed projections."""

from __future__ import annotations

import pytest
import torch

from scdrugmap.model.load import load_model
from scdrugmap.model.lora import add_adapters, find_targets
from scdrugmap.modelkit import randomize, synthetic_vocabulary
from scdrugmap_plugin_scbert import SIZES, SPEC, TINY, Options
from scdrugmap_plugin_scbert.model import ScBert, build

BATCH = {"level": torch.tensor([[5, 0, 2, 3, 1, 0], [0, 0, 4, 0, 1, 0]])}


def tiny(pool: str = "mean", seed: int = 0) -> ScBert:
    torch.manual_seed(seed)
    return ScBert(6, pool=pool, **TINY)  # type: ignore[arg-type]


def test_published_sizes_have_the_published_number_of_parameters() -> None:
    network = ScBert(16_907, **SIZES)  # type: ignore[arg-type]
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    # Published with the head of pre-training: 200 x 7 weights and 7 more.
    assert trainable == 5_007_207 - 1_407
    assert network.tokens.position.weight.numel() == 3_381_400
    assert sum(buffer.numel() for buffer in network.buffers()) == 6 * 266 * 64


def test_random_weights_cover_the_packaged_gene_table_and_the_closing_token() -> None:
    model = build(Options(variant="tiny"), None, 0)
    n_genes = len(synthetic_vocabulary("symbol"))
    assert model.traits.vocabulary_size == n_genes
    assert model.traits.max_tokens == n_genes + 1
    assert model.module.tokens.position.num_embeddings == n_genes + 1


@pytest.mark.parametrize("pool", ["mean", "last", "max"])
def test_pooling_reads_the_states_of_all_tokens(pool: str) -> None:
    network = tiny(pool)
    states = network.states(BATCH)
    expected = {"mean": states.mean(1), "last": states[:, -1], "max": states.amax(1)}[pool]
    torch.testing.assert_close(network(BATCH), expected)


def test_projections_and_positions_stay_while_training() -> None:
    network = tiny().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        network(BATCH).square().sum().backward()
        optimizer.step()
    after = network.state_dict()
    kept = [name for name, tensor in before.items() if torch.equal(tensor, after[name])]
    assert kept == [
        "tokens.position.weight",
        "layers.0.attention.projection",
        "layers.1.attention.projection",
    ]


def test_the_random_control_draws_projections_and_positions_anew() -> None:
    network = tiny()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    randomize(network, 3)
    after = network.state_dict()
    for name in ("tokens.position.weight", "layers.1.attention.projection"):
        assert not torch.equal(before[name], after[name]), name
    assert not after["tokens.position.weight"][-1].any()
    assert after["tokens.position.weight"][:-1].any()


def test_adapters_sit_on_three_projections_of_each_layer() -> None:
    module = load_model("scbert", settings={"variant": "tiny"}, weights="random").model.module
    assert SPEC.lora is not None
    assert len(find_targets(module, SPEC.lora.targets)) == 6


def test_adapters_have_the_published_number_of_parameters() -> None:
    network = ScBert(16, **SIZES)  # type: ignore[arg-type]
    assert SPEC.lora is not None
    add_adapters(network, SPEC.lora)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == 120_960
