"""Score one test set at each level: cells, samples, and datasets with one vote each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.evaluation.intervals import (
    MIN_GROUPS_FOR_INTERVAL,
    Interval,
    Resampling,
    draw_cell_metrics,
    draw_sample_metrics,
    percentile_interval,
    resample,
)
from scdrugmap.evaluation.metrics import (
    PROBABILITY,
    RANKING,
    THRESHOLDED,
    Key,
    confusion,
    probability_metrics,
    ranking_metrics,
    shortage_of_cells,
    shortage_of_groups,
    thresholded_metrics,
    with_skill,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_FIRST_DATASET_STREAM = 3  # random streams 0 to 2 belong to groups, cells and samples


@dataclass(frozen=True)
class TestCells:
    """Predictions of the cells of one test set beside the truth.

    Attributes
    ----------
    truth : (n,) bool
        True for sensitive.
    p_sensitive : (n,) float64
        0.5 for cells without an answer.
    right : dict of str to (n,) bool
        For each threshold (``fixed``, ``tuned``) whether the call was right; a cell without an
        answer is wrong.
    dataset, sample, group, study : (n,) object str
    """

    __test__ = False  # no test case, whatever its name

    truth: np.ndarray
    p_sensitive: np.ndarray
    right: dict[str, np.ndarray]
    dataset: np.ndarray
    sample: np.ndarray
    group: np.ndarray
    study: np.ndarray

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, rows: np.ndarray) -> TestCells:
        """Return some of the cells."""
        return TestCells(
            self.truth[rows],
            self.p_sensitive[rows],
            {name: flags[rows] for name, flags in self.right.items()},
            self.dataset[rows],
            self.sample[rows],
            self.group[rows],
            self.study[rows],
        )


@dataclass(frozen=True)
class Score:
    """One figure with its interval and what it rests on."""

    level: str
    metric: str
    threshold: str
    value: float
    ci_low: float
    ci_high: float
    n: int
    n_sensitive: int
    n_groups: int
    note: str


def score_levels(test: TestCells, *, draws: int, seed: int) -> list[Score]:
    """Return all metrics of a test set at all levels.

    Parameters
    ----------
    test : TestCells
        In a fixed order: sums of floats depend on it in the last digit.
    draws : int
        Of the bootstrap; 0 for no intervals.
    seed : int
    """
    n_groups = len(np.unique(test.group))
    resampling, reason = None, ""
    if draws < 1:
        reason = "no interval asked for"
    elif n_groups < MIN_GROUPS_FOR_INTERVAL:
        reason = f"no interval: {n_groups} groups, {MIN_GROUPS_FOR_INTERVAL} needed"
    else:
        resampling = resample(test.group, test.study, draws=draws, seed=seed)
    scores = [*_score_cells(test, resampling, reason), *_score_samples(test, resampling, reason)]
    if len(np.unique(test.dataset)) > 1:
        scores += _score_datasets(test, resampling, reason)
    return scores


def _score_cells(test: TestCells, resampling: Resampling | None, reason: str) -> Iterable[Score]:
    size = (len(test), int(test.truth.sum()), len(np.unique(test.group)))
    shortage = _shortage_of_cells(test)
    if shortage:
        return _scores("cell", dict.fromkeys(_cell_keys(test), np.nan), {}, size, shortage)
    drawn: dict[Key, np.ndarray] = {}
    if resampling is not None:
        drawn = draw_cell_metrics(
            resampling,
            np.arange(len(test)),
            truth=test.truth,
            p_sensitive=test.p_sensitive,
            right=test.right,
        )
    return _scores("cell", _cell_values(test), drawn, size, reason)


def _score_samples(test: TestCells, resampling: Resampling | None, reason: str) -> Iterable[Score]:
    """Score the mean probability of each sample, one vote per sample."""
    dataset, name = (np.unique(of, return_inverse=True)[1] for of in (test.dataset, test.sample))
    _, first, sample = np.unique(
        dataset * (name.max() + 1) + name, return_index=True, return_inverse=True
    )
    n_cells = np.bincount(sample)
    share = np.bincount(sample, test.truth) / n_cells
    pure = (share == 0) | (share == 1)
    mean = np.bincount(sample, test.p_sensitive) / n_cells
    variance = np.bincount(sample, (test.p_sensitive - mean[sample]) ** 2) / n_cells
    truth = share[pure] == 1
    group = test.group[first][pure]
    torn = int((~pure).sum())
    notes = [f"{torn} samples with both labels left out" * (torn > 0)]
    size = (len(truth), int(truth.sum()), len(np.unique(group)))
    shortage = shortage_of_groups(len(np.unique(group[truth])), len(np.unique(group[~truth])))
    if shortage:
        keys = list(with_skill({(metric, ""): np.nan for metric in RANKING}, 1, 1))
        note = _join(shortage, *notes)
        return _scores("sample", dict.fromkeys(keys, np.nan), {}, size, note)
    ranking = ranking_metrics(truth=truth, p_sensitive=mean[pure])
    values = with_skill({(metric, ""): value for metric, value in ranking.items()}, *_both(truth))
    drawn: dict[Key, np.ndarray] = {}
    if resampling is not None:
        drawn = draw_sample_metrics(
            resampling,
            resampling.group[first][pure],
            truth=truth,
            p_mean=mean[pure],
            p_error=np.sqrt(variance / n_cells)[pure],
        )
    return _scores("sample", values, drawn, size, _join(reason, *notes))


def _score_datasets(test: TestCells, resampling: Resampling | None, reason: str) -> Iterable[Score]:
    """Average the metrics over cells over the datasets, each with the same weight."""
    names = np.unique(test.dataset)
    values: list[dict[Key, float]] = []
    drawn: list[dict[Key, np.ndarray]] = []
    weights: list[np.ndarray] = []
    for number, name in enumerate(names):
        rows = np.flatnonzero(test.dataset == name)
        part = test.take(rows)
        if _shortage_of_cells(part):
            continue
        values.append(_cell_values(part))
        if resampling is None:
            continue
        weights.append(resampling.studies[:, resampling.study_of_group[resampling.group[rows[0]]]])
        drawn.append(
            draw_cell_metrics(
                resampling,
                rows,
                truth=part.truth,
                p_sensitive=part.p_sensitive,
                right=part.right,
                stream=_FIRST_DATASET_STREAM + number,
            )
        )
    size = (len(test), int(test.truth.sum()), len(np.unique(test.group)))
    keys = _cell_keys(test)
    share = f"mean of {len(values)} of {len(names)} datasets"
    if not values:
        note = _join("not evaluable: no dataset is", share)
        return _scores("dataset_macro", dict.fromkeys(keys, np.nan), {}, size, note)
    means = {key: float(np.mean([part[key] for part in values])) for key in keys}
    drawn_means = {
        key: _weighted_mean([part[key] for part in drawn], weights) for key in keys if drawn
    }
    return _scores("dataset_macro", means, drawn_means, size, _join(share, reason))


def _weighted_mean(values: list[np.ndarray], weights: list[np.ndarray]) -> np.ndarray:
    """Average over datasets in every draw; a study taken twice counts twice, (draws,)."""
    value, weight = np.stack(values), np.stack(weights).astype(np.float64)
    weight = np.where(np.isnan(value), 0.0, weight)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (np.nan_to_num(value) * weight).sum(0) / weight.sum(0)


def _cell_values(test: TestCells) -> dict[Key, float]:
    values: dict[Key, float] = {}
    for threshold, right in test.right.items():
        counts = confusion(truth=test.truth, right=right)
        for metric, value in thresholded_metrics(counts).items():
            values[metric, threshold] = float(value)
    for metrics in (ranking_metrics, probability_metrics):
        for metric, number in metrics(truth=test.truth, p_sensitive=test.p_sensitive).items():
            values[metric, ""] = number
    return {key: float(value) for key, value in with_skill(values, *_both(test.truth)).items()}


def _cell_keys(test: TestCells) -> list[Key]:
    keys = [(metric, threshold) for threshold in test.right for metric in THRESHOLDED]
    keys += [(metric, "") for metric in (*RANKING, *PROBABILITY)]
    return list(with_skill(dict.fromkeys(keys, np.nan), 1, 1))


def _shortage_of_cells(test: TestCells) -> str:
    return shortage_of_cells(*_both(test.truth))


def _both(truth: np.ndarray) -> tuple[int, int]:
    return int(truth.sum()), int((~truth).sum())


def _scores(
    level: str,
    values: Mapping[Key, float | np.ndarray],
    drawn: Mapping[Key, np.ndarray],
    size: tuple[int, int, int],
    note: str,
) -> Iterable[Score]:
    for (metric, threshold), value in values.items():
        interval = Interval(np.nan, np.nan)
        if (metric, threshold) in drawn:
            interval = percentile_interval(drawn[metric, threshold])
        yield Score(
            level,
            metric,
            threshold,
            float(value),
            interval.low,
            interval.high,
            *size,
            _join(note, interval.note),
        )


def _join(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
