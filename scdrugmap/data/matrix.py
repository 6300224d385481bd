"""Find the matrix to read: counts in ``X``, ``layers["counts"]`` or ``raw.X``, said aloud."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from scdrugmap.data.containers import Container
from scdrugmap.data.elements import row_source
from scdrugmap.data.sources import RowSource, read_index
from scdrugmap.data.values import Diagnosis, diagnose
from scdrugmap.errors import DataError, UsageError

SEARCHED = ("X", "layers/counts", "raw/X")
"""Where counts are looked for, in this order."""

_EMPTY = "was everything filtered away? give the file as it was before"
_SAMPLE_ROWS = 512
_SAMPLE_RUNS = 8
_MOST_OTHER_LAYERS = 10


@dataclass(frozen=True)
class Matrix:
    """The matrix that is read.

    Parameters
    ----------
    location : str
        ``X``, ``layers/<name>`` or ``raw/X``.
    values : str
        ``counts`` or ``lognorm``.
    storage : str
        ``csr``, ``csc`` or ``dense``.
    dtype : str
        Type as stored; rows are given as float32.
    """

    location: str
    values: str
    storage: str
    dtype: str


@dataclass(frozen=True)
class Choice:
    """A matrix, its rows, and what the user should know about the choice."""

    matrix: Matrix
    source: RowSource
    notices: tuple[str, ...]


def choose_matrix(
    container: Container,
    accepts: Collection[str],
    *,
    layer: str | None = None,
    values: str | None = None,
    round_counts: bool = False,
    transpose: bool = False,
) -> Choice:
    """Find values that can be used.

    Counts are preferred wherever they are; log-normalised values are taken only where `accepts`
    allows it. A `layer` that is named is the only one looked at.

    Raises
    ------
    UsageError
        There is no such layer.
    DataError
        No place holds usable values; says what each holds and where counts are, if anywhere.
    """
    where, present = container.where, container.locations()
    named = layer is not None
    wanted = SEARCHED if layer is None else (_location(layer, present, where),)
    places = tuple(place for place in wanted if place in present)
    if not places:
        raise DataError(
            f"{where}: there is no matrix (X, layers['counts'] or raw)",
            hint="give a file with counts, or name a layer with --layer"
            + (f" ({_layers(present)})" if _layers(present) else ""),
        )
    seen: list[tuple[str, Diagnosis]] = []
    usable: dict[str, RowSource] = {}
    for place in places:
        try:
            source = open_rows(container, place, transpose=transpose)
            found = look(source)
        except DataError as err:
            if len(places) == 1:
                raise
            reason = f"something else ({err.message.removeprefix(f'{where}: ')})"
            seen.append((place, Diagnosis("", reason, err.hint)))
            continue
        if found.values and values is not None:
            found = Diagnosis(values, f"{values}, as told", found.hint)
        elif found.values == "rsem" and round_counts:
            found = Diagnosis("counts", "fractional counts, which are rounded")
        seen.append((place, found))
        if found.values in accepts:
            usable[place] = source
        else:
            source.close()
        if found.values == "counts" and place in usable:
            break
    kinds = dict(seen)
    best = next((place for place in usable if kinds[place].values == "counts"), None)
    best = best or next(iter(usable), None)
    for place, source in usable.items():
        if place != best:
            source.close()
    if best is None:
        raise _refusal(container, seen, accepts, transpose, named)
    source, found = usable[best], kinds[best]
    notices = []
    if best != "X" or named:
        others = "; ".join(f"{place} holds {d.reason}" for place, d in seen if place != best)
        notices.append(
            f"{where}: {found.values} are read from {best}"
            + (f", because {others}" if others else "")
        )
    if found.values == "lognorm":
        counts = _counts_elsewhere(container, {place for place, _ in seen}, transpose)
        notices.append(
            f"{where}: {best} holds {found.reason}; no counts were found in {', '.join(kinds)}"
            + (f", but --layer {counts[0]} seems to hold some" if counts else "")
            if values is None
            else f"{where}: the values of {best} are taken as log-normalised, as told"
        )
    elif values == "counts":
        notices.append(f"{where}: the values of {best} are taken as counts, as told")
    elif round_counts and found.reason.startswith("fractional"):
        notices.append(f"{where}: the fractional counts of {best} are rounded")
    matrix = Matrix(best, found.values, source.storage, str(source.dtype))
    return Choice(matrix, source, tuple(notices))


def open_rows(container: Container, location: str, *, transpose: bool) -> RowSource:
    """Return the rows of one matrix of a container.

    Raises
    ------
    DataError
        It is empty or not of the shape and form expected.
    """
    shape, where = container.shape(location), container.where
    if not shape[1 if transpose else 0]:
        raise DataError(f"{where}: there are no cells (obs has 0 rows)", hint=_EMPTY)
    if not shape[0 if transpose else 1]:
        raise DataError(f"{where}: there are no genes (var has 0 rows)", hint=_EMPTY)
    return row_source(
        container.element(location), shape, part=location, where=where, transpose=transpose
    )


def look(source: RowSource) -> Diagnosis:
    """Tell what a matrix holds from rows all over it; goes on until a value is found."""
    n = source.shape[0]
    if n <= _SAMPLE_ROWS:
        index = np.arange(n)
    else:
        run = _SAMPLE_ROWS // _SAMPLE_RUNS
        starts = np.linspace(0, n - run, _SAMPLE_RUNS).astype(np.int64)
        index = np.unique((starts[:, None] + np.arange(run)).ravel())
    sample = read_index(source, index)
    if not np.any(sample.data):
        for start in range(0, n, _SAMPLE_ROWS):
            sample = source.read([(start, min(n, start + _SAMPLE_ROWS))])
            if np.any(sample.data):
                break
        else:
            return Diagnosis(
                "", "no value but zero", "every cell is empty: is this the right file?"
            )
    return diagnose(sample)


def _location(layer: str, present: tuple[str, ...], where: str) -> str:
    if layer == "X":
        return "X"
    location = "raw/X" if layer in ("raw", "raw/X", "raw.X") else f"layers/{layer}"
    if location not in present:
        has = _layers(present) or "there are none"
        raise UsageError(f"{where} has no layer {layer!r}", hint=f"layers: {has}")
    return location


def _layers(present: tuple[str, ...]) -> str:
    names = [place.removeprefix("layers/") for place in present if place.startswith("layers/")]
    return ", ".join([*names, *(["raw"] if "raw/X" in present else [])])


def _counts_elsewhere(container: Container, seen: set[str], transpose: bool) -> list[str]:
    """Return the layers, beyond the usual places, that hold counts."""
    found = []
    for place in container.locations()[:_MOST_OTHER_LAYERS]:
        if place in seen:
            continue
        try:
            source = open_rows(container, place, transpose=transpose)
        except DataError:
            continue
        try:
            if look(source).values == "counts":
                found.append("raw" if place == "raw/X" else place.removeprefix("layers/"))
        except DataError:
            continue
        finally:
            source.close()
    return found


def _refusal(
    container: Container,
    seen: list[tuple[str, Diagnosis]],
    accepts: Collection[str],
    transpose: bool,
    named: bool,
) -> DataError:
    wanted = " or ".join(sorted(accepts))
    what = "; ".join(f"{place} holds {found.reason}" for place, found in seen)
    counts = _counts_elsewhere(container, {place for place, _ in seen}, transpose)
    if counts and "counts" in accepts:
        hint = f"--layer {counts[0]} seems to hold counts"
    else:
        hint = seen[0][1].hint or f"give a file with {wanted}"
    return DataError(f"{container.where}: {what} (need {wanted})", hint=hint)
