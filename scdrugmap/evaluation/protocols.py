"""The ways to divide cells into training and test, and the question that each answers.

A protocol is one function and one row of :data:`PROTOCOLS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from scdrugmap.errors import DataError, UsageError

if TYPE_CHECKING:
    import pandas as pd


class Fold(NamedTuple):
    """One division of cells.

    Attributes
    ----------
    rows : (m,) int64
        Positions of the cells that take part; a cell that does not is neither trained on nor
        tested.
    role : (m,) object str
        ``train``, ``test`` or ``excluded``.
    """

    rows: np.ndarray
    role: np.ndarray


class Folds(NamedTuple):
    """What a protocol makes of the cells, and what its reader should know."""

    folds: list[Fold]
    notices: list[str]


Assign = Callable[["pd.DataFrame", int, int], Folds]
"""(cells sorted by dataset and cell, with a column ``group``; number of folds; seed) -> folds."""


@dataclass(frozen=True)
class Protocol:
    """A way to divide cells.

    Attributes
    ----------
    name : str
    family : {"sound", "paper"}
        ``sound`` never puts cells of one group on both sides; ``paper`` repeats what others did.
    question : str
        What a figure under this protocol answers.
    assign : callable
        See :data:`Assign`.
    """

    name: str
    family: Literal["sound", "paper"]
    question: str
    assign: Assign


def paper_pooled(cells: pd.DataFrame, folds: int, seed: int) -> Folds:
    """Divide single cells at random, whatever they share."""
    from sklearn.model_selection import KFold

    from scdrugmap.evaluation.groups import design_fault

    warning = (
        "paper-pooled puts cells of one sample on both sides: its figures compare with the "
        "literature and are no evidence that a model works for a new patient"
    )
    notices = [warning]
    fault = design_fault(cells, _classes())
    if fault is not None:
        notices.append(f"{fault.message}; a sound protocol refuses it")
    number = min(folds, len(cells))
    fold_of = np.empty(len(cells), np.int64)
    for fold, (_, test) in enumerate(KFold(number, shuffle=True, random_state=seed).split(fold_of)):
        fold_of[test] = fold
    return Folds(_cross_validation(np.arange(len(cells)), fold_of, number), notices)


def pooled_group(cells: pd.DataFrame, folds: int, seed: int) -> Folds:
    """Divide the groups of all datasets together."""
    from scdrugmap.evaluation.groups import design_fault

    fault = design_fault(cells, _classes())
    if fault is not None:
        raise fault
    number, notices = _feasible(cells, folds, "")
    rows = np.arange(len(cells))
    return Folds(_cross_validation(rows, _fold_of_group(cells, number, seed), number), notices)


def within(cells: pd.DataFrame, folds: int, seed: int) -> Folds:
    """Divide the groups of each dataset by itself; folds are numbered through all datasets."""
    from scdrugmap.evaluation.groups import design_fault

    made: list[Fold] = []
    notices: list[str] = []
    faults: list[DataError] = []
    for name in sorted(cells["dataset"].unique()):
        rows = np.flatnonzero(cells["dataset"] == name)
        part = cells.iloc[rows]
        fault = design_fault(part, _classes(), f"dataset {name}")
        if fault is not None:
            faults.append(fault)
            continue
        number, reduced = _feasible(part, folds, f"dataset {name}: ")
        made += _cross_validation(rows, _fold_of_group(part, number, seed), number)
        notices += reduced
    if not made:
        others = f" (and {len(faults) - 1} other datasets likewise)" * (len(faults) > 1)
        raise DataError(f"{faults[0].message}{others}", hint=faults[0].hint)
    notices += [f"left out: {fault.message}" for fault in faults]
    return Folds(made, notices)


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "pooled-group",
            "sound",
            "Does it work for a new patient of a known study?",
            pooled_group,
        ),
        Protocol("within", "sound", "Does it work for a new patient of this dataset?", within),
        Protocol(
            "paper-pooled",
            "paper",
            "What would a random split of cells report? (no evidence)",
            paper_pooled,
        ),
    )
}
"""Every protocol by name; the first is the default."""


def get_protocol(name: str) -> Protocol:
    """Return a protocol.

    Raises
    ------
    UsageError
        There is none of that name.
    """
    import difflib

    if name in PROTOCOLS:
        return PROTOCOLS[name]
    near = difflib.get_close_matches(name, PROTOCOLS, n=1)
    guess = f"; did you mean {near[0]}?" if near else ""
    raise UsageError(
        f"there is no protocol {name!r}{guess}", hint=f"there are: {', '.join(PROTOCOLS)}"
    )


def _classes() -> tuple[str, str]:
    from scdrugmap.data.labels import RESISTANT, SENSITIVE

    return SENSITIVE, RESISTANT


def _feasible(cells: pd.DataFrame, folds: int, where: str) -> tuple[int, list[str]]:
    """Return the number of folds in which each can test both labels."""
    from scdrugmap.evaluation.groups import groups_of_class

    counts = groups_of_class(cells)
    fewest = int(counts.min())
    if folds <= fewest:
        return folds, []
    label = counts.index[int(counts.argmin())]
    notice = f"{where}{fewest} folds instead of {folds}: only {fewest} groups have {label} cells"
    return fewest, [notice]


def _fold_of_group(cells: pd.DataFrame, folds: int, seed: int) -> np.ndarray:
    """Return the fold in which each cell is tested.

    Groups are dealt out, not cells: every group and label is one row. Given cells, scikit-learn
    deals by size of the group, and the seed would only decide between groups of equal size.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    units = cells[["group", "label"]].drop_duplicates().sort_values(["group", "label"])
    dealer = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    fold_of: dict[str, int] = {}
    for fold, (_, test) in enumerate(dealer.split(units, units["label"], units["group"])):
        fold_of.update(dict.fromkeys(units["group"].iloc[test], fold))
    return cells["group"].map(fold_of).to_numpy(np.int64)


def _cross_validation(rows: np.ndarray, fold_of: np.ndarray, folds: int) -> list[Fold]:
    return [
        Fold(rows, np.where(fold_of == fold, "test", "train").astype(object))
        for fold in range(folds)
    ]
