"""The bootstrap of studies, groups and cells."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from scdrugmap.evaluation.intervals import (
    Resampling,
    draw_cell_metrics,
    draw_sample_metrics,
    percentile_interval,
    resample,
)
from scdrugmap.evaluation.metrics import (
    confusion,
    probability_metrics,
    ranking_metrics,
    thresholded_metrics,
)


def cohort(
    n_groups: int, n_cells: int, *, effect: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make group, truth and p of cells whose p depends on the group with a spread of `effect`."""
    random = np.random.default_rng(seed)
    number = np.repeat(np.arange(n_groups), n_cells)
    truth = number % 2 == 0
    x = 0.6 * truth + random.normal(0, effect, n_groups)[number] + random.normal(size=len(number))
    return np.array([f"g{i:03d}" for i in number], object), truth, 1 / (1 + np.exp(-x))


def widths(group: np.ndarray, truth: np.ndarray, p: np.ndarray, draws: int = 400) -> float:
    one = np.full(len(group), "s", object)
    taken = resample(group, one, draws=draws, seed=0)
    drawn = draw_cell_metrics(
        taken,
        np.arange(len(p)),
        truth=truth,
        p_sensitive=p,
        right={"fixed": (p >= 0.5) == truth},
    )
    interval = percentile_interval(drawn["auroc", ""])
    return interval.high - interval.low


def everyone_once(group: np.ndarray, draws: int) -> Resampling:
    """Take every group once in every draw: only the cells move."""
    names, of_cell = np.unique(group, return_inverse=True)
    n_groups = len(names)
    return Resampling(
        group=of_cell,
        groups=np.ones((draws, n_groups), np.int64),
        studies=np.ones((draws, 1), np.int64),
        study_of_group=np.zeros(n_groups, np.int64),
        seed=0,
    )


def test_every_draw_takes_as_many_groups_as_a_study_has() -> None:
    group, _, _ = cohort(12, 2, effect=0)
    taken = resample(group, np.full(24, "s", object), draws=50, seed=0)
    assert (taken.groups.sum(1) == 12).all()
    assert (taken.studies == 1).all()


def test_groups_are_taken_only_as_often_as_their_study() -> None:
    group = np.array(["a", "b", "c", "d"], object)
    study = np.array(["x", "x", "y", "z"], object)
    taken = resample(group, study, draws=200, seed=0)
    assert (taken.studies.sum(1) == 3).all()
    size = np.array([2, 1, 1])
    for number in range(3):
        of_study = taken.groups[:, taken.study_of_group == number].sum(1)
        assert (of_study == size[number] * taken.studies[:, number]).all()


def test_group_in_two_studies_is_taken_as_a_whole() -> None:
    taken = resample(
        np.array(["a", "a", "b"], object), np.array(["x", "y", "y"], object), draws=5, seed=0
    )
    assert taken.groups.shape == (5, 2)
    assert taken.study_of_group.tolist() == [0, 1]


def test_same_seed_takes_the_same_groups_and_another_seed_others() -> None:
    group, _, _ = cohort(12, 2, effect=0)
    study = np.full(24, "s", object)
    one, again, other = (resample(group, study, draws=20, seed=s).groups for s in (0, 0, 1))
    assert (one == again).all()
    assert (one != other).any()


def test_draws_centre_on_the_exact_metrics() -> None:
    group, truth, p = cohort(20, 400, effect=0.3)
    right = (p >= 0.5) == truth
    resampling = everyone_once(group, 200)
    drawn = draw_cell_metrics(
        resampling, np.arange(len(p)), truth=truth, p_sensitive=p, right={"fixed": right}
    )
    exact = {
        **thresholded_metrics(confusion(truth=truth, right=right)),
        **ranking_metrics(truth=truth, p_sensitive=p),
        **probability_metrics(truth=truth, p_sensitive=p),
    }
    for name, value in exact.items():
        if name != "ece":  # noise only ever adds to a distance
            got = drawn[name, "fixed" if (name, "fixed") in drawn else ""]
            assert got.mean() == pytest.approx(float(value), abs=2e-3), name
            assert got.std() < 0.02, name


def test_few_distinct_probabilities_are_not_rounded() -> None:
    truth = np.array([True, False] * 60)
    p = np.where(truth, 0.8, 0.2)
    resampling = everyone_once(np.repeat(np.arange(6), 20), 50)
    drawn = draw_cell_metrics(
        resampling, np.arange(120), truth=truth, p_sensitive=p, right={"fixed": truth | ~truth}
    )
    assert (drawn["auroc", ""] == 1).all()
    assert (drawn["macro_f1", "fixed"] == 1).all()
    assert drawn["brier", ""] == pytest.approx(np.full(50, 0.04))


