"""Groups and arrays of a zarr store that say in one line what is damaged.

The library reads metadata and pieces of data when they are asked for, and what it raises then
depends on which byte is wrong: any error of lookup, type or value. A piece that is not there reads
as zeros without a word. These two classes stand between: they give what the library gives, or
raise :class:`DataError`.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from scdrugmap.data.zarr_pieces import StoreFiles, check_pieces
from scdrugmap.errors import DataError

SAFE_BYTES = 64 << 20
"""Declared sizes up to this are never a bomb."""

MAX_RATIO = 1_100
"""Declared bytes per stored byte; the best that gzip can do is 1,032."""

MAX_PIECES = 1_000_000
"""Chunks of an array; more are a mistake, or made to stop programs."""

_AGAIN = "write the store again with a current anndata"
_DAMAGED = "the store is damaged: write it again, or fetch it again"
_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    SystemError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What zarr, its codecs and zipfile were seen to raise on damaged stores."""


@contextmanager
def reading_zarr(where: str, part: str = "") -> Iterator[None]:
    """Turn what the library says of a damaged store into a DataError.

    Raises
    ------
    DataError
        Names the store, the place in it, and what the library said.
    """
    try:
        yield
    except _FAULTS as err:
        words = " ".join(str(err).split())[:300]
        place = f"{part} cannot be read" if part else "the zarr store cannot be opened"
        raise DataError(f"{where}: {place}: {type(err).__name__} ({words})", hint=_DAMAGED) from err


class ZarrArray:
    """An array, read by slices as one of NumPy.

    Parameters
    ----------
    node : zarr.Array
    part, where : str
        Path inside the store, and the store, for messages.
    files : StoreFiles
        Those of the store.

    Raises
    ------
    DataError
        It declares far more than is stored, or a piece is cut or unpacks to more.
    """

    def __init__(self, node: Any, part: str, where: str, files: StoreFiles) -> None:
        self._node, self._part, self._where = node, part, where
        with reading_zarr(where, part):
            self.shape: tuple[int, ...] = tuple(int(n) for n in node.shape)
            self.dtype: np.dtype = np.dtype(node.dtype)
            self.chunks = node.chunks
            self.attrs: dict[str, Any] = dict(node.attrs)
            declared = math.prod(self.shape) * max(1, self.dtype.itemsize)
            stored = int(node.nbytes_stored()) if declared > SAFE_BYTES else declared
            if declared > SAFE_BYTES and declared > MAX_RATIO * stored:
                raise DataError(
                    f"{where}: {part} declares {declared:,} bytes but stores {stored:,}, more "
                    f"than {MAX_RATIO:,} times less",
                    hint=_AGAIN,
                )
            if node.nchunks > MAX_PIECES:  # they are counted one by one
                raise DataError(f"{where}: {part} consists of {node.nchunks:,} pieces", hint=_AGAIN)
            check_pieces(files, part, where)
            self.n_missing = max(0, int(node.nchunks) - int(node.nchunks_initialized))

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __getitem__(self, what: Any) -> np.ndarray:
        with reading_zarr(self._where, self._part):
            return np.asarray(self._node[what])


class ZarrGroup:
    """A group; members come by name or path, as :class:`ZarrArray` or :class:`ZarrGroup`.

    Parameters
    ----------
    node : zarr.Group
    part, where : str
        Path inside the store, empty for its root, and the store, for messages.
    files : StoreFiles
        Those of the store.
    """

    def __init__(self, node: Any, part: str, where: str, files: StoreFiles) -> None:
        self._node, self._part, self._where, self._files = node, part, where, files
        self._members: dict[str, ZarrArray | ZarrGroup] = {}
        self._notices: list[str] = []
        with reading_zarr(where, part):
            self.attrs: dict[str, Any] = dict(node.attrs)

    @property
    def notices(self) -> tuple[str, ...]:
        """What was found in the members that were opened."""
        inner = [m.notices for m in self._members.values() if isinstance(m, ZarrGroup)]
        return tuple(dict.fromkeys([*self._notices, *(text for found in inner for text in found)]))

    def keys(self) -> list[str]:
        """Return the names of the members."""
        with reading_zarr(self._where, self._part):
            return sorted(self._node.keys())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, name: str) -> bool:
        with reading_zarr(self._where, self._part):
            return name in self._node

    def __getitem__(self, name: str) -> ZarrArray | ZarrGroup:
        first, _, rest = name.partition("/")
        if first not in self._members:
            self._members[first] = self._open(first)
        member = self._members[first]
        return member[rest] if rest else member  # type: ignore[return-value]

    def get(self, name: str, default: Any) -> Any:
        """Return a member, or something else if there is none."""
        return self[name] if name in self else default  # noqa: SIM401  it is this very method

    def close(self) -> None:
        """Close the store."""
        close = getattr(self._node.store, "close", None)
        if close:
            close()
        self._files.close()

    def _open(self, name: str) -> ZarrArray | ZarrGroup:
        part = f"{self._part}/{name}".lstrip("/")
        with reading_zarr(self._where, part):
            node = self._node[name]
        if not hasattr(node, "shape"):
            return ZarrGroup(node, part, self._where, self._files)
        array = ZarrArray(node, part, self._where, self._files)
        if array.n_missing:
            self._tell_missing(array, part)
        return array

    def _tell_missing(self, array: ZarrArray, part: str) -> None:
        """Refuse missing pieces of sparse matrices and of names; mention the others.

        zarr leaves out pieces that hold zeros or empty text only. These are common in tables and
        dense matrices; entries of a sparse matrix are not zero, and names are not empty.
        """
        sparse = {"data", "indices", "indptr"} <= set(self.keys())
        if sparse or part.rpartition("/")[2] == self.attrs.get("_index"):
            raise DataError(
                f"{self._where}: {array.n_missing:,} pieces of {part} are missing", hint=_DAMAGED
            )
        self._notices.append(
            f"{self._where}: {array.n_missing:,} pieces of {part} are not stored, so they are "
            "read as zeros or empty"
        )
