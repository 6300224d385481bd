"""Rows of a matrix that is stored by columns (CSC), through a temporary file.

Rows of a CSC matrix lie scattered over the whole file. Two passes over it put them together once:
entries are sorted into bundles of neighbouring rows on disk, then each bundle is sorted in
memory. Memory stays bounded whatever the size; the disk needs 20 bytes per stored value, of which
8 stay until the source is closed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np

from scdrugmap.data.sources import CompressedRows, check_arrays, fill
from scdrugmap.data.validate import DAMAGED, load_indptr
from scdrugmap.errors import DataError, ResourceError
from scdrugmap.system_errors import resource_error

_ENTRY = np.dtype([("row", "<i4"), ("column", "<i4"), ("value", "<f4")])
_BYTES_PER_ENTRY = _ENTRY.itemsize + 8
_READ_ENTRIES = 1 << 20
_BUNDLE_ENTRIES = 1 << 21


class TransposedRows(CompressedRows):
    """Rows of a CSC matrix.

    Parameters
    ----------
    data, indices : (nnz,) array-like
        Values, and the row of each.
    indptr : (n_columns + 1,) array-like
        Start of each column.
    shape : (n_rows, n_columns)

    Raises
    ------
    DataError
        The arrays do not describe a matrix of this shape.
    ResourceError
        There is no room for the temporary file.
    """

    storage = "csc"

    def __init__(
        self, data: Any, indices: Any, indptr: Any, shape: tuple[int, int], *, part: str, where: str
    ) -> None:
        check_arrays(data, indices, indptr, part=part, where=where)
        stored, nnz = data.dtype, data.shape[0]
        borders = load_indptr(indptr, shape[1], nnz, part=part, where=where)
        place, need = Path(tempfile.gettempdir()), nnz * _BYTES_PER_ENTRY
        if shutil.disk_usage(place).free < need:
            raise ResourceError(
                f"{place}: {need:,} bytes are needed to turn {where} from columns into rows",
                hint="make room, set TMPDIR to a larger disk, or write the file as CSR",
            )
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        try:
            starts = _transpose(
                data, indices, borders, shape[0], self._file, what=f"{where}: {part}"
            )
        except OSError as err:
            self._file.close()
            raise (resource_error(err, place, need) or err) from err
        except BaseException:
            self._file.close()
            raise
        super().__init__(
            _FileArray(self._file, np.dtype("<f4"), 0, nnz),
            _FileArray(self._file, np.dtype("<i4"), 4 * nnz, nnz),
            starts,
            shape,
            part=part,
            where=where,
        )
        self.dtype = stored

    def close(self) -> None:
        """Remove the temporary file."""
        self._file.close()


class _FileArray:
    """A stretch of a file as an array that reads what is sliced."""

    def __init__(self, file: IO[bytes], dtype: np.dtype, offset: int, length: int) -> None:
        self._file, self._offset = file, offset
        self.dtype, self.shape = dtype, (length,)

    def __getitem__(self, entries: slice) -> np.ndarray:
        first, last, _ = entries.indices(self.shape[0])
        size = self.dtype.itemsize
        raw = _read(self._file.fileno(), size * (last - first), self._offset + size * first)
        return np.frombuffer(raw, self.dtype)


def _transpose(
    data: Any, indices: Any, borders: np.ndarray, n_rows: int, out: IO[bytes], *, what: str
) -> np.ndarray:
    """Write values and columns, ordered by row, to `out`; return the start of each row."""
    nnz = data.shape[0]
    lengths = np.zeros(n_rows, dtype=np.int64)
    rows = np.empty(min(nnz, _READ_ENTRIES), np.int32)
    for first, last in _steps(nnz, _READ_ENTRIES):
        part = rows[: last - first]
        fill(indices, first, last, part)
        if part.min() < 0 or part.max() >= n_rows:
            bad = int(part.min() if part.min() < 0 else part.max())
            raise DataError(
                f"{what} holds the row index {bad:,}, expected 0 to {n_rows - 1:,}", hint=DAMAGED
            )
        lengths += np.bincount(part, minlength=n_rows)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    firsts = _bundles(starts)  # first row of each bundle, then n_rows
    bundle_of = np.repeat(
        np.arange(len(firsts) - 1, dtype=np.uint32 if len(firsts) > 65_536 else np.uint16),
        np.diff(firsts),
    )
    with tempfile.TemporaryFile() as heap:
        ends = starts[firsts[:-1]].copy()
        for first, last in _steps(nnz, _READ_ENTRIES):
            entries = np.empty(last - first, _ENTRY)
            value = np.empty(last - first, np.float32)
            part = rows[: last - first]
            fill(data, first, last, value)
            fill(indices, first, last, part)
            bundle = bundle_of[part]
            order = np.argsort(bundle, kind="stable")
            entries["row"], entries["value"] = part[order], value[order]
            entries["column"] = _columns(borders, first, last)[order]
            counts = np.bincount(bundle, minlength=len(firsts) - 1)
            at = 0
            for number in np.flatnonzero(counts):
                size = int(counts[number])
                _write(heap, entries[at : at + size], _ENTRY.itemsize * int(ends[number]))
                ends[number] += size
                at += size
        heap.flush()
        for top, bottom in pairwise(firsts.tolist()):
            first, last = int(starts[top]), int(starts[bottom])
            raw = _read(heap.fileno(), _ENTRY.itemsize * (last - first), _ENTRY.itemsize * first)
            entries = np.frombuffer(raw, _ENTRY)
            local = entries["row"] - np.int32(top)
            # Sorting two-byte integers is linear in NumPy, and keeps columns in their order.
            order = np.argsort(
                local.astype(np.uint16) if bottom - top <= 65_536 else local, kind="stable"
            )
            _write(out, entries["value"][order], 4 * first)
            _write(out, entries["column"][order], 4 * (nnz + first))
    out.flush()
    return starts


def _bundles(starts: np.ndarray) -> np.ndarray:
    """Return the first rows of bundles of about ``_BUNDLE_ENTRIES`` entries, then n_rows."""
    n_rows = len(starts) - 1
    firsts = [0]
    while firsts[-1] < n_rows:
        top = firsts[-1]
        bottom = int(np.searchsorted(starts, starts[top] + _BUNDLE_ENTRIES, side="right")) - 1
        firsts.append(min(n_rows, max(bottom, top + 1)))
    return np.array(firsts)


def _columns(borders: np.ndarray, first: int, last: int) -> np.ndarray:
    """Return the column of each entry ``first:last``."""
    low = int(np.searchsorted(borders, first, side="right")) - 1
    high = int(np.searchsorted(borders, last, side="left"))
    cut = np.clip(borders[low : high + 1], first, last)
    return np.repeat(np.arange(low, high, dtype=np.int32), np.diff(cut))


def _steps(n: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n, size):
        yield start, min(n, start + size)


def _write(file: IO[bytes], array: np.ndarray, offset: int) -> None:
    file.seek(offset)
    file.write(np.ascontiguousarray(array).data)


def _read(descriptor: int, size: int, offset: int) -> bytes:
    parts = []
    while size:
        part = os.pread(descriptor, size, offset)
        if not part:
            raise OSError("the temporary file ended early")
        parts.append(part)
        size, offset = size - len(part), offset + len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
