"""Names of cells: unique within a file, or made so; and the choice of cells by ``--where``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from scdrugmap.errors import DataError, UsageError

SAMPLE_COLUMNS = ("sample", "sample_id", "library", "batch", "donor_id", "patient")
"""Columns that may tell apart cells of one barcode, in the order they are tried."""

_MOST_LISTED = 8
_HASHED_AT_ONCE = 16_384


def unique_names(
    obs: pd.DataFrame, sample: str | None, where: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return a name for each cell, unique within the file.

    The names of a file never depend on the cells that are selected.

    Parameters
    ----------
    obs : pandas.DataFrame
        Index = names as stored.
    sample : str or None
        Column whose value goes before a repeated name; None: the usual ones are tried.

    Returns
    -------
    names : (n,) object str
    notices : tuple of str

    Raises
    ------
    DataError
        A name is empty or holds a NUL character, or names repeat and no sample column tells the cells apart.
    UsageError
        There is no such column.
    """
    if sample is not None and sample not in obs:
        raise UsageError(f"{where} has no column {sample!r} in obs", hint=_near(obs, sample))
    stored = obs.index.to_numpy(dtype=object)
    empty = np.flatnonzero(stored == "")
    if len(empty):
        raise DataError(
            f"{where}: {len(empty):,} of {len(stored):,} cell names are empty (the first in row "
            f"{empty[0]:,})",
            hint="give every cell a name in the index of obs, unique within the file",
        )
    behind = np.flatnonzero([isinstance(name, str) and "\0" in name for name in stored])
    if len(behind):  # pandas takes two texts that differ behind a NUL for one
        raise DataError(
            f"{where}: {len(behind):,} of {len(stored):,} cell names hold a NUL character (the first "
            f"in row {behind[0]:,})",
            hint="rename these cells in the index of obs",
        )
    if are_unique(stored):
        return stored, ()
    repeated = obs.index[obs.index.duplicated()]
    for column in (sample,) if sample else SAMPLE_COLUMNS:
        if column not in obs:
            continue
        names = np.array(
            [f"{s}:{n}" for s, n in zip(obs[column], obs.index, strict=True)], dtype=object
        )
        if len(set(names)) == len(names):
            notice = (
                f"{where}: {len(repeated):,} cell names repeat ({repeated[0]!r}, ...); cells are "
                f"called {column}:name, as {names[0]!r}"
            )
            return names, (notice,)
    raise DataError(
        f"{where}: {len(repeated):,} cell names repeat ({repeated[0]!r}, ...) and no column of "
        "samples tells these cells apart",
        hint="make the names unique, or add a column `sample` to obs",
    )


def are_unique(names: np.ndarray) -> bool:
    """Tell whether no name ((n,) object str) repeats.

    Takes few bytes per name: pandas would keep a table of all.
    """
    hashes = np.empty(len(names), np.uint64)
    for start in range(0, len(names), _HASHED_AT_ONCE):
        part = slice(start, start + _HASHED_AT_ONCE)
        hashes[part] = pd.util.hash_array(names[part], categorize=False)
    hashes.sort()
    return not (hashes[1:] == hashes[:-1]).any() or len(set(names)) == len(names)


def select_cells(obs: pd.DataFrame, where: Sequence[tuple[str, str]], source: str) -> np.ndarray:
    """Return the positions of the cells that have the wanted values.

    Parameters
    ----------
    where : sequence of (column, value)
        Values of one column are alternatives; all columns must hold.

    Returns
    -------
    (n,) int64

    Raises
    ------
    UsageError
        There is no such column, or no cell has these values.
    """
    kept = np.ones(len(obs), dtype=bool)
    for column in dict.fromkeys(name for name, _ in where):
        if column not in obs:
            raise UsageError(f"{source} has no column {column!r} in obs", hint=_near(obs, column))
        wanted = [value for name, value in where if name == column]
        kept &= obs[column].astype(str).isin(wanted).to_numpy(dtype=bool)
    if not kept.any() and where:
        column = where[0][0]
        has = ", ".join(map(str, obs[column].astype(str).unique()[:_MOST_LISTED]))
        said = " ".join(f"{name}={value}" for name, value in where)
        raise UsageError(f"{source}: no cell has {said}", hint=f"{column} holds: {has}")
    return np.flatnonzero(kept)


def _near(obs: pd.DataFrame, column: str) -> str:
    import difflib

    near = difflib.get_close_matches(column, map(str, obs.columns), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"columns: {', '.join(obs.columns)}"
