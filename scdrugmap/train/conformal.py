"""Conformal sets: which labels cannot be excluded for a cell at a chosen level.

Cells of one group (patient, cell line) resemble each other, so a cell of a new group is not
exchangeable with validation cells. Here groups are exchangeable, and the cells of a group among
themselves: every validation group has the same weight, one more stands for the new group (Lee,
Barber and Willett, Distribution-free inference with hierarchical data, 2023). A cell of a new
group then has its true label in its set with at least the chosen probability, on average over
groups: not for every group, not for each label, and not if the new groups are of another kind.
Level L takes L / (1 - L) groups, 9 for 0.9. With fewer, cells stand for themselves and nothing is
guaranteed for cells of new groups.

The score is 1 - probability of the label; a temperature does not change its order, and so no set.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from scdrugmap.errors import UsageError
from scdrugmap.train.record import ConformalInfo, ConformalLevel

SETS = ("resistant", "sensitive", "both", "none")
LEVELS = tuple(round(0.01 * percent, 2) for percent in range(50, 100))
"""Levels that are prepared when a predictor is trained."""
DEFAULT_LEVEL = 0.9

_TINY = 1e-12  # sums of weights are rounded

_PARTS = 20
"""At most so many times are sets calibrated without some groups, to check them on those."""


def calibrate_sets(
    p: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    trained_groups: Collection[str] = (),
    *,
    stopped: bool = False,
) -> ConformalInfo:
    """Find the least probability that keeps a label in a set, for all levels.

    Parameters
    ----------
    p : (n,) float32
        Probabilities of sensitive of validation cells.
    y : (n,) float
        1 for sensitive, 0 for resistant.
    groups : (n,) object str
    trained_groups : collection of str
        Groups that were trained on. If a validation group is among them, nothing can be said of
        new groups, and cells are the units.
    stopped : bool
        The same cells told when to stop training, which makes them look a little better.
    """
    names, code = np.unique(groups.astype(str), return_inverse=True)
    apart = not set(names) & set(map(str, trained_groups))
    truth = p_of_label(p, y > 0)
    by_group = np.array([apart and len(names) >= groups_needed(level) for level in LEVELS])
    floor = floors(truth, code, by_group)
    covered = _held_out(truth, code, by_group)
    levels = [
        ConformalLevel(
            level=level,
            unit="group" if by_group[place] else "cell",
            least_p=None if np.isinf(floor[place]) else float(floor[place]),
            **coverage(covered[:, place], y, code),
        )
        for place, level in enumerate(LEVELS)
    ]
    return ConformalInfo(
        n_cells=len(p), n_groups=len(names), apart=apart, stopped=stopped, levels=tuple(levels)
    )


def groups_needed(level: float) -> int:
    """Return how many validation groups a level takes."""
    return int(np.ceil(level / (1 - level) - 1e-9))


def guarantee(info: ConformalInfo, level: ConformalLevel) -> str:
    """Say in one sentence what the sets of a level promise."""
    rough = "; roughly, since the same groups told when to stop training" if info.stopped else ""
    if level.unit == "group":
        return (
            f"calibrated on {info.n_groups} validation groups: the set of a cell of a new group "
            f"holds its label with probability {level.level:g} or more, on average over groups and "
            f"if the new groups are like those (no promise for one sample, nor for each label){rough}"
        )
    why = (
        f"only {info.n_groups} validation groups, level {level.level:g} takes "
        f"{groups_needed(level.level)}"
        if info.apart
        else "the validation groups were trained on too"
    )
    return (
        f"{why}: the sets are calibrated as if single cells were exchangeable, which promises "
        "nothing for the cells of new samples"
    )


def p_of_label(p: np.ndarray, sensitive: np.ndarray) -> np.ndarray:
    """Return the probability of each cell's label ((n,) float64)."""
    wide = p.astype(np.float64)
    return np.where(sensitive, wide, 1 - wide)


def floors(truth: np.ndarray, code: np.ndarray, by_group: np.ndarray) -> np.ndarray:
    """Return the probability from which on a label stays in a set, for each of :data:`LEVELS`.

    Parameters
    ----------
    truth : (n,) float64
        Probability of the true label of each validation cell.
    code : (n,) int
        Number of the cell's group.
    by_group : (L,) bool
        Levels for which groups are exchangeable; for the others, cells.

    Returns
    -------
    (L,) float64
        Descending, so that sets grow with the level; ``-inf``: every label stays.
    """
    _, code, size = np.unique(code, return_inverse=True, return_counts=True)
    of_groups = _quantiles(truth, 1 / ((len(size) + 1) * size[code]))
    of_cells = _quantiles(truth, np.full(len(truth), 1 / (len(truth) + 1)))
    found: np.ndarray = np.minimum.accumulate(np.where(by_group, of_groups, of_cells))
    return found


