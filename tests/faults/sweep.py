"""Every file call of the commands that write, failed and killed one after the other.

For `embed`, `train`, `predict`, `weights import`, `datasets prepare` and `benchmark` the calls
that an undisturbed run makes below its output and cache folders (open, write, fsync, rename,
mkdir) are counted. Then each is failed with ENOSPC, EIO and EACCES, and the process is killed
with SIGKILL before each (unlink too), always in an empty folder; writes are also failed from the
k-th on for good, as a disk that stays full does it. What must hold afterwards stands in
`scenes.py`.

    python tests/faults/sweep.py --minutes 60
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fault_server import ERRORS, FOR_EVER, KILL, FaultServer
from scenes import ALL_KINDS, COMMANDS, KINDS_THAT_FAIL, Scene, make_inputs

from scdrugmap.files import write_json

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Case:
    """The k-th call of a kind in a command, and what becomes of it.

    Attributes
    ----------
    what : str
        Name of an error, ``full`` (ENOSPC from there on), or ``kill``.
    """

    command: str
    kind: str
    k: int
    what: str

    def check(self, scene: Scene) -> str:
        """Do it, assert what must hold, and return how the command ended."""
        scene.clear()
        if self.what == "kill":
            kinds = ALL_KINDS if self.kind == "any" else (self.kind,)
            scene.check_killed(scene.run(scene.fault(kinds, self.k, self.k, KILL)))
            outcome = "killed"
        else:
            full = self.what == "full"
            error = ERRORS["ENOSPC" if full else self.what]
            last = FOR_EVER if full else self.k
            ended = scene.run(scene.fault((self.kind,), self.k, last, error))
            outcome = scene.check_refused(ended)
        scene.check_again(killed=self.what == "kill")
        return outcome


def cases_of(scene: Scene) -> list[Case]:
    """Return every case of a command."""
    found = []
    for kind in KINDS_THAT_FAIL:
        numbers = range(1, scene.golden.number(kind) + 1)
        found += [Case(scene.name, kind, k, what) for what in ERRORS for k in numbers]
        if kind == "write":
            found += [Case(scene.name, kind, k, "full") for k in numbers]
    n_calls = scene.golden.number(*ALL_KINDS)
    return [*found, *(Case(scene.name, "any", k, "kill") for k in range(1, n_calls + 1))]


def main() -> None:
    """Try the cases in a drawn order, as many as the time allows, and write two records."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=240.0)
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    began = time.monotonic()
    place = Path(tempfile.mkdtemp(prefix="scdrugmap-faults-"))
    server = FaultServer(place)
    make_inputs(server, place / "in")
    scenes = {
        name: Scene(server, place / "in", place / f"work-{name.replace(' ', '-')}", name)
        for name in given.commands.split(",")
    }
    cases = [case for scene in scenes.values() for case in cases_of(scene)]
    random.Random(given.seed).shuffle(cases)
    outcomes: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    faults: dict[bool, list[str]] = {True: [], False: []}
    for case in cases:
        if time.monotonic() - began > 60 * given.minutes:
            break
        killed = case.what == "kill"
        try:
            outcome = case.check(scenes[case.command])
        except AssertionError as err:
            outcome = "FAULT"
            faults[killed].append(f"{case}: {' '.join(str(err).split())[:600]}")
            sys.stdout.write(f"{faults[killed][-1]}\n")
        outcomes[killed][f"{case.command}: {outcome}"] += 1
        sys.stdout.write(f"{time.monotonic() - began:.0f} s {case}: {outcome}\n")
        sys.stdout.flush()
    server.close()
    shutil.rmtree(place)
    for killed, name, subject in (
        (False, "write-errors", "File calls of commands that write, failed one by one"),
        (True, "kill-points", "File calls of commands that write, killed before one by one"),
    ):
        tried = sum(outcomes[killed].values())
        there = sum((case.what == "kill") == killed for case in cases)
        record: dict[str, Any] = {
            "subject": subject,
            "tried": tried,
            "unit": "calls" if killed else "failed calls",
            "held": tried - len(faults[killed]),
            "outcomes": dict(sorted(outcomes[killed].items())),
            "command": "make faults",
            "seconds": round(time.monotonic() - began, 1),
            "machine": {"cpu": os.cpu_count(), "python": platform.python_version()},
            "notes": f"{tried:,} of the {there:,} that there are, drawn; each is followed by an "
            "undisturbed run with the same bytes as one that never failed. "
            f"{'Faults: ' + '; '.join(faults[killed]) if faults[killed] else 'All held.'}",
        }
        write_json(RESULTS / f"{name}.json", record)


if __name__ == "__main__":
    main()
