"""Hashes of the files of weights: made at first use in a process, and again when a file changed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict


class FileRecord(BaseModel):
    """Hash and size of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    n_bytes: int


class FileState(NamedTuple):
    """What tells without reading whether a file is still the same.

    The time of change is part of it because, unlike that of modification, nobody can set it back.
    """

    device: int
    inode: int
    n_bytes: int
    modified_ns: int
    changed_ns: int


def file_state(file: Path | int) -> FileState:
    """Return the state of a path or of an open descriptor."""
    found = file.stat() if isinstance(file, Path) else os.fstat(file)
    return FileState(
        found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    )


_hashed: dict[Path, tuple[FileState, FileRecord]] = {}


def file_record(path: Path, descriptor: int | None = None) -> FileRecord:
    """Hash a file; the same one (by its state) once per process.

    Parameters
    ----------
    path : Path
    descriptor : int, optional
        The file as it is open already: what is hashed is what will be read, whatever the path
        has come to mean.
    """
    path = path.resolve()
    if descriptor is None:
        opened = os.open(path, os.O_RDONLY)
        try:
            return file_record(path, opened)
        finally:
            os.close(opened)
    state = file_state(descriptor)
    if path not in _hashed or _hashed[path][0] != state:
        with open(descriptor, "rb", closefd=False) as handle:
            handle.seek(0)
            sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        _hashed[path] = (state, FileRecord(sha256=sha256, n_bytes=state.n_bytes))
    return _hashed[path][1]


def forget_hashes() -> None:
    """Hash every file again when it is used next."""
    _hashed.clear()
