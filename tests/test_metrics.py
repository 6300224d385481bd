"""Metrics of a test set, and of the best constant on it."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from scdrugmap.evaluation.metrics import (
    METRICS,
    SKILLS,
    best_constant,
    calibration_error,
    confusion,
    probability_metrics,
    ranking_metrics,
    reliability,
    shortage_of_cells,
    shortage_of_groups,
    skill,
    thresholded_metrics,
    with_skill,
)


def some_predictions(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.random(n) < 0.3
    return truth, np.round(np.clip(0.3 * truth + random.random(n) * 0.7, 0, 1), 2)


def calls(truth: np.ndarray, call: np.ndarray) -> dict[str, float]:
    values = thresholded_metrics(confusion(truth=truth, right=call == truth))
    return {name: float(value) for name, value in values.items()}


def test_confusion_counts_calls_by_truth() -> None:
    truth = np.array([True, True, True, False, False, False])
    right = np.array([True, True, False, True, False, False])
    assert confusion(truth=truth, right=right).tolist() == [2, 1, 2, 1]


def test_metrics_of_calls_equal_scikit_learn() -> None:
    truth, p = some_predictions()
    call = p >= 0.5
    expected = {
        "macro_f1": sk.f1_score(truth, call, average="macro"),
        "f1_sensitive": sk.f1_score(truth, call),
        "f1_resistant": sk.f1_score(~truth, ~call),
        "mcc": sk.matthews_corrcoef(truth, call),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, call),
    }
    assert calls(truth, call) == pytest.approx(expected, abs=1e-12)


def test_metrics_of_calls_work_on_many_tables_at_once() -> None:
    tables = np.array([[[5, 1, 2, 7], [3, 3, 3, 3]]])
    values = thresholded_metrics(tables)["mcc"]
    assert values.shape == (1, 2)
    assert values[0, 1] == 0


def test_metrics_of_calls_are_undefined_without_both_classes() -> None:
    for counts in ([4, 2, 0, 0], [0, 0, 1, 3]):
        assert all(np.isnan(value) for value in thresholded_metrics(np.array(counts)).values())


def test_order_metrics_equal_scikit_learn() -> None:
    truth, p = some_predictions()
    values = ranking_metrics(truth=truth, p_sensitive=p)
    assert values["auroc"] == sk.roc_auc_score(truth, p)
    assert values["auprc_sensitive"] == sk.average_precision_score(truth, p)
    assert values["auprc_resistant"] == pytest.approx(sk.average_precision_score(~truth, 1 - p))


def test_brier_score_equals_scikit_learn() -> None:
    truth, p = some_predictions()
    value = probability_metrics(truth=truth, p_sensitive=p)["brier"]
    assert value == pytest.approx(sk.brier_score_loss(truth, p), abs=1e-12)


def test_calibration_error_by_hand() -> None:
    # 15 cells in each of 2 values: bins of 2 cells; all cells of a value share a bin.
    p = np.repeat([0.2, 0.9], 15)
    truth = np.concatenate([np.arange(15) < 6, np.arange(15) < 12])
    expected = (abs(0.2 - 6 / 15) + abs(0.9 - 12 / 15)) / 2
    assert probability_metrics(truth=truth, p_sensitive=p)["ece"] == pytest.approx(expected)


def test_calibration_error_of_equal_probabilities_does_not_depend_on_order() -> None:
    truth, p = some_predictions()
    p = np.round(p, 1)
    order = np.random.default_rng(1).permutation(len(p))
    one, other = (
        probability_metrics(truth=t, p_sensitive=q)["ece"]
        for t, q in ((truth, p), (truth[order], p[order]))
    )
    assert one == pytest.approx(other, abs=1e-15)


def test_calibration_error_of_many_tables_equals_one_by_one() -> None:
    random = np.random.default_rng(0)
    value, total = np.linspace(0, 1, 40), random.integers(0, 9, (5, 40)).astype(float)
    positive = random.binomial(total.astype(int), value).astype(float)
    together = calibration_error(value, positive, total)
    alone = [float(calibration_error(value, positive[i], total[i])) for i in range(5)]
    assert together.tolist() == pytest.approx(alone)


def test_perfectly_calibrated_predictions_have_no_error() -> None:
    p = np.repeat([0.25, 0.75], 100)
    truth = np.concatenate([np.arange(100) < 25, np.arange(100) < 75])
    assert probability_metrics(truth=truth, p_sensitive=p)["ece"] == pytest.approx(0, abs=1e-12)


def test_reliability_table_is_what_the_error_is_made_of() -> None:
    truth, p = some_predictions(1000)
    table = reliability(truth=truth, p_sensitive=p)
    distance = (table["p_mean"] - table["share_sensitive"]).abs()
    expected = float((distance * table["n"]).sum() / table["n"].sum())
    assert probability_metrics(truth=truth, p_sensitive=p)["ece"] == pytest.approx(expected)
    assert len(table) == 15
    assert table["n"].sum() == 1000


@pytest.mark.parametrize(
    ("share", "always_f1", "macro"),
    [  # protocol: F1 of always sensitive, and the best macro-F1 of a constant
        (0.527, 0.690, 0.345),
        (0.419, 0.590, 0.368),
        (0.631, 0.774, 0.387),
        (0.114, 0.204, 0.470),
        (0.860, 0.924, 0.462),
        (0.417, 0.589, 0.368),
    ],
)
def test_constant_reproduces_the_published_trivial_figures(
    share: float, always_f1: float, macro: float
) -> None:
    assert best_constant("f1_sensitive", share, 1 - share) == pytest.approx(always_f1, abs=1.1e-3)
    assert best_constant("macro_f1", share, 1 - share) == pytest.approx(macro, abs=1.1e-3)


def test_constant_predictor_by_hand() -> None:
    truth = np.arange(100) < 30
    resistant = np.zeros(100, bool)
    got = calls(truth, resistant)
    assert got["macro_f1"] == pytest.approx((2 * 70 / (2 * 70 + 30)) / 2)
    assert got["f1_sensitive"] == 0
    assert got["mcc"] == 0
    assert got["balanced_accuracy"] == 0.5
    ranking = ranking_metrics(truth=truth, p_sensitive=np.full(100, 0.3))
    assert ranking == pytest.approx({"auroc": 0.5, "auprc_sensitive": 0.3, "auprc_resistant": 0.7})


def test_best_constant_has_no_skill() -> None:
    truth = np.arange(100) < 30
    p = np.full(100, 0.3)
    values = {
        (name, ""): value
        for part in (
            calls(truth, p >= 0.5),
            ranking_metrics(truth=truth, p_sensitive=p),
            probability_metrics(truth=truth, p_sensitive=p),
        )
        for name, value in part.items()
    }
    skills = with_skill(values, 30, 70)
    for name in SKILLS:
        if name != "skill_f1_sensitive":  # its best constant is the other one
            assert skills[name, ""] == pytest.approx(0, abs=1e-12), name


def test_perfect_predictions_have_full_skill_and_wrong_ones_less_than_none() -> None:
    for name in METRICS:
        if name != "ece":
            perfect, bad = (0.0, 1.0) if name == "brier" else (1.0, 0.0)
            assert skill(name, perfect, 30, 70) == pytest.approx(1)
            assert skill(name, bad, 30, 70) <= 0


def test_there_is_a_skill_of_every_metric_but_calibration() -> None:
    assert set(METRICS) - {name.removeprefix("skill_") for name in SKILLS} == {"ece"}


def test_truth_and_call_are_not_interchangeable() -> None:
    truth = np.array([True] * 6 + [False] * 4)
    call = np.array([True] * 2 + [False] * 8)
    assert calls(truth, call)["balanced_accuracy"] == pytest.approx((2 / 6 + 1) / 2)
    assert calls(call, truth)["balanced_accuracy"] == pytest.approx((1 + 4 / 8) / 2)
    assert calls(truth, call)["f1_sensitive"] == calls(call, truth)["f1_sensitive"]


def test_swapped_arguments_are_noticed() -> None:
    truth, p = some_predictions()
    with pytest.raises(ValueError, match="are the arguments swapped"):
        ranking_metrics(truth=p, p_sensitive=truth)
    with pytest.raises(ValueError, match="are the arguments swapped"):
        probability_metrics(truth=p, p_sensitive=truth)


def test_shortage_names_what_is_missing() -> None:
    assert shortage_of_cells(30, 30) == ""
    assert shortage_of_cells(29, 40) == "not evaluable: 29 sensitive cells, 30 needed"
    assert "3 sensitive and 0 resistant cells" in shortage_of_cells(3, 0)
    assert shortage_of_groups(2, 2) == ""
    assert shortage_of_groups(2, 1) == "not evaluable: 1 resistant groups, 2 needed"
