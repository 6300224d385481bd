"""What one training of a model did on a test set, so that two models can change places in it.

Two models are exchangeable within a group if it makes no difference which of them answered for its
cells. Everything here is kept per group for that: calls as counts, probabilities as ranks, because
only ranks of two models can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.evaluation.levels import Level, TestCells, cell_values, measure_levels
from scdrugmap.evaluation.metrics import THRESHOLDED, shortage_of_cells, thresholded_metrics
from scdrugmap.evaluation.sample_figures import sum_up_samples

if TYPE_CHECKING:
    from collections.abc import Sequence

FIXED = "fixed"


@dataclass(frozen=True)
class Votes:
    """Cells, or samples, each with one vote.

    Attributes
    ----------
    rank : (n,) float64
        Middle rank of the probability among those of the same draw, 0 to 1.
    truth : (n,) bool
    group, draw : (n,) int64
    """

    rank: np.ndarray
    truth: np.ndarray
    group: np.ndarray
    draw: np.ndarray


@dataclass(frozen=True)
class Standing:
    """One training of a model on one test set of G groups and D datasets, tested in J folds.

    Attributes
    ----------
    levels : dict of str to Level
    confusion : (R, G, 4) float64
        Calls per draw of labelled samples and group, as
        :func:`~scdrugmap.evaluation.metrics.confusion` counts them.
    error : (G,) float64
        What each group adds to the Brier score.
    votes : dict of str to Votes
        By level, ``cell`` and ``sample``.
    datasets : dict of str to (D,) float64
        By metric; NaN where a dataset is not evaluable.
    folds : dict of str to (J,) float64
        By metric.
    """

    levels: dict[str, Level]
    confusion: np.ndarray
    error: np.ndarray
    votes: dict[str, Votes]
    datasets: dict[str, np.ndarray]
    folds: dict[str, np.ndarray]

    @property
    def n_cells(self) -> np.ndarray:
        """Number of predictions of each group, (G,)."""
        return np.asarray(self.confusion.sum((0, 2)))

    @property
    def accuracy(self) -> np.ndarray:
        """Share of right calls in each group, (G,)."""
        return np.asarray(self.confusion[:, :, [0, 3]].sum((0, 2)) / self.n_cells)


def take_standing(
    test: TestCells,
    fold: np.ndarray,
    metrics: Sequence[str],
    *,
    draws: int,
    seed: int,
    cells_only: bool = False,
) -> Standing:
    """Measure one training of a model.

    Parameters
    ----------
    test : TestCells
        The same cells in the same order for all models of a comparison.
    fold : (n,) int64
    metrics : sequence of str
        Those to compare.
    draws, seed : int
        Of the bootstrap.
    cells_only : bool
        Leave out samples and datasets.
    """
    names, group = np.unique(test.group, return_inverse=True)
    draw = np.unique(test.draw, return_inverse=True)[1]
    n_groups, n_draws = len(names), int(draw.max()) + 1
    right = test.right[FIXED]
    kind = (draw * n_groups + group) * 4 + np.where(test.truth, 1 - right, 2 + right)
    counts = np.bincount(kind, minlength=n_draws * n_groups * 4)
    size = np.bincount(draw)[draw] * n_draws
    squared = (test.p_sensitive - test.truth) ** 2
    return Standing(
        {
            level.name: level
            for level in measure_levels(
                test, draws=draws, seed=seed, metrics=metrics, cells_only=cells_only
            )
        },
        counts.reshape(n_draws, n_groups, 4).astype(np.float64),
        np.bincount(group, squared / size, n_groups),
        {}
        if cells_only
        else {
            "cell": Votes(_ranks(test.p_sensitive, draw), test.truth, group, draw),
            "sample": _sample_votes(test, group, draw),
        },
        {} if cells_only else _by(test, np.unique(test.dataset, return_inverse=True)[1], metrics),
        _by(test, np.unique(fold, return_inverse=True)[1], metrics),
    )


def _sample_votes(test: TestCells, group: np.ndarray, draw: np.ndarray) -> Votes:
    parts = []
    for number in range(int(draw.max()) + 1):
        rows = np.flatnonzero(draw == number)
        part = test.take(rows)
        samples = sum_up_samples(part.dataset, part.sample, part.truth, part.p_sensitive)
        _, mean, _ = samples.summaries[0]
        of_draw = np.full(len(mean), number)
        parts.append((mean, samples.truth, group[rows[samples.first]], of_draw))
    mean, truth, of_group, of_draw = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Votes(_ranks(mean, of_draw), truth, of_group, of_draw)


def _ranks(p: np.ndarray, draw: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    ranks = np.zeros(len(p))
    for number in np.unique(draw):
        here = draw == number
        ranks[here] = rankdata(p[here]) / here.sum()
    return ranks


def _by(test: TestCells, code: np.ndarray, metrics: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the metrics of each part of the cells, as a mean over draws of labelled samples."""
    found = {metric: np.full(int(code.max()) + 1, np.nan) for metric in metrics}
    order = np.argsort(code, kind="stable")
    for number, rows in enumerate(np.split(order, np.cumsum(np.bincount(code))[:-1])):
        values = []
        for draw in np.unique(test.draw[rows]):
            part = test.take(rows[test.draw[rows] == draw])
            n_sensitive = int(part.truth.sum())
            if not shortage_of_cells(n_sensitive, len(part) - n_sensitive):
                values.append(cell_values(part))
        for metric in metrics if values else ():
            key = (metric, FIXED if metric in THRESHOLDED else "")
            found[metric][number] = np.mean([value[key] for value in values])
    return found


