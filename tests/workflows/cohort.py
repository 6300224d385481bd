"""Make the small inputs of the workflow tests: ``python tests/workflows/cohort.py FOLDER``.

One simulated cohort, a second file of it, a split, a predictor, its predictions, and a finished run,
all through the command line, whose results those of the engines are compared with.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

READING = ["--label", "response", "--group", "patient"]
BENCHMARK = """\
data: [cohort.h5ad]
label: response
group: patient
models: [constant, randproj]
protocols: [pooled-group]
folds: 2
seeds: [0, 1]
draws: 20
controls: false
"""

TUNED = """\
data: [cohort.h5ad, second.h5ad]
label: response
group: patient
models: [scgpt, llama3]
weights: {scgpt: weights/scgpt, llama3: random}
settings: {scgpt: {max_length: 64}, llama3: {variant: tiny, max_tokens: 64, question_top_k: 10}}
overrides: {scgpt: {strategies: [frozen, lora, full]}, llama3: {strategies: prompt}}
tuning: {max_steps: 4, evaluate_every: 2}
protocols: [lodo]
targets: [second]
seeds: [0]
draws: 20
min_genes: 1
controls: false
"""
"""Every strategy, with weights from a folder: one fold, so that a strategy is one step."""

CHECKPOINT = Path(__file__).resolve().parents[2] / "plugins/scgpt/tests/golden/checkpoint"


def scdrugmap(*words: object, cwd: Path) -> None:
    subprocess.run(["scdrugmap", *map(str, words)], cwd=cwd, check=True)


def make(folder: Path) -> None:
    """Write the inputs into `folder`, and what the command line makes of them."""
    from scdrugmap.testing import synthetic_adata

    folder.mkdir(parents=True, exist_ok=True)
    synthetic_adata(160, 300, n_patients=8).write_h5ad(folder / "cohort.h5ad")
    synthetic_adata(40, 300, n_patients=2).write_h5ad(folder / "second.h5ad")
    (folder / "broken.h5ad").write_bytes(b"no HDF5")
    (folder / "bench.yaml").write_text(BENCHMARK, "utf-8")
    scdrugmap("split", "cohort.h5ad", *READING, "--folds", 2, "-o", "splits.tsv", cwd=folder)
    scdrugmap(
        *("train", "cohort.h5ad", "--splits", "splits.tsv", "--fold", 0),
        *("--estimator", "hvg-logreg", "-o", "predictor.zip"),
        cwd=folder,
    )
    scdrugmap(
        *("predict", "cohort.h5ad", "--predictor", "predictor.zip", "--splits", "splits.tsv"),
        *("-o", "predictions.tsv"),
        cwd=folder,
    )
    scdrugmap("benchmark", "bench.yaml", "-o", "run", "--quiet", cwd=folder)
    shutil.copytree(CHECKPOINT, folder / "weights" / "scgpt", dirs_exist_ok=True)
    (folder / "tuned.yaml").write_text(TUNED, "utf-8")
    scdrugmap("benchmark", "tuned.yaml", "-o", "tuned", "--quiet", cwd=folder)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
