"""Write files whole or not at all, and hash them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scdrugmap.errors import ResourceError, UsageError
from scdrugmap.plain import ascii_escapes
from scdrugmap.system_errors import resource_error
from scdrugmap.temporary_names import TEMPORARY_SUFFIX, abandoned, temporary_name

_NO_FOLDER_SYNC = (errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.EBADF)


@dataclass(frozen=True)
class _Group:
    """Files that get their names together: which, and (temporary name, name) of those made."""

    targets: frozenset[Path]
    waiting: list[tuple[Path, Path]] = field(default_factory=list)


_groups: ContextVar[tuple[_Group, ...]] = ContextVar("_groups", default=())
"""The open blocks of :func:`together`."""


def check_output(
    target: Path, *, overwrite: bool, inputs: Iterable[Path] = (), n_bytes: int = 0
) -> None:
    """Refuse an output before any work is done for it.

    Parameters
    ----------
    target : Path
    overwrite : bool
        An existing file may be replaced.
    inputs : iterable of Path
        Files that the output must not replace.
    n_bytes : int
        What will be written at least; compared with the free space.

    Raises
    ------
    UsageError
        It exists (without `overwrite`), is one of the inputs, is no plain file, or has no parent.
    ResourceError
        Its folder cannot be written to, or has too little room.
    """
    target = Path(target)
    if not target.name:
        raise UsageError(f"{str(target)!r} is no file name")
    try:
        exists = target.exists()
        if target.is_dir():
            raise UsageError(f"{target} is a folder", hint="name a file with -o")
        if exists and any(path.exists() and path.samefile(target) for path in map(Path, inputs)):
            raise UsageError(f"{target} is both input and output", hint="name another file with -o")
        if exists and not target.is_file():
            raise UsageError(f"{target} is no plain file", hint="name a file with -o")
        if exists and not overwrite:
            raise UsageError(f"{target} exists", hint="name another file, or add --overwrite")
        if not target.parent.is_dir():
            raise UsageError(f"the folder {target.parent} does not exist", hint="create it first")
        with tempfile.TemporaryFile(dir=target.parent, prefix=".", suffix=TEMPORARY_SUFFIX):
            pass
    except OSError as err:
        raise (resource_error(err, target.parent) or err) from err
    check_room(target, n_bytes)


def check_different(targets: Iterable[Path]) -> None:
    """Refuse two outputs of one name.

    Raises
    ------
    UsageError
        One would replace the other.
    """
    seen: set[Path] = set()
    for target in targets:
        place = Path(target).resolve()
        if place in seen:
            raise UsageError(f"{target} is given for two outputs", hint="name another file")
        seen.add(place)


def check_room(target: Path, n_bytes: int) -> None:
    """Refuse an output that will not fit beside what is there.

    Raises
    ------
    ResourceError
        Fewer than `n_bytes` are free; names both numbers.
    """
    free = shutil.disk_usage(target.parent).free
    if n_bytes > free:
        raise ResourceError(
            f"{target}: {n_bytes:,} bytes are needed, {free:,} are free",
            hint="make room or choose another place",
        )


@contextmanager
def atomic_path(target: Path, *, n_bytes: int | None = None) -> Iterator[Path]:
    """Give a temporary path beside `target` that becomes `target` when the block succeeds.

    The file is flushed to disk, renamed, and its folder flushed; on any error it is removed and
    `target` stays as it was. Within :func:`together` it is renamed at the end of that. What
    killed processes left for the same target is tidied up.

    Parameters
    ----------
    target : Path
    n_bytes : int, optional
        What will be written, for messages.

    Raises
    ------
    ResourceError
        Disk full, no permission and the like; names the path and, if given, `n_bytes`.
    """
    target = Path(target)
    with _construction(target, n_bytes) as temporary:
        temporary.touch(exist_ok=False)  # not mkstemp, which ignores the umask
        yield temporary
        sync_file(temporary)
        if (group := _group_of(target)) is None:
            _place(temporary, target)
        else:
            group.waiting.append((temporary, target))


@contextmanager
def together(*targets: Path | None) -> Iterator[None]:
    """Let files that are written in the block get their names when all of them are whole.

    A command with several outputs writes all of them or none, so that the same command can be
    given again after an error: nothing of them is in place before the end of the block, and if
    one cannot be put there, those that are new are taken away again.

    Parameters
    ----------
    *targets : Path or None
        What belongs together; other files that are written in the block get their names at once.

    Raises
    ------
    ResourceError
        As for :func:`atomic_path`.
    """
    group = _Group(frozenset(path.absolute() for path in targets if path is not None))
    new: list[Path] = []
    outer = _groups.get()
    _groups.set((*outer, group))
    try:
        yield
        for temporary, target in group.waiting:
            with _told_as_resources(temporary, target, None):
                if _place(temporary, target):
                    new.append(target)
    except BaseException:
        for target in new:
            remove(target)
        raise
    finally:
        _groups.set(outer)
        for temporary, _ in group.waiting:
            remove(temporary)


def _group_of(target: Path) -> _Group | None:
    return next((group for group in _groups.get() if target.absolute() in group.targets), None)


def _place(temporary: Path, target: Path) -> bool:
    """Give a flushed file its name for good; return whether there was none of that name."""
    new = not os.path.lexists(target)
    os.replace(temporary, target)
    try:
        sync_folder(target.parent)
    except OSError:
        if new:
            remove(target)
        raise
    return new


@contextmanager
def atomic_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a temporary folder beside `target` that becomes `target` when the block succeeds.

    Everything in it is flushed first, also in folders within it.

    Parameters
    ----------
    target : Path
    replace : bool
        Take the place of a folder that is there, which comes back if that fails. Without it a
        folder that has come to exist meanwhile stays and the new one is dropped: two writers of
        one content-addressed folder write the same.

    Raises
    ------
    ResourceError
        Disk full, no permission and the like; names the path.
    """
    target = Path(target)
    with _construction(target, None) as temporary:
        temporary.mkdir()
        yield temporary
        for path in sorted(temporary.rglob("*"), reverse=True):  # what is in a folder before it
            (sync_folder if path.is_dir() else sync_file)(path)
        sync_folder(temporary)
        if replace and target.exists():
            _swap(temporary, target)
        else:
            try:
                temporary.rename(target)
            except OSError as err:
                if err.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise
                remove(temporary)
        sync_folder(target.parent)


