"""A million cells of 30,000 genes: memory, open files and time of every verb that reads them all.

Each verb runs on files of 100,000 and of 1,000,000 cells with 200 values each, in a process of its
own whose peak memory the kernel reports. What must hold: the peak stays under 2 GB plus the
model, the ten times larger file adds no more than what is kept of each cell (name, table of cells,
answer; at most 300 bytes), and no more files are open.

    python benchmarks/million_cells.py FOLDER [--cells 100000 1000000] [--only CASE]...

FOLDER gets up to 5 GB of files, which are deleted at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from memory import N_EXPRESSED, write_counts

RESULTS = Path(__file__).parents[1] / "tests" / "faults" / "results" / "million_cells.json"
N_GENES, N_KNOWN_GENES, N_PATIENTS = 30_000, 24_000, 20
TRAINING_CELLS = 2_000
MOST_BYTES = 2_000_000_000
MOST_BYTES_PER_CELL = 300
MOST_MORE_FILES = 5
POLL_S = 0.2

CASES = {
    "check": ("check", "{cells}", "--quiet"),
    "embed randproj": (
        *("embed", "{cells}", "--model", "randproj", "-o", "{folder}/embedded.h5ad"),
        *("--no-cache", "--quiet"),
    ),
    "predict randproj + logistic": (
        *("predict", "{cells}", "--predictor", "{folder}/predictor.zip"),
        *("-o", "{folder}/predictions.tsv", "--quiet"),
    ),
    "embed scgpt tiny, 64 tokens": (
        *("embed", "{cells}", "--model", "scgpt", "--set", "variant=tiny"),
        *("--set", "max_length=64", "--weights", "random", "-o", "{folder}/embedded.h5ad"),
        *("--no-cache", "--quiet"),
    ),
}
"""What the command line is called with, by name."""


@dataclass(frozen=True)
class Measured:
    """What a verb needed for some cells."""

    cells: int
    peak_bytes: int
    most_open_files: int
    seconds: float
    cpu_seconds: float
    """Of one core: other work on the machine makes `seconds` longer, but not this."""
    cells_per_s: float
    """By `cpu_seconds`, start of the program included."""

    def in_words(self) -> str:
        """Return a line for people."""
        return (
            f"{self.cells:,} cells in {self.cpu_seconds:,.0f} s of one core, peak {self.peak_bytes / 1e6:,.0f} MB, "
            f"{self.most_open_files} open files"
        )


def write_cells(path: Path, n_cells: int) -> None:
    """Write an h5ad file of labelled cells of made-up patients."""
    import numpy as np
    import pandas as pd

    from scdrugmap.data.genes import gene_table

    genes = [*gene_table().names("symbol")[:N_KNOWN_GENES]]
    genes += [f"MADE-UP-{number}" for number in range(N_GENES - N_KNOWN_GENES)]
    patient = np.arange(n_cells) % N_PATIENTS
    obs = pd.DataFrame(
        {
            "patient": pd.Categorical([f"P{number:02d}" for number in patient]),
            "response": pd.Categorical(np.where(patient % 2, "sensitive", "resistant")),
        },
        index=[f"{number:016d}-1" for number in range(n_cells)],  # as long as a barcode
    )
    write_counts(path, obs, genes)


def watch(command: Sequence[str], n_cells: int, environment: dict[str, str]) -> Measured:
    """Run a command; look at its open files while it runs and at its peak memory afterwards."""
    began = time.monotonic()
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    most_open = 0
    while True:
        ended, status, usage = os.wait4(child.pid, os.WNOHANG)
        if ended:
            break
        with contextlib.suppress(OSError):  # it may have just ended
            most_open = max(most_open, len(list(Path(f"/proc/{child.pid}/fd").iterdir())))
        time.sleep(POLL_S)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
    of_core = usage.ru_utime + usage.ru_stime
    return Measured(
        n_cells,
        usage.ru_maxrss * 1024,
        most_open,
        round(time.monotonic() - began, 1),
        round(of_core, 1),
        round(n_cells / of_core),
    )


def prepare(folder: Path, environment: dict[str, str]) -> None:
    """Train the predictor on a small file of its own."""
    training, splits = folder / "training.h5ad", folder / "splits.tsv"
    subprocess.run(
        [sys.executable, __file__, str(folder), "--write", str(TRAINING_CELLS), str(training)],
        check=True,
    )
    verb = (sys.executable, "-m", "scdrugmap")
    split = ("--label", "response", "--group", "patient", "--validation", "-o", str(splits))
    train = ("--splits", str(splits), "--fold", "0", "--model", "randproj", "--head", "logistic")
    target = ("-o", str(folder / "predictor.zip"))
    for step in (
        ("split", str(training), *split),
        ("train", str(training), *train, *target),
    ):
        subprocess.run([*verb, *step, "--quiet"], check=True, env=environment)


def measure(folder: Path, sizes: Sequence[int], cases: Sequence[str]) -> dict[str, list[Measured]]:
    """Run each case on a file of each size; print one line per run."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        **{f"SCDRUGMAP_{name}": str(folder / name) for name in ("CACHE", "WEIGHTS", "DATA")},
    }
    prepare(folder, environment)
    found: dict[str, list[Measured]] = {case: [] for case in cases}
    for n_cells in sizes:
        cells = folder / f"{n_cells}.h5ad"
        # In a child: a process counts the peak memory of the one that starts it as its own.
        subprocess.run(
            [sys.executable, __file__, str(folder), "--write", str(n_cells), str(cells)],
            check=True,
        )
        for case in cases:
            arguments = [word.format(cells=cells, folder=folder) for word in CASES[case]]
            one = watch([sys.executable, "-m", "scdrugmap", *arguments], n_cells, environment)
            found[case].append(one)
            print(f"{case}: {one.in_words()}", flush=True)
            for made in ("embedded.h5ad", "predictions.tsv"):
                (folder / made).unlink(missing_ok=True)
            shutil.rmtree(folder / "CACHE", ignore_errors=True)
        cells.unlink()
    return found


