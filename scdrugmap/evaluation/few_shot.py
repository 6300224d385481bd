"""Few-shot: some labelled groups of the target are added to the training data of other datasets."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from scdrugmap.data.labels import RESISTANT, SENSITIVE
from scdrugmap.errors import DataError, UsageError
from scdrugmap.evaluation.folds import MIN_DRAWS, Collected, Fold, Folds, Request, choose
from scdrugmap.evaluation.groups import design_fault
from scdrugmap.evaluation.held_out import hold_out, training_fault

if TYPE_CHECKING:
    from collections.abc import Iterator

Unit = Literal["sample", "cell"]

_TRIES = 50  # candidates per draw, to find draws that differ


def few_shot(cells: pd.DataFrame, request: Request, *, shots: int, unit: Unit) -> Folds:
    """Hold out one dataset after the other, but for `shots` of its groups per label.

    Every draw takes other groups; the draws of more shots hold those of fewer. With cells as the
    unit, the same groups leave the test, and `shots` of their cells per label are trained on: both
    units are tested on the same cells.
    """
    fault = design_fault(cells, (SENSITIVE, RESISTANT))
    if fault is not None:
        raise fault
    if request.draws < MIN_DRAWS:
        raise UsageError(f"--draws {request.draws}: at least {MIN_DRAWS} are needed")
    names = sorted(cells["dataset"].unique())
    if len(names) < 2:
        raise DataError(
            f"few-shot adds labelled samples of a dataset to the training data of others; there "
            f"is only {names[0]!r}",
            hint="give more files, or use --protocol within",
        )
    made = Collected()
    code = np.asarray(pd.factorize(cells["group"], sort=True)[0], np.int64)
    for name in choose("dataset", names, request.targets):
        where = f"dataset {name}"
        tested = (cells["dataset"] == name).to_numpy()
        base = hold_out(tested, code, name)
        own = _fault_of_target(cells, tested, shots, where) or training_fault(cells, base, where)
        if own is not None:
            made.faults.append(own)
            continue
        drawn = list(_draws(cells, tested, code, request, shots, name))
        if len(drawn) < request.draws:
            made.notices.append(
                f"{where}: {len(drawn)} draws instead of {request.draws}: no more differ"
            )
        for number, groups in enumerate(drawn):
            key = [request.seed, _number(name), number, 1]
            fold = _with_shots(cells, base, code, groups, shots, unit, key)
            made.folds.append(replace(fold, draw=number))
    return made.finish()


def _fault_of_target(
    cells: pd.DataFrame, tested: np.ndarray, shots: int, where: str
) -> DataError | None:
    counts = cells[tested].groupby("label")["group"].nunique()
    few = {x: int(counts.get(x, 0)) for x in (SENSITIVE, RESISTANT)}
    if min(few.values()) > shots:
        return None
    label = min(few, key=lambda x: few[x])
    return DataError(
        f"{where}: not evaluable, it has {few[label]} {label} groups; {shots} to learn from and "
        "one to test need more",
        hint="use fewer --shots, or add samples",
    )


def _draws(
    cells: pd.DataFrame,
    tested: np.ndarray,
    code: np.ndarray,
    request: Request,
    shots: int,
    name: str,
) -> Iterator[np.ndarray]:
    """Give different sets of groups with `shots` of each label, and both labels in the rest."""
    sensitive = (cells["label"] == SENSITIVE).to_numpy()
    groups = np.unique(code[tested])
    has = np.stack([np.isin(groups, code[tested & of]) for of in (sensitive, ~sensitive)], 1)
    seen: set[tuple[int, ...]] = set()
    for attempt in range(_TRIES * request.draws):
        random = np.random.default_rng([request.seed, _number(name), attempt])
        count, chosen = np.zeros(2, np.int64), np.zeros(len(groups), bool)
        for place in random.permutation(len(groups)):
            if (count + has[place] <= shots).all():
                count += has[place]
                chosen[place] = True
        taken = tuple(np.flatnonzero(chosen).tolist())
        if (count < shots).any() or not has[~chosen].any(0).all() or taken in seen:
            continue
        seen.add(taken)
        yield groups[chosen]
        if len(seen) == request.draws:
            return


def _with_shots(
    cells: pd.DataFrame,
    base: Fold,
    code: np.ndarray,
    groups: np.ndarray,
    shots: int,
    unit: Unit,
    key: list[int],
) -> Fold:
    of_groups = np.isin(code[base.rows], groups)
    known = of_groups & (base.role == "test")
    role = base.role.copy()
    role[known] = "excluded"
    learnt = known
    if unit == "cell":
        learnt = np.zeros(len(role), bool)
        label = cells["label"].to_numpy()[base.rows]
        random = np.random.default_rng(key)
        for name in (SENSITIVE, RESISTANT):
            own = np.flatnonzero(known & (label == name))
            learnt[_spread(own, code[base.rows[own]], shots, random)] = True
    role[learnt] = "train"
    return replace(base, role=role, shots=learnt)


def _spread(
    places: np.ndarray, group: np.ndarray, n: int, random: np.random.Generator
) -> np.ndarray:
    """Draw `n` of some cells, one group after the other as long as they last."""
    order = random.permutation(len(places))
    turn = pd.Series(group[order]).groupby(group[order]).cumcount().to_numpy()
    return places[order[np.argsort(turn, kind="stable")[:n]]]


def _number(name: str) -> int:
    """Return a number that depends on a name alone, so that other targets change no draw."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:4])
