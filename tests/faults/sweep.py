"""Every file call of the commands that write, failed and killed one after the other.

For `embed`, `train`, `predict`, `weights import`, `datasets prepare` and `benchmark` the calls
that an undisturbed run makes below its output and cache folders (open, write, fsync, rename,
mkdir) are counted. Then each is failed with ENOSPC, EIO and EACCES, and the process is killed
with SIGKILL before each (unlink too), always in an empty folder; writes are also failed from the
k-th on for good, as a disk that stays full does it. What must hold afterwards stands in
`scenes.py`.

    python tests/faults/sweep.py --workers 2 --minutes 60

What was tried is kept in a journal, and a sweep that was stopped goes on where it was; delete the
journal after a change of what is tried.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from fault_server import ERRORS, FOR_EVER, KILL, FaultServer
from scenes import ALL_KINDS, COMMANDS, KINDS_THAT_FAIL, Scene, make_inputs

from scdrugmap.files import write_json

RESULTS = Path(__file__).with_name("results")
FAULT = "FAULT"
JOURNAL = Path(__file__).parents[2] / "build" / "faults"


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
            if outcome == "carried on":  # all is there, and the same command would be refused
                return outcome
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


def work(part: int, n_parts: int, commands: Sequence[str], seed: int, end: float) -> None:
    """Try every `n_parts`-th case that the journal does not hold, until `end` (Unix time)."""
    place = Path(tempfile.mkdtemp(prefix="scdrugmap-faults-"))
    server = FaultServer(place)
    make_inputs(server, place / "in")
    scenes = {
        name: Scene(server, place / "in", place / f"work-{name.replace(' ', '-')}", name)
        for name in commands
    }
    cases = [case for scene in scenes.values() for case in cases_of(scene)]
    random.Random(seed).shuffle(cases)
    (JOURNAL / "there.json").write_text(json.dumps([asdict(case) for case in cases]))
    done = journal()
    with (JOURNAL / f"tried-{part}.jsonl").open("a") as file:
        for case in cases[part::n_parts]:
            if case in done:
                continue
            if time.time() > end:
                break
            began, fault = time.monotonic(), ""
            try:
                outcome = case.check(scenes[case.command])
            except AssertionError as err:
                asserted = traceback.extract_tb(err.__traceback__)[-1].line
                outcome, fault = FAULT, " ".join(f"{asserted}: {err}".split())[:600]
            seconds = round(time.monotonic() - began, 2)
            found = {"outcome": outcome, "fault": fault, "seconds": seconds}
            file.write(json.dumps({"case": asdict(case), **found}) + "\n")
            file.flush()
            sys.stdout.write(f"{case}: {outcome} {fault}\n")
            sys.stdout.flush()
    server.close()
    shutil.rmtree(place)


def journal() -> dict[Case, dict[str, Any]]:
    """Return what was tried so far: outcome, fault (text) and seconds of each case."""
    found = {}
    for path in sorted(JOURNAL.glob("tried-*.jsonl")):
        for text in path.read_text().splitlines():
            line = json.loads(text)
            found[Case(**line.pop("case"))] = line
    return found


def main() -> None:
    """Try the cases in a drawn order, as many as the time allows, and write two records."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=240.0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    JOURNAL.mkdir(parents=True, exist_ok=True)
    end = time.time() + 60 * given.minutes
    commands = given.commands.split(",")
    workers = [
        get_context("spawn").Process(
            target=work, args=(part, given.workers, commands, given.seed, end)
        )
        for part in range(given.workers)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    write_records()


def write_records() -> None:
    """Sum the journal up."""
    there = [Case(**case) for case in json.loads((JOURNAL / "there.json").read_text())]
    tried = journal()
    RESULTS.mkdir(exist_ok=True)
    for killed, name, subject in (
        (False, "write-errors", "File calls of commands that write, failed one by one"),
        (True, "kill-points", "File calls of commands that write, killed before one by one"),
    ):
        of_kind = {case: line for case, line in tried.items() if (case.what == "kill") == killed}
        faults = [
            f"{c}: {line['fault']}" for c, line in of_kind.items() if line["outcome"] == FAULT
        ]
        n_there = sum((case.what == "kill") == killed for case in there)
        outcomes = Counter(f"{case.command}: {line['outcome']}" for case, line in of_kind.items())
        which = "All" if len(of_kind) == n_there else f"{len(of_kind):,} of the {n_there:,}"
        record: dict[str, Any] = {
            "subject": subject,
            "tried": len(of_kind),
            "unit": "calls" if killed else "failed calls",
            "held": len(of_kind) - len(faults),
            "outcomes": dict(sorted(outcomes.items())),
            "command": "make faults",
            "seconds": round(sum(line["seconds"] for line in of_kind.values()), 1),
            "machine": {"cpu": os.cpu_count(), "python": platform.python_version()},
            "notes": f"{which} that there are; each is followed by an undisturbed run with the "
            "same bytes as one that never failed. Seconds of all workers together. "
            f"{'Faults: ' + '; '.join(faults) if faults else 'All held.'}",
        }
        write_json(RESULTS / f"{name}.json", record)


if __name__ == "__main__":
    main()
