"""Names of files under construction: whose they are, and which their process left behind."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

TEMPORARY_SUFFIX = ".scdrugmap-tmp"
"""Ending of files under construction; anything so named can be deleted when no run is active."""

_MOST_NAME_BYTES = 80  # of the target's name in the temporary one: file systems allow 255 in all
_MACHINE = hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def temporary_name(target: Path) -> Path:
    """Return a free name beside `target` that tells machine and process."""
    token = secrets.token_hex(4)
    return target.with_name(f"{_prefix(target)}{_MACHINE}-{os.getpid()}-{token}{TEMPORARY_SUFFIX}")


def abandoned(target: Path) -> Iterator[Path]:
    """Find what processes of this machine that no longer live left under construction."""
    pattern = re.compile(
        rf"{re.escape(_prefix(target))}{_MACHINE}-(\d+)-[0-9a-f]{{8}}{re.escape(TEMPORARY_SUFFIX)}"
    )
    with contextlib.suppress(OSError):
        for path in target.parent.iterdir():
            found = pattern.fullmatch(path.name)
            if found and not _lives(int(found[1])):
                yield path


def _prefix(target: Path) -> str:
    return f".{os.fsencode(target.name)[:_MOST_NAME_BYTES].decode('utf-8', 'ignore')}."


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    try:  # a killed process that its parent has not asked about still has its number
        stat = Path(f"/proc/{process}/stat").read_text("utf-8", "replace")
    except OSError:  # another system, or it has ended meanwhile
        return True
    return stat.rpartition(")")[2].split()[:1] not in (["Z"], ["X"])
