"""Score one test set at each level: cells, samples, and datasets with one vote each.

Where labelled samples are drawn several times, a figure is the mean over these draws: every cell is
then tested once per draw, and pooling the draws would compare probabilities of different trainings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from scdrugmap.evaluation.intervals import (
    MIN_GROUPS_FOR_INTERVAL,
    Resampling,
    draw_cell_metrics,
    draw_sample_metrics,
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
from scdrugmap.evaluation.sample_figures import Samples, sum_up_samples
from scdrugmap.evaluation.scores import Level, Score, TestCells, join_notes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

__all__ = ["Level", "Score", "TestCells", "cell_values", "measure_levels", "score_levels"]

_CELLS, _SAMPLES, _FIRST_DATASET = 1, 2, 3
"""Numbers of random streams; 0 belongs to the groups."""
_DRAW_STREAMS = 1_000_000
"""Streams of each draw of labelled samples: more than there are datasets."""


def score_levels(test: TestCells, *, draws: int, seed: int, macro: bool = True) -> list[Score]:
    """Return all metrics of a test set at all levels; arguments as :func:`measure_levels`."""
    levels = measure_levels(test, draws=draws, seed=seed, macro=macro)
    return [score for level in levels for score in level.scores()]


def measure_levels(
    test: TestCells,
    *,
    draws: int,
    seed: int,
    macro: bool = True,
    metrics: Collection[str] | None = None,
    cells_only: bool = False,
) -> list[Level]:
    """Return all metrics of a test set at all levels, and in every draw of the bootstrap.

    Parameters
    ----------
    test : TestCells
        In a fixed order: sums of floats depend on it in the last digit.
    draws : int
        Of the bootstrap; 0 for no intervals.
    seed : int
    macro : bool
        Intervals of means over datasets too, which cost as much as the datasets one by one.
    metrics : collection of str, optional
        Draw these only over cells and datasets; default: all.
    cells_only : bool
        Measure the first level only.
    """
    n_groups = len(np.unique(test.group))
    resampling, reason = None, ""
    if draws < 1:
        reason = "no interval asked for"
    elif n_groups < MIN_GROUPS_FOR_INTERVAL:
        reason = f"no interval: {n_groups} groups, {MIN_GROUPS_FOR_INTERVAL} needed"
    else:
        resampling = resample(test.group, test.study, draws=draws, seed=seed)
    levels = [_score_cells(test, resampling, reason, metrics)]
    if cells_only:
        return levels
    levels.append(_score_samples(test, resampling, reason))
    if len(np.unique(test.dataset)) > 1:
        if not macro:
            resampling, reason = None, reason or "no interval for single folds"
        levels.append(_score_datasets(test, resampling, reason, metrics))
    return levels


def _score_cells(
    test: TestCells, resampling: Resampling | None, reason: str, metrics: Collection[str] | None
) -> Level:
    parts = [_Part(rows, draw) for draw, rows in _draws(test)]
    found = _cell_parts(test, parts, resampling, metrics)
    if not found.values:
        shortage = _shortage_of_cells(test.take(parts[0].rows))
        return Level("cell", dict.fromkeys(_cell_keys(test), np.nan), {}, _size(test), shortage)
    note = join_notes(reason, found.over_draws(len(parts)))
    return Level("cell", found.means(), found.drawn_means(), _size(test), note)


def _score_samples(test: TestCells, resampling: Resampling | None, reason: str) -> Level:
    """Score samples with one vote each: by the mean probability, and two other summaries."""
    found, notes, shortages = _Found(), [], []
    size = (0, 0, 0)
    draws = list(_draws(test))
    for draw, rows in draws:
        part = test.take(rows)
        samples = sum_up_samples(part.dataset, part.sample, part.truth, part.p_sensitive)
        group = part.group[samples.first]
        truth = samples.truth
        size = max(size, (len(truth), int(truth.sum()), len(np.unique(group))))
        if samples.n_torn:
            notes.append(f"{samples.n_torn} samples with both labels left out")
        of_both = (len(np.unique(group[of])) for of in (truth, ~truth))
        shortage = shortage_of_groups(*of_both)
        if shortage:
            shortages.append(shortage)
            continue
        stream = _SAMPLES + _DRAW_STREAMS * draw * len(samples.summaries)
        found.add(*_sample_values(samples, rows[samples.first], resampling, stream))
    note = join_notes(*dict.fromkeys(notes))
    if not found.values:
        keys = dict.fromkeys(_sample_keys(), np.nan)
        return Level("sample", keys, {}, size, join_notes(shortages[0], note))
    note = join_notes(reason, note, found.over_draws(len(draws)))
    return Level("sample", found.means(), found.drawn_means(), size, note)


def _sample_values(
    samples: Samples,
    rows: np.ndarray,
    resampling: Resampling | None,
    stream: int,
) -> tuple[dict[Key, float], dict[Key, np.ndarray]]:
    """Return the metrics of each summary of the samples, and in every draw of the bootstrap."""
    values: dict[Key, float] = {}
    drawn: dict[Key, np.ndarray] = {}
    for number, (suffix, figure, error) in enumerate(samples.summaries):
        ranking = ranking_metrics(truth=samples.truth, p_sensitive=figure)
        own = {(metric, ""): value for metric, value in ranking.items()}
        again: Mapping[Key, np.ndarray] = {}
        if resampling is not None:
            again = draw_sample_metrics(
                resampling,
                resampling.group[rows],
                truth=samples.truth,
                p_mean=figure,
                p_error=error,
                stream=stream + _DRAW_STREAMS * number,
            )
        if suffix:
            key = ("auroc", "")
            values[f"auroc{suffix}", ""] = own[key]
            drawn |= {(f"auroc{suffix}", ""): again[key]} if again else {}
        else:
            values |= {k: float(v) for k, v in with_skill(own, *_both(samples.truth)).items()}
            drawn |= again
    return values, drawn


def _score_datasets(
    test: TestCells, resampling: Resampling | None, reason: str, metrics: Collection[str] | None
) -> Level:
    """Average the metrics over cells over the datasets, each with the same weight."""
    names, code = np.unique(test.dataset, return_inverse=True)
    draws = list(_draws(test))
    parts = [
        _Part(rows[code[rows] == number], draw, _FIRST_DATASET + number)
        for draw, rows in draws
        for number in range(len(names))
    ]
    found = _cell_parts(test, [part for part in parts if len(part.rows)], resampling, metrics)
    share = f"mean of {len(found.datasets)} of {len(names)} datasets"
    if not found.values:
        note = join_notes("not evaluable: no dataset is", share)
        keys = dict.fromkeys(_cell_keys(test), np.nan)
        return Level("dataset_macro", keys, {}, _size(test), note)
    over_draws = f"mean of {len(draws)} draws of labelled samples" * (len(draws) > 1)
    note = join_notes(share, over_draws, reason)
    return Level("dataset_macro", found.means(), found.drawn_means(), _size(test), note)


class _Part(NamedTuple):
    """Cells that are scored together: of one draw, and perhaps of one dataset."""

    rows: np.ndarray
    draw: int
    stream: int = _CELLS


@dataclass
class _Found:
    """The metrics of some parts of a test set, over which a figure is averaged."""

    values: list[dict[Key, float]] = field(default_factory=list)
    drawn: list[dict[Key, np.ndarray]] = field(default_factory=list)
    weights: list[np.ndarray] = field(default_factory=list)
    datasets: set[object] = field(default_factory=set)

    def add(self, values: dict[Key, float], drawn: dict[Key, np.ndarray]) -> None:
        self.values.append(values)
        if drawn:
            self.drawn.append(drawn)

    def means(self) -> dict[Key, float]:
        """Average over the parts."""
        return {key: float(np.mean([part[key] for part in self.values])) for key in self.values[0]}

    def drawn_means(self) -> dict[Key, np.ndarray]:
        """Average over the parts in every draw of the bootstrap, (draws,) each."""
        if len(self.drawn) < 2:
            return self.drawn[0] if self.drawn else {}
        weights = self.weights or [np.ones(len(next(iter(part.values())))) for part in self.drawn]
        return {
            key: _weighted_mean([part[key] for part in self.drawn], weights)
            for key in self.drawn[0]
        }

    def over_draws(self, n: int) -> str:
        """Say how many draws of labelled samples a figure rests on, and how far they differ."""
        if n < 2:
            return ""
        used = len(self.values)
        text = f"mean of {used} of {n} draws of labelled samples"
        auroc = [part["auroc", ""] for part in self.values]
        return text + (f", AUROC with standard deviation {np.std(auroc, ddof=1):.3f}" * (used > 1))


def _cell_parts(
    test: TestCells,
    parts: list[_Part],
    resampling: Resampling | None,
    metrics: Collection[str] | None,
) -> _Found:
    """Score the cells of each part; parts that are not evaluable are left out."""
    found = _Found()
    for rows, draw, stream in parts:
        part = test.take(rows)
        if _shortage_of_cells(part):
            continue
        drawn: dict[Key, np.ndarray] = {}
        if resampling is not None:
            drawn = draw_cell_metrics(
                resampling,
                rows,
                truth=part.truth,
                p_sensitive=part.p_sensitive,
                right=part.right,
                stream=stream + _DRAW_STREAMS * draw,
                metrics=metrics,
            )
            if stream >= _FIRST_DATASET:
                study = resampling.study_of_group[resampling.group[rows[0]]]
                found.weights.append(resampling.studies[:, study])
        found.add(cell_values(part), drawn)
        found.datasets.add(part.dataset[0])
    return found


def _draws(test: TestCells) -> Iterator[tuple[int, np.ndarray]]:
    """Give the positions of the cells of each draw of labelled samples."""
    for draw in np.unique(test.draw):
        yield int(draw), np.flatnonzero(test.draw == draw)


def _size(test: TestCells) -> tuple[int, int, int]:
    """Count cells, sensitive cells and groups; each cell once, however often it was tested."""
    n, n_sensitive = len(test), int(test.truth.sum())
    counts = np.bincount(test.draw)
    if (counts > 0).sum() > 1:
        most = test.take(np.flatnonzero(test.draw == counts.argmax()))
        n, n_sensitive = len(most), int(most.truth.sum())
    return n, n_sensitive, len(np.unique(test.group))


def _weighted_mean(values: list[np.ndarray], weights: list[np.ndarray]) -> np.ndarray:
    """Average over datasets in every draw; a study taken twice counts twice, (draws,)."""
    value, weight = np.stack(values), np.stack(weights).astype(np.float64)
    weight = np.where(np.isnan(value), 0.0, weight)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (np.nan_to_num(value) * weight).sum(0) / weight.sum(0)


def cell_values(test: TestCells) -> dict[Key, float]:
    """Return the metrics over cells, and their skills; both labels are there."""
    values: dict[Key, float] = {}
    for threshold, right in test.right.items():
        counts = confusion(truth=test.truth, right=right)
        for metric, value in thresholded_metrics(counts).items():
            values[metric, threshold] = float(value)
    for metrics in (ranking_metrics, probability_metrics):
        for metric, number in metrics(truth=test.truth, p_sensitive=test.p_sensitive).items():
            values[metric, ""] = number
    return {key: float(value) for key, value in with_skill(values, *_both(test.truth)).items()}


def _sample_keys() -> list[Key]:
    keys = list(with_skill({(metric, ""): np.nan for metric in RANKING}, 1, 1))
    return [*keys, ("auroc_trimmed_mean", ""), ("auroc_share_above", "")]


def _cell_keys(test: TestCells) -> list[Key]:
    keys = [(metric, threshold) for threshold in test.right for metric in THRESHOLDED]
    keys += [(metric, "") for metric in (*RANKING, *PROBABILITY)]
    return list(with_skill(dict.fromkeys(keys, np.nan), 1, 1))


def _shortage_of_cells(test: TestCells) -> str:
    return shortage_of_cells(*_both(test.truth))


def _both(truth: np.ndarray) -> tuple[int, int]:
    return int(truth.sum()), int((~truth).sum())
