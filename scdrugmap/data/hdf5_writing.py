"""Write HDF5 files so that a full disk is an error and not a crash.

The HDF5 library (2.0) cannot close a file after one of its writes has failed: of 18 writes of a
small h5ad file, 7 ended the process with a segmentation fault when they failed. So the library
writes through an object of ours: the first error is remembered, later writes are dropped, HDF5
closes the file in good faith, and then the error is raised.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import h5py
    from anndata import AnnData

_OUTPUTS: WeakKeyDictionary[h5py.File, _Output] = WeakKeyDictionary()


@contextmanager
def writing_hdf5(path: Path, mode: str = "w") -> Iterator[h5py.File]:
    """Open an HDF5 file for writing.

    Parameters
    ----------
    path : Path
    mode : {"w", "r+"}

    Raises
    ------
    OSError
        The first error of the disk, when the block ends or :func:`check_written` is called.
    """
    import h5py

    with open(path, "w+b" if mode == "w" else "r+b", buffering=0) as handle:
        output = _Output(path, handle)
        try:
            with h5py.File(output, mode) as file:
                _OUTPUTS[file] = output
                yield file
        finally:
            if output.error is not None:
                raise output.error


def check_written(file: h5py.File) -> None:
    """Raise the error that writing an open file has met, if any: work for it can stop."""
    output = _OUTPUTS.get(file)
    if output is not None and output.error is not None:
        raise output.error


def path_of(file: h5py.File) -> Path:
    """Return the path of a file that is open, also for writing."""
    output = _OUTPUTS.get(file)
    return Path(file.filename) if output is None else output.path


def write_h5ad(adata: AnnData, path: Path, *, compression: str | None = None) -> None:
    """Write an AnnData as its own ``write_h5ad`` does; text columns become categories.

    Parameters
    ----------
    adata : AnnData
    path : Path
    compression : str, optional
        ``gzip``; default: none.

    Raises
    ------
    OSError
        Disk full and the like.
    """
    try:
        from anndata.io import write_elem
    except ImportError:  # anndata 0.10
        from anndata.experimental import write_elem

    adata.strings_to_categoricals()
    if adata.raw is not None:
        adata.strings_to_categoricals(adata.raw.var)
    options = {"compression": compression} if compression else {}
    with writing_hdf5(path) as file:
        write_elem(file, "/", adata, dataset_kwargs=options)


class _Output:
    """What HDF5 takes for a file on a disk that never fails.

    Attributes
    ----------
    error : OSError or None
        The first one.
    """

    def __init__(self, path: Path, handle: FileIO) -> None:
        self.path, self._handle = path, handle
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position."""
        return int(self._handle.seek(offset, whence))

    def tell(self) -> int:
        """Return the position."""
        return int(self._handle.tell())

    def read(self, n_bytes: int) -> bytes:
        """Return bytes; h5py wants it, and calls the next one."""
        buffer = bytearray(n_bytes)
        self.readinto(buffer)
        return bytes(buffer)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; with zeros where there is nothing, or nothing can be read."""
        view = memoryview(buffer).cast("B")
        place = 0
        try:
            while place < len(view) and (n_bytes := self._handle.readinto(view[place:])):
                place += n_bytes
        except OSError as err:
            self.error = self.error or err
        view[place:] = bytes(len(view) - place)
        return len(view)

    def write(self, data: Any) -> int:
        """Write all bytes, or remember why not."""
        view = memoryview(data).cast("B")
        n_bytes, place = len(view), 0
        try:
            while self.error is None and place < n_bytes:
                place += self._handle.write(view[place:])
        except OSError as err:
            self.error = err
        return n_bytes

    def truncate(self, size: int) -> int:
        """Set the length, or remember why not."""
        try:
            self._handle.truncate(size)
        except OSError as err:
            self.error = self.error or err
        return size

    def flush(self) -> None:
        """Do nothing: nothing is held back."""