def swap_calls(
    one: Sequence[Standing], other: Sequence[Standing], metric: str, signs: np.ndarray
) -> np.ndarray:
    """Return the difference of a metric of calls with the models swapped in some groups.

    Parameters
    ----------
    one, other : sequence of Standing
        Trainings of either model; pairs of them are averaged.
    metric : str
        One of :data:`~scdrugmap.evaluation.metrics.THRESHOLDED`.
    signs : (m, G) float64
        -1 where the models change places.

    Returns
    -------
    (m,) float64
    """
    total = np.zeros(len(signs))
    pairs = [
        (a.confusion[draw], b.confusion[draw])
        for a, b in pair_up(one, other)
        for draw in range(len(a.confusion))
    ]
    for a, b in pairs:
        both, gap = (a + b).sum(0), signs @ (a - b)
        total += thresholded_metrics((both + gap) / 2)[metric]
        total -= thresholded_metrics((both - gap) / 2)[metric]
    return total / len(pairs)


def rank_gap(one: Votes, other: Votes, n_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what each group adds to the difference of two AUROCs, and its mean per vote.

    Swapping two models in a group changes the difference of their AUROCs by twice what the group
    adds, whatever is swapped elsewhere: of a pair of groups g (sensitive) and h (resistant) with
    signs s the difference is (s_g (AA - BB + AB - BA) + s_h (AA - BB - AB + BA)) / 2, where AB is
    the share of pairs in order with g ranked by A and h by B. So a vote counts by its place among
    the votes of the other class under both models together. Votes of each model placed among its
    own (DeLong) would share the noise of these and make the test twice too sure.

    Parameters
    ----------
    one, other : Votes
        The same votes in the same order.
    n_groups : int

    Returns
    -------
    (G,) float64
        Adds up to the difference of the AUROCs.
    (G,) float64
        Difference of mean places; NaN for a group without votes.
    """
    gap, weight = np.zeros(len(one.truth)), np.zeros(len(one.truth))
    n_draws = len(np.unique(one.draw))
    for draw in np.unique(one.draw):
        here = one.draw == draw
        for side, sign in ((one.truth, 1.0), (~one.truth, -1.0)):
            own, rest = here & side, here & ~side
            if not own.any() or not rest.any():
                continue
            values = np.sort(np.concatenate([one.rank[rest], other.rank[rest]]))
            places = [_places(values, votes.rank[own]) for votes in (one, other)]
            gap[own] = sign * (places[0] - places[1])
            weight[own] = 1 / own.sum() / n_draws
    n = np.bincount(one.group, minlength=n_groups)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(one.group, gap, n_groups) / n
    return np.bincount(one.group, gap * weight, n_groups), mean


def _places(values: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Return the share of ascending values below each, ties as one half."""
    below = np.searchsorted(values, of, "left") + np.searchsorted(values, of, "right")
    return np.asarray(below / (2 * len(values)))


def pair_up(one: Sequence[Standing], other: Sequence[Standing]) -> list[tuple[Standing, Standing]]:
    """Pair the trainings of two models: one to one, and what is missing again from the first."""
    n = max(len(one), len(other))
    return [(one[i % len(one)], other[i % len(other)]) for i in range(n)]
