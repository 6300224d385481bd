"""Conformal sets: what they promise over groups, and what they do not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from scdrugmap.errors import UsageError
from scdrugmap.train.calibration import scale
from scdrugmap.train.conformal import (
    LEVELS,
    at_level,
    calibrate_sets,
    coverage,
    covers,
    groups_needed,
    guarantee,
    prediction_sets,
)


def cohort(
    n_groups: int, seed: int, n_cells: int = 40
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups of one label whose cells are shifted together: p, y, groups."""
    random = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), random.integers(5, n_cells, n_groups))
    y = random.integers(0, 2, n_groups)[group].astype(float)
    z = (2 * y - 1) + random.normal(0, 1, n_groups)[group] + random.normal(0, 1, len(group))
    return expit(z).astype(np.float32), y, np.array([f"P{i}" for i in group], object)


def test_a_cell_of_a_new_group_is_covered_as_promised() -> None:
    covered = []
    for seed in range(200):
        p, y, groups = cohort(13, seed)
        new = groups == "P12"
        level = at_level(calibrate_sets(p[~new], y[~new], groups[~new]), 0.9)
        assert level.unit == "group"
        sets = prediction_sets(p[new], level.least_p)
        covered.append(covers(sets, y[new] > 0).mean())
    standard_error = np.std(covered) / np.sqrt(len(covered))
    assert np.mean(covered) >= 0.9 - 2 * standard_error


def test_cells_as_units_promise_less() -> None:
    def covered(n_groups: int) -> float:
        found = []
        for seed in range(200):
            p, y, groups = cohort(n_groups + 1, seed)
            new = groups == f"P{n_groups}"
            level = at_level(calibrate_sets(p[~new], y[~new], groups[~new]), 0.9)
            found.append(covers(prediction_sets(p[new], level.least_p), y[new] > 0).mean())
        return float(np.mean(found))

    assert covered(3) < covered(12)


@pytest.mark.parametrize(("level", "needed"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19)])
def test_level_takes_groups(level: float, needed: int) -> None:
    assert groups_needed(level) == needed
    enough, few = (calibrate_sets(*cohort(n, 0)) for n in (needed + 1, max(needed - 1, 1)))
    assert at_level(enough, level).unit == "group"
    if needed > 1:
        assert at_level(few, level).unit == "cell"
        assert f"level {level:g} takes {needed}" in guarantee(few, at_level(few, level))
        assert "promises nothing" in guarantee(few, at_level(few, level))


def test_groups_that_were_trained_on_promise_nothing() -> None:
    info = calibrate_sets(*cohort(30, 0), trained_groups={"P3"})
    assert not info.apart
    assert {item.unit for item in info.levels} == {"cell"}
    assert "were trained on too" in guarantee(info, at_level(info, 0.9))


def test_sets_grow_with_the_level() -> None:
    info = calibrate_sets(*cohort(10, 0))  # a level of 0.91 has cells as units
    floors = [item.least_p or 0.0 for item in info.levels]
    assert len(set(floors)) > 30
    assert floors == sorted(floors, reverse=True)


def test_temperature_changes_no_set() -> None:
    p, y, groups = cohort(12, 0)
    new, *_ = cohort(5, 1)
    for level in (0.7, 0.9):
        plain = at_level(calibrate_sets(p, y, groups), level).least_p
        scaled = at_level(calibrate_sets(scale(p, 2.0), y, groups), level).least_p
        sets = prediction_sets(new, plain)
        assert (prediction_sets(scale(new, 2.0), scaled) == sets).all()


def test_order_of_the_cells_changes_nothing() -> None:
    p, y, groups = cohort(12, 0)
    order = np.random.default_rng(0).permutation(len(p))
    assert calibrate_sets(p[order], y[order], groups[order]) == calibrate_sets(p, y, groups)


def test_coverage_is_measured_on_groups_left_out() -> None:
    p, y, groups = cohort(25, 3)
    level = at_level(calibrate_sets(p, y, groups), 0.9)
    shares = []
    for group in sorted(set(groups)):
        own = groups == group
        floor = at_level(calibrate_sets(p[~own], y[~own], groups[~own]), 0.9).least_p
        shares.append(covers(prediction_sets(p[own], floor), y[own] > 0).mean())
    assert level.coverage == pytest.approx(np.mean(shares), abs=0.02)
    assert level.coverage_sensitive is not None


def test_coverage_that_cannot_be_measured_is_not_given() -> None:
    nine = at_level(calibrate_sets(*cohort(9, 0)), 0.9)
    assert (nine.unit, nine.coverage) == ("group", None)
    one = calibrate_sets(*cohort(1, 0))
    assert all(item.coverage is None for item in one.levels)


def test_coverage_is_a_mean_over_groups() -> None:
    covered = np.array([1, 1, 1, 0], bool)
    found = coverage(covered, np.array([1.0, 1, 1, 0]), np.array([0, 0, 0, 1]))
    assert found == {"coverage": 0.5, "coverage_sensitive": 1.0, "coverage_resistant": 0.0}
    assert coverage(covered[:3], np.ones(3), np.zeros(3, int))["coverage_resistant"] is None


@pytest.mark.parametrize(
    ("floor", "expected"),
    [
        (0.3, ["resistant", "both", "sensitive", ""]),
        (0.7, ["resistant", "none", "sensitive", ""]),
        (None, ["both", "both", "both", ""]),
    ],
)
def test_labels_at_or_above_the_least_probability_are_in_the_set(
    floor: float | None, expected: list[str]
) -> None:
    p = np.array([0.1, 0.5, 0.9, np.nan], np.float32)
    assert prediction_sets(p, floor).tolist() == expected


def test_too_few_cells_exclude_no_label() -> None:
    p, y = np.array([0.9, 0.1], np.float32), np.array([1.0, 0.0])
    level = at_level(calibrate_sets(p, y, np.array(["a", "b"], object)), 0.9)
    assert level.least_p is None


@pytest.mark.parametrize("level", [0.905, 0.49, 1.0, 0.0, -1.0, float("nan")])
def test_level_that_was_not_prepared_is_refused(level: float) -> None:
    info = calibrate_sets(*cohort(12, 0))
    with pytest.raises(UsageError, match="no conformal sets for level") as caught:
        at_level(info, level)
    assert "0.5 to 0.99" in caught.value.hint
    assert len(LEVELS) == 50


def test_groups_that_told_when_to_stop_promise_roughly() -> None:
    plain, stopped = (calibrate_sets(*cohort(30, 0), stopped=stopped) for stopped in (False, True))
    assert plain.levels == stopped.levels
    assert "roughly" not in guarantee(plain, at_level(plain, 0.9))
    assert "roughly, since the same groups told" in guarantee(stopped, at_level(stopped, 0.9))
