"""How good are predictions of one test set, and how good would a constant have been.

Sensitive is the positive class. What is undefined is NaN, and the caller says why; nothing is
replaced by 0. Arguments that could be confused are given by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

T = TypeVar("T", float, np.ndarray)

THRESHOLDED = ("macro_f1", "f1_sensitive", "f1_resistant", "mcc", "balanced_accuracy")
RANKING = ("auroc", "auprc_sensitive", "auprc_resistant")
PROBABILITY = ("brier", "ece")
METRICS = (*THRESHOLDED, *RANKING, *PROBABILITY)
SKILLS = tuple(f"skill_{name}" for name in METRICS if name != "ece")
"""No skill of ``ece``: a constant at the prevalence is perfectly calibrated."""

MIN_CELLS = 30
"""Fewest cells of each class for a metric over cells."""
MIN_GROUPS = 2
"""Fewest groups of each class for a metric over samples."""
CALIBRATION_BINS = 15

Key = tuple[str, str]
"""A metric and the threshold it is for: ``fixed``, ``tuned``, or ``""`` where there is none."""


def shortage_of_cells(n_sensitive: int, n_resistant: int) -> str:
    """Return why metrics over cells are not evaluable, or ``""``."""
    return _shortage(n_sensitive, n_resistant, MIN_CELLS, "cells")


def shortage_of_groups(n_sensitive: int, n_resistant: int) -> str:
    """Return why metrics over samples are not evaluable, or ``""``."""
    return _shortage(n_sensitive, n_resistant, MIN_GROUPS, "groups")


def _shortage(n_sensitive: int, n_resistant: int, least: int, unit: str) -> str:
    few = [
        f"{n} {label}"
        for n, label in ((n_sensitive, "sensitive"), (n_resistant, "resistant"))
        if n < least
    ]
    return f"not evaluable: {' and '.join(few)} {unit}, {least} needed" if few else ""


def confusion(*, truth: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Count calls that are right and wrong.

    Parameters
    ----------
    truth : (n,) bool
        True for sensitive.
    right : (n,) bool
        Whether the call was right; a cell without an answer is not.

    Returns
    -------
    (4,) int64
        Sensitive called sensitive, sensitive called resistant, resistant called sensitive,
        resistant called resistant.
    """
    truth, right = _flags(truth, "truth"), _flags(right, "right")
    return np.bincount(np.where(truth, 1 - right, 2 + right), minlength=4)


