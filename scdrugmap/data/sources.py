"""Rows of a matrix as CSR, whichever way it is stored: CSR, dense, or CSC through ``transposed``.

A source works on anything that slices like an array (HDF5 dataset, zarr array, NumPy array), so
the same code serves files and memory. It reads ranges of rows and checks each before it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from scipy.sparse import csr_matrix

from scdrugmap.data.validate import DAMAGED, check_bounds, load_indptr, order_of
from scdrugmap.errors import DataError

_DENSE_BYTES = 32 << 20
"""Most bytes of a dense slab; a block of 4,096 x 20,000 float32 would be 328 MB."""

_CAST_ENTRIES = 1 << 20
"""Entries read together when they must be cast."""

_LONG_RUN = 32
"""Mean length of runs from which on rows are read in the order asked for, without sorting."""

_GAP_ENTRIES = 1 << 12
"""Unwanted entries read rather than skipped: about what one more HDF5 call costs."""


Runs = Sequence[tuple[int, int]]
"""Ranges of rows, ``start:stop`` each."""


class RowSource(Protocol):
    """Rows of a matrix."""

    shape: tuple[int, int]
    dtype: np.dtype
    storage: str
    joined: bool  # whether repeated entries have been summed so far

    def read(self, runs: Runs) -> csr_matrix:
        """Return rows, run after run: float32, columns in range and rising, none twice."""

    def close(self) -> None:
        """Let go of temporary files."""


class CompressedRows:
    """Rows of a CSR matrix.

    Parameters
    ----------
    data, indices : (nnz,) array-like
    indptr : (n_rows + 1,) array-like
    shape : (n_rows, n_columns)
    part, where : str
        Path inside the file, and the file, for messages.

    Raises
    ------
    DataError
        Lengths do not fit, or `indptr` is not what it should be.
    """

    storage = "csr"

    def __init__(
        self, data: Any, indices: Any, indptr: Any, shape: tuple[int, int], *, part: str, where: str
    ) -> None:
        check_arrays(data, indices, indptr, part=part, where=where)
        self.data, self.indices = data, indices
        self.shape, self.dtype, self.part, self.where = shape, data.dtype, part, where
        self.joined = False
        self.indptr = load_indptr(indptr, shape[0], data.shape[0], part=part, where=where)

    def read(self, runs: Runs) -> csr_matrix:
        """Return rows, run after run."""
        bounds = [(int(self.indptr[start]), int(self.indptr[stop])) for start, stop in runs]
        nnz = sum(last - first for first, last in bounds)
        data, indices = np.empty(nnz, np.float32), np.empty(nnz, np.int32)
        at = 0
        for first, last in bounds:
            fill(self.data, first, last, data[at : at + last - first])
            fill(self.indices, first, last, indices[at : at + last - first])
            at += last - first
        lengths = [
            self.indptr[start + 1 : stop + 1] - self.indptr[start:stop] for start, stop in runs
        ]
        rows = compressed(
            data,
            indices,
            _cumulated(lengths),
            self.shape[1],
            what=f"{self.part}, rows {runs[0][0]:,} to {runs[-1][1]:,},",
            where=self.where,
        )
        self.joined = self.joined or rows.nnz < nnz
        return rows

    def close(self) -> None:
        """Do nothing: the file is closed by who opened it."""


class DenseRows:
    """Rows of a dense matrix.

    Parameters
    ----------
    array : (n_rows, n_columns) array-like
    transpose : bool
        The array holds genes in rows.
    """

    storage = "dense"

    def __init__(self, array: Any, *, part: str, where: str, transpose: bool = False) -> None:
        self.array, self.part, self.where, self.transpose = array, part, where, transpose
        self.shape = tuple(array.shape[::-1] if transpose else array.shape)
        self.dtype, self.joined = array.dtype, False
        chunks = getattr(array, "chunks", None)
        along = int(chunks[1 if transpose else 0]) if chunks else 1
        rows = max(1, _DENSE_BYTES // max(1, self.shape[1] * max(4, self.dtype.itemsize)))
        self._step = max(1, rows // along * along if rows >= along else rows)

    def read(self, runs: Runs) -> csr_matrix:
        """Return rows, run after run, read in slabs."""
        slabs = []
        for start, stop in runs:
            while start < stop:
                end = min(stop, start - start % self._step + self._step)  # whole chunks
                piece = self.array[:, start:end].T if self.transpose else self.array[start:end]
                slabs.append(csr_matrix(np.asarray(piece).astype(np.float32, copy=False)))
                start = end
        return stack(slabs, self.shape[1])

    def close(self) -> None:
        """Do nothing: the file is closed by who opened it."""


def check_arrays(data: Any, indices: Any, indptr: Any, *, part: str, where: str) -> None:
    """Refuse the three arrays of a sparse matrix if their kinds or lengths do not fit.

    Raises
    ------
    DataError
        Names the array, what it is and what was expected.
    """
    for name, array, kinds in (
        ("data", data, "biuf"),
        ("indices", indices, "iu"),
        ("indptr", indptr, "iu"),
    ):
        if len(array.shape) != 1:
            raise DataError(
                f"{where}: {part}/{name} has {len(array.shape)} dimensions, expected 1",
                hint=DAMAGED,
            )
        if array.dtype.kind not in kinds:
            raise DataError(
                f"{where}: {part}/{name} holds {describe_dtype(array.dtype)}, expected numbers",
                hint="give a file whose matrix holds real numbers",
            )
    if data.shape != indices.shape:
        raise DataError(
            f"{where}: {part}/data has {data.shape[0]:,} entries "
            f"but {part}/indices has {indices.shape[0]:,}",
            hint=DAMAGED,
        )


def describe_dtype(dtype: np.dtype) -> str:
    """Say in words what an array holds."""
    if dtype.names:
        return "a structure of several fields"
    words = {"c": "complex numbers", "S": "text", "U": "text", "T": "text", "V": "opaque bytes"}
    if dtype.kind == "O":
        return "text" if dict(dtype.metadata or {}).get("vlen") in (str, bytes) else "objects"
    return words.get(dtype.kind, str(dtype))


def fill(array: Any, first: int, last: int, out: np.ndarray) -> None:
    """Read entries ``first:last`` of an array into `out`, cast to its type.

    Integers that do not fit are clipped to the ends of the range, which the checks that follow
    refuse.
    """
    if first == last:
        return
    same = array.dtype == out.dtype
    if same and hasattr(array, "read_direct"):
        _read_hdf5(array, first, out)
        return
    step = last - first if same else _CAST_ENTRIES
    for start in range(first, last, step):
        piece = np.asarray(array[start : min(last, start + step)])
        if out.dtype.kind == "i" and not np.can_cast(piece.dtype, out.dtype):
            limits = np.iinfo(out.dtype)
            piece = np.clip(piece, limits.min if piece.dtype.kind == "i" else 0, limits.max)
        with np.errstate(over="ignore"):
            out[start - first : start - first + len(piece)] = piece


def _read_hdf5(dataset: Any, first: int, out: np.ndarray) -> None:
    """Read as ``dataset.read_direct`` does, at a third of its cost per call."""
    from h5py import h5s

    space = dataset.id.get_space()
    space.select_hyperslab((first,), out.shape)
    dataset.id.read(h5s.create_simple(out.shape), space, out)


def compressed(
    data: np.ndarray,
    indices: np.ndarray,
    indptr: np.ndarray,
    n_columns: int,
    *,
    what: str,
    where: str,
) -> csr_matrix:
    """Make a checked CSR block of arrays that may be owned by it.

    Unsorted columns are sorted and repeated entries summed.

    Raises
    ------
    DataError
        An index is negative or too large.
    """
    rising = order_of(indices, indptr)
    check_bounds(indices, indptr, n_columns, rising=rising, what=what, where=where)
    rows = assemble(data, indices, indptr, n_columns)
    if not rising:
        rows.has_sorted_indices = rows.has_canonical_format = False
        rows.sum_duplicates()
    return rows


def assemble(
    data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, n_columns: int
) -> csr_matrix:
    """Make a CSR matrix of arrays known to be right, without a copy or a look at them."""
    kind = np.int32 if len(data) < 2**31 else np.int64
    rows = _empty(len(indptr) - 1, n_columns)
    rows.data, rows.indices = data, indices.astype(kind, copy=False)
    rows.indptr = indptr.astype(kind, copy=False)
    rows.has_sorted_indices = rows.has_canonical_format = True
    return rows


def read_index(source: RowSource, index: np.ndarray) -> csr_matrix:
    """Return rows in any order, read in as few and as orderly steps as possible.

    Parameters
    ----------
    index : (n,) int64
        Rows, may repeat.

    Returns
    -------
    csr_matrix float32, (n, n_columns)
    """
    if not len(index):
        return stack([], source.shape[1])
    runs = _runs(index, 1)
    if len(runs) == 1 or len(runs) * _LONG_RUN <= len(index):
        return source.read(runs)
    wanted, back = np.unique(index, return_inverse=True)
    runs = _runs(wanted, _gap(source))
    rows = source.read(runs)
    lengths = np.array([stop - start for start, stop in runs])
    shift = np.repeat(np.cumsum(lengths) - lengths - [start for start, _ in runs], lengths)
    read = np.concatenate([np.arange(start, stop) for start, stop in runs])
    at = wanted + shift[np.searchsorted(read, wanted)]
    return rows[at[back]]


def _runs(index: np.ndarray, gap: int) -> list[tuple[int, int]]:
    """Cut an index into runs that rise by 1 to `gap`."""
    steps = np.diff(index)
    cuts = np.flatnonzero((steps < 1) | (steps > gap)) + 1
    return [
        (int(index[a]), int(index[b - 1]) + 1)
        for a, b in zip([0, *cuts], [*cuts, len(index)], strict=True)
    ]


def _gap(source: RowSource) -> int:
    """Rows that are cheaper to read than to skip."""
    indptr = getattr(source, "indptr", None)
    per_row = source.shape[1] if indptr is None else indptr[-1] / max(1, source.shape[0])
    return 1 + int(_GAP_ENTRIES / max(1.0, float(per_row)))


def _cumulated(lengths: list[np.ndarray]) -> np.ndarray:
    indptr = np.zeros(sum(map(len, lengths)) + 1, dtype=np.int64)
    np.cumsum(np.concatenate(lengths), out=indptr[1:])
    return indptr


def stack(pieces: list[csr_matrix], n_columns: int) -> csr_matrix:
    """Put blocks of rows below each other; none gives a block of no rows."""
    if not pieces:
        return _empty(0, n_columns)
    if len(pieces) == 1:
        return pieces[0]
    return assemble(
        np.concatenate([piece.data for piece in pieces]),
        np.concatenate([piece.indices for piece in pieces]),
        _cumulated([np.diff(piece.indptr) for piece in pieces]),
        n_columns,
    )


def _empty(n_rows: int, n_columns: int) -> csr_matrix:
    shape: Any = (n_rows, n_columns)
    return csr_matrix(shape, dtype=np.float32)
