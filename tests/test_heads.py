"""Tests of the classifiers on embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scdrugmap.errors import DataError
from scdrugmap.train.heads import Perceptron, make_head
from scdrugmap.train.tensors import dump_tensors, load_tensors

HEADS = ["logistic", "mlp"]


def embeddings(n: int = 600, dim: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    y = (np.arange(n) % 2).astype(float)
    x = random.normal(size=(n, dim)).astype(np.float32)
    x[:, :4] += y[:, None]
    return x, y


def accuracy(y: np.ndarray, p: np.ndarray) -> float:
    return float(((p >= 0.5) == (y > 0)).mean())


@pytest.mark.parametrize("name", HEADS)
def test_head_learns_a_difference_that_is_there(name: str) -> None:
    x, y = embeddings()
    head = make_head(name, 16)
    head.fit(x, y, seed=0)
    fresh, truth = embeddings(seed=1)
    p = head.predict(fresh)
    assert p.dtype == np.float32
    assert ((p >= 0) & (p <= 1)).all()
    assert accuracy(truth, p) > 0.75


@pytest.mark.parametrize("name", HEADS)
def test_head_comes_back_from_its_tensors(name: str) -> None:
    x, y = embeddings()
    head = make_head(name, 16)
    head.fit(x, y, seed=0)
    restored = make_head(name, 16)
    restored.restore(load_tensors(dump_tensors(head.tensors()), "head"), "head")
    np.testing.assert_array_equal(restored.predict(x), head.predict(x))


@pytest.mark.parametrize("name", HEADS)
def test_same_seed_gives_the_same_head(name: str) -> None:
    x, y = embeddings(200)
    first, second = make_head(name, 16), make_head(name, 16)
    first.fit(x, y, seed=3)
    second.fit(x, y, seed=3)
    assert dump_tensors(first.tensors()) == dump_tensors(second.tensors())


def test_another_seed_gives_another_network() -> None:
    x, y = embeddings(200)
    first, second = make_head("mlp", 16), make_head("mlp", 16)
    first.fit(x, y, seed=3)
    second.fit(x, y, seed=4)
    assert (first.predict(x) != second.predict(x)).any()


@pytest.mark.parametrize("name", HEADS)
def test_prediction_of_a_cell_does_not_depend_on_the_others(name: str) -> None:
    x, y = embeddings(5000)
    head = make_head(name, 16)
    head.fit(x[:300], y[:300], seed=0)
    whole = head.predict(x)
    np.testing.assert_allclose(head.predict(x[4090:4100]), whole[4090:4100], atol=1e-6)
    assert head.predict(x[:0]).shape == (0,)


@pytest.mark.parametrize("name", HEADS)
def test_global_random_state_is_not_touched(name: str) -> None:
    x, y = embeddings(100)
    before = torch.get_rng_state()
    make_head(name, 16).fit(x, y, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_network_is_the_one_of_the_paper() -> None:
    shapes = {name: tuple(p.shape) for name, p in Perceptron(200).named_parameters()}
    assert shapes == {
        "hidden_1.weight": (512, 200),
        "hidden_1.bias": (512,),
        "hidden_2.weight": (512, 512),
        "hidden_2.bias": (512,),
        "out.weight": (2, 512),
        "out.bias": (2,),
    }


def test_probability_above_one_half_is_the_larger_logit() -> None:
    x, y = embeddings()
    head = make_head("mlp", 16)
    head.fit(x, y, seed=0)
    with torch.inference_mode():
        larger = head.network(torch.from_numpy(x)).argmax(1).numpy()  # type: ignore[attr-defined]
    assert ((head.predict(x) > 0.5) == (larger == 1)).all()


def test_logistic_head_does_not_mind_scale_and_constant_dimensions() -> None:
    x, y = embeddings()
    x = np.column_stack([x, np.full(len(x), 7.0)]).astype(np.float32)
    scaled = x * np.float32(1000)
    first, second = make_head("logistic", 17), make_head("logistic", 17)
    first.fit(x, y, seed=0)
    second.fit(scaled, y, seed=0)
    np.testing.assert_allclose(first.predict(x), second.predict(scaled), atol=1e-4)


@pytest.mark.parametrize("name", HEADS)
def test_tensors_of_another_width_are_refused(name: str) -> None:
    other = make_head(name, 8).tensors()
    with pytest.raises(DataError, match="expected"):
        make_head(name, 16).restore(other, "head.safetensors")


@pytest.mark.parametrize("name", HEADS)
def test_missing_tensor_is_refused(name: str) -> None:
    tensors = make_head(name, 8).tensors()
    del tensors[min(tensors)]
    with pytest.raises(DataError):
        make_head(name, 8).restore(tensors, "head.safetensors")


def test_tensors_with_nan_are_refused() -> None:
    data = dump_tensors({"weight": np.array([1.0, np.nan], np.float32)})
    with pytest.raises(DataError, match="weight holds NaN"):
        load_tensors(data, "head.safetensors")


@pytest.mark.parametrize("cut", [3, 20, -4])
def test_truncated_tensors_are_refused(cut: int) -> None:
    data = dump_tensors({"weight": np.ones(30, np.float32)})
    with pytest.raises(DataError, match=r"head\.safetensors is damaged"):
        load_tensors(data[:cut], "head.safetensors")


def test_unknown_head_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="there is no head 'forest'"):
        make_head("forest", 4)
