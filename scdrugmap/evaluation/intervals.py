"""How much a figure would move with other patients: a bootstrap of studies, groups and cells.

A draw takes studies with replacement, then groups within each study taken, then cells. The cells of
the groups taken are one weighted sum of histograms, and taking cells anew is one multinomial over
its bins, so that a draw costs the same for a thousand cells and for a million. Bins hold equal
numbers of cells; up to 1,000 distinct probabilities nothing is rounded at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from scdrugmap.evaluation.metrics import (
    Key,
    calibration_error,
    thresholded_metrics,
    with_skill,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

BINS = 1000
MIN_GROUPS_FOR_INTERVAL = 5
CONFIDENCE = 0.95
_DRAWS_AT_ONCE = 100  # bounds memory: this many rows of all bins


@dataclass(frozen=True)
class Resampling:
    """How often each group and study of a test set is taken in each draw.

    Attributes
    ----------
    group : (n,) int64
        Group of each cell.
    groups : (draws, G) int64
    studies : (draws, S) int64
    study_of_group : (G,) int64
    seed : int
        Of the cells; the groups taken are the same for every model with the same test cells.
    """

    group: np.ndarray
    groups: np.ndarray
    studies: np.ndarray
    study_of_group: np.ndarray
    seed: int

    def generator(self, stream: int) -> np.random.Generator:
        """Return a generator of its own for one use."""
        return np.random.default_rng([self.seed, stream])


def resample(group: np.ndarray, study: np.ndarray, *, draws: int, seed: int) -> Resampling:
    """Take studies, and groups within them, with replacement.

    Parameters
    ----------
    group, study : (n,) object str
        Of each cell. A group that reaches into several studies counts for the first.
    draws : int
    seed : int
        Not negative.
    """
    _, of_cell = np.unique(group, return_inverse=True)
    _, study_of_cell = np.unique(study, return_inverse=True)
    study_of_group = np.full(of_cell.max() + 1, study_of_cell.max())
    np.minimum.at(study_of_group, of_cell, study_of_cell)
    present, study_of_group = np.unique(study_of_group, return_inverse=True)
    random = np.random.default_rng([seed, 0])
    n_studies = len(present)
    studies = random.multinomial(n_studies, np.full(n_studies, 1 / n_studies), size=draws)
    groups = np.zeros((draws, len(study_of_group)), np.int64)
    for number in range(n_studies):
        members = np.flatnonzero(study_of_group == number)
        share = np.full(len(members), 1 / len(members))
        groups[:, members] = random.multinomial(studies[:, number] * len(members), share)
    return Resampling(of_cell, groups, studies, study_of_group, seed)


def draw_cell_metrics(
    resampling: Resampling,
    rows: np.ndarray,
    *,
    truth: np.ndarray,
    p_sensitive: np.ndarray,
    right: Mapping[str, np.ndarray],
    stream: int = 1,
    metrics: Collection[str] | None = None,
) -> dict[Key, np.ndarray]:
    """Return the metrics over cells in every draw.

    Parameters
    ----------
    resampling : Resampling
    rows : (m,) int64
        Positions of the cells to use; the other arguments hold these cells only.
    truth : (m,) bool
    p_sensitive : (m,) float64
    right : mapping of str to (m,) bool
        For each threshold whether the call was right.
    stream : int
        Number of the random stream for the cells.
    metrics : collection of str, optional
        Draw these only, without their skill; default: all. The draws are the same.

    Returns
    -------
    dict of Key to (draws,) float64
        NaN where a draw lacks a class.
    """
    from scipy.sparse import csr_matrix

    place, value = _bins(p_sensitive)
    kind = place * 2 + truth
    for flags in right.values():
        kind = kind * 2 + flags
    _, first, column = np.unique(kind, return_index=True, return_inverse=True)
    n_columns, n_groups = len(first), resampling.groups.shape[1]
    ones = np.ones(len(rows))
    per_group = csr_matrix((ones, (column, resampling.group[rows])), shape=(n_columns, n_groups))
    size = np.bincount(column)
    squared_error = np.bincount(column, (p_sensitive - truth) ** 2) / size
    is_sensitive = truth[first]
    columns = [np.flatnonzero(chosen) for chosen in (is_sensitive, ~is_sensitive)]
    cell_of_confusion = {
        name: np.eye(4)[np.where(is_sensitive, 1 - flags[first], 2 + flags[first])]
        for name, flags in right.items()
    }
    random = resampling.generator(stream)
    parts: list[dict[Key, np.ndarray]] = []
    for begin in range(0, len(resampling.groups), _DRAWS_AT_ONCE):
        weight = resampling.groups[begin : begin + _DRAWS_AT_ONCE]
        drawn = draw_counts((per_group @ weight.T).T, random)  # (draws, columns)
        positive, negative = (_by_bin(drawn, of, place[first], len(value)) for of in columns)
        values: dict[Key, np.ndarray] = {}
        for name, cell in cell_of_confusion.items():
            for metric, result in thresholded_metrics(drawn @ cell).items():
                values[metric, name] = result
        auroc_alone = metrics is not None and not any("auprc" in name for name in metrics)
        ranked = _auroc if auroc_alone else _ranking
        for metric, result in ranked(positive, negative).items():
            values[metric, ""] = result
        total = positive + negative
        both = (positive.sum(1) > 0) & (negative.sum(1) > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            values["brier", ""] = drawn @ squared_error / drawn.sum(1)
        if metrics is None or "ece" in metrics:
            values["ece", ""] = calibration_error(value, positive, total)
        for metric in ("brier", "ece"):
            if (metric, "") in values:
                values[metric, ""] = np.where(both, values[metric, ""], np.nan)
        if metrics is None:
            parts.append(with_skill(values, positive.sum(1), negative.sum(1)))
        else:
            parts.append({key: drawn for key, drawn in values.items() if key[0] in metrics})
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def draw_sample_metrics(
    resampling: Resampling,
    group: np.ndarray,
    *,
    truth: np.ndarray,
    p_mean: np.ndarray,
    p_error: np.ndarray,
    stream: int = 2,
) -> dict[Key, np.ndarray]:
    """Return the metrics over samples in every draw.

    Taking a sample's cells anew moves its mean by about its standard error.

    Parameters
    ----------
    resampling : Resampling
    group : (s,) int64
        Group of each sample.
    truth : (s,) bool
    p_mean, p_error : (s,) float64
        Mean probability of a sample's cells and its standard error.
    stream : int
        Number of the random stream.

    Returns
    -------
    dict of Key to (draws,) float64
    """
    weight = resampling.groups[:, group].astype(np.float64)  # (draws, s)
    noise = resampling.generator(stream).standard_normal(weight.shape)
    mean = np.clip(p_mean + p_error * noise, 0.0, 1.0)
    order = np.argsort(mean, axis=1, kind="stable")
    mean = np.take_along_axis(mean, order, 1)
    positive, negative = (
        _merge_ties(mean, np.take_along_axis(weight * chosen, order, 1))
        for chosen in (truth, ~truth)
    )
    ranking = {(metric, ""): value for metric, value in _ranking(positive, negative).items()}
    return with_skill(ranking, positive.sum(1), negative.sum(1))


class Interval(NamedTuple):
    """A 95 % interval, or NaN and the reason."""

    low: float
    high: float
    note: str = ""


def percentile_interval(values: np.ndarray) -> Interval:
    """Return the middle 95 % of the draws in which the metric is defined.

    Parameters
    ----------
    values : (draws,) float64
    """
    defined = values[np.isfinite(values)]
    if 2 * len(defined) < len(values):
        note = f"no interval: defined in {len(defined):,} of {len(values):,} draws"
        return Interval(np.nan, np.nan, note)
    low, high = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    part = len(defined) < len(values)
    note = f"interval from {len(defined):,} of {len(values):,} draws" if part else ""
    return Interval(float(low), float(high), note)


def _bins(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the bin of each probability and the mean probability of each bin, ascending."""
    value, place = np.unique(p, return_inverse=True)
    if len(value) > BINS:
        edges = np.unique(np.quantile(p, np.linspace(0, 1, BINS + 1)))
        place = np.minimum(np.searchsorted(edges, p, side="right") - 1, len(edges) - 2)
        _, place = np.unique(place, return_inverse=True)
        value = np.bincount(place, p) / np.bincount(place)
    return place, value


