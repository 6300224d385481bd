"""Write files whole or not at all, and hash them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scdrugmap.errors import ResourceError, UsageError

TEMPORARY_SUFFIX = ".scdrugmap-tmp"
"""Ending of files under construction; anything so named can be deleted."""

_RESOURCE_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would exceed the allowed size",
    errno.EIO: "the disk reported an input/output error",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.EMFILE: "too many open files",
    errno.ENFILE: "too many open files",
    errno.ENOMEM: "out of memory",
}


def resource_error(err: OSError, path: Path, n_bytes: int | None = None) -> ResourceError | None:
    """Return the ResourceError that an operating-system error means, or None."""
    reason = _RESOURCE_ERRORS.get(err.errno or 0)
    if reason is None:
        return None
    need = f" ({n_bytes:,} bytes needed)" if n_bytes else ""
    return ResourceError(
        f"{path}: {reason}{need}", hint="make room or choose another place, then run it again"
    )


def check_output(target: Path, *, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Refuse an output before any work is done for it.

    Raises
    ------
    UsageError
        It exists (without `overwrite`), is one of the inputs, is a folder, or has no parent.
    ResourceError
        Its folder cannot be written to.
    """
    target = Path(target)
    if not target.name:
        raise UsageError(f"{str(target)!r} is no file name")
    if target.is_dir():
        raise UsageError(f"{target} is a folder", hint="name a file with -o")
    if any(path.exists() and target.exists() and path.samefile(target) for path in inputs):
        raise UsageError(f"{target} is both input and output", hint="name another file with -o")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists", hint="name another file, or add --overwrite")
    if not target.parent.is_dir():
        raise UsageError(f"the folder {target.parent} does not exist", hint="create it first")
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as err:
        raise (resource_error(err, target.parent) or err) from err


@contextmanager
def atomic_path(target: Path, *, n_bytes: int | None = None) -> Iterator[Path]:
    """Give a temporary path beside `target` that becomes `target` when the block succeeds.

    The file is flushed to disk, renamed, and its folder flushed; on any error it is removed and
    `target` stays as it was.

    Raises
    ------
    ResourceError
        Disk full, no permission and the like; names the path and, if given, `n_bytes`.
    """
    target = Path(target)
    try:
        handle, name = tempfile.mkstemp(
            prefix=f".{target.name[:80]}.", suffix=TEMPORARY_SUFFIX, dir=target.parent
        )
    except OSError as err:
        raise (resource_error(err, target, n_bytes) or err) from err
    temporary = Path(name)
    try:
        os.close(handle)
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files private; respect the umask
        sync_file(temporary)
        os.replace(temporary, target)
        sync_folder(target.parent)
    except OSError as err:
        raise (resource_error(err, target, n_bytes) or err) from err
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def sync_file(path: Path) -> None:
    """Flush a file's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename survives a power loss."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(target: Path, text: str) -> None:
    r"""Write UTF-8 text with ``\n`` line ends, whole or not at all."""
    data = text.encode("utf-8", "backslashreplace")
    with atomic_path(target, n_bytes=len(data)) as temporary:
        temporary.write_bytes(data)


def write_json(target: Path, value: Any) -> None:
    """Write a JSON file that people can read, whole or not at all."""
    write_text(target, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def canonical_json(value: Any) -> str:
    """Return the one spelling of a JSON value that hashes are made of."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def hash_json(value: Any) -> str:
    """Return the SHA-256 (hex) of a JSON value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def hash_file(path: Path) -> str:
    """Return the SHA-256 (hex) of a file, read in pieces."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
