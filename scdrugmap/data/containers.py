"""What holds cells: an h5ad file, a zarr store or an AnnData, seen the same way.

A container gives its tables and the stored matrices; it reads nothing else of a file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from scdrugmap.data.frames import count_rows, is_group, read_frame
from scdrugmap.errors import DataError, ResourceError, UsageError

if TYPE_CHECKING:
    from anndata import AnnData

_MOST_LAYERS = 50


class Container(Protocol):
    """Tables and matrices of one source of cells."""

    where: str
    name: str
    path: Path | None
    notices: tuple[str, ...]

    def obs(self) -> pd.DataFrame:
        """Return the table of cells, index as stored."""

    def var(self, location: str) -> pd.DataFrame:
        """Return the table of genes that belongs to a matrix."""

    def shape(self, location: str) -> tuple[int, int]:
        """Return the rows of obs and of the var that belongs to a matrix."""

    def locations(self) -> tuple[str, ...]:
        """Return the places that hold a matrix: ``X``, ``layers/<name>``, ``raw/X``."""

    def element(self, location: str) -> Any:
        """Return a stored matrix, unread."""

    def check_unchanged(self) -> None:
        """Raise DataError if the file was replaced or rewritten since it was opened."""

    def close(self) -> None:
        """Let go of the file."""


class StoredContainer:
    """An h5ad file or zarr store.

    Parameters
    ----------
    root : h5py.File or zarr.Group
    path : Path
    stamp : tuple or None
        Identity of the file when it was inspected (:func:`file_stamp`).
    """

    def __init__(
        self, root: Any, path: Path, *, stamp: tuple[int, ...] | None, notices: tuple[str, ...] = ()
    ) -> None:
        self.root, self.path, self.stamp, self.notices = root, path, stamp, notices
        self.where, self.name = path.name, dataset_name(path)
        for part in ("obs", "var"):
            if part not in root:
                raise DataError(
                    f"{self.where}: there is no {part}, so this is no AnnData file",
                    hint="`scdrugmap convert` makes one of 10x files and tables",
                )

    def obs(self) -> pd.DataFrame:
        """Return the table of cells."""
        return read_frame(self.root["obs"], "obs", self.where)

    def var(self, location: str) -> pd.DataFrame:
        """Return the table of genes of a matrix."""
        part = self._var_part(location)
        return read_frame(self.root[part], part, self.where)

    def shape(self, location: str) -> tuple[int, int]:
        """Return the rows of obs and var."""
        part = self._var_part(location)
        return (
            count_rows(self.root["obs"], "obs", self.where),
            count_rows(self.root[part], part, self.where),
        )

    def _var_part(self, location: str) -> str:
        if location != "raw/X":
            return "var"
        part = "raw/var" if "raw" in self.root else "raw.var"  # the latter before anndata 0.7
        if part not in self.root:
            raise DataError(f"{self.where}: raw has no var, so its genes have no names")
        return part

    def locations(self) -> tuple[str, ...]:
        """Return the places that hold a matrix."""
        found = ["X"] if "X" in self.root else []
        if "layers" in self.root and is_group(self.root["layers"]):
            found += [f"layers/{name}" for name in sorted(self.root["layers"])[:_MOST_LAYERS]]
        if "raw/X" in self.root or "raw.X" in self.root:
            found.append("raw/X")
        return tuple(found)

    def element(self, location: str) -> Any:
        """Return a stored matrix."""
        return self.root[location if location in self.root else location.replace("/", ".")]

    def check_unchanged(self) -> None:
        """Raise if the file is not the one that was inspected."""
        if self.stamp is not None and file_stamp(self.path) != self.stamp:
            raise DataError(
                f"{self.where}: the file changed while it was being read",
                hint="wait until it is complete, then run again",
            )

    def close(self) -> None:
        """Close the file."""
        close = getattr(self.root, "close", None) or getattr(self.root.store, "close", None)
        if close:
            close()


class MemoryContainer:
    """An AnnData that the caller holds, which is never modified; also a view, also backed."""

    def __init__(self, adata: AnnData, name: str = "adata") -> None:
        self.adata, self.name = adata, name
        self.where = name
        self.path: Path | None = None
        self.notices: tuple[str, ...] = ()

    def obs(self) -> pd.DataFrame:
        """Return a copy of the table of cells."""
        frame = pd.DataFrame(self.adata.obs)
        return frame.set_axis(pd.Index(list(map(str, frame.index)), dtype=object)).copy()

    def var(self, location: str) -> pd.DataFrame:
        """Return a copy of the table of genes of a matrix."""
        return pd.DataFrame((self.adata.raw if location == "raw/X" else self.adata).var).copy()

    def shape(self, location: str) -> tuple[int, int]:
        """Return the rows of obs and var."""
        owner = self.adata.raw if location == "raw/X" else self.adata
        return self.adata.n_obs, owner.n_vars

    def locations(self) -> tuple[str, ...]:
        """Return the places that hold a matrix."""
        found = ["X"] if self.adata.X is not None else []
        found += [f"layers/{name}" for name in sorted(self.adata.layers)]
        return (*found, "raw/X") if self.adata.raw is not None else tuple(found)

    def element(self, location: str) -> Any:
        """Return a matrix; one that is still in its file is given as the group that holds it."""
        if location == "X":
            found = self.adata.X
        elif location == "raw/X":
            found = self.adata.raw.X
        else:
            found = self.adata.layers[location.removeprefix("layers/")]
        return getattr(found, "group", found)

    def check_unchanged(self) -> None:
        """Do nothing: there is no file."""

    def close(self) -> None:
        """Do nothing: the object is the caller's."""


def file_stamp(path: Path) -> tuple[int, ...]:
    """Return what identifies a file and its state: device, inode, size, time of change."""
    try:
        seen = Path(path).stat()
    except OSError:
        return ()
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns


def dataset_name(path: Path) -> str:
    """Return the name of a dataset: the file's name without its endings."""
    name = path.name
    for ending in (".zip", ".gz", ".h5ad", ".h5", ".zarr"):
        if name.lower().endswith(ending) and len(name) > len(ending):
            name = name[: -len(ending)]
    return name


def open_container(source: str | Path | AnnData, name: str | None = None) -> Container:
    """Open a path or an AnnData.

    Raises
    ------
    UsageError
        There is no such path, or it cannot hold cells.
    DataError
        The file is damaged, dangerous or of another kind.
    ResourceError
        It cannot be read now: permission, or another process is writing it.
    """
    if not isinstance(source, str | os.PathLike):
        if not all(hasattr(source, key) for key in ("X", "obs", "var", "layers")):
            raise TypeError(f"expected a path or an AnnData, not {type(source).__name__}")
        return MemoryContainer(source, name or "adata")
    import h5py

    path = Path(source)
    stamp = file_stamp(path)
    if not stamp:
        raise UsageError(f"{path} does not exist")
    try:
        root = h5py.File(path, "r")
    except BlockingIOError as err:
        raise ResourceError(f"{path} is being written by another process") from err
    except OSError as err:
        raise DataError(f"{path} cannot be read: {err}") from err
    container = StoredContainer(root, path, stamp=stamp)
    container.name = name or container.name
    container.check_unchanged()
    return container
