"""Start programs of the workflow tests and tell what they said when they fail."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def call(
    *words: object, cwd: Path | None = None, timeout: float = 280, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever that is."""
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def succeed(*words: object, cwd: Path | None = None, **environment: str) -> str:
    """Run a program that has to succeed; return what it printed."""
    done = call(*words, cwd=cwd, **environment)
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    return done.stdout