def _swap(temporary: Path, target: Path) -> None:
    """Put a folder in the place of another; if that fails, the other is back where it was."""
    aside = temporary_name(target)
    target.rename(aside)
    try:
        temporary.rename(target)
    except OSError:
        aside.rename(target)
        raise
    sync_folder(target.parent)  # else the name could come back without what is removed now
    remove(aside)


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """Give a folder beside an output for files on the way to it; it is removed in the end.

    Raises
    ------
    ResourceError
        Disk full, no permission and the like; names the path.
    """
    with _construction(Path(beside), None) as temporary:
        temporary.mkdir()
        try:
            yield temporary
        finally:
            remove(temporary)


@contextmanager
def _construction(target: Path, n_bytes: int | None) -> Iterator[Path]:
    """Give a free temporary name beside `target`; what stands there after an error is removed."""
    temporary = temporary_name(target)
    _tidy_up(target)
    try:
        with _told_as_resources(temporary, target, n_bytes):
            yield temporary
    except BaseException:
        remove(temporary)
        raise
    _tidy_up(target)  # a killed process gives up its locks first, and is still seen for a moment


def _tidy_up(target: Path) -> None:
    """Remove what processes that have ended left under construction."""
    for path in abandoned(target):
        remove(path)


@contextmanager
def _told_as_resources(temporary: Path, target: Path, n_bytes: int | None) -> Iterator[None]:
    """Turn what the operating system says of a file under construction into a ResourceError."""
    try:
        yield
    except _write_errors() as err:
        named = getattr(err, "filename", None)
        ours = named is None or str(named) in (str(temporary), str(target))
        place = target if ours else Path(str(named))
        failed = resource_error(err, place, n_bytes, n_written=_size(temporary))
        if failed is None:
            raise
        raise failed from err


def _write_errors() -> tuple[type[Exception], ...]:
    """Return what writing may raise: HDF5 a RuntimeError, safetensors, if in use, its own."""
    module = sys.modules.get("safetensors")
    return (OSError, RuntimeError) + (() if module is None else (module.SafetensorError,))


def _size(path: Path) -> int:
    """Return the bytes of a file, or of the files in a folder, as far as they can be told."""
    with contextlib.suppress(OSError):
        if not path.is_dir():
            return path.stat().st_size
        return sum(item.stat().st_size for item in path.rglob("*") if item.is_file())
    return 0


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        for _ in range(2):  # a call that fails once need not fail again
            shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def reserve(path: Path) -> None:
    """Take the room on the disk that a file of holes pretends to have.

    Writing into a hole through a memory map ends the process when the disk is full.
    """
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)


def sync_file(path: Path) -> None:
    """Flush a file's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename survives a power loss.

    Folders that may be written to but not read, and file systems that cannot flush one, are let be.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as err:
        if err.errno not in _NO_FOLDER_SYNC:
            raise


def make_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing, whose names survive a power loss."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_folder(folder.parent)


def write_text(target: Path, text: str) -> None:
    r"""Write UTF-8 text with ``\n`` line ends, whole or not at all."""
    data = text.encode("utf-8", "backslashreplace")
    with atomic_path(target, n_bytes=len(data)) as temporary:
        temporary.write_bytes(data)


def write_json(target: Path, value: Any) -> None:
    """Write a JSON file that people can read, whole or not at all; what steers a terminal escaped."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    write_text(target, ascii_escapes(text) + "\n")


def canonical_json(value: Any) -> str:
    """Return the one spelling of a JSON value that hashes are made of."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def hash_json(value: Any) -> str:
    """Return the SHA-256 (hex) of a JSON value."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def hash_file(path: Path) -> str:
    """Return the SHA-256 (hex) of a file, read in pieces."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
