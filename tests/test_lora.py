from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from scdrugmap.errors import PluginError, WeightsError
from scdrugmap.model import lora
from scdrugmap.specs import LoraDefaults

TARGETS = LoraDefaults(targets=r"layers\.\d+\.(first|second)", r=2, alpha=4, dropout=0.0)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(torch.tanh(self.first(x)))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Block(), Block()])
        self.inner = nn.ModuleDict({"layers": nn.ModuleList([Block()])})
        self.out = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.out(x)


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network().eval()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


def fill(module: nn.Module, seed: int = 2) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in lora.adapter_state(module).items():
        if name.endswith("lora_B"):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))


def test_adapters_sit_on_the_named_layers_and_change_nothing_at_first(
    network: Network, x: torch.Tensor
) -> None:
    before = network(x)
    names = lora.add_adapters(network, TARGETS)
    assert names == tuple(f"layers.{i}.{part}" for i in (0, 1) for part in ("first", "second"))
    assert torch.equal(network(x), before)
    assert not network.training


def test_only_adapters_stay_trainable(network: Network) -> None:
    lora.add_adapters(network, TARGETS)
    trainable = {name for name, p in network.named_parameters() if p.requires_grad}
    assert len(trainable) == 8
    assert all("lora_" in name for name in trainable)


def test_a_longer_name_that_ends_alike_is_not_adapted(network: Network) -> None:
    lora.add_adapters(network, LoraDefaults(targets=r"layers\.0\.first"))
    assert tuple(lora.adapted(network)) == ("layers.0.first",)