def test_interval_over_groups_is_wider_than_over_cells() -> None:
    group, truth, p = cohort(30, 100, effect=1.5)
    by_cell = np.array([f"c{i}" for i in range(len(p))], object)
    assert widths(group, truth, p) > 4 * widths(by_cell, truth, p)


def test_without_effects_of_groups_the_two_agree() -> None:
    group, truth, p = cohort(60, 50, effect=0)
    by_cell = np.array([f"c{i}" for i in range(len(p))], object)
    assert widths(group, truth, p) == pytest.approx(widths(by_cell, truth, p), rel=0.5)


def test_interval_of_groups_covers_the_truth() -> None:
    # With p independent of the label the true AUROC is 0.5; count how often it is covered.
    covered = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        number = np.repeat(np.arange(40), 20)
        p = 1 / (1 + np.exp(-random.normal(size=40)[number] - 0.5 * random.normal(size=800)))
        group = np.array([f"g{i}" for i in number], object)
        taken = resample(group, np.full(800, "s", object), draws=200, seed=seed)
        drawn = draw_cell_metrics(
            taken, np.arange(800), truth=number % 2 == 0, p_sensitive=p, right={}
        )
        low, high, _ = percentile_interval(drawn["auroc", ""])
        covered += low <= 0.5 <= high
    assert 33 <= covered <= 40


def test_sample_draws_equal_scikit_learn_with_weights() -> None:
    random = np.random.default_rng(0)
    truth = np.arange(12) % 2 == 0
    mean = np.round(random.random(12), 1)  # ties on purpose
    taken = resample(
        np.array([f"g{i:02d}" for i in range(12)], object),
        np.full(12, "s", object),
        draws=30,
        seed=0,
    )
    drawn = draw_sample_metrics(
        taken, np.arange(12), truth=truth, p_mean=mean, p_error=np.zeros(12)
    )
    for i, weight in enumerate(taken.groups):
        expected = {
            "auroc": roc_auc_score(truth, mean, sample_weight=weight),
            "auprc_sensitive": average_precision_score(truth, mean, sample_weight=weight),
            "auprc_resistant": average_precision_score(~truth, -mean, sample_weight=weight),
        }
        for name, value in expected.items():
            assert drawn[name, ""][i] == pytest.approx(value), name


def test_equal_samples_stay_at_chance_in_every_draw() -> None:
    taken = resample(
        np.array([f"g{i}" for i in range(10)], object), np.full(10, "s", object), draws=40, seed=0
    )
    drawn = draw_sample_metrics(
        taken,
        np.arange(10),
        truth=np.arange(10) < 5,
        p_mean=np.full(10, 0.5),
        p_error=np.zeros(10),
    )
    defined = drawn["auroc", ""][np.isfinite(drawn["auroc", ""])]
    assert defined == pytest.approx(np.full(len(defined), 0.5))
    assert len(defined) > 30


def test_draws_without_a_class_are_undefined() -> None:
    truth = np.array([True, True, False])
    resampling = Resampling(
        np.arange(3),
        np.array([[1, 1, 0], [1, 1, 1]]),
        np.ones((2, 1), np.int64),
        np.zeros(3, np.int64),
        0,
    )
    drawn = draw_sample_metrics(
        resampling,
        np.arange(3),
        truth=truth,
        p_mean=np.array([0.9, 0.8, 0.1]),
        p_error=np.zeros(3),
    )
    assert np.isnan(drawn["auroc", ""][0])
    assert drawn["auroc", ""][1] == 1


def test_percentile_interval_is_the_middle_of_the_draws() -> None:
    low, high, note = percentile_interval(np.linspace(0, 1, 2001))
    assert (low, high, note) == (pytest.approx(0.025), pytest.approx(0.975), "")


def test_undefined_draws_are_counted() -> None:
    some = np.array([np.nan] * 4 + [0.5] * 6)
    assert percentile_interval(some).note == "interval from 6 of 10 draws"
    most = np.array([np.nan] * 6 + [0.5] * 4)
    interval = percentile_interval(most)
    assert np.isnan(interval.low)
    assert interval.note == "no interval: defined in 4 of 10 draws"
