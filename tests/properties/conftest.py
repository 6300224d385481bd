"""Properties share strategies, which they import by name; the long form leaves a record."""

from __future__ import annotations

import platform
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from made_up import EXAMPLES_OF_LONG, IS_LONG  # noqa: E402

RECORD = HERE.parent / "faults" / "results" / "properties.json"
_held: dict[str, bool] = {}
_began = time.monotonic()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember which property held."""
    if IS_LONG and f"/{HERE.name}/" in report.nodeid:
        _held[report.nodeid] = _held.get(report.nodeid, True) and not report.failed


def pytest_sessionfinish() -> None:
    """Write the record of a long run."""
    if not _held:
        return
    from scdrugmap.files import write_json
    from scdrugmap.run.doctor import processor_title

    RECORD.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        RECORD,
        {
            "subject": "Properties of reading, embedding, splits, metrics, and of all our files",
            "tried": len(_held),
            "unit": "properties",
            "held": sum(_held.values()),
            "outcomes": {"held": sum(_held.values()), "broken": len(_held) - sum(_held.values())},
            "command": "make properties-long",
            "seconds": round(time.monotonic() - _began, 1),
            "machine": {"cpu": processor_title(), "python": platform.python_version()},
            "notes": f"{EXAMPLES_OF_LONG} random examples of each; broken: "
            + (", ".join(name for name, held in _held.items() if not held) or "none"),
        },
    )
