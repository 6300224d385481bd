"""What the operating system says went wrong, as errors that name the file and what is short."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from scdrugmap.errors import ResourceError
from scdrugmap.temporary_names import TEMPORARY_SUFFIX

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
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ERRNO_IN_TEXT = re.compile(r"errno = (\d+)|os error (\d+)")  # of HDF5, and of safetensors
_TEMPORARY_NAME = re.compile(
    rf"\.(.+)\.[0-9a-f]{{8}}-\d+-[0-9a-f]{{8}}{re.escape(TEMPORARY_SUFFIX)}", re.DOTALL
)


def error_number(err: BaseException) -> int:
    """Return the number of an operating-system error, also of a wrapped one; 0: none."""
    number = getattr(err, "errno", None)
    if isinstance(number, int) and number:
        return number
    found = _ERRNO_IN_TEXT.search(str(err))
    return int(found[1] or found[2]) if found else 0


def resource_error(
    err: BaseException, path: Path, n_bytes: int | None = None, *, n_written: int = 0
) -> ResourceError | None:
    """Return the ResourceError that an operating-system error means, or None.

    Parameters
    ----------
    err : BaseException
    path : Path
        File or folder to name; temporary names are told as what they are made for.
    n_bytes : int, optional
        What the file needs, if that is known.
    n_written : int
        Bytes that it had when the disk was full, where it is not.
    """
    number = error_number(err)
    reason = _RESOURCE_ERRORS.get(number)
    if reason is None:
        return None
    need = ""
    if n_bytes:
        need = f" ({n_bytes:,} bytes needed)"
    elif n_written and number in _FULL:
        need = f" (more than {n_written:,} bytes needed)"
    return ResourceError(
        f"{_told(path)}: {reason}{need}",
        hint="make room or choose another place, then run it again",
    )


def _told(path: Path) -> Path:
    """Return a path without the names of files under construction."""
    return Path(*(_TEMPORARY_NAME.sub(r"\1", part) for part in path.parts))
