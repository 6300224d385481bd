"""The one loop: batches, order, memory, precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from scdrugmap.errors import PluginError, ResourceError, UsageError
from scdrugmap.model import batching, device
from scdrugmap.model.batching import Network, plan_batches
from scdrugmap.modelkit import Tokens, Traits
from scdrugmap.modelkit.contract import SequenceModel

CPU = torch.device("cpu")


class Sum(nn.Module):
    """Sums the values of a cell; `limit` is the memory, in padded tokens."""

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()
        self.limit = limit
        self.shapes: list[tuple[int, int]] = []
        self.masked: list[bool] = []
        self.modes: list[tuple[bool, bool]] = []
        self.dropout = nn.Dropout(0.5)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        values = batch["value"]
        self.modes.append((self.training, torch.is_inference_mode_enabled()))
        if self.limit is not None and values.numel() > self.limit:
            raise torch.OutOfMemoryError("out of memory")
        self.shapes.append((values.shape[0], values.shape[1]))
        self.masked.append("keep" in batch)
        total = self.dropout(values.sum(1))
        return torch.stack([total, values.mean(1)], 1)


def tokens_of(lengths: list[int]) -> Tokens:
    start = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = np.arange(start[-1], dtype=np.float32)
    column = np.zeros(start[-1], np.int32)
    usable = np.array(lengths) > 0
    return Tokens(start, {"value": values, "column": column}, {"usable": usable})


def network(module: Sum | None = None, **settings: Any) -> Network:
    model = SequenceModel(Traits(2, None), None, module or Sum(), "dropout", {"value": 0.0})  # type: ignore[arg-type]
    return Network(model, device=CPU, **settings)


def sums(tokens: Tokens) -> np.ndarray:
    return np.array(
        [
            tokens.flat["value"][a:b].sum() if b > a else np.nan
            for a, b in zip(tokens.start[:-1], tokens.start[1:], strict=True)
        ]
    )


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 120))
def test_every_cell_is_in_exactly_one_batch_within_the_budget(cost: list[int], budget: int) -> None:
    batches = plan_batches(np.array(cost, np.int64), budget)
    assert sorted(np.concatenate([[], *batches]).astype(int)) == list(range(len(cost)))
    for batch in batches:
        padded = max(cost[cell] for cell in batch) * len(batch)
        assert padded <= budget or len(batch) == 1


def test_long_cells_are_batched_with_their_own_length_only() -> None:
    cost = np.array([600, 700, 600, 10, 12, 600])
    batches = plan_batches(cost, 10_000, exact_above=500)
    assert [cost[batch].tolist() for batch in batches] == [[700], [600, 600, 600], [12, 10]]


def test_results_come_in_the_order_of_the_cells() -> None:
    tokens = tokens_of([5, 1, 30, 2, 30, 7])
    found = network(token_budget=31).embed(tokens)
    np.testing.assert_allclose(found[:, 0], sums(tokens))
    assert found.dtype == np.float32


def test_an_unusable_cell_is_never_sent_and_gets_nan() -> None:
    module = Sum()
    found = network(module).embed(tokens_of([3, 0, 2]))
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[[0, 2]]).all()
    assert sum(n for n, _ in module.shapes) == 2


def test_cells_that_are_all_unusable_give_nan_rows() -> None:
    assert np.isnan(network().embed(tokens_of([0, 0]))).all()
    assert network().embed(tokens_of([])).shape == (0, 2)


def test_long_cells_on_a_processor_need_no_mask() -> None:
    module = Sum()
    network(module, token_budget=4000).embed(tokens_of([600, 601, 600, 3, 4]))
    assert module.masked == [False, False, True]


def test_out_of_memory_halves_the_budget_and_goes_on() -> None:
    module = Sum(limit=16)
    slow = network(module, token_budget=64)
    tokens = tokens_of([8] * 9)
    np.testing.assert_allclose(slow.embed(tokens)[:, 0], sums(tokens))
    assert slow.budget == 16
    assert all(rows * length <= 16 for rows, length in module.shapes)
    assert "going on with 32" in slow.notices[0]


def test_a_smaller_budget_is_remembered_for_the_run() -> None:
    module = Sum(limit=16)
    slow = network(module, token_budget=64)
    slow.embed(tokens_of([8] * 9))
    said = len(slow.notices)
    slow.embed(tokens_of([8] * 9))
    assert len(slow.notices) == said


def test_a_cell_that_does_not_fit_alone_is_a_resource_error() -> None:
    with pytest.raises(ResourceError, match="one cell with 20 tokens does not fit"):
        network(Sum(limit=16)).embed(tokens_of([20, 3]))


def test_a_group_that_does_not_fit_is_a_resource_error() -> None:
    with pytest.raises(ResourceError, match="a group of 3 cells"):
        network(Sum(limit=16)).embed(tokens_of([8, 8, 8]), [np.arange(3)])


def test_an_error_of_the_network_is_not_taken_for_missing_memory() -> None:
    class Broken(Sum):
        def forward(self, batch: dict[str, Tensor]) -> Tensor:
            raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        network(Broken()).embed(tokens_of([2]))


def test_a_group_is_one_batch_with_its_unusable_cells() -> None:
    module = Sum()
    found = network(module, token_budget=4).embed(
        tokens_of([5, 0, 5, 5]), [np.array([0, 1, 2]), np.array([3])]
    )
    assert module.shapes == [(3, 5), (1, 5)]
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[[0, 2, 3]]).all()


def test_the_network_runs_in_eval_and_inference_mode_and_is_left_as_it_was() -> None:
    module = Sum()
    module.train()
    module.dropout.eval()
    network(module).embed(tokens_of([3, 4]))
    assert set(module.modes) == {(False, True)}
    assert module.training
    assert not module.dropout.training


def output(change: Callable[[Tensor], Tensor]) -> Sum:
    class Changed(Sum):
        def forward(self, batch: dict[str, Tensor]) -> Tensor:
            return change(super().forward(batch))

    return Changed()


def test_a_wrong_shape_names_the_model_and_both_shapes() -> None:
    with pytest.raises(PluginError, match=r"toy returns .*\(1, 1\).*expected \(1, 2\)"):
        network(output(lambda y: y[:, :1]), name="toy").embed(tokens_of([3]))


def test_values_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(PluginError, match="not finite for 1 of 2 cells"):
        network(output(lambda y: y / 0)).embed(tokens_of([3, 0]))


def test_bfloat16_without_matrix_units_becomes_float32_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device, "has_bfloat16_units", lambda: False)
    plain = network(precision="bfloat16")
    assert plain.precision == "float32"
    assert "no bfloat16 matrix units" in plain.notices[0]


def test_bfloat16_multiplies_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "has_bfloat16_units", lambda: True)
    seen: list[torch.dtype] = []

    def look(y: Tensor) -> Tensor:
        seen.append((y @ y.T).dtype)
        return y

    for precision in ("bfloat16", "float32"):
        network(output(look), precision=precision).embed(tokens_of([3]))
    assert seen == [torch.bfloat16, torch.float32]


def test_tf32_is_off_inside_and_as_before_outside() -> None:
    torch.set_float32_matmul_precision("high")
    try:
        with device.exact_float32():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_devices_that_are_not_there_are_refused() -> None:
    assert device.resolve_device("cpu") == CPU
    with pytest.raises(UsageError, match="is no device"):
        device.resolve_device("gpu please")
    with pytest.raises(ResourceError, match="this machine has"):
        device.resolve_device("cuda:99")


def test_default_budgets_follow_the_device() -> None:
    assert batching.default_budget(CPU) == 4096
    assert batching.default_budget(torch.device("cuda")) == 65_536


def test_matrix_rate_is_measured() -> None:
    assert device.matmul_rate(CPU, seconds=0.05) > 1e8


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_what_the_processor_gives() -> None:
    tokens = tokens_of([5, 1, 30])
    model = SequenceModel(Traits(2, None), None, Sum(), "dropout", {"value": 0.0})  # type: ignore[arg-type]
    found = Network(model, device=torch.device("cuda")).embed(tokens)
    np.testing.assert_allclose(found[:, 0], sums(tokens), rtol=1e-6)
