"""Check the indices of every block before anything uses it.

A bad column index makes compiled code downstream crash or give wrong numbers without a word, so
no block leaves the reader unchecked. The checks run over pieces that stay in the processor's
cache, which keeps them cheaper than the reading itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from scdrugmap.errors import DataError

PIECE = 1 << 17
"""Entries looked at together: 512 kB of float32, so that all passes but the first hit the cache."""

DAMAGED = "the file is damaged: write it again from its source"


def order_of(indices: np.ndarray, indptr: np.ndarray) -> bool:
    """Tell whether the columns of every row rise strictly.

    Parameters
    ----------
    indices : (nnz,) int32
    indptr : (n + 1,) int
        Start of each row, from 0 to nnz.
    """
    nnz = len(indices)
    falls = 0
    for start in range(0, nnz - 1, PIECE):
        part = indices[start : start + PIECE + 1]
        falls += int(np.count_nonzero(part[1:] <= part[:-1]))
    borders = indptr[1:-1]
    borders = borders[(borders > 0) & (borders < nnz)]
    if len(borders) > 1:
        borders = borders[np.r_[True, borders[1:] != borders[:-1]]]  # empty rows share a border
    return falls == int(np.count_nonzero(indices[borders] <= indices[borders - 1]))


def check_bounds(
    indices: np.ndarray, indptr: np.ndarray, n_columns: int, *, rising: bool, what: str, where: str
) -> None:
    """Refuse indices outside of the matrix.

    Parameters
    ----------
    rising : bool
        Whether the columns of every row rise, so that looking at the ends of rows is enough.
    what : str
        Where the block comes from (``X, rows 0 to 4,096``), for the message.

    Raises
    ------
    DataError
        Names the smallest or largest index and the number of columns.
    """
    if not len(indices):
        return
    if rising:
        filled = np.flatnonzero(indptr[1:] > indptr[:-1])
        low, high = indices[indptr[filled]].min(), indices[indptr[filled + 1] - 1].max()
    else:
        low, high = indices.min(), indices.max()
    if low < 0:
        raise DataError(f"{where}: {what} hold the negative index {low}", hint=DAMAGED)
    if high >= n_columns:
        raise DataError(
            f"{where}: {what} hold the index {high:,}, expected less than {n_columns:,}",
            hint=DAMAGED,
        )


def load_indptr(stored: Any, n_rows: int, nnz: int, *, part: str, where: str) -> np.ndarray:
    """Read the borders of rows, which must describe `n_rows` rows of `nnz` entries.

    Parameters
    ----------
    stored : (n_rows + 1,) array-like
    part, where : str
        Path of the matrix inside the file, and the file, for messages.

    Returns
    -------
    (n_rows + 1,) int64

    Raises
    ------
    DataError
        Wrong length, start or end, or a border before the one of the row above.
    """
    if stored.shape[0] != n_rows + 1:
        raise DataError(
            f"{where}: {part}/indptr has {stored.shape[0]:,} entries, expected {n_rows + 1:,}",
            hint=DAMAGED,
        )
    indptr = np.asarray(stored[:]).astype(np.int64, copy=False)
    if indptr[0] != 0:
        raise DataError(f"{where}: {part}/indptr begins with {indptr[0]}, expected 0", hint=DAMAGED)
    if indptr[-1] != nnz:
        raise DataError(
            f"{where}: {part}/indptr ends with {indptr[-1]:,}, expected the {nnz:,} stored values",
            hint=DAMAGED,
        )
    falls = np.flatnonzero(indptr[1:] < indptr[:-1])
    if len(falls):
        raise DataError(
            f"{where}: {part}/indptr falls after row {falls[0]} "
            f"(from {indptr[falls[0]]:,} to {indptr[falls[0] + 1]:,})",
            hint=DAMAGED,
        )
    return indptr
