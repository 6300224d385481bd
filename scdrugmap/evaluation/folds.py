"""What a protocol is given and what it makes: folds of cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from scdrugmap.errors import DataError, UsageError

if TYPE_CHECKING:
    import pandas as pd

MIN_DRAWS = 10
"""Fewest draws of labelled samples per target: fewer say little about the next draw."""


@dataclass(frozen=True)
class Request:
    """What the user decides about a split.

    Attributes
    ----------
    folds : int
        Of cross-validation.
    seed : int
    targets : tuple of str
        What is held out, where not everything in turn: datasets, studies, cancer types or drugs.
    draws : int
        Of labelled samples, for each target.
    """

    folds: int = 5
    seed: int = 0
    targets: tuple[str, ...] = ()
    draws: int = MIN_DRAWS


@dataclass(frozen=True)
class Fold:
    """One division of cells.

    Attributes
    ----------
    rows : (m,) int64
        Positions of the cells that take part; a cell that does not is neither trained on nor
        tested.
    role : (m,) object str
        ``train``, ``test`` or ``excluded``.
    target : str
        What is held out; ``""`` in cross-validation.
    draw : int
        Number of the draw of labelled samples.
    shots : (m,) bool or None
        Training cells that validation must not take: the few labelled ones of the target.
    """

    rows: np.ndarray
    role: np.ndarray
    target: str = ""
    draw: int = 0
    shots: np.ndarray | None = None


class Folds(NamedTuple):
    """What a protocol makes of the cells, and what its reader should know."""

    folds: list[Fold]
    notices: list[str]


Assign = Callable[["pd.DataFrame", Request], Folds]
"""(cells sorted by dataset and cell, with a column ``group``; what is asked for) -> folds."""


@dataclass
class Collected:
    """Folds that could be made, and why others could not."""

    folds: list[Fold] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    faults: list[DataError] = field(default_factory=list)

    def finish(self) -> Folds:
        """Return the folds with a notice for each fault.

        Raises
        ------
        DataError
            There is no fold; the first fault, with the number of the others.
        """
        if not self.folds:
            first = self.faults[0]
            more = f" (and {len(self.faults) - 1} more likewise)" * (len(self.faults) > 1)
            raise DataError(f"{first.message}{more}", hint=first.hint)
        left_out = [f"left out: {fault.message}" for fault in self.faults]
        return Folds(self.folds, [*self.notices, *left_out])


def choose(kind: str, there: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return the names to hold out: those wanted, else all.

    Parameters
    ----------
    kind : str
        What the names are of, for the message.
    there, wanted : sequence of str

    Raises
    ------
    UsageError
        A name is not there; names the nearest.
    """
    import difflib

    for name in wanted:
        if name not in there:
            near = difflib.get_close_matches(name, there, n=1)
            guess = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(
                f"--target {name!r} is no {kind}{guess}", hint=f"there are: {', '.join(there)}"
            )
    return [name for name in there if not wanted or name in wanted]
