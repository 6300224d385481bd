"""Kills at random moments of a benchmark, again and again until it has finished.

A benchmark of 12 baseline jobs is started, killed with SIGKILL after a random time (the square of
an even one, as what is done already is skipped: starts grow shorter), started again
in the same folder, killed again, and so on until it finishes. In every fifth benchmark two worker
processes do the jobs, and the whole process group is killed.
After each kill every file without a temporary name is whole. After the last start metrics.tsv is
that of a run that was never killed, no job was done after it had been noted as finished, nobody
holds the lock, and no temporary file is left.

    python tests/faults/kills.py --number 200
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fault_server import FaultServer
from filelock import FileLock

from scdrugmap.evaluation.tables import read_predictions
from scdrugmap.files import write_json
from scdrugmap.run.store import Store
from scdrugmap.temporary_names import TEMPORARY_SUFFIX

N_JOBS = 12
_START_S = 5.0  # of a process of its own, for imports
RESULT = Path(__file__).with_name("results") / "kills.json"


def benchmark(cells: Path, folder: Path, executor: str = "local") -> tuple[str, ...]:
    """Return the arguments of a benchmark of twelve baseline jobs."""
    models = ("constant", "stratified", "technical", "hvg-logreg", "pca-logreg", "randproj")
    return (
        *("benchmark", "--data", str(cells), "--label", "response", "--group", "patient"),
        *("--models", ",".join(models), "--folds", "2", "--protocol", "pooled-group"),
        *("--draws", "20", "--seeds", "0", "--controls", "none", "--executor", executor),
        *("--quiet", "-o", str(folder)),
    )


def make_cells(path: Path) -> Path:
    """Write the cells of the benchmark."""
    from scdrugmap.testing import synthetic_adata

    synthetic_adata(64, 260, n_patients=8).write_h5ad(path)
    return path


@dataclass
class Trial:
    """One benchmark that is killed until it has finished; what was seen in it."""

    cells: Path
    work: Path
    kills: int = 0
    faults: list[str] = field(default_factory=list)
    moments: Counter[str] = field(default_factory=Counter)
    finished: dict[Path, tuple[int, int]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.work / "run"

    def events(self) -> list[dict[str, str]]:
        """Return the history; a line that a kill cut off is none."""
        path = self.folder / "history.jsonl"
        if not path.exists():
            return []
        lines = path.read_text("utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def parts(self) -> list[Path]:
        """Return the files of the finished jobs."""
        found = self.folder.glob("jobs/*.tsv.gz")
        return [path for path in found if re.fullmatch(r"[0-9a-f]{64}\.tsv\.gz", path.name)]

    def after_kill(self) -> None:
        """Note what the kill fell into, and that all that is there is whole."""
        self.kills += 1
        events = [line["event"] for line in self.events()]
        last = events[-1] if events else "before the folder"
        self.moments[f"after: {last}"] += 1
        for path in self.folder.glob("predictions*.gz"):
            read_predictions(path)
        for path in self.parts():
            read_predictions(path)
            about = path.stat()
            self.finished.setdefault(path, (about.st_ino, about.st_mtime_ns))
        store = Store(self.work / "cache", quiet=True)
        for entry in store.entries():
            if store.get(entry.kind, entry.key) is None:
                self.faults.append(f"an entry of the cache is damaged: {store.notices[-1]}")

    def after_end(self, expected: bytes) -> None:
        """Compare with a run that was never killed."""
        if (self.folder / "metrics.tsv").read_bytes() != expected:
            self.faults.append("metrics.tsv differs from that of an undisturbed run")
        for path, (inode, modified) in self.finished.items():
            about = path.stat()
            if (about.st_ino, about.st_mtime_ns) != (inode, modified):
                self.faults.append(f"a finished job was done again: {path.name}")
        done = Counter(line["key"] for line in self.events() if line["event"] == "job")
        if len(self.parts()) != N_JOBS or max(done.values(), default=0) > 1:
            self.faults.append(f"{len(self.parts())} jobs are there; noted as done: {done}")
        with FileLock(self.folder / ".lock").acquire(timeout=0):
            pass
        locks = list((self.work / "cache" / "locks").glob("*.lock"))
        strays = [str(p) for p in self.work.rglob("*") if TEMPORARY_SUFFIX in p.name]
        if locks or strays:
            self.faults.append(f"left behind: {[*map(str, locks), *strays]}")


def kill_until_finished(trial: Trial, codes: Iterator[int | None], expected: bytes) -> None:
    """Look at what is there after each start; `codes` gives exit codes, or None after a kill."""
    for code in codes:
        if code is None:
            trial.after_kill()
        elif code == 0:
            trial.after_end(expected)
            return
        else:
            trial.faults.append(f"it ended with {code}")
            return


def forked(
    server: FaultServer, cells: Path, work: Path, chance: random.Random, most_s: float, most: int
) -> Iterator[int | None]:
    """Start children of a server and kill each after a random time; then let one finish."""
    cache = str(work / "cache")
    for number in range(most + 1):
        wait = None if number == most else most_s * chance.random() ** 2
        arguments = benchmark(cells, work / "run")
        code = server.run(arguments, kill_after_s=wait, SCDRUGMAP_CACHE=cache).code
        yield None if code == -signal.SIGKILL else code
        if code == 0:
            return


def processes(
    cells: Path, work: Path, chance: random.Random, most_s: float, most: int
) -> Iterator[int | None]:
    """Do the same with processes of their own, which start workers."""
    arguments = benchmark(cells, work / "run", "processes:2")
    command = [sys.executable, "-m", "scdrugmap", *arguments]
    environment = {**os.environ, "SCDRUGMAP_CACHE": str(work / "cache"), "OMP_NUM_THREADS": "1"}
    for number in range(most + 1):
        child = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            wait = None if number == most else most_s * chance.random() ** 2
            yield child.wait(wait)
            return
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            yield None


def main() -> None:
    """Kill as often as asked, or as the time allows, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    RESULT.parent.mkdir(exist_ok=True)
    chance = random.Random(given.seed)
    began = time.monotonic()
    place = Path(tempfile.mkdtemp(prefix="scdrugmap-kills-"))
    cells = make_cells(place / "cells.h5ad")
    whole = place / "whole"
    whole.mkdir()
    server = FaultServer(place)
    server.learn(benchmark(cells, whole / "run"), SCDRUGMAP_CACHE=str(whole / "cache"))
    first = time.monotonic()
    assert list(forked(server, cells, whole / "warm", chance, 0.0, 0)) == [0]
    whole_s = time.monotonic() - first
    expected = (whole / "run" / "metrics.tsv").read_bytes()
    kills, runs, moments, faults = 0, 0, Counter[str](), list[str]()
    while kills < given.number and time.monotonic() - began < 60 * given.minutes:
        runs += 1
        trial = Trial(cells, place / f"run{runs}")
        trial.work.mkdir()
        most = min(12, given.number - kills)
        if runs % 5:
            codes = forked(server, cells, trial.work, chance, whole_s, most)
        else:
            codes = processes(cells, trial.work, chance, _START_S + whole_s, min(most, 4))
        try:
            kill_until_finished(trial, codes, expected)
        except (ValueError, OSError, TimeoutError) as err:
            trial.faults.append(f"{type(err).__name__}: {err}")
        kills += trial.kills
        moments += trial.moments
        faults += trial.faults
        if not trial.faults:
            shutil.rmtree(trial.work)
        sys.stdout.write(f"run {runs}: {trial.kills} kills, {kills} in all; {trial.faults}\n")
        sys.stdout.flush()
    server.close()
    write_json(
        RESULT,
        {
            "subject": "Kills at random moments of a benchmark of 12 jobs",
            "tried": kills,
            "unit": "kills",
            "held": kills - len(faults),
            "outcomes": dict(sorted(moments.items())),
            "command": "make kills",
            "seconds": round(time.monotonic() - began, 1),
            "machine": {"cpu": os.cpu_count(), "python": platform.python_version()},
            "notes": f"{runs} benchmarks, killed and gone on with until each had finished, every "
            f"fifth with two worker processes; an undisturbed one took {whole_s:.0f} s. "
            f"{'Faults: ' + '; '.join(faults) if faults else 'Nothing was found.'}",
        },
    )


if __name__ == "__main__":
    main()
