"""What the process that looks at an HDF5 file may take of memory and time.

Needs the standard library only, as that process does.
"""

from __future__ import annotations

import contextlib
import resource

from scdrugmap.data.unpacking import UNPACKED_PER_SECOND

MAX_MEMORY = 192 << 20
"""Address space that looking may take; strings of unknown length are read within it."""

MAX_SECONDS = 20
"""Processor time that looking may take; damage can send the library round in circles."""


def allow_time(n_bytes: int) -> None:
    """Allow the processor time that unpacking some bytes takes (where the system can)."""
    with contextlib.suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
        if soft != resource.RLIM_INFINITY:
            seconds = soft + n_bytes // UNPACKED_PER_SECOND + 1
            most = seconds if hard == resource.RLIM_INFINITY else min(seconds, hard)
            resource.setrlimit(resource.RLIMIT_CPU, (most, hard))


def limit_memory() -> None:
    """Allow this process little more address space than it has now (where the system can)."""
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/statm", encoding="ascii") as handle:
            now = int(handle.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        most = resource.getrlimit(resource.RLIMIT_CPU)[1]  # nobody may raise it
        seconds = MAX_SECONDS if most == resource.RLIM_INFINITY else min(MAX_SECONDS, most)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, most))
        resource.setrlimit(resource.RLIMIT_AS, (now + MAX_MEMORY, now + MAX_MEMORY))