def test_same_seed_gives_the_same_matrices_and_another_seed_others() -> None:
    states = []
    for seed in (0, 0, 1):
        network = Network()
        lora.add_adapters(network, TARGETS, seed=seed)
        states.append(lora.adapter_state(network)["layers.0.first.lora_A"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_global_random_state_is_untouched(network: Network) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    lora.add_adapters(network, TARGETS)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]


def test_alpha_and_rank_scale_the_adapter(network: Network, x: torch.Tensor) -> None:
    layer = network.layers[0].first
    plain = layer(x)
    lora.add_adapters(network, TARGETS)
    fill(network)
    state = lora.adapter_state(network)
    A, B = state["layers.0.first.lora_A"], state["layers.0.first.lora_B"]
    torch.testing.assert_close(network.layers[0].first(x), plain + 4 / 2 * x @ A.T @ B.T)


def test_a_module_with_adapters_is_refused(network: Network) -> None:
    lora.add_adapters(network, TARGETS)
    with pytest.raises(ValueError, match="has adapters already"):
        lora.add_adapters(network, TARGETS)


def test_targets_that_match_nothing_are_refused_and_the_layers_listed(network: Network) -> None:
    with pytest.raises(PluginError, match="match none of the 7 linear layers") as caught:
        lora.add_adapters(network, LoraDefaults(targets="q_proj"))
    assert "layers.0.first" in caught.value.hint


def test_targets_that_are_no_regular_expression_are_refused(network: Network) -> None:
    with pytest.raises(PluginError, match="no regular expression"):
        lora.add_adapters(network, LoraDefaults(targets="("))


@pytest.mark.parametrize(
    ("part", "target"),
    [
        (nn.MultiheadAttention(8, 2), "part.out_proj"),
        (nn.TransformerEncoderLayer(8, 2, 8), "part.linear1"),
        (nn.TransformerEncoderLayer(8, 2, 8), "part.self_attn.out_proj"),
        (nn.TransformerDecoderLayer(8, 2, 8), "part.multihead_attn.out_proj"),
    ],
)
def test_targets_inside_stock_attention_are_refused(part: nn.Module, target: str) -> None:
    network = nn.ModuleDict({"part": part})
    with pytest.raises(PluginError, match=f"adapter {target} has no effect"):
        lora.add_adapters(network, LoraDefaults(targets=target.replace(".", r"\.")))


def test_conv1d_of_transformers_is_adapted_beside_linear_layers() -> None:
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    network = nn.Sequential(Conv1D(8, 6), nn.Linear(8, 4)).eval()
    x = torch.randn(3, 6)
    lora.add_adapters(network, LoraDefaults(targets="[01]", r=2))
    assert tuple(lora.adapted(network)) == ("0", "1")
    fill(network)
    unmerged = network(x)
    lora.merge(network)
    torch.testing.assert_close(network(x), unmerged)
    assert lora.adapter_state(network)["0.lora_B"].shape == (8, 2)


def test_merged_equals_unmerged_and_can_be_undone(network: Network, x: torch.Tensor) -> None:
    lora.add_adapters(network, TARGETS)
    fill(network)
    unmerged = network(x)
    lora.merge(network)
    torch.testing.assert_close(network(x), unmerged)
    with pytest.raises(ValueError, match="merged already"):
        lora.merge(network)
    lora.unmerge(network)
    torch.testing.assert_close(network(x), unmerged)
    with pytest.raises(ValueError, match="not merged"):
        lora.unmerge(network)


def test_a_network_without_adapters_cannot_be_merged_or_saved(
    network: Network, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no adapters"):
        lora.merge(network)
    with pytest.raises(ValueError, match="no adapters"):
        lora.save_adapters(network, tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def saved(network: Network, tmp_path: Path) -> Path:
    lora.add_adapters(network, TARGETS)
    fill(network)
    path = tmp_path / "adapters.safetensors"
    lora.save_adapters(network, path)
    return path


def fresh(defaults: LoraDefaults = TARGETS) -> Network:
    torch.manual_seed(0)
    network = Network().eval()
    lora.add_adapters(network, defaults, seed=9)
    return network


def test_adapters_survive_a_file(network: Network, saved: Path, x: torch.Tensor) -> None:
    other = fresh()
    lora.load_adapters(other, saved)
    assert torch.equal(other(x), network(x))


def rewrite(path: Path, edit: dict[str, str | None]) -> None:
    tensors = load_file(path)
    for old, new in edit.items():
        tensor = tensors.pop(old)
        if new is not None:
            tensors[new] = tensor
    save_file(tensors, path)


def test_wrong_names_in_an_adapter_file_are_refused_and_listed(saved: Path) -> None:
    rewrite(saved, {"layers.0.first.lora_A": "base_model.layers.0.first.lora_A"})
    other = fresh()
    before = {name: tensor.clone() for name, tensor in lora.adapter_state(other).items()}
    with pytest.raises(WeightsError) as caught:
        lora.load_adapters(other, saved)
    message = caught.value.message
    assert "1 adapter tensors are missing: layers.0.first.lora_A" in message
    assert "1 do not belong here: base_model.layers.0.first.lora_A" in message
    assert all(torch.equal(before[n], tensor) for n, tensor in lora.adapter_state(other).items())


def test_a_missing_adapter_tensor_is_refused(saved: Path) -> None:
    rewrite(saved, {"layers.1.second.lora_B": None})
    with pytest.raises(WeightsError, match=r"missing: layers\.1\.second\.lora_B"):
        lora.load_adapters(fresh(), saved)


def test_another_rank_is_refused_with_both_shapes(saved: Path) -> None:
    with pytest.raises(WeightsError, match=r"is \(2, 6\), expected \(4, 6\)"):
        lora.load_adapters(fresh(TARGETS.model_copy(update={"r": 4, "alpha": 8})), saved)


def test_another_scaling_is_refused(saved: Path) -> None:
    with pytest.raises(WeightsError, match="alpha / r is 2 in the file and 4 in the network"):
        lora.load_adapters(fresh(TARGETS.model_copy(update={"alpha": 8})), saved)


def test_values_that_are_not_finite_are_refused(saved: Path) -> None:
    tensors = load_file(saved)
    tensors["layers.0.first.lora_A"][0, 0] = float("nan")
    save_file(tensors, saved)
    with pytest.raises(WeightsError, match="NaN"):
        lora.load_adapters(fresh(), saved)


def test_a_damaged_adapter_file_is_refused(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:50])
    with pytest.raises(WeightsError, match="cannot be read as adapters"):
        lora.load_adapters(fresh(), saved)


def test_a_missing_adapter_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read as adapters"):
        lora.load_adapters(fresh(), tmp_path / "none.safetensors")


def test_gradients_reach_every_adapter_at_the_first_step(network: Network, x: torch.Tensor) -> None:
    lora.add_adapters(network, TARGETS)
    network(x).square().sum().backward()
    lora.check_gradients(network)
    for name, parameter in network.named_parameters():
        if "lora_A" in name:
            assert not parameter.grad.any()


class Bypassing(Network):
    """Reads one weight instead of calling its module."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layers[0](x)
        second = self.layers[1]
        return self.out(x + nn.functional.linear(second.first(x), second.second.weight))


def test_an_adapter_without_effect_is_named(x: torch.Tensor) -> None:
    torch.manual_seed(0)
    network = Bypassing()
    lora.add_adapters(network, TARGETS)
    network(x).square().sum().backward()
    with pytest.raises(PluginError, match=r"adapter layers\.1\.second has no effect"):
        lora.check_gradients(network)


def test_a_gradient_that_is_not_finite_is_an_error(network: Network, x: torch.Tensor) -> None:
    lora.add_adapters(network, TARGETS)
    (network(x).sum() * float("inf")).backward()
    with pytest.raises(PluginError, match="not finite"):
        lora.check_gradients(network)


class Faint(Network):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 1e-9 * self.inner["layers"][0](x)[:, :3]


def test_adapter_that_learns_next_to_nothing_is_found(x: torch.Tensor) -> None:
    torch.manual_seed(0)
    network = Faint()
    lora.add_adapters(network, TARGETS.model_copy(update={"targets": r".*(first|second)"}))
    network(x).sum().backward()
    with pytest.raises(PluginError, match=r"adapter inner\.layers\.0\.\w+ has no effect: its grad"):
        lora.check_gradients(network)


class OnlyInTraining(Network):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.inner["layers"][0]
        if self.training:
            return super().forward(inner(x))
        return super().forward(x + inner.second.weight.sum())


def test_adapters_that_predictions_pass_by_are_found(x: torch.Tensor) -> None:
    torch.manual_seed(0)
    network = OnlyInTraining().eval()
    names = lora.add_adapters(network, TARGETS.model_copy(update={"targets": r".*(first|second)"}))
    fill(network)
    silent = lora.silent_adapters(network, lambda: network(x).detach().numpy())
    assert silent == tuple(name for name in names if name.startswith("inner"))
    assert len(silent) == 2
    assert lora.silent_adapters(network.train(), lambda: network(x).detach().numpy()) == ()
