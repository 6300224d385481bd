"""Temperature, threshold and conformal sets keep order, nest, and mean what they promise."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import QUICK, orders, probabilities, scored, seeds

from scdrugmap.train.calibration import Answers, fit_temperature, scale
from scdrugmap.train.conformal import (
    LEVELS,
    calibrate_sets,
    covers,
    floors,
    p_of_label,
    prediction_sets,
)
from scdrugmap.train.thresholds import best_threshold

Scored = tuple[np.ndarray, np.ndarray]
temperatures = st.floats(0.1, 10)
many = st.lists(probabilities, min_size=1, max_size=40).map(lambda p: np.array(p, np.float32))


@QUICK
@given(many, temperatures)
def test_a_temperature_keeps_the_order_and_the_side_of_one_half(
    p: np.ndarray, temperature: float
) -> None:
    order = np.argsort(p, kind="stable")
    scaled = scale(p, temperature)
    assert (np.diff(scaled[order]) >= 0).all()
    assert ((scaled >= 0) & (scaled <= 1)).all()
    assert (scaled[p >= 0.5] >= 0.5).all()
    assert (scaled[p <= 0.5] <= 0.5).all()


@QUICK
@given(st.lists(st.floats(0.0625, 0.9375, width=32), min_size=1, max_size=20), st.floats(0.5, 2))
def test_a_temperature_is_undone_by_its_inverse(values: list[float], temperature: float) -> None:
    p = np.array(values, np.float32)
    np.testing.assert_allclose(scale(scale(p, temperature), 1 / temperature), p, atol=1e-5)


@QUICK
@given(scored(2), st.integers(1, 4))
def test_groups_count_the_same_however_many_cells_they_have(drawn: Scored, times: int) -> None:
    truth, p = drawn
    groups = np.array([f"g{place % 5}" for place in range(len(p))], object)
    often = np.where(groups == "g1", times, 1)
    few = Answers(p.astype(np.float32), truth.astype(float), groups)
    many_cells = Answers(*(np.repeat(part, often) for part in (few.p, few.y, few.groups)))
    first, second = fit_temperature(few)[0], fit_temperature(many_cells)[0]
    assert second.temperature == pytest.approx(first.temperature, rel=1e-3)
    assert second.loss_before == pytest.approx(first.loss_before)


@QUICK
@given(scored(2))
def test_the_temperature_that_is_chosen_is_never_worse_than_none(drawn: Scored) -> None:
    truth, p = drawn
    groups = np.array([f"g{place % 7}" for place in range(len(p))], object)
    found, _ = fit_temperature(Answers(p.astype(np.float32), truth.astype(float), groups))
    assert found.loss_after <= found.loss_before + 1e-6


@QUICK
@given(scored(2), st.integers(1, 60), many)
def test_sets_grow_with_the_level(drawn: Scored, n_groups: int, new: np.ndarray) -> None:
    truth, p = drawn
    groups = np.array([f"g{place % n_groups}" for place in range(len(p))], object)
    info = calibrate_sets(p.astype(np.float32), truth.astype(float), groups)
    sizes = {"none": 0, "sensitive": 1, "resistant": 1, "both": 2}
    named = [prediction_sets(new, level.least_p) for level in info.levels]
    for before, after in pairwise(named):
        few, many_labels = (np.array([sizes[name] for name in sets]) for sets in (before, after))
        assert (few <= many_labels).all()
        one = (few == 1) & (many_labels == 1)
        assert (before[one] == after[one]).all()


@QUICK
@given(scored(3))
def test_sets_of_the_cells_they_were_made_of_cover_as_promised(drawn: Scored) -> None:
    truth, p = drawn
    wide = p_of_label(p, truth)
    code = np.arange(len(p))  # every cell a group: cells and groups are one
    by_group = np.zeros(len(LEVELS), bool)
    n = len(p)
    for level, floor in zip(LEVELS, floors(wide, code, by_group), strict=True):
        named = prediction_sets(p, None if np.isinf(floor) else floor)
        # the quantile of n + 1 exchangeable cells
        assert covers(named, truth).sum() >= min(n, np.ceil(level * (n + 1) - 1e-9))


@QUICK
@given(scored(2).flatmap(lambda drawn: st.tuples(st.just(drawn), orders(len(drawn[0])))))
def test_neither_sets_nor_threshold_depend_on_the_order_of_cells(
    drawn: tuple[Scored, np.ndarray],
) -> None:
    (truth, p), order = drawn
    groups = np.array([f"g{place % 12}" for place in range(len(p))], object)
    y, narrow = truth.astype(float), p.astype(np.float32)
    first = calibrate_sets(narrow, y, groups)
    second = calibrate_sets(narrow[order], y[order], groups[order])
    assert first == second
    assert best_threshold(narrow, y) == best_threshold(narrow[order], y[order])


@QUICK
@given(seeds, st.integers(4, 40), st.floats(0.5, 2))
def test_a_temperature_changes_no_set(seed: int, n: int, temperature: float) -> None:
    random = np.random.default_rng(seed)
    truth = np.arange(n) % 2 > 0
    # a grid: neither p nor 1 - p come so close to another that float32 cannot tell them apart
    p = (random.choice(900, n, replace=False) + 50.25).astype(np.float32) / 1000
    groups = np.array([f"g{place % 12}" for place in range(n)], object)
    sets = []
    for values in (p, scale(p, temperature)):
        level = calibrate_sets(values, truth.astype(float), groups).levels[40]
        sets.append(prediction_sets(values, level.least_p).tolist())
    assert sets[0] == sets[1]
