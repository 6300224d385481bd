"""What made a result: versions, plugins, command and settings, without times or places.

A record holds no absolute path, no user name and, outside ``times``, no clock reading, so that the
same work gives the same record on another day and machine of the same software.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from scdrugmap import __version__
from scdrugmap.errors import DataError
from scdrugmap.files import hash_file, hash_json
from scdrugmap.specs import CONTRACT

PACKAGES = (
    "accelerate",
    "anndata",
    "h5py",
    "numpy",
    "pandas",
    "peft",
    "safetensors",
    "scikit-learn",
    "scipy",
    "torch",
    "transformers",
    "zarr",
)
"""Packages whose version can change a number."""


def provenance(
    verb: str,
    inputs: Iterable[Path] = (),
    config: Mapping[str, Any] | None = None,
    *,
    hash_inputs: bool = False,
    began: datetime | None = None,
) -> dict[str, Any]:
    """Describe how a result comes about.

    Parameters
    ----------
    verb : str
        The command, or the Python function of the same name.
    inputs : iterable of Path
        Files it reads; recorded by name and size.
    config : mapping, optional
        Resolved settings, JSON-able.
    hash_inputs : bool
        Record the SHA-256 of each input too; reads it whole.
    began : datetime, optional
        When the work began; the end is now.

    Returns
    -------
    dict
        JSON-able. Only ``times`` depends on the clock; see :func:`without_times`.
    """
    now = datetime.now(UTC)
    return {
        "verb": verb,
        "scdrugmap": __version__,
        "contract": CONTRACT,
        "command": command_line(sys.argv),
        "config": dict(config or {}),
        "inputs": [_describe(Path(path), hashed=hash_inputs) for path in inputs],
        "plugins": plugins(),
        "versions": dict(versions()),
        "times": {
            "began": (began or now).isoformat(timespec="seconds"),
            "ended": now.isoformat(timespec="seconds"),
        },
    }


def without_times(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record of :func:`provenance` without its clock readings: what may be hashed."""
    return {name: value for name, value in record.items() if name != "times"}


def hash_record(record: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of a record of :func:`provenance`, times left out."""
    return hash_json(without_times(record))


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Return the versions of Python, the platform and the packages that can change a number."""
    found = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def plugins() -> list[dict[str, str]]:
    """Return name, distribution, version and status of each plugin."""
    from scdrugmap.registry import get_registry

    return [
        {
            "name": plugin.name,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "status": plugin.status,
        }
        for plugin in get_registry().plugins
    ]


def command_line(arguments: Sequence[str]) -> list[str]:
    """Return a command without the folders of its absolute paths.

    Other parts stay: ``--weights=/a/b/c`` becomes ``--weights=c``, ``data/x.h5ad`` is kept.
    """
    if not arguments:
        return []
    return [Path(arguments[0]).name, *map(_without_folders, arguments[1:])]


def _without_folders(argument: str) -> str:
    head, equals, tail = argument.rpartition("=")
    path = tail if equals else argument
    if not path.startswith("~") and not Path(path).is_absolute():
        return argument
    return f"{head}{equals}{Path(path).name}"


def _describe(path: Path, *, hashed: bool) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        n_bytes = size if path.is_file() else None
        found: dict[str, Any] = {"name": path.name, "n_bytes": n_bytes}
        if hashed and n_bytes is not None:
            found["sha256"] = hash_file(path)
    except OSError as err:
        raise DataError(f"{path} cannot be read: {err.strerror}") from err
    return found
