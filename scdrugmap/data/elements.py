"""Turn what a file or AnnData stores as a matrix into a source of rows, checking its form."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import issparse

from scdrugmap.data.frames import encoding, is_group, text
from scdrugmap.data.sources import (
    CompressedRows,
    DenseRows,
    RowSource,
    check_arrays,
    describe_dtype,
)
from scdrugmap.data.validate import DAMAGED
from scdrugmap.errors import DataError

_AGAIN = "write the file again with a current anndata"
_OTHER = {"csr": "csc", "csc": "csr"}


def row_source(
    element: Any, shape: tuple[int, int], *, part: str, where: str, transpose: bool = False
) -> RowSource:
    """Return the rows of a stored matrix.

    Parameters
    ----------
    element : HDF5 or zarr group or array, NumPy array, SciPy sparse matrix
    shape : (n_obs, n_var)
        What the tables of the file say.
    part, where : str
        Path inside the file, and the file, for messages.
    transpose : bool
        The file holds genes in rows; the source has cells in rows all the same.

    Raises
    ------
    DataError
        No matrix of numbers of this shape, in a form that is understood.
    """
    if issparse(element):
        return _in_memory(element, shape, part=part, where=where, transpose=transpose)
    if is_group(element):
        return _stored_sparse(element, shape, part=part, where=where, transpose=transpose)
    if isinstance(element, np.matrix):
        element = np.asarray(element)
    if not hasattr(element, "dtype") or not hasattr(element, "shape"):
        raise DataError(f"{where}: {part} is a {type(element).__name__}, no matrix", hint=_AGAIN)
    if element.dtype.kind not in "biuf":
        raise DataError(
            f"{where}: {part} holds {describe_dtype(element.dtype)}, expected numbers",
            hint="give a file whose matrix holds real numbers",
        )
    if len(element.shape) != 2:
        raise DataError(
            f"{where}: {part} has {len(element.shape)} dimensions, expected 2", hint=DAMAGED
        )
    _check_shape(tuple(element.shape), shape, part, where)
    return DenseRows(element, part=part, where=where, transpose=transpose)


def _check_shape(found: tuple[int, ...], shape: tuple[int, int], part: str, where: str) -> None:
    if found == shape:
        return
    size = " x ".join(f"{n:,}" for n in found)
    hint = DAMAGED
    if found == shape[::-1]:
        hint = "the matrix lies the other way round than its tables: write it transposed"
    raise DataError(
        f"{where}: {part} is {size}, but there are {shape[0]:,} rows in obs "
        f"and {shape[1]:,} in var",
        hint=hint,
    )


def _in_memory(
    matrix: Any, shape: tuple[int, int], *, part: str, where: str, transpose: bool
) -> RowSource:
    _check_shape(matrix.shape, shape, part, where)
    stored = matrix.format
    rows = (matrix.T if transpose else matrix).tocsr()
    source = CompressedRows(
        rows.data, rows.indices, rows.indptr, rows.shape, part=part, where=where
    )
    source.storage = stored
    return source


def _stored_sparse(
    group: Any, shape: tuple[int, int], *, part: str, where: str, transpose: bool
) -> RowSource:
    kind = encoding(group) or text(group.attrs.get("h5sparse_format", ""))
    stored = kind.removesuffix("_matrix")
    if stored not in _OTHER:
        raise DataError(
            f"{where}: {part} has the unknown encoding {kind!r}, expected csr_matrix, csc_matrix "
            "or array",
            hint=_AGAIN,
        )
    missing = [n for n in ("data", "indices", "indptr") if n not in group or is_group(group[n])]
    declared = group.attrs.get("shape", group.attrs.get("h5sparse_shape"))
    if missing or declared is None:
        what = missing[0] if missing else "attribute shape"
        raise DataError(f"{where}: {part} has no {what}", hint=DAMAGED)
    _check_shape(tuple(int(n) for n in np.asarray(declared).reshape(-1)), shape, part, where)
    data, indices, indptr = group["data"], group["indices"], group["indptr"]
    check_arrays(data, indices, indptr, part=part, where=where)
    long, other = (shape[0], shape[1]) if stored == "csr" else (shape[1], shape[0])
    if indptr.shape[0] != long + 1 and indptr.shape[0] == other + 1:
        raise DataError(
            f"{where}: {part} is labelled {stored}_matrix but its indptr has "
            f"{indptr.shape[0]:,} entries, as a {_OTHER[stored]}_matrix of this shape has",
            hint=f"set its encoding-type to {_OTHER[stored]}_matrix, or write the file again",
        )
    by_rows = (stored == "csr") != transpose
    oriented = shape[::-1] if transpose else shape
    if by_rows:
        source: RowSource = CompressedRows(data, indices, indptr, oriented, part=part, where=where)
    else:
        from scdrugmap.data.transposed import TransposedRows

        source = TransposedRows(data, indices, indptr, oriented, part=part, where=where)
    source.storage = stored
    return source