def thresholded_metrics(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics of calls.

    Parameters
    ----------
    counts : (..., 4) number
        As :func:`confusion` gives them. A constant predictor has a Matthews correlation of 0.

    Returns
    -------
    dict of str to (...) float64
        :data:`THRESHOLDED`; NaN where a class is absent.
    """
    tp, fn, fp, tn = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        recall_sensitive, recall_resistant = tp / (tp + fn), tn / (tn + fp)
        f1_sensitive, f1_resistant = 2 * tp / (2 * tp + fn + fp), 2 * tn / (2 * tn + fn + fp)
        scale = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
        mcc = np.where(scale > 0, (tp * tn - fp * fn) / scale, 0.0)
    both = (tp + fn > 0) & (tn + fp > 0)
    values = {
        "macro_f1": (f1_sensitive + f1_resistant) / 2,
        "f1_sensitive": f1_sensitive,
        "f1_resistant": f1_resistant,
        "mcc": mcc,
        "balanced_accuracy": (recall_sensitive + recall_resistant) / 2,
    }
    return {name: np.where(both, value, np.nan) for name, value in values.items()}


def ranking_metrics(*, truth: np.ndarray, p_sensitive: np.ndarray) -> dict[str, float]:
    """Return how well probabilities order the two classes.

    Parameters
    ----------
    truth : (n,) bool
        True for sensitive; both classes are there.
    p_sensitive : (n,) float
    """
    from sklearn import config_context
    from sklearn.metrics import average_precision_score, roc_auc_score

    truth = _flags(truth, "truth")
    # checking the arguments takes longer than the figures of a small dataset
    with config_context(assume_finite=True, skip_parameter_validation=True):
        return {
            "auroc": float(roc_auc_score(truth, p_sensitive)),
            "auprc_sensitive": float(average_precision_score(truth, p_sensitive)),
            "auprc_resistant": float(average_precision_score(~truth, -np.asarray(p_sensitive))),
        }


def probability_metrics(*, truth: np.ndarray, p_sensitive: np.ndarray) -> dict[str, float]:
    """Return the Brier score and the expected calibration error.

    Parameters
    ----------
    truth : (n,) bool
    p_sensitive : (n,) float
        In [0, 1].
    """
    truth = _flags(truth, "truth")
    p = np.asarray(p_sensitive, np.float64)
    value, code = np.unique(p, return_inverse=True)
    total = np.bincount(code).astype(np.float64)
    positive = np.bincount(code, truth)
    return {
        "brier": float(np.mean((p - truth) ** 2)),
        "ece": float(calibration_error(value, positive, total)),
    }


def calibration_bin(total: np.ndarray) -> np.ndarray:
    """Give each of some ascending values one of 15 bins of equal mass; equal values share one.

    Parameters
    ----------
    total : (..., B) float
        Number of cells at each value.

    Returns
    -------
    (..., B) int64
    """
    below = np.cumsum(total, -1) - total / 2
    share = below / np.maximum(total.sum(-1, keepdims=True), 1.0)  # counts are whole
    return np.minimum(share * CALIBRATION_BINS, CALIBRATION_BINS - 1).astype(np.int64)


def calibration_error(value: np.ndarray, positive: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return the expected calibration error over 15 bins of equal mass.

    Parameters
    ----------
    value : (B,) float64
        Distinct probabilities, ascending.
    positive, total : (..., B) float64
        Sensitive cells, and all cells, at each value.

    Returns
    -------
    (...) float64
        Mean over cells of the distance between mean probability and share of sensitive cells in
        a cell's bin.
    """
    excess = total * value - positive  # (..., B)
    rows = excess.reshape(-1, len(value))
    offset = CALIBRATION_BINS * np.arange(len(rows))[:, None]
    place = (calibration_bin(total).reshape(-1, len(value)) + offset).ravel()
    per_bin = np.bincount(place, rows.ravel(), CALIBRATION_BINS * len(rows))
    distance = np.abs(per_bin).reshape(-1, CALIBRATION_BINS).sum(1).reshape(excess.shape[:-1])
    with np.errstate(divide="ignore", invalid="ignore"):
        return distance / total.sum(-1)


def reliability(*, truth: np.ndarray, p_sensitive: np.ndarray) -> pd.DataFrame:
    """Return the table behind the calibration error, for a plot.

    Returns
    -------
    DataFrame
        One row per bin that holds cells: ``p_mean``, ``share_sensitive``, ``n``.
    """
    import pandas as pd

    p = np.asarray(p_sensitive, np.float64)
    code = np.unique(p, return_inverse=True)[1]
    place = calibration_bin(np.bincount(code).astype(np.float64))[code]
    cells = pd.DataFrame({"bin": place, "p": p, "truth": _flags(truth, "truth")})
    return (
        cells.groupby("bin")
        .agg(p_mean=("p", "mean"), share_sensitive=("truth", "mean"), n=("p", "size"))
        .reset_index(drop=True)
    )


def best_constant(
    metric: str, n_sensitive: np.ndarray | float, n_resistant: np.ndarray | float
) -> np.ndarray:
    """Return what the best constant predictor reaches on a test set of this make-up.

    It knows the make-up of the test set: the better of *always sensitive* and *always
    resistant* for calls, the prevalence for probabilities.

    Parameters
    ----------
    metric : str
        One of :data:`METRICS` but ``ece``.
    n_sensitive, n_resistant : (...) float
    """
    sensitive, resistant = np.broadcast_arrays(
        np.asarray(n_sensitive, np.float64), np.asarray(n_resistant, np.float64)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        share = sensitive / (sensitive + resistant)
    always = {
        "f1_sensitive": 2 * share / (1 + share),
        "f1_resistant": 2 * (1 - share) / (2 - share),
    }
    if metric in always:
        return always[metric]
    if metric == "macro_f1":
        return np.maximum(always["f1_sensitive"], always["f1_resistant"]) / 2
    constants = {
        "mcc": 0.0 * share,
        "balanced_accuracy": 0.5 + 0.0 * share,
        "auroc": 0.5 + 0.0 * share,
        "auprc_sensitive": share,
        "auprc_resistant": 1 - share,
        "brier": share * (1 - share),
    }
    return constants[metric]


def skill(
    metric: str,
    value: np.ndarray | float,
    n_sensitive: np.ndarray | float,
    n_resistant: np.ndarray | float,
) -> np.ndarray:
    """Return which part of the way from the best constant to perfection a value has gone.

    0 is no better than a constant, 1 is perfect, below 0 is worse than a constant.
    """
    trivial = best_constant(metric, n_sensitive, n_resistant)
    perfect = 0.0 if metric == "brier" else 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        return (value - trivial) / (perfect - trivial)


def with_skill(
    values: Mapping[Key, T], n_sensitive: np.ndarray | float, n_resistant: np.ndarray | float
) -> dict[Key, T | np.ndarray]:
    """Return metrics and, after each that has one, its skill."""
    both: dict[Key, T | np.ndarray] = {}
    for (metric, threshold), value in values.items():
        both[metric, threshold] = value
        if f"skill_{metric}" in SKILLS:
            both[f"skill_{metric}", threshold] = skill(metric, value, n_sensitive, n_resistant)
    return both


def _flags(values: np.ndarray, name: str) -> np.ndarray:
    """Refuse probabilities where a truth belongs: the arguments were swapped."""
    array = np.asarray(values)
    if array.dtype != bool:
        raise ValueError(f"{name} must be bool, not {array.dtype}: are the arguments swapped?")
    return array
