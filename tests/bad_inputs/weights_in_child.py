"""Runs in a child: reads hostile folders of weights and writes down what it opened, as JSON.

``look HOME`` verifies every folder in HOME; ``race FOLDER EVIL HOW ...`` changes the checkpoint of
each FOLDER after its hash was made and before it is read. Both under 4 GB of address space and an
alarm.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from scdrugmap.errors import ScDrugMapError
from scdrugmap.model.verify import verify_weights
from scdrugmap_plugin_scgpt import SPEC

ADDRESS_BYTES = 4 * 2**30  # torch itself takes half of it
SECONDS = 60


def outcome(folder: Path) -> dict[str, Any]:
    """Verify one folder."""
    began = time.monotonic()
    try:
        verify_weights(SPEC, folder)
    except ScDrugMapError as err:
        found = {"kind": type(err).__name__, "message": err.message}
    else:
        found = {"kind": "", "message": ""}
    return {**found, "seconds": time.monotonic() - began}


def look(home: Path) -> dict[str, Any]:
    """Verify all folders of a folder; list every path that Python code opened meanwhile."""
    opened: set[str] = set()
    listening = True

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if listening and event in ("open", "os.listdir", "os.scandir"):
            opened.add(os.fsdecode(arguments[0]) if not isinstance(arguments[0], int) else "")

    sys.addaudithook(hear)
    outcomes = {folder.name: outcome(folder) for folder in sorted(home.iterdir())}
    listening = False
    return {"outcomes": outcomes, "opened": sorted(opened)}


def race(folder: Path, evil: Path, how: str) -> dict[str, Any]:
    """Be the other process that changes a file at the worst moment."""
    target = folder / "best_model.pt"
    armed = True

    def strike(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal armed
        if not armed or event != "open" or not str(arguments[0]).startswith("/proc/self/fd/"):
            return
        if not Path(str(arguments[0])).samefile(target):  # it is another file's turn
            return
        armed = False
        if how == "replace":
            evil.replace(target)
        elif how == "overwrite":
            shutil.copyfile(evil, target)
        else:
            target.unlink()

    sys.addaudithook(strike)
    return {**outcome(folder), "struck": not armed}


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, ADDRESS_BYTES))
    signal.alarm(SECONDS)
    verb, *given = sys.argv[1:]
    if verb == "look":
        json.dump(look(Path(given[0])), sys.stdout)
    else:
        races = [
            race(Path(folder), Path(evil), how)
            for folder, evil, how in zip(given[::3], given[1::3], given[2::3], strict=True)
        ]
        json.dump(races, sys.stdout)
