"""Read what authors publish: only inside one folder, only data, never code.

A plugin's ``read_published(folder, variant)`` turns a :class:`PublishedFolder` into
:class:`Weights`; the core does the rest (finding, hashing, converting, pinning).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from scdrugmap.errors import WeightsError
from scdrugmap.hashes import FileRecord, file_record, file_state
from scdrugmap.modelkit.published_files import (
    read_array,
    read_json,
    read_safetensors,
    read_text,
    read_torch,
)
from scdrugmap.system_errors import resource_error

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

_DESCRIPTORS = Path("/proc/self/fd")  # where Linux shows open files under their number

Content = TypeVar("Content")


@dataclass(frozen=True)
class Weights:
    """What a network is built from: the same for a published and for an imported folder.

    Parameters
    ----------
    config : mapping
        Sizes and settings the network is built with; JSON-able.
    vocabulary : mapping
        The names the model knows, in whatever form its tokenizer needs; JSON-able.
    tensors : mapping of str to Tensor
        By the names of the plugin's own modules.
    source : str
        The folder, for error messages.
    """

    config: Mapping[str, Any]
    vocabulary: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    source: str


class OpenedFile(NamedTuple):
    """A file that was read: where it lies, and what it was."""

    path: Path
    record: FileRecord


@dataclass
class PublishedFolder:
    """A folder of weights as its authors ship it.

    Files are opened by their path inside the folder; symbolic links may not lead out of it. A file
    is opened once, hashed and read through the same descriptor, and remembered in ``opened``.

    Parameters
    ----------
    root : Path
        The folder.
    """

    root: Path
    opened: dict[str, OpenedFile] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise WeightsError(
                f"{self.root} is {'no folder' if self.root.exists() else 'not there'}",
                hint="name the folder that holds the model's files",
            )

    def __str__(self) -> str:
        return str(self.root)

    def path(self, name: str) -> Path:
        """Return the path of a file, for a reader of the plugin's own.

        Raises
        ------
        WeightsError
            It is missing, a link that leads out of the folder, has a twin whose name differs in
            case only, or is not what it was when it was read before.
        ResourceError
            It may not be read.
        """
        with self._open(name) as (path, _):
            return path

    def record(self, name: str) -> FileRecord:
        """Return hash and size of a file; see :meth:`path` for the errors."""
        self.path(name)
        return self.opened[name].record

    @contextmanager
    def _open(self, name: str) -> Iterator[tuple[Path, Path]]:
        """Open and hash a file; give its path, and the path under which the open file is read."""
        path = self._inside(name)
        try:
            # What is no plain file (it may have become a pipe just now) must not make us wait.
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        except OSError as err:
            raise (resource_error(err, path) or self._missing(name)) from err
        try:
            before = file_state(descriptor)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise self._missing(name)
            opened = OpenedFile(path, file_record(path, descriptor))
            if self.opened.setdefault(name, opened) != opened:
                raise _changed(path)
            open_file = _DESCRIPTORS / str(descriptor)
            yield path, open_file if open_file.exists() else path
            if file_state(descriptor) != before:
                raise _changed(path)
            check_unchanged({name: opened})
        finally:
            os.close(descriptor)

    def _inside(self, name: str) -> Path:
        root = self.root.resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise WeightsError(
                f"{self.root / name} leads out of the folder, to {path}",
                hint=f"copy the files themselves: cp -rL {self.root} FOLDER",
            )
        if not path.is_file():
            raise self._missing(name)
        twins = sorted(
            entry.name
            for entry in (root / name).parent.iterdir()
            if entry.name.casefold() == Path(name).name.casefold()
        )
        if len(twins) > 1:
            raise WeightsError(
                f"{self.root}: {' and '.join(twins)} differ in case only",
                hint="keep the one that the authors ship",
            )
        return path

    def _missing(self, name: str) -> WeightsError:
        there = ", ".join(sorted(entry.name for entry in self.root.iterdir())[:12])
        return WeightsError(
            f"{self.root}: {name} is missing (there is: {there or 'nothing'})",
            hint="fetch all files of the model into one folder",
        )

    def _read(self, name: str, read: Callable[[Path, Path], Content]) -> Content:
        with self._open(name) as (path, at):
            return read(path, at)

    def names(self, pattern: str) -> list[str]:
        """Return the files that match a glob pattern, as sorted paths inside the folder."""
        return sorted(
            path.relative_to(self.root).as_posix()
            for path in self.root.glob(pattern)
            if path.is_file()
        )

    def first(self, *names: str) -> str:
        """Return the first of several names that is there.

        Raises
        ------
        WeightsError
            None is.
        """
        for name in names:
            if (self.root / name).is_file():
                return name
        raise WeightsError(
            f"{self.root}: none of {', '.join(names)} is there",
            hint="fetch all files of the model into one folder",
        )

    def text(self, name: str) -> str:
        """Read a UTF-8 text file.

        Raises
        ------
        WeightsError
            It is missing, too large, or no UTF-8 text.
        """
        return self._read(name, read_text)

    def json(self, name: str) -> Any:
        """Read a JSON file; see :func:`read_json` for the errors."""
        return self._read(name, read_json)

    def torch(self, name: str) -> Any:
        """Read what ``torch.save`` wrote; see :func:`read_torch` for the errors."""
        return self._read(name, read_torch)

    def safetensors(self, name: str) -> dict[str, Tensor]:
        """Read a safetensors file; see :func:`read_safetensors` for the errors."""
        return self._read(name, read_safetensors)

    def array(self, name: str) -> np.ndarray:
        """Read a ``.npy`` file; see :func:`read_array` for the errors."""
        return self._read(name, read_array)

    def pickle(self, name: str) -> Any:
        """Read a pickled dictionary; see :func:`scdrugmap.safe_pickle.load` for the errors."""
        from scdrugmap.safe_pickle import load

        return self._read(name, load)


def check_unchanged(opened: Mapping[str, OpenedFile]) -> None:
    """Refuse what was read if one of its files is another by now.

    Tensors are memory-mapped: they are read when they are used.

    Raises
    ------
    WeightsError
        A file is gone or has other content.
    """
    for path, record in opened.values():
        if not path.is_file() or file_record(path) != record:
            raise _changed(path)


def _changed(path: Path) -> WeightsError:
    return WeightsError(
        f"{path} was changed while it was read", hint="wait until it is copied, then try again"
    )