def _quantiles(truth: np.ndarray, weight: np.ndarray) -> np.ndarray:
    order = np.argsort(-truth, kind="stable")
    place = np.searchsorted(np.cumsum(weight[order]), np.array(LEVELS) - _TINY)
    return np.append(truth[order], -np.inf)[place]


def _held_out(truth: np.ndarray, code: np.ndarray, by_group: np.ndarray) -> np.ndarray:
    """Cover every cell with sets that were calibrated without its group.

    Returns
    -------
    (n, L) float
        1 where the true label is in the set, else 0; NaN where the other groups are too few.
    """
    n_groups = int(code.max()) + 1
    covered = np.full((len(truth), len(LEVELS)), np.nan, np.float32)
    if n_groups == 1:
        return covered
    part = code % min(n_groups, _PARTS)  # (n,)
    fewest = n_groups - int(np.ceil(n_groups / _PARTS))  # groups outside a part
    enough = by_group & np.array([groups_needed(level) <= fewest for level in LEVELS])
    for number in range(part.max() + 1):
        own = part == number
        covered[own] = truth[own, None] >= floors(truth[~own], code[~own], enough)
    covered[:, by_group & ~enough] = np.nan
    return covered


def coverage(covered: np.ndarray, y: np.ndarray, code: np.ndarray) -> dict[str, float | None]:
    """Return the share of covered cells, as the mean over groups: of all, and of each label.

    Parameters
    ----------
    covered : (n,) bool or float
        Whether the true label is in the cell's set; NaN: not known.
    y : (n,) float
        1 for sensitive, 0 for resistant.
    code : (n,) int
        Number of the cell's group.

    Returns
    -------
    dict
        ``coverage``, ``coverage_sensitive`` and ``coverage_resistant``; None: no such cells, or not
        known.
    """
    return {
        "coverage": _mean_over_groups(covered, code),
        "coverage_sensitive": _mean_over_groups(covered[y > 0], code[y > 0]),
        "coverage_resistant": _mean_over_groups(covered[y <= 0], code[y <= 0]),
    }


def _mean_over_groups(covered: np.ndarray, code: np.ndarray) -> float | None:
    if not len(covered) or np.isnan(covered).any():
        return None
    _, code, size = np.unique(code, return_inverse=True, return_counts=True)
    return round(float(np.mean(np.bincount(code, covered) / size)), 6)


def at_level(info: ConformalInfo, level: float) -> ConformalLevel:
    """Return what was found for a level.

    Raises
    ------
    UsageError
        The level was not prepared.
    """
    for item in info.levels:
        if abs(item.level - level) < 1e-9:
            return item
    raise UsageError(
        f"there are no conformal sets for level {level:g}",
        hint=f"choose a whole percentage, {LEVELS[0]:g} to {LEVELS[-1]:g}",
    )


def prediction_sets(p: np.ndarray, least: float | None) -> np.ndarray:
    """Name the labels that cannot be excluded for each cell.

    Parameters
    ----------
    p : (n,) float32
        Probabilities of sensitive; NaN for cells without an answer.
    least : float or None
        ``least_p`` of the level; None: every label stays.

    Returns
    -------
    (n,) object str
        ``sensitive``, ``resistant``, ``both``, ``none``; ``""`` for cells without an answer.
    """
    floor = -np.inf if least is None else least
    sensitive = p_of_label(p, np.ones(len(p), bool)) >= floor
    resistant = p_of_label(p, np.zeros(len(p), bool)) >= floor
    place = np.where(sensitive, np.where(resistant, 2, 1), np.where(resistant, 0, 3))
    return np.array([*SETS, ""], object)[np.where(np.isnan(p), len(SETS), place)]


def covers(sets: np.ndarray, sensitive: np.ndarray) -> np.ndarray:
    """Tell whether each cell's set holds its label ((n,) bool)."""
    return (sets == "both") | (sets == np.where(sensitive, "sensitive", "resistant"))
