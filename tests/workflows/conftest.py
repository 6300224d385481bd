"""Tests on real workflow engines: they run by ``make test-cwl``, which names the engines' folder.

Without it nothing here is collected: the ordinary tests need no engine. What a machine cannot run
(Slurm needs root and Debian's packages) is named in the closing lines as NOT RUN.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflows.not_run import LEFT_OUT

ROOT = Path(__file__).resolve().parent.parent.parent
RUNNERS = "SCDRUGMAP_RUNNERS"

if RUNNERS not in os.environ:
    collect_ignore_glob = ["test_*.py"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in dict.fromkeys(LEFT_OUT):
        terminalreporter.write_line(line, red=True, bold=True)


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put scdrugmap and the engines on PATH."""
    folders = [str(Path(sys.executable).parent), os.environ[RUNNERS], os.environ["PATH"]]
    monkeypatch.setenv("PATH", os.pathsep.join(folders))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.fixture(scope="session")
def made() -> Path:
    """Return the folder of small inputs, made once, that the jobs of cwl/tests name."""
    folder = ROOT / "cwl" / "tests" / "made"
    if not (folder / "tuned" / "run.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        subprocess.run(
            [sys.executable, str(Path(__file__).with_name("cohort.py")), str(folder)],
            check=True,
            env={**os.environ, "PATH": path},
        )
    return folder
