"""Fixtures that many tests use; data are built by code in `scdrugmap.testing`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put files with slow tests first where several workers share the files out."""
    if hasattr(config, "workerinput"):
        heavy = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in heavy)


@pytest.fixture(autouse=True)
def _own_places(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test away from the user's cache, weights and data folders."""
    home = tmp_path_factory.mktemp("home")
    for name in ("CACHE", "WEIGHTS", "DATA"):
        monkeypatch.setenv(f"SCDRUGMAP_{name}", str(home / name.lower()))
    monkeypatch.delenv("SCDRUGMAP_PLUGINS", raising=False)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Result]]:
    """Run the command line in this process: ``cli("check", path)`` gives code, out and err."""
    from scdrugmap.cli import main

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        code = stop.value.code
        return Result(code if isinstance(code, int) else int(code is not None), *captured)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def run_process() -> Callable[..., Result]:
    """Run the command line in a process of its own, as a user does."""

    def run(*arguments: object, timeout: float = 120, **environment: str) -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "scdrugmap", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **environment},
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run
