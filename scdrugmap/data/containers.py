"""What holds cells: an h5ad file, a zarr store or an AnnData, seen the same way.

A container gives its tables and the stored matrices; it reads nothing else of a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from scdrugmap.data.formats import Format, recognise
from scdrugmap.data.frames import count_rows, is_group, read_frame, unlisted_columns
from scdrugmap.data.inspect import check_stamp, open_scanned
from scdrugmap.errors import DataError

if TYPE_CHECKING:
    from anndata import AnnData

_MOST_LAYERS = 50
_MOST_NAMED = 6


class Container(Protocol):
    """Tables and matrices of one source of cells."""

    where: str
    name: str
    path: Path | None

    @property
    def notices(self) -> tuple[str, ...]:
        """Return what the user should know."""

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
    root : h5py.File or ZarrGroup
    path : Path
    stamp : tuple of int
        Identity of the file when it was inspected (:func:`file_stamp`); empty: not watched.
    """

    def __init__(
        self,
        root: Any,
        path: Path,
        *,
        name: str | None = None,
        stamp: tuple[int, ...] = (),
        notices: tuple[str, ...] = (),
    ) -> None:
        self.root, self.stamp, self._notices = root, stamp, notices
        self.path: Path | None = path
        self.where, self.name = path.name, name or dataset_name(path)
        for part in ("obs", "var"):
            if part not in root:
                raise DataError(
                    f"{self.where}: there is no {part}, so this is no AnnData file",
                    hint="`scdrugmap convert` makes one of 10x files and tables",
                )

    @property
    def notices(self) -> tuple[str, ...]:
        """What was found so far; zarr tells when a member is opened."""
        return (*self._notices, *getattr(self.root, "notices", ()))

    def obs(self) -> pd.DataFrame:
        """Return the table of cells."""
        return self._table("obs")

    def var(self, location: str) -> pd.DataFrame:
        """Return the table of genes of a matrix."""
        return self._table(self._var_part(location))

    def _table(self, part: str) -> pd.DataFrame:
        left_out = unlisted_columns(self.root[part])
        if left_out:
            names = ", ".join(left_out[:_MOST_NAMED])
            notice = f"{self.where}: {part} does not list {names} in its column-order: not read"
            self._notices = (*self._notices, notice)
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
            raise DataError(
                f"{self.where}: raw has no var, so its genes have no names",
                hint="write the file again with a current anndata, or name another --layer",
            )
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
        if self.stamp and self.path is not None:
            check_stamp(self.path, self.stamp)

    def close(self) -> None:
        """Close the file."""
        self.root.close()


class MemoryContainer:
    """An AnnData that the caller holds, which is never modified; also a view, also backed."""

    def __init__(self, adata: AnnData, name: str = "adata") -> None:
        self.adata, self.name = adata, name
        self.where = name
        self.path: Path | None = None
        self.notices: tuple[str, ...] = ()
        self._x = adata.X  # once: each look at X of a view makes a copy

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
        found = ["X"] if self._x is not None else []
        found += [f"layers/{name}" for name in sorted(self.adata.layers)]
        return (*found, "raw/X") if self.adata.raw is not None else tuple(found)

    def element(self, location: str) -> Any:
        """Return a matrix; one that is still in its file is given as the group that holds it."""
        if location == "X":
            found = self._x
        elif location == "raw/X":
            found = self.adata.raw.X
        else:
            found = self.adata.layers[location.removeprefix("layers/")]
        return getattr(found, "group", found)

    def check_unchanged(self) -> None:
        """Do nothing: there is no file."""

    def close(self) -> None:
        """Do nothing: the object is the caller's."""


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
    found = recognise(Path(source))
    path = found.path
    if found.format == Format.TABLE:
        raise DataError(
            f"{path.name} is a table of text, which is too slow to read again and again",
            hint=f"scdrugmap convert {path} -o {dataset_name(path)}.h5ad",
        )
    if found.format in (Format.TENX_H5, Format.TENX_FOLDER):
        return _open_10x(path, name)
    if found.format == Format.ZARR:
        from scdrugmap.data.zarr_store import open_zarr

        return StoredContainer(open_zarr(path), path, name=name)
    assert found.scan is not None
    return StoredContainer(
        open_scanned(found.scan),
        path,
        name=name,
        stamp=found.scan.stamp,
        notices=found.scan.notices,
    )


def _open_10x(path: Path, name: str | None) -> MemoryContainer:
    from scdrugmap.data.convert import read_10x

    container = MemoryContainer(read_10x(path), name or dataset_name(path))
    container.path, container.where = path, path.name
    container.notices = (f"{path.name} holds 10x counts; they are read into memory",)
    return container


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn what the HDF5 library says of damaged data into a DataError.

    Raises
    ------
    DataError
        Names the file and what the library said.
    """
    try:
        yield
    except (OSError, RuntimeError) as err:
        words = " ".join(str(err).split())
        raise DataError(
            f"{where}: data cannot be read: {words}",
            hint="the file is damaged: write it again, or fetch it again",
        ) from err
