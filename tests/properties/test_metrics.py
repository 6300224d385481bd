"""Metrics, intervals and tests keep the rules that mathematics gives them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from made_up import QUICK, orders, scored, seeds

from scdrugmap.evaluation.intervals import (
    _ranking,
    draw_cell_metrics,
    percentile_interval,
    resample,
)
from scdrugmap.evaluation.metrics import (
    METRICS,
    best_constant,
    confusion,
    probability_metrics,
    ranking_metrics,
    skill,
    thresholded_metrics,
)
from scdrugmap.evaluation.paired import holm, nadeau_bengio, sign_flip, wilcoxon

Scored = tuple[np.ndarray, np.ndarray]

TRANSFORMS = {
    "halved": lambda p: p / 2,  # exact, so that no two values become one
    "shifted towards 1": lambda p: 0.5 + p / 2**20,
    "ranks": lambda p: np.unique(p, return_inverse=True)[1].astype(float),
}


def calls(truth: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """Return the metrics of calls at 0.5."""
    counts = confusion(truth=truth, right=(p >= 0.5) == truth)
    return {name: float(value) for name, value in thresholded_metrics(counts).items()}


def everything(truth: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """Return all metrics of cells."""
    return {
        **calls(truth, p),
        **ranking_metrics(truth=truth, p_sensitive=p),
        **probability_metrics(truth=truth, p_sensitive=p),
    }


@QUICK
@given(scored(), st.sampled_from(sorted(TRANSFORMS)))
def test_ranking_metrics_see_nothing_but_the_order(drawn: Scored, how: str) -> None:
    truth, p = drawn
    changed = TRANSFORMS[how](p)
    assume(len(np.unique(changed)) == len(np.unique(p)))
    assert ranking_metrics(truth=truth, p_sensitive=changed) == pytest.approx(
        ranking_metrics(truth=truth, p_sensitive=p)
    )


@QUICK
@given(scored())
def test_with_swapped_labels_the_auroc_is_one_minus_itself(drawn: Scored) -> None:
    truth, p = drawn
    plain = ranking_metrics(truth=truth, p_sensitive=p)
    swapped = ranking_metrics(truth=~truth, p_sensitive=p)
    assert swapped["auroc"] == pytest.approx(1 - plain["auroc"])


@QUICK
@given(seeds, st.integers(2, 40))
def test_with_both_labels_and_probabilities_swapped_the_two_classes_change_places(
    seed: int, n: int
) -> None:
    random = np.random.default_rng(seed)
    truth = random.permutation(np.arange(n) % 2 > 0)
    p = (2 * random.integers(0, 64, n) + 1) / 128  # exact, ties among them, never 0.5
    plain, swapped = everything(truth, p), everything(~truth, 1 - p)
    assert swapped["f1_sensitive"] == pytest.approx(plain["f1_resistant"])
    assert swapped["auprc_sensitive"] == pytest.approx(plain["auprc_resistant"])
    for name in ("macro_f1", "mcc", "balanced_accuracy", "auroc", "brier"):
        assert swapped[name] == pytest.approx(plain[name], abs=1e-12), name


@QUICK
@given(scored().flatmap(lambda drawn: st.tuples(st.just(drawn), orders(len(drawn[0])))))
def test_metrics_do_not_depend_on_the_order_of_cells(drawn: tuple[Scored, np.ndarray]) -> None:
    (truth, p), order = drawn
    assert everything(truth[order], p[order]) == pytest.approx(everything(truth, p))


@QUICK
@given(scored(), st.integers(2, 5))
def test_every_cell_several_times_changes_no_metric_but_the_bins(drawn: Scored, times: int) -> None:
    truth, p = drawn
    several = everything(np.repeat(truth, times), np.repeat(p, times))
    assert several == pytest.approx(everything(truth, p), abs=1e-9)


@QUICK
@given(scored())
def test_metrics_stay_in_their_range(drawn: Scored) -> None:
    truth, p = drawn
    for name, value in everything(truth, p).items():
        assert (-1 if name == "mcc" else 0) - 1e-12 <= value <= 1 + 1e-12, name


@QUICK
@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_the_best_constant_has_no_skill_and_perfection_has_all(
    n_sensitive: int, n_resistant: int
) -> None:
    for metric in METRICS:
        if metric == "ece":
            continue
        constant = best_constant(metric, n_sensitive, n_resistant)
        perfect = 0.0 if metric == "brier" else 1.0
        assert skill(metric, constant, n_sensitive, n_resistant) == pytest.approx(0)
        assert skill(metric, perfect, n_sensitive, n_resistant) == pytest.approx(1)


@QUICK
@given(scored(), st.floats(0, 1))
def test_no_constant_has_any_skill(drawn: Scored, constant: float) -> None:
    truth, _ = drawn
    n_sensitive, n_resistant = int(truth.sum()), int((~truth).sum())
    for metric, value in everything(truth, np.full(len(truth), constant)).items():
        if metric in ("ece", "f1_sensitive", "f1_resistant"):
            continue  # these are best with a constant that is worse for the other class
        assert skill(metric, value, n_sensitive, n_resistant) <= 1e-9, metric


@QUICK
@given(scored(), seeds)
def test_histograms_rank_like_the_rows_they_stand_for(drawn: Scored, seed: int) -> None:
    truth, p = drawn
    times = np.random.default_rng(seed).integers(0, 4, len(p))
    assume(times[truth].any() and times[~truth].any())
    value, place = np.unique(p, return_inverse=True)
    positive = np.bincount(place, times * truth, len(value))
    negative = np.bincount(place, times * ~truth, len(value))
    by_rows = ranking_metrics(truth=np.repeat(truth, times), p_sensitive=np.repeat(p, times))
    by_histogram = {name: float(v) for name, v in _ranking(positive, negative).items()}
    assert by_histogram == pytest.approx(by_rows)


@QUICK
@given(scored(), seeds)
def test_a_draw_of_a_single_kind_of_cell_per_group_is_the_metric_of_its_groups(
    drawn: Scored, seed: int
) -> None:
    truth, p = drawn  # each cell is a group: drawing its cells anew changes nothing
    group = np.array([f"g{number}" for number in range(len(p))], object)
    resampling = resample(group, np.full(len(p), "study", object), draws=3, seed=seed)
    order = np.unique(group, return_inverse=True)[1]
    right = {"fixed": (p >= 0.5) == truth}
    rows = np.arange(len(p))
    n_draws = draw_cell_metrics(resampling, rows, truth=truth, p_sensitive=p, right=right)
    assert (resampling.groups.sum(1) == len(p)).all()
    assert resampling.group.tolist() == order.tolist()
    assert all(len(values) == 3 for values in n_draws.values())
    for (metric, _), values in n_draws.items():
        if not metric.startswith("skill"):
            known = values[np.isfinite(values)]
            assert ((known >= -1 - 1e-12) & (known <= 1 + 1e-12)).all()


@QUICK
@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=30), seeds)
def test_a_draw_takes_as_many_studies_as_there_are_and_groups_of_taken_studies_only(
    studies: list[str], seed: int
) -> None:
    study = np.array(studies, object)
    group = np.array([f"{name}{place % 3}" for place, name in enumerate(studies)], object)
    drawn = resample(group, study, draws=20, seed=seed)
    assert (drawn.studies.sum(1) == len(set(studies))).all()
    for number in range(drawn.studies.shape[1]):
        members = drawn.study_of_group == number
        taken = drawn.groups[:, members].sum(1)
        assert (taken == drawn.studies[:, number] * members.sum()).all()


@QUICK
@given(st.lists(st.floats(-5, 5) | st.just(np.nan), min_size=1, max_size=60))
def test_an_interval_lies_inside_of_its_draws(values: list[float]) -> None:
    drawn = np.array(values)
    low, high, note = percentile_interval(drawn)
    known = drawn[np.isfinite(drawn)]
    if np.isnan(low):
        assert note.startswith("no interval")
        assert 2 * len(known) < len(drawn)
    else:
        assert known.min() <= low <= high <= known.max()
        assert bool(note) == (len(known) < len(drawn))


p_values = st.lists(st.floats(0, 1) | st.just(np.nan), max_size=15)


@QUICK
@given(p_values)
def test_holm_never_lowers_a_p_value_and_keeps_their_order(given_values: list[float]) -> None:
    p = np.array(given_values)
    corrected = holm(given_values)
    known = np.isfinite(p)
    assert (np.isfinite(corrected) == known).all()
    assert (corrected[known] >= p[known]).all()
    assert (corrected[known] <= 1).all()
    assert (corrected[known] <= np.minimum(1, known.sum() * p[known])).all()  # Bonferroni
    assert (np.diff(corrected[known][np.argsort(p[known], kind="stable")]) >= 0).all()


@QUICK
@given(p_values.flatmap(lambda p: st.tuples(st.just(p), orders(len(p)))))
def test_holm_does_not_depend_on_the_order(drawn: tuple[list[float], np.ndarray]) -> None:
    values, order = drawn
    np.testing.assert_allclose(
        holm([values[place] for place in order]), holm(values)[order], equal_nan=True
    )


differences = st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=2, max_size=12)


@QUICK
@given(differences, seeds)
def test_two_models_that_change_places_have_the_same_p_value(
    values: list[float], seed: int
) -> None:
    unit = np.array(values)

    def test(sign: float) -> float:
        return sign_flip(
            lambda signs: sign * (signs @ unit) / len(unit), len(unit), permutations=50, seed=seed
        ).p_value

    assert test(1.0) == test(-1.0)
    assert 0 < test(1.0) <= 1
    for other in (wilcoxon, lambda d: nadeau_bengio(d, 0.25)):
        np.testing.assert_allclose(other(unit).p_value, other(-unit).p_value, equal_nan=True)