def judge(found: dict[str, list[Measured]]) -> list[str]:
    """Return what does not hold, one line each."""
    broken = []
    for case, runs in found.items():
        few, many = runs[0], runs[-1]
        growth = (many.peak_bytes - few.peak_bytes) / max(1, many.cells - few.cells)
        if many.peak_bytes > MOST_BYTES:
            broken.append(f"{case}: peak of {many.peak_bytes:,} bytes")
        if growth > MOST_BYTES_PER_CELL:
            broken.append(
                f"{case}: {growth:,.0f} bytes more for each cell (goal: {MOST_BYTES_PER_CELL})"
            )
        if many.most_open_files > few.most_open_files + MOST_MORE_FILES:
            broken.append(
                f"{case}: {many.most_open_files} files open, {few.most_open_files} before"
            )
    return broken


def main() -> None:
    """Measure and write the record; the exit code tells whether everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cells", nargs=2, type=int, default=(100_000, 1_000_000))
    parser.add_argument("--only", action="append", choices=CASES, help="default: all")
    parser.add_argument("--write", nargs=2, metavar=("CELLS", "FILE"), help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.write is not None:
        write_cells(Path(given.write[1]), int(given.write[0]))
        return

    from scdrugmap.files import write_json
    from scdrugmap.run.doctor import processor_title

    given.folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        found = measure(Path(folder), given.cells, given.only or list(CASES))
    seconds = time.monotonic() - began
    if given.only and given.output.exists():  # the others stay as they were measured
        kept = json.loads(given.output.read_text("utf-8"))
        before = {case: [Measured(**one) for one in runs] for case, runs in kept["details"].items()}
        replaced = (one.seconds for case in found for one in before.get(case, ()))
        seconds += kept["seconds"] - sum(replaced)
        found = before | found
    broken = judge(found)
    for line in broken:
        print(line)
    write_json(
        given.output,
        {
            "subject": "Memory and open files of verbs that read a million cells",
            "tried": len(found),
            "unit": "verbs",
            "held": len(found) - len({line.partition(":")[0] for line in broken}),
            "outcomes": {
                f"MB at the peak of {case}": round(runs[-1].peak_bytes / 1e6)
                for case, runs in found.items()
            },
            "details": {case: [asdict(one) for one in runs] for case, runs in found.items()},
            "command": "make million",
            "seconds": round(seconds, 1),
            "machine": {"cpu": processor_title(), "python": platform.python_version()},
            "notes": "; ".join(broken)
            or f"{N_GENES:,} genes, {N_EXPRESSED} values per cell; one core; peak of the process",
        },
    )
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
