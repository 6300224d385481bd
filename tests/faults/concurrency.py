"""Many processes on one embedding key and on one run folder.

In every round eight processes embed the same cells into one empty cache at the same moment: the
entry is computed once, all read the same values, nobody reads half an entry. Then they all want
one run folder: no two are ever in it together. In some rounds the process that works is killed:
the others go on within a second.

    python tests/faults/concurrency.py --rounds 50
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np

from scdrugmap.config import make_config
from scdrugmap.data.cells import open_cells
from scdrugmap.errors import ResourceError, ScDrugMapError
from scdrugmap.files import write_json
from scdrugmap.model.job import EmbeddingJob
from scdrugmap.model.load import load_model
from scdrugmap.run.journal import open_folder
from scdrugmap.run.store import Lock, Store
from scdrugmap.temporary_names import TEMPORARY_SUFFIX

RESULT = Path(__file__).with_name("results") / "concurrency.json"
MOST_DELAY_S = 1.0


class WatchedStore(Store):
    """A store that tells when it computes something, and dies in the middle of it if told to.

    Parameters
    ----------
    root : Path
    log : Path
        Folder for one file per computation.
    dies : str
        ``before`` or ``amid`` writing an entry, its lock held; empty: lives.
    n_processes : int
        That many want the lock before it dies.
    """

    def __init__(self, root: Path, log: Path, dies: str, n_processes: int) -> None:
        super().__init__(root, quiet=True)
        self._log, self._dies, self._n_processes = log, dies, n_processes

    def acquire(self, kind: str, key: str, **how: Any) -> Lock | None:
        """Take the lock of a key as the real one does."""
        (self._log / f"asked-{os.getpid()}").touch()
        return super().acquire(kind, key, **how)

    def put(
        self, kind: str, key: str, writer: Callable[[Path], None], record: Mapping[str, Any]
    ) -> Path | None:
        """Keep a piece of work as the real one does."""

        def write(folder: Path) -> None:
            writer(folder)
            if self._dies:
                self._die()

        (self._log / f"computed-{os.getpid()}").write_text(str(time.monotonic()))
        if self._dies == "before":
            self._die()
        return super().put(kind, key, write, record)

    def get(self, kind: str, key: str) -> Path | None:
        """Look for an entry; the lock of its key is held by now."""
        (self._log / f"looked-{os.getpid()}").write_text(str(time.monotonic()))
        return super().get(kind, key)

    def _die(self) -> None:
        _wait_until(lambda: len(list(self._log.glob("asked-*"))) == self._n_processes)
        time.sleep(0.5)  # they read their cells again, and then stand before the lock
        (self._log / "killed").write_text(str(time.monotonic()))
        os.kill(os.getpid(), signal.SIGKILL)


class Crowd:
    """Processes that do the same at the same moment, round after round.

    Parameters
    ----------
    place : Path
    n_processes : int
    """

    def __init__(self, place: Path, n_processes: int = 8) -> None:
        from scdrugmap.testing import synthetic_adata

        self.place, self.n_processes = place, n_processes
        adata = synthetic_adata(60, 200, n_patients=4)
        adata.write_h5ad(place / "cells.h5ad")
        self.loaded = load_model("randproj")
        self.cells = open_cells(adata, name="cells")
        self.config = make_config(
            {
                "data": str(place / "cells.h5ad"),
                "label": "response",
                "group": "patient",
                "models": ("constant",),
            }
        ).resolved()
        self.expected = self.embed(Store.disabled())

    def embed(self, store: Store) -> str:
        """Return the hash of the embeddings of all cells."""
        job = EmbeddingJob(self.cells, self.loaded, store=store, quiet=True)
        digest = hashlib.sha256()
        for result in job.run(job.plan()):
            digest.update(np.ascontiguousarray(result.values).tobytes())
        return digest.hexdigest()

    def round(self, number: int, dies: str = "") -> Round:
        """Let all processes embed into one empty cache, then work in one run folder.

        Parameters
        ----------
        number : int
        dies : str
            See :class:`WatchedStore`; what the first process does, which begins alone.
        """
        work = self.place / f"round{number}"
        work.mkdir()
        fork = get_context("fork")
        together = fork.Barrier(self.n_processes - bool(dies))
        crowd = []
        for member in range(self.n_processes):
            first = bool(dies) and not member
            process = fork.Process(
                target=self._take_part, args=(work, None if first else together, dies)
            )
            process.start()
            crowd.append(process)
            if first:
                _wait_until(lambda: any(work.glob("computed-*")))
        for process in crowd:
            process.join(120)
        codes = sorted(process.exitcode for process in crowd if process.exitcode is not None)
        return Round(work, codes, self.expected, self.n_processes, bool(dies))

    def _take_part(self, work: Path, together: Barrier | None, dies: str) -> None:
        dies = "" if together else dies
        store = WatchedStore(work / "cache", work, dies, self.n_processes)
        if together:
            together.wait(60)
        try:
            (work / f"read-{os.getpid()}").write_text(self.embed(store))
            self._share_folder(work)
        except ScDrugMapError as err:
            (work / f"fault-{os.getpid()}").write_text(err.message)
            sys.exit(err.exit_code)

    def _share_folder(self, work: Path) -> None:
        """Work in the one run folder, alone in it."""

        def visit() -> bool:
            try:
                with open_folder(work / "run", self.config, overwrite=False) as folder:
                    (work / "inside").mkdir()  # fails if somebody else is inside
                    folder.note("visited", process=os.getpid())
                    (work / "inside").rmdir()
            except ResourceError:
                return False
            return True

        _wait_until(visit)


def _wait_until(happens: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not happens():
        if time.monotonic() > end:
            raise TimeoutError("it did not happen")
        time.sleep(0.002)


@dataclass(frozen=True)
class Round:
    """What is left of a round."""

    work: Path
    codes: list[int]
    expected: str
    n_processes: int
    killed: bool

    @property
    def n_computed(self) -> int:
        """How many of those that lived computed the entry."""
        return len(list(self.work.glob("computed-*"))) - self.killed

    @property
    def delay_s(self) -> float:
        """Seconds from a kill until somebody else has the lock; 0 without a kill."""
        if not self.killed:
            return 0.0
        times = [float(path.read_text()) for path in self.work.glob("looked-*")]
        killed = float((self.work / "killed").read_text())
        return min(time for time in times if time > killed) - killed

    def faults(self, most_delay_s: float) -> list[str]:
        """Return what should not be."""
        n_living = self.n_processes - self.killed
        found = [path.read_text() for path in self.work.glob("fault-*")]
        if self.codes != [-signal.SIGKILL] * self.killed + [0] * n_living:
            found.append(f"the processes ended with {self.codes}")
        read = [path.read_text() for path in self.work.glob("read-*")]
        if read != [self.expected] * n_living:
            found.append(f"values that were read differ: {sorted(set(read))}")
        if self.n_computed != 1:
            found.append(f"the entry was computed {self.n_computed} times")
        if self.delay_s > most_delay_s:
            found.append(f"a killed owner delayed the others by {self.delay_s:.2f} s")
        visits = (self.work / "run" / "history.jsonl").read_text("utf-8").splitlines()
        if len({json.loads(line)["process"] for line in visits}) != n_living:
            found.append(f"{len(visits)} of {n_living} processes had the run folder")
        entries = list(Store(self.work / "cache", quiet=True).entries())
        left = [path for path in self.work.rglob("*") if TEMPORARY_SUFFIX in path.name]
        left += (self.work / "cache" / "locks").glob("*.lock")
        if len(entries) != 1 or left:
            found.append(f"{len(entries)} entries, and left behind: {left}")
        return found


def main() -> None:
    """Run the rounds and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--processes", type=int, default=8)
    given = parser.parse_args()
    RESULT.parent.mkdir(exist_ok=True)
    began = time.monotonic()
    place = Path(tempfile.mkdtemp(prefix="scdrugmap-concurrency-"))
    crowd = Crowd(place, given.processes)
    faults: list[str] = []
    held, killed, slowest = 0, 0, 0.0
    for number in range(given.rounds):
        dies = {3: "before", 4: "amid"}.get(number % 5, "")
        done = crowd.round(number, dies)
        found = done.faults(MOST_DELAY_S)
        held, killed = held + (not found), killed + bool(dies)
        slowest = max(slowest, done.delay_s)
        faults += [f"round {number}: {text}" for text in found]
        sys.stdout.write(f"round {number} {dies}: {done.delay_s:.3f} s {found}\n")
        sys.stdout.flush()
    shutil.rmtree(place)
    write_json(
        RESULT,
        {
            "subject": f"{given.processes} processes on one embedding key and one run folder",
            "tried": given.rounds,
            "unit": "rounds",
            "held": held,
            "outcomes": {"undisturbed": given.rounds - killed, "owner killed": killed},
            "command": "make race",
            "seconds": round(time.monotonic() - began, 1),
            "machine": {"cpu": os.cpu_count(), "python": platform.python_version()},
            "notes": f"A killed owner delayed the others by at most {slowest:.2f} s. "
            f"{'Faults: ' + '; '.join(faults) if faults else 'Nothing was found.'}",
        },
    )


if __name__ == "__main__":
    main()
