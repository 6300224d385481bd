"""Protocols that hold something out: a dataset, a study, a disease, a drug, a collection.

What shares a group with a test cell is never trained on, wherever it is: it is excluded.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdrugmap.data.labels import RESISTANT, SENSITIVE
from scdrugmap.errors import DataError, UsageError
from scdrugmap.evaluation.folds import Collected, Fold, Folds, Request, choose
from scdrugmap.evaluation.groups import design_fault, groups_of_class

if TYPE_CHECKING:
    from collections.abc import Mapping

PRIMARY, EXTERNAL = "primary", "external"
_CLASSES = (SENSITIVE, RESISTANT)


def lodo(cells: pd.DataFrame, request: Request) -> Folds:
    """Hold out one dataset after the other."""
    return _one_by_one(cells, request, "dataset", _masks(cells["dataset"]))


def loso(cells: pd.DataFrame, request: Request) -> Folds:
    """Hold out one study after the other."""
    return _one_by_one(cells, request, "study", _masks(cells["study"]))


def loco(cells: pd.DataFrame, request: Request) -> Folds:
    """Hold out one cancer type after the other."""
    names = _known(cells, "cancer_type", "--cancer-type", "loco")
    return _one_by_one(cells, request, "cancer type", _masks(names))


def lodrug(cells: pd.DataFrame, request: Request) -> Folds:
    """Hold out every regimen with one drug, one drug after the other.

    A cell whose regimen has several drugs is tested once for each.
    """
    from scdrugmap.data.paper import regimen_components

    code, regimens = pd.factorize(_known(cells, "drug", "--drug", "lodrug"), sort=True)
    drugs = [regimen_components(regimen) for regimen in regimens]
    nameless = [name for name, parts in zip(regimens, drugs, strict=True) if not parts]
    if nameless:
        raise DataError(
            f"the regimen {nameless[0]!r} names no drug",
            hint="name the drug in the column given with --drug, or take these cells out with "
            "--where",
        )
    masks = {
        drug: np.array([drug in parts for parts in drugs])[code]
        for drug in sorted(frozenset().union(*drugs))
    }
    wanted = tuple(name.strip().lower() for name in request.targets)
    asked = replace(request, targets=wanted)
    return _one_by_one(cells, asked, "drug", masks)


def external(cells: pd.DataFrame, request: Request) -> Folds:
    """Train on the primary collection, test once on the external one."""
    collection = _collection(cells, request)
    masks = {EXTERNAL: (collection == EXTERNAL).to_numpy()}
    for name in (PRIMARY, EXTERNAL):
        if not (collection == name).any():
            raise DataError(
                f"no cell is of the {name} collection",
                hint="--collection names a column with primary and external, or --target the "
                "external datasets",
            )
    asked = replace(request, targets=())
    return _one_by_one(cells, asked, "collection", masks)


def zero_shot(cells: pd.DataFrame, request: Request) -> Folds:
    """Hold out one dataset after the other, and train on other studies only."""
    _require_several(cells["study"], "study", "zero-shot")
    made = Collected()
    code = _group_code(cells)
    _refuse_confounded(cells)
    datasets, studies = cells["dataset"], cells["study"].to_numpy()
    for name in choose("dataset", sorted(datasets.unique()), request.targets):
        tested = (datasets == name).to_numpy()
        elsewhere = ~np.isin(studies, np.unique(studies[tested]))
        _add(made, cells, hold_out(tested, code, name, trainable=elsewhere), f"dataset {name}")
    return made.finish()


def zero_shot_unlabelled(cells: pd.DataFrame, request: Request) -> Folds:
    """Test every dataset on what nobody trained: there is no training cell at all."""
    names = choose("dataset", sorted(cells["dataset"].unique()), request.targets)
    rows = np.flatnonzero(cells["dataset"].isin(names))
    return Folds([Fold(rows, np.full(len(rows), "test", object))], [])


def hold_out(
    tested: np.ndarray, group: np.ndarray, target: str, *, trainable: np.ndarray | None = None
) -> Fold:
    """Test some cells, and train on those that share no group with them.

    Parameters
    ----------
    tested : (n,) bool
    group : (n,) int64
        Number of the group of each cell.
    target : str
    trainable : (n,) bool, optional
        Cells that may be trained on; default: all.

    Returns
    -------
    Fold
        Cells that share a group with a test cell are ``excluded``.
    """
    touched = np.zeros(group.max() + 1, bool)
    touched[group[tested]] = True
    role = np.array(["train", "excluded"], object)[touched[group].astype(np.int8)]
    role[tested] = "test"
    part = tested | touched[group]
    part |= True if trainable is None else trainable
    rows = np.flatnonzero(part)
    return Fold(rows, role[rows], target)


def training_fault(cells: pd.DataFrame, fold: Fold, where: str) -> DataError | None:
    """Return why nothing can be trained in a fold, or None."""
    counts = groups_of_class(cells.iloc[fold.rows[fold.role == "train"]])
    missing = [name for name in _CLASSES if name not in counts.index]
    if not missing:
        return None
    return DataError(
        f"{where}: no {missing[0]} cell is left to train on, once what shares a group with the "
        "test cells is excluded",
        hint=f"add a dataset with {missing[0]} cells",
    )


def _one_by_one(
    cells: pd.DataFrame, request: Request, kind: str, masks: Mapping[str, np.ndarray]
) -> Folds:
    names = choose(kind, list(masks), request.targets)
    if kind != "collection":
        _require_several(pd.Series(list(masks)), kind, "this protocol")
    _refuse_confounded(cells)
    made, code = Collected(), _group_code(cells)
    for name in names:
        _add(made, cells, hold_out(masks[name], code, name), f"{kind} {name}")
    return made.finish()


def _add(made: Collected, cells: pd.DataFrame, fold: Fold, where: str) -> None:
    fault = training_fault(cells, fold, where)
    if fault is not None:
        made.faults.append(fault)
        return
    made.folds.append(fold)
    excluded = int((fold.role == "excluded").sum())
    if excluded:
        made.notices.append(
            f"{where}: {excluded:,} other cells share a group with its test cells and are excluded"
        )
    counts = groups_of_class(cells.iloc[fold.rows[fold.role == "train"]])
    if counts.max() == 1:
        made.notices.append(
            f"{where}: trained on one group per label, so that the label cannot be told from the "
            "library"
        )


def _refuse_confounded(cells: pd.DataFrame) -> None:
    fault = design_fault(cells, _CLASSES)
    if fault is not None:
        raise fault


def _require_several(names: pd.Series, kind: str, protocol: str) -> None:
    if names.nunique() > 1:
        return
    plural = {"study": "studies"}.get(kind, f"{kind}s")
    raise DataError(
        f"{protocol} needs at least 2 {plural} to hold one out; there is only {names.iloc[0]!r}",
        hint="give more files, or use --protocol within or pooled-group",
    )


def _group_code(cells: pd.DataFrame) -> np.ndarray:
    return np.asarray(pd.factorize(cells["group"])[0], np.int64)


def _masks(names: pd.Series) -> dict[str, np.ndarray]:
    """Return which cells have each name, by name in order."""
    code, values = pd.factorize(names, sort=True)
    return {str(value): code == number for number, value in enumerate(values)}


def _known(cells: pd.DataFrame, column: str, option: str, protocol: str) -> pd.Series:
    """Return a column in which every cell has a name.

    Raises
    ------
    UsageError
        The column was not given.
    DataError
        A cell has none.
    """
    if column not in cells:
        raise UsageError(
            f"protocol {protocol} needs to know the {column.replace('_', ' ')} of each cell",
            hint=f"name the column with {option}",
        )
    empty = cells[column] == ""
    if empty.any():
        row = cells[empty].iloc[0]
        raise DataError(
            f"dataset {row['dataset']}: {int(empty.sum()):,} of {len(cells):,} cells have no "
            f"{column.replace('_', ' ')}, {row['cell']!r} among them",
            hint=f"fill the column given with {option}, or take these cells out with --where",
        )
    return cells[column]


def _collection(cells: pd.DataFrame, request: Request) -> pd.Series:
    """Return the collection of each cell: from its column, else from the datasets named."""
    if request.targets:
        names = choose("dataset", sorted(cells["dataset"].unique()), request.targets)
        return pd.Series(np.where(cells["dataset"].isin(names), EXTERNAL, PRIMARY))
    if "collection" not in cells:
        raise UsageError(
            "protocol external needs to know which cells are external",
            hint="name the column of primary and external with --collection, or the external "
            "datasets with --target",
        )
    found = _known(cells, "collection", "--collection", "external").str.lower()
    strange = found[~found.isin((PRIMARY, EXTERNAL))]
    if not strange.empty:
        raise DataError(
            f"{len(strange):,} cells are of the collection {strange.iloc[0]!r}, neither primary "
            "nor external",
            hint="--collection names a column that holds these two words",
        )
    return found
