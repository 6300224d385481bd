"""Do sets of labels keep their promise: how often they hold the truth, and how large they are.

A conformal set at level 0.9 should hold the label of 90 % of the cells of new groups. One that always
holds both labels does so and says nothing: coverage is read beside the mean size, 1 at best.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from scdrugmap.evaluation.intervals import (
    MIN_GROUPS_FOR_INTERVAL,
    Interval,
    Resampling,
    draw_counts,
    percentile_interval,
    resample,
)
from scdrugmap.evaluation.metrics import MIN_CELLS, MIN_GROUPS
from scdrugmap.evaluation.scores import join_notes
from scdrugmap.evaluation.table_rules import LABEL_SETS, SET, SET_LEVEL

if TYPE_CHECKING:
    from scdrugmap.evaluation.scores import TestCells

COVERAGE, SIZE = "set_coverage", "set_size"
SET_METRICS = (COVERAGE, f"{COVERAGE}_sensitive", f"{COVERAGE}_resistant", SIZE)

_CELLS, _SAMPLES, _FIRST_DATASET = 5, 6, 7  # random streams that no other metric uses
_STREAMS = 1_000_000  # of each level: more than there are datasets
_KINDS = len(LABEL_SETS)
_SIZES = np.array([1.0, 1.0, 2.0, 0.0])  # of LABEL_SETS, in their order


class _Figures(NamedTuple):
    """A metric at one level of the bootstrap and one level of the sets."""

    value: float
    drawn: np.ndarray | None
    n: int
    n_sensitive: int
    shortage: str


def score_sets(
    cells: pd.DataFrame, test: TestCells, *, draws: int, seed: int, macro: bool = True
) -> Iterator[dict[str, Any]]:
    """Give coverage and size of the sets of a test set: over cells, samples and datasets.

    Cells without a set (no answer, or a predictor without validation cells) are left out and
    counted. Samples, and datasets, have one vote each.

    Parameters
    ----------
    cells : DataFrame
        As :func:`~scdrugmap.evaluation.answers.beside_truth` gives them; without sets there are no
        figures.
    test : TestCells
        The same cells.
    draws, seed : int
        Of the bootstrap.
    macro : bool
        Intervals of means over datasets too.

    Yields
    ------
    dict
        level, metric, threshold (the level of the sets), value, ci_low, ci_high, n, n_sensitive,
        n_groups, note.
    """
    if SET not in cells:
        return
    code = pd.Categorical(cells[SET], categories=LABEL_SETS).codes.astype(np.int64)
    level = cells[SET_LEVEL].to_numpy(np.float64)
    for number, at in enumerate(np.unique(level[code >= 0])):
        rows = np.flatnonzero((code >= 0) & (level == at))
        part = test.take(rows)
        without = int((level != at).sum())
        note = f"{without:,} cells without such a set left out" * bool(without)
        scored = _Scored(part, code[rows], number * _STREAMS, draws, seed)
        n_datasets = len(np.unique(part.dataset))
        for name, figures, said in (
            ("cell", scored.of_cells(), ""),
            ("sample", scored.of_samples(), "each sample has one vote"),
            *(
                [
                    (
                        "dataset_macro",
                        scored.of_datasets(macro=macro),
                        f"mean of {n_datasets} datasets",
                    )
                ]
                if n_datasets > 1
                else []
            ),
        ):
            for metric, found in figures.items():
                interval = Interval(np.nan, np.nan)
                if found.drawn is not None and not found.shortage:
                    interval = percentile_interval(found.drawn)
                skipped = name == "dataset_macro" and not macro and not scored.reason
                reason = "no interval for single folds" if skipped else scored.reason
                yield {
                    "level": name,
                    "metric": metric,
                    "threshold": float(at),
                    "value": np.nan if found.shortage else found.value,
                    "ci_low": interval.low,
                    "ci_high": interval.high,
                    "n": found.n,
                    "n_sensitive": found.n_sensitive,
                    "n_groups": len(np.unique(part.group)),
                    "note": join_notes(
                        found.shortage or said,
                        "" if found.shortage else reason,
                        interval.note,
                        note,
                    ),
                }


class _Scored:
    """Cells with sets of one level, and the groups that the bootstrap takes."""

    def __init__(
        self, test: TestCells, code: np.ndarray, stream: int, draws: int, seed: int
    ) -> None:
        self._test, self._code, self._stream = test, code, stream
        self._kind = code + _KINDS * test.truth
        self._resampling: Resampling | None = None
        n_groups = len(np.unique(test.group))
        self.reason = ""
        if draws < 1:
            self.reason = "no interval asked for"
        elif n_groups < MIN_GROUPS_FOR_INTERVAL:
            self.reason = f"no interval: {n_groups} groups, {MIN_GROUPS_FOR_INTERVAL} needed"
        else:
            self._resampling = resample(test.group, test.study, draws=draws, seed=seed)

    def of_cells(self) -> dict[str, _Figures]:
        """Score each cell alike."""
        return self._of_rows(np.arange(len(self._code)), _CELLS)

    def of_datasets(self, *, macro: bool) -> dict[str, _Figures]:
        """Score each dataset alike."""
        if not macro:
            plain = _Scored(self._test, self._code, self._stream, 0, 0)
            return plain.of_datasets(macro=True)
        parts = []
        for number, name in enumerate(np.unique(self._test.dataset)):
            rows = np.flatnonzero(self._test.dataset == name)
            parts.append((rows, self._of_rows(rows, _FIRST_DATASET + number)))
        found = {}
        for metric in SET_METRICS:
            known = [(rows, one[metric]) for rows, one in parts if not one[metric].shortage]
            shortage = "" if known else "not evaluable: no dataset is"
            value = float(np.mean([one.value for _, one in known])) if known else np.nan
            drawn = None
            if known and self._resampling is not None:
                taken = self._resampling
                weight = np.stack(
                    [
                        taken.studies[:, taken.study_of_group[taken.group[rows[0]]]]
                        for rows, _ in known
                    ]
                ).astype(np.float64)
                values = np.stack([one.drawn for _, one in known if one.drawn is not None])
                drawn = _weighted_mean(values, weight)
            n_sensitive = int(self._test.truth.sum())
            found[metric] = _Figures(value, drawn, len(self._code), n_sensitive, shortage)
        return found

    def of_samples(self) -> dict[str, _Figures]:
        """Score each sample alike: by the share of its cells, and their mean size."""
        test = self._test
        _, first, sample = np.unique(
            test.dataset * (test.sample.max() + 1) + test.sample,
            return_index=True,
            return_inverse=True,
        )
        covered, size = _covered(self._code, test.truth), _SIZES[self._code]
        weight = noise = None
        if self._resampling is not None:
            weight = self._resampling.groups[:, self._resampling.group[first]].astype(np.float64)
            generator = self._resampling.generator(self._stream + _SAMPLES)
            noise = generator.standard_normal(weight.shape)
        found = {}
        for metric, chosen, value in (
            (SET_METRICS[0], np.ones(len(test), bool), covered),
            (SET_METRICS[1], test.truth, covered),
            (SET_METRICS[2], ~test.truth, covered),
            (SIZE, np.ones(len(test), bool), size),
        ):
            n = np.bincount(sample[chosen], minlength=len(first))
            n_groups = len(np.unique(test.group[chosen]))
            shortage = (
                f"not evaluable: {n_groups} groups, {MIN_GROUPS} needed"
                if n_groups < MIN_GROUPS
                else ""
            )
            there = n > 0
            total = np.bincount(sample[chosen], value[chosen], len(first))[there]
            mean = total / n[there]
            squares = np.bincount(sample[chosen], value[chosen] ** 2, len(first))[there]
            error = np.sqrt(np.maximum(squares / n[there] - mean**2, 0) / n[there])
            drawn = None
            if weight is not None and noise is not None:
                drawn = _weighted_mean((mean + error * noise[:, there]).T, weight[:, there].T)
            average = float(mean.mean()) if len(mean) else np.nan
            n_sensitive = int((there & test.truth[first]).sum())
            found[metric] = _Figures(average, drawn, int(there.sum()), n_sensitive, shortage)
        return found

    def _of_rows(self, rows: np.ndarray, stream: int) -> dict[str, _Figures]:
        kind = self._kind[rows]
        counts = np.bincount(kind, minlength=2 * _KINDS)
        values = _of_counts(counts.astype(np.float64))
        n, n_sensitive = _sizes(counts), _sizes(counts * _ALL_TRUTHS)
        drawn: dict[str, np.ndarray] = {}
        if self._resampling is not None:
            groups = self._resampling
            n_groups = groups.groups.shape[1]
            of_group = np.bincount(
                groups.group[rows] * 2 * _KINDS + kind, minlength=n_groups * 2 * _KINDS
            ).reshape(n_groups, 2 * _KINDS)
            taken = draw_counts(groups.groups @ of_group, groups.generator(self._stream + stream))
            drawn = _of_counts(taken)
        return {
            metric: _Figures(
                float(values[metric]),
                drawn.get(metric),
                n[metric],
                n_sensitive[metric],
                f"not evaluable: {n[metric]} cells, {MIN_CELLS} needed"
                if n[metric] < MIN_CELLS
                else "",
            )
            for metric in SET_METRICS
        }


def _covered(code: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Tell whether each cell's set holds its label ((n,) float64)."""
    own = np.where(truth, LABEL_SETS.index("sensitive"), LABEL_SETS.index("resistant"))
    return ((code == own) | (code == LABEL_SETS.index("both"))).astype(np.float64)


_ALL_CODES = np.tile(np.arange(_KINDS), 2)
_ALL_TRUTHS = np.repeat([False, True], _KINDS)
_IS_COVERED = _covered(_ALL_CODES, _ALL_TRUTHS)


def _of_counts(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics of counted sets, (..., 8): four sets of resistant, then of sensitive cells."""
    found = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        for metric, chosen in _parts():
            of = counts * chosen
            found[metric] = (of @ _IS_COVERED) / of.sum(-1)
        found[SIZE] = (counts @ np.tile(_SIZES, 2)) / counts.sum(-1)
    return found


def _sizes(counts: np.ndarray) -> dict[str, int]:
    found = {metric: int((counts * chosen).sum()) for metric, chosen in _parts()}
    return {**found, SIZE: int(counts.sum())}


def _parts() -> Iterator[tuple[str, np.ndarray]]:
    yield from zip(SET_METRICS[:3], (np.ones(2 * _KINDS), _ALL_TRUTHS, ~_ALL_TRUTHS), strict=True)


def _weighted_mean(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Average over the first axis, what is undefined left out, (draws,)."""
    weight = np.where(np.isnan(values), 0.0, weight)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((np.nan_to_num(values) * weight).sum(0) / weight.sum(0))
