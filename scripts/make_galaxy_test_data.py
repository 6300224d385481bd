"""Make galaxy_tools/test-data: a simulated cohort and what every step of the command line makes of it.

Needs nothing but scdrugmap and the plugin for scGPT, whose tests hold a tiny checkpoint.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "galaxy_tools" / "test-data"
WEIGHTS = ROOT / "plugins" / "scgpt" / "tests" / "golden" / "checkpoint"

BENCHMARK = """\
data:
  - path: cohort.h5ad
label: response
group: patient
models: [hvg-logreg]
controls: [constant]
protocols: [pooled-group]
folds: 2
seeds: [0]
draws: 50
"""


def run(*arguments: object) -> None:
    """Run one command of scdrugmap in the folder of the test data."""
    command = [sys.executable, "-m", "scdrugmap", *map(str, arguments)]
    subprocess.run(command, cwd=TARGET, check=True)


def simulate(name: str, seed: int) -> None:
    """Make a cohort of 8 patients and 192 cells."""
    of = ("--patients", 8, "--cells-per-patient", 24, "--genes", 600, "--signal", 1.2)
    run("datasets", "simulate", "-o", name, "--seed", seed, *of, "--overwrite")


def fold(number: int, estimator: str, name: str) -> None:
    """Train an estimator on a fold and predict all cells; keep the predictor of `predictions.tsv`."""
    with tempfile.TemporaryDirectory() as folder:
        kept = name == "predictions" and number == 0
        file = TARGET / "predictor.zip" if kept else Path(folder) / "p.zip"
        of = ("--splits", "splits.tsv", "--fold", number, "--estimator", estimator)
        run("train", "cohort.h5ad", *of, "-o", file, "--overwrite")
        to = f"{name}-{number}.tsv" if number else f"{name}.tsv"
        run("predict", "cohort.h5ad", "--predictor", file, "--splits", "splits.tsv", "-o", to)


def benchmark() -> None:
    """Make the folder of a small run, as a zip file."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "small.yaml"
        config.write_text(BENCHMARK, "utf-8")
        shutil.copy(TARGET / "cohort.h5ad", folder)
        done = Path(folder) / "small"
        run("benchmark", config, "-o", done)
        shutil.rmtree(done / "jobs")
        (done / "report.html").unlink()
        shutil.make_archive(str(TARGET / "run"), "zip", folder, "small")


def main() -> None:
    """Make all files anew."""
    keep = {path.name: path.read_bytes() for path in TARGET.glob("*.loc")}
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir(parents=True)
    for name, data in keep.items():
        (TARGET / name).write_bytes(data)
    simulate("cohort.h5ad", 1)
    simulate("second.h5ad", 2)
    run("embed", "cohort.h5ad", "--model", "randproj", "-o", "embedded.h5ad")
    for share in (1, 2):
        of = ("--model", "randproj", "--shard", f"{share}/2")
        run("embed", "cohort.h5ad", *of, "-o", f"share{share}.h5ad")
    by = ("--label", "response", "--group", "patient", "--folds", 2)
    run("split", "cohort.h5ad", *by, "-o", "splits.tsv")
    for number in (0, 1):
        fold(number, "hvg-logreg", "predictions")
        fold(number, "constant", "constant")
    of = ("--splits", "splits.tsv", "--fold", 0, "--model", "scgpt", "--weights", WEIGHTS)
    run("train", "cohort.h5ad", *of, "--min-genes", 5, "-o", "predictor-scgpt.zip")
    of = ("--predictor", "predictor-scgpt.zip", "--weights", WEIGHTS, "--min-genes", 5)
    run("predict", "cohort.h5ad", *of, "--sample", "sample", "-o", "predictions-scgpt.tsv")
    benchmark()
    (TARGET / "broken.zip").write_bytes((TARGET / "predictor.zip").read_bytes()[:2000])


if __name__ == "__main__":
    main()
