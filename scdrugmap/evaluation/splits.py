"""Make the split manifest: which cell is trained on and which is tested, in every fold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scdrugmap.data.labels import RESISTANT, SENSITIVE
from scdrugmap.errors import DataError, UsageError
from scdrugmap.evaluation.folds import MIN_DRAWS, Fold, Request
from scdrugmap.evaluation.groups import connect_cells, describe_ties
from scdrugmap.evaluation.metrics import shortage_of_cells
from scdrugmap.evaluation.protocols import PROTOCOLS, Protocol, get_protocol
from scdrugmap.evaluation.tables import DRAW, FACETS, SPLIT_COLUMNS, TARGET, split_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scdrugmap.evaluation.design import Design

__all__ = ["PROTOCOLS", "Split", "make_split", "permute_labels"]

VALIDATION_SHARE = 0.2
"""Share of the training groups that is set aside for early stopping and thresholds."""

MOST_ROWS = 40_000_000
"""Largest manifest: 60 folds of the 495,000 cells of all published datasets have 30 million rows."""

_LARGEST_SEED = 2**32 - 1  # of scikit-learn's splitters


@dataclass(frozen=True)
class Split:
    """A split manifest.

    Attributes
    ----------
    table : DataFrame
        One row per cell and fold, sorted by dataset, cell and fold; the columns of ``splits.tsv``.
    protocol : Protocol
    notices : tuple of str
        What a reader of the figures should know, one line each.
    """

    table: pd.DataFrame
    protocol: Protocol
    notices: tuple[str, ...]

    @property
    def split_id(self) -> str:
        """Protocol and hash of the rows; the same rows have the same."""
        return str(self.table["split_id"].iloc[0])

    def summary(self) -> list[dict[str, Any]]:
        """Count cells and groups per fold and role, and per label within.

        Returns
        -------
        list of dict
            ``fold``, ``role``, ``cells``, ``groups``, and both again per label.
        """
        rows = []
        for (fold, role), part in self.table.groupby(["fold", "role"], sort=True):
            row: dict[str, Any] = {"fold": fold, "role": role, "cells": len(part)}
            row["groups"] = int(part["group"].nunique())
            for label in (SENSITIVE, RESISTANT):
                of_label = part[part["label"] == label]
                row[label] = len(of_label)
                row[f"groups_{label}"] = int(of_label["group"].nunique())
            rows.append(row)
        return rows

    def lines(self) -> list[str]:
        """Return the summary as a table of text."""
        groups = self.table["group"].nunique()
        cells = len(self.table.drop_duplicates(["dataset", "cell"]))
        folds = self.table["fold"].nunique()
        head = (
            f"{'fold':>4}  {'role':<10}  {'cells':>9}  {'groups':>7}  "
            f"{'sensitive (groups)':>19}  {'resistant (groups)':>19}"
        )
        text = [f"{self.split_id}: {cells:,} cells in {groups:,} groups, {folds} folds", head]
        for row in self.summary():
            both = (f"{row[x]:,} ({row[f'groups_{x}']:,})" for x in (SENSITIVE, RESISTANT))
            text.append(
                f"{row['fold']:>4}  {row['role']:<10}  {row['cells']:>9,}  {row['groups']:>7,}  "
                + "  ".join(f"{entry:>19}" for entry in both)
            )
        return text


def make_split(
    design: Design,
    protocol: str = "pooled-group",
    *,
    folds: int = 5,
    seed: int = 0,
    validation: bool = False,
    targets: Sequence[str] = (),
    draws: int = MIN_DRAWS,
) -> Split:
    """Divide the labelled cells of a design into folds.

    Parameters
    ----------
    design : Design
        The order of its cells changes nothing.
    protocol : str
        A name of :data:`~scdrugmap.evaluation.protocols.PROTOCOLS`.
    folds : int
        Of cross-validation. At least 2; reduced, with a notice, where a label has fewer groups.
    seed : int
        Decides the split and nothing else.
    validation : bool
        Give the role ``validation`` to a fifth of the training groups of every fold.
    targets : sequence of str
        What to hold out, for protocols that hold something out; default: everything in turn. For
        ``external`` the external datasets, where the design has no column ``collection``.
    draws : int
        Draws of labelled samples for each target of ``few-shot`` protocols.

    Returns
    -------
    Split

    Raises
    ------
    UsageError
        Unknown protocol or target, too many targets at a time, fewer than 2 folds or 10 draws, a seed out of range, targets
        for a protocol that holds nothing out, or a design without the column that a protocol
        needs.
    DataError
        The design cannot be split soundly: donors or samples are missing, a single group, or a
        label with fewer than 2 groups; nothing to hold out or nothing to train on; or too few
        groups for a validation part.
    """
    chosen = get_protocol(protocol)
    if folds < 2:
        raise UsageError(f"--folds {folds}: at least 2 are needed")
    if not 0 <= seed <= _LARGEST_SEED:
        raise UsageError(f"--seed {seed} is not between 0 and {_LARGEST_SEED}")
    if targets and not chosen.holds_out:
        raise UsageError(
            f"protocol {protocol} holds no target out, but --target is {targets[0]!r}",
            hint="leave --target out, or use --protocol lodo or loso",
        )
    cells = design.frame.sort_values(["dataset", "cell"], kind="stable", ignore_index=True)
    _require_cells(cells)
    if chosen.family == "sound":
        _require_origin(cells, protocol)
    cells["group"] = connect_cells(cells)
    request = Request(folds, seed, tuple(targets), draws)
    made, notices = chosen.assign(cells, request)
    _require_size(made)
    if validation and chosen.trains:
        by_cell = chosen.family == "paper"
        made = [_with_validation(cells, fold, [seed, i], by_cell) for i, fold in enumerate(made)]
    notices = [*design.notices, *describe_ties(cells, cells["group"].to_numpy()), *notices]
    split = Split(_table(cells, made, chosen), chosen, tuple(notices))
    return replace(split, notices=(*split.notices, *_describe_small_tests(split)))


def permute_labels(design: Design, seed: int) -> Design:
    """Deal the labels out anew among the groups: the control that must be at chance.

    Every group gets one label, that of another group or its own; a group with both labels counts
    with its more frequent one. Sizes and batches of the groups stay as they are.

    Parameters
    ----------
    design : Design
    seed : int

    Returns
    -------
    Design
        With the same cells in the same order.
    """
    frame = design.frame
    code, names = pd.factorize(connect_cells(frame), sort=True)
    share = np.bincount(code, frame["label"] == SENSITIVE) / np.bincount(code)  # (groups,)
    label = np.where(share >= 0.5, SENSITIVE, RESISTANT).astype(object)
    dealt = np.random.default_rng(seed).permutation(label)
    notice = f"labels permuted over {len(names):,} groups (seed {seed}): a control, not a result"
    return replace(design, frame=frame.assign(label=dealt[code]), notices=(*design.notices, notice))


def _require_size(folds: list[Fold]) -> None:
    rows = sum(len(fold.rows) for fold in folds)
    if rows > MOST_ROWS:
        raise UsageError(
            f"{len(folds):,} folds of these cells are a table of {rows:,} rows, more than "
            f"{MOST_ROWS:,}",
            hint="hold out fewer targets at a time with --target",
        )


def _require_cells(cells: pd.DataFrame) -> None:
    if cells.empty:
        raise DataError(
            "no cell has a label", hint="check --label, --sensitive, --resistant and --where"
        )
    for label, other in ((SENSITIVE, RESISTANT), (RESISTANT, SENSITIVE)):
        if not (cells["label"] == label).any():
            raise DataError(
                f"all {len(cells):,} labelled cells are {other}; a split needs both labels",
                hint="check --sensitive and --resistant, or add a dataset with the other label",
            )
    twice = cells.duplicated(["dataset", "cell"])
    if twice.any():
        row = cells[twice].iloc[0]
        raise DataError(
            f"dataset {row['dataset']}: {int(twice.sum()):,} cell names occur twice, "
            f"{row['cell']!r} among them",
            hint="give the cells unique names",
        )


def _require_origin(cells: pd.DataFrame, protocol: str) -> None:
    """Refuse cells of unknown donor or sample: nobody could keep them apart."""
    for column, option in (("donor", "--group"), ("sample", "--sample")):
        missing = cells[column] == ""
        if missing.all():
            raise UsageError(
                f"protocol {protocol} needs to know which cells belong together",
                hint=f"name the column of patients (animals, cultures) with {option}",
            )
        if missing.any():
            row = cells[missing].iloc[0]
            raise DataError(
                f"dataset {row['dataset']}: {int(missing.sum()):,} of {len(cells):,} cells have "
                f"no {column}, {row['cell']!r} among them",
                hint=f"fill the column given with {option}, or take these cells out with --where",
            )


def _with_validation(cells: pd.DataFrame, fold: Fold, key: list[int], by_cell: bool) -> Fold:
    """Give a fifth of the training groups, at least one per label, the role validation."""
    free = fold.role == "train"
    if fold.shots is not None:
        free &= ~fold.shots
    train = fold.rows[free]
    sensitive = cells["label"].to_numpy()[train] == SENSITIVE
    unit = train if by_cell else cells["group"].to_numpy()[train]
    code, _ = pd.factorize(unit, sort=True)
    kind = 1 * (np.bincount(code, sensitive) > 0) + 2 * (np.bincount(code, ~sensitive) > 0)
    random = np.random.default_rng(key)
    held = np.zeros(len(kind), bool)  # (units,)
    for one in np.unique(kind):
        members = np.flatnonzero(kind == one)
        number = max(round(VALIDATION_SHARE * len(members)), 1)
        held[random.permutation(members)[:number]] = True
    for side in (held[code], ~held[code]):
        if sensitive[side].all() or not sensitive[side].any():
            raise DataError(
                f"fold {key[1]}: its {len(kind)} training groups are too few for a validation "
                "part with both labels",
                hint="leave out --validation, or add samples",
            )
    role = fold.role.copy()
    role[np.flatnonzero(free)[held[code]]] = "validation"
    return replace(fold, role=role)


def _table(cells: pd.DataFrame, folds: list[Fold], protocol: Protocol) -> pd.DataFrame:
    rows = np.concatenate([fold.rows for fold in folds])
    sizes = [len(fold.rows) for fold in folds]
    number = np.repeat(np.arange(len(folds)), sizes)
    order = np.lexsort((number, rows))  # cells are sorted by dataset and name
    taken, number = rows[order], number[order]
    kept = [c for c in (*SPLIT_COLUMNS, *FACETS) if c in cells]
    columns = {name: cells[name].to_numpy(object)[taken] for name in kept}
    columns["fold"] = number
    columns["role"] = np.concatenate([fold.role for fold in folds])[order]
    if any(fold.target for fold in folds):
        columns[TARGET] = np.array([fold.target for fold in folds], object)[number]
    if any(fold.draw for fold in folds):
        columns[DRAW] = np.array([fold.draw for fold in folds], np.int64)[number]
    table = pd.DataFrame(columns)
    table["split_id"] = split_id(table, protocol.name)
    extra = [c for c in (TARGET, DRAW, *FACETS) if c in table]
    return table[[*SPLIT_COLUMNS, *extra]]


def _describe_small_tests(split: Split) -> list[str]:
    small = [
        f"fold {row['fold']} ({reason})"
        for row in split.summary()
        if row["role"] == "test" and (reason := shortage_of_cells(row[SENSITIVE], row[RESISTANT]))
    ]
    if not small:
        return []
    return [f"too small to be evaluated alone, still part of the pooled figure: {', '.join(small)}"]
