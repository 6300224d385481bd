"""Look at an HDF5 file before anything reads it, in a process of its own.

A hostile or damaged file can point into other files, ask for any amount of memory, or crash the
HDF5 library itself. The look happens in a child with limits on memory and time; it touches
metadata only, and whatever happens to the child becomes one :class:`DataError`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scdrugmap.data.unpacking import UNPACKED_PER_SECOND
from scdrugmap.errors import DataError, ResourceError, UsageError

SECONDS = 60
"""Longest look; a sound file of a million cells takes a tenth of a second. Files with pieces so
large that they must be unpacked to be judged have a second more for every 10 MB."""

_WALK = Path(__file__).with_name("hdf5_walk.py")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Scan:
    """What an HDF5 file holds, by its metadata alone.

    Parameters
    ----------
    path : Path
    stamp : tuple of int
        Identity and state of the file when it was looked at (:func:`file_stamp`).
    objects : dict of str to dict
        By path inside the file (the root is ""): ``kind`` (group, dataset, type), ``values``,
        ``shape``, ``bytes`` (declared), ``stored``, ``filters``, ``encoding-type``, ``link``.
    """

    path: Path
    stamp: tuple[int, ...]
    objects: dict[str, dict[str, Any]]

    def __contains__(self, path: str) -> bool:
        return path in self.objects

    @property
    def notices(self) -> tuple[str, ...]:
        """What was found that is not read, or not there: arrays that declare too much."""
        found = []
        for name, item in self.objects.items():
            if item.get("skip"):
                found.append(f"{name} declares {item['bytes']:,} bytes and is not read")
            elif item.get("missing"):
                found.append(
                    f"{item['missing']:,} pieces of {name} are not stored, so they are read as "
                    "zeros or empty"
                )
        return tuple(f"{self.path.name}: {text}" for text in found)


def file_stamp(path: Path) -> tuple[int, ...]:
    """Return what identifies a file and its state: device, inode, size, time of change.

    Empty if there is no such file.
    """
    try:
        seen = Path(path).stat()
    except OSError:
        return ()
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns


def scan(path: str | Path) -> Scan:
    """Look at the metadata of an HDF5 file and refuse what is damaged or dangerous.

    Refused are links and storage outside of the file, virtual datasets, loops, nesting deeper
    than 8, more than 100,000 objects, declared sizes that the stored bytes cannot hold, unknown
    filters, references, opaque and compound values where none belong, and huge attributes.

    Raises
    ------
    UsageError
        There is no such file.
    DataError
        Says what is wrong, and where in the file.
    ResourceError
        The file is locked by a process that writes it, or cannot be opened by this user.
    """
    path = Path(path)
    stamp = file_stamp(path)
    if not stamp:
        raise UsageError(f"{path} does not exist")
    answer = _ask(path)
    if "error" in answer:
        message, hint = answer["error"]
        if answer["kind"] == "locked":
            raise ResourceError(f"{path.name} {message}", hint="wait until it is done, try again")
        if answer["kind"] == "open":
            _check_readable(path)
            hint = hint or "fetch the file again"
            message = f"{message} (size {stamp[2]:,} bytes; incomplete download?)"
        raise DataError(f"{path.name}: {message}", hint=hint)
    return Scan(path, stamp, answer["objects"])


def check_stamp(path: Path, stamp: tuple[int, ...]) -> None:
    """Refuse a file that is not the one, or not in the state, that was looked at.

    Raises
    ------
    DataError
        It was replaced or written to since.
    """
    if file_stamp(path) != stamp:
        raise DataError(
            f"{path.name}: the file changed while it was being read",
            hint="wait until it is complete, then run again",
        )


def open_scanned(found: Scan) -> Any:
    """Open a file that was looked at, for reading.

    Returns
    -------
    h5py.File

    Raises
    ------
    DataError
        It changed since, or cannot be opened.
    ResourceError
        Another process began to write it.
    """
    import h5py

    try:
        file = h5py.File(found.path, "r")
    except BlockingIOError as err:
        raise ResourceError(
            f"{found.path.name} is locked: another process is writing it",
            hint="wait until it is done, try again",
        ) from err
    except OSError as err:
        check_stamp(found.path, found.stamp)
        raise DataError(f"{found.path.name}: {err}", hint="fetch the file again") from err
    try:
        check_stamp(found.path, found.stamp)
    except DataError:
        file.close()
        raise
    return file


def _ask(path: Path) -> dict[str, Any]:
    try:
        done = _start(path)
    except subprocess.TimeoutExpired as err:
        raise DataError(
            f"{path.name}: looking at the file took more than {err.timeout:g} s",
            hint="the file is damaged or was made to stop programs: fetch it again",
        ) from err
    if done.returncode == 0:
        try:
            return dict(json.loads(done.stdout))
        except ValueError:
            pass
    raise DataError(
        f"{path.name}: the HDF5 library failed on this file ({_cause(done)})",
        hint="the file is damaged: fetch it again",
    )


def _start(path: Path) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, **dict.fromkeys(_THREADS, "1"), "HDF5_PLUGIN_PATH": os.devnull}
    environment["PYTHONIOENCODING"] = "utf-8"
    # -P keeps the script's folder off sys.path: our inspect.py would hide the standard one.
    command = [sys.executable, "-P", str(_WALK), str(path.absolute())]
    seconds = SECONDS + path.stat().st_size // UNPACKED_PER_SECOND
    return subprocess.run(
        command, capture_output=True, timeout=seconds, env=environment, check=False
    )


def _cause(done: subprocess.CompletedProcess[bytes]) -> str:
    if done.returncode < 0:
        try:
            return f"ended by {signal.Signals(-done.returncode).name}"
        except ValueError:
            return f"ended by signal {-done.returncode}"
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:200] if lines else f"exit code {done.returncode}"


def _check_readable(path: Path) -> None:
    try:
        with open(path, "rb"):
            pass
    except PermissionError as err:
        raise ResourceError(
            f"{path}: permission denied", hint="make the file readable for this user"
        ) from err
