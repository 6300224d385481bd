"""Protocols in which every cell is tested once, in one of several folds of equal kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.data.labels import RESISTANT, SENSITIVE
from scdrugmap.evaluation.folds import Collected, Fold, Folds, Request
from scdrugmap.evaluation.groups import design_fault, groups_of_class

if TYPE_CHECKING:
    import pandas as pd

_CLASSES = (SENSITIVE, RESISTANT)


def paper_pooled(cells: pd.DataFrame, request: Request) -> Folds:
    """Divide single cells at random, whatever they share."""
    from sklearn.model_selection import KFold

    warning = (
        "paper-pooled puts cells of one sample on both sides: its figures compare with the "
        "literature and are no evidence that a model works for a new patient"
    )
    notices = [warning]
    fault = design_fault(cells, _CLASSES)
    if fault is not None:
        notices.append(f"{fault.message}; a sound protocol refuses it")
    number = min(request.folds, len(cells))
    fold_of = np.empty(len(cells), np.int64)
    dealer = KFold(number, shuffle=True, random_state=request.seed)
    for fold, (_, test) in enumerate(dealer.split(fold_of)):
        fold_of[test] = fold
    return Folds(_divide(np.arange(len(cells)), fold_of, number), notices)


def pooled_group(cells: pd.DataFrame, request: Request) -> Folds:
    """Divide the groups of all datasets together."""
    fault = design_fault(cells, _CLASSES)
    if fault is not None:
        raise fault
    number, notices = _feasible(cells, request.folds, "")
    rows = np.arange(len(cells))
    return Folds(_divide(rows, _fold_of_group(cells, number, request.seed), number), notices)


def within(cells: pd.DataFrame, request: Request) -> Folds:
    """Divide the groups of each dataset by itself; folds are numbered through all datasets."""
    from scdrugmap.evaluation.folds import choose

    made = Collected()
    for name in choose("dataset", sorted(cells["dataset"].unique()), request.targets):
        rows = np.flatnonzero(cells["dataset"] == name)
        part = cells.iloc[rows]
        fault = design_fault(part, _CLASSES, f"dataset {name}")
        if fault is not None:
            made.faults.append(fault)
            continue
        number, reduced = _feasible(part, request.folds, f"dataset {name}: ")
        made.folds += _divide(rows, _fold_of_group(part, number, request.seed), number)
        made.notices += reduced
    return made.finish()


def _feasible(cells: pd.DataFrame, folds: int, where: str) -> tuple[int, list[str]]:
    """Return the number of folds in which each can test both labels."""
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


def _divide(rows: np.ndarray, fold_of: np.ndarray, folds: int) -> list[Fold]:
    words = np.array(["train", "test"], object)  # one text each, not one per cell and fold
    return [Fold(rows, words[(fold_of == fold).astype(np.int8)]) for fold in range(folds)]
