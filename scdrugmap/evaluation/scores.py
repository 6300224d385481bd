"""What is scored and what comes of it: the cells of a test set, a figure, the figures of a level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.evaluation.intervals import Interval, percentile_interval

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from scdrugmap.evaluation.metrics import Key


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
    dataset, sample, group, study : (n,) object str or int64
        Names, or their numbers in the order of names.
    draw : (n,) int64
        Which draw of labelled samples the cell was tested in.
    """

    __test__ = False  # no test case, whatever its name

    truth: np.ndarray
    p_sensitive: np.ndarray
    right: dict[str, np.ndarray]
    dataset: np.ndarray
    sample: np.ndarray
    group: np.ndarray
    study: np.ndarray
    draw: np.ndarray

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
            self.draw[rows],
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


@dataclass(frozen=True)
class Level:
    """All figures of a test set at one level.

    Attributes
    ----------
    name : str
        ``cell``, ``sample`` or ``dataset_macro``.
    values : mapping of Key to float
        NaN where not evaluable; `note` says why.
    drawn : mapping of Key to (draws,) float64
        In every draw of the bootstrap; empty where there is no interval.
    size : (int, int, int)
        Cells (or samples), sensitive ones among them, and groups.
    note : str
    """

    name: str
    values: Mapping[Key, float]
    drawn: Mapping[Key, np.ndarray]
    size: tuple[int, int, int]
    note: str

    def scores(self) -> Iterator[Score]:
        """Give the figures with their intervals."""
        for (metric, threshold), value in self.values.items():
            interval = Interval(np.nan, np.nan)
            if (metric, threshold) in self.drawn:
                interval = percentile_interval(self.drawn[metric, threshold])
            yield Score(
                self.name,
                metric,
                threshold,
                float(value),
                interval.low,
                interval.high,
                *self.size,
                join_notes(self.note, interval.note),
            )


def join_notes(*notes: str) -> str:
    """Join what there is to say by semicolons."""
    return "; ".join(note for note in notes if note)