def _by_bin(drawn: np.ndarray, columns: np.ndarray, place: np.ndarray, n_bins: int) -> np.ndarray:
    """Add up the columns of one label that lie in one bin, (draws, bins).

    Columns are sorted by bin, and nearly all bins have one column of a label.
    """
    found = np.zeros((len(drawn), n_bins))
    if len(columns):
        bins, start = np.unique(place[columns], return_index=True)
        kept = drawn[:, columns]
        found[:, bins] = kept if len(bins) == len(columns) else np.add.reduceat(kept, start, axis=1)
    return found


def draw_counts(counts: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Take as many cells as there are, with replacement, in every row.

    Parameters
    ----------
    counts : (draws, K) number
        Cells of each kind among the groups taken.
    random : Generator

    Returns
    -------
    (draws, K) float64
    """
    total = counts.sum(1)
    safe = np.maximum(total, 1)[:, None]
    share = np.where(total[:, None] > 0, counts / safe, 1 / counts.shape[1])
    return random.multinomial(total.astype(np.int64), share).astype(np.float64)


def _auroc(positive: np.ndarray, negative: np.ndarray) -> dict[str, np.ndarray]:
    """Return the first metric of :func:`_ranking` only."""
    n_positive, n_negative = positive.sum(-1), negative.sum(-1)
    below = np.cumsum(negative, -1) - negative / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        value = (positive * below).sum(-1) / (n_positive * n_negative)
    return {"auroc": np.where((n_positive > 0) & (n_negative > 0), value, np.nan)}


def _ranking(positive: np.ndarray, negative: np.ndarray) -> dict[str, np.ndarray]:
    """Return the ranking metrics of histograms over ascending values, (..., B) each."""
    n_positive, n_negative = positive.sum(-1), negative.sum(-1)
    at_most_positive, at_most_negative = np.cumsum(positive, -1), np.cumsum(negative, -1)
    at_least_positive = n_positive[..., None] - at_most_positive + positive
    at_least_negative = n_negative[..., None] - at_most_negative + negative
    # counts are whole: where there is none, 0 / 1 stands for 0 / 0
    precision = at_least_positive / np.maximum(at_least_positive + at_least_negative, 1.0)
    precision_below = at_most_negative / np.maximum(at_most_negative + at_most_positive, 1.0)
    ordered = (positive * (at_most_negative - negative / 2)).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = {
            "auroc": ordered / (n_positive * n_negative),
            "auprc_sensitive": (positive * precision).sum(-1) / n_positive,
            "auprc_resistant": (negative * precision_below).sum(-1) / n_negative,
        }
    both = (n_positive > 0) & (n_negative > 0)
    return {name: np.where(both, value, np.nan) for name, value in values.items()}


def _merge_ties(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Put the weight of equal values, which stand side by side in a row, on the last of them."""
    last = np.ones(values.shape, bool)
    last[:, :-1] = values[:, 1:] != values[:, :-1]
    up_to = np.cumsum(weight, 1)
    before = np.zeros_like(up_to)
    before[:, 1:] = np.maximum.accumulate(np.where(last, up_to, 0), axis=1)[:, :-1]
    return np.where(last, up_to - before, 0.0)
