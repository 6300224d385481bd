"""The bookkeeping at the paper's size: 495,000 cells in 60 datasets, 512-d embeddings.

Simulates what a benchmark holds once the models are done, and measures splits, logistic heads, all
statistics and the search for copies of cells, with the memory of the process. Times are processor
seconds, so that a busy machine counts no waiting; every step runs on one core. Heads of one fold are
trained and stand for all folds, which have the same number of cells; the authors' MLP is trained on
a hundredth of a fold. Goals: splits, heads of 10 folds x 3 seeds x 2 protocols and
statistics in 30 minutes and 8 GB on 2 cores; copies among 495,000 x 20,000 cells in 10 minutes.

    python benchmarks/scale.py [--cells 495000] [--protocol NAME]... [--seeds 3]
        [--only splits|heads|mlp|scores|comparisons|copies]...
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from scdrugmap.evaluation.design import Design
    from scdrugmap.evaluation.splits import Split

RESULTS = Path(__file__).parent / "results" / "scale.json"
N_DATASETS, N_STUDIES, FOLDS, N_SEEDS, WIDTH = 60, 34, 10, 3, 512
PROTOCOLS = ("pooled-group", "paper-pooled")
MODELS = ("one", "other")
STEPS = ("splits", "heads", "mlp", "scores", "comparisons", "copies")
MLP_SHARE = 100
"""The MLP trains on one part in so many of the training cells of a fold."""
N_GENES, N_EXPRESSED, BLOCK, POOL = 20_000, 1_500, 4_096, 8
COPIES = 0.02
"""Share of cells that are copies of a cell of another dataset."""

Times = dict[str, float]


@contextmanager
def timed(times: Times, step: str) -> Iterator[None]:
    """Measure the processor seconds of a step and say so at once."""
    began = time.process_time()
    yield
    times[step] = round(time.process_time() - began, 1)
    print(f"{step:<60} {times[step]:>8.1f} s   peak {peak():.1f} GB", flush=True)


def peak() -> float:
    """Return the largest memory of this process so far in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def simulate_design(n_cells: int) -> Design:
    """Make datasets of very different size, each of 8 to 20 patients with either label."""
    from scdrugmap.evaluation.design import Design

    random = np.random.default_rng(0)
    share = random.lognormal(0, 1.2, N_DATASETS)
    dataset = np.sort(random.choice(N_DATASETS, n_cells, p=share / share.sum()))
    donor = random.integers(0, random.integers(8, 21, N_DATASETS)[dataset])
    fingerprint = random.permutation(n_cells)
    copied = random.choice(n_cells, int(COPIES * n_cells), replace=False)
    same = copied[len(copied) // 2 :]
    fingerprint[copied[: len(same)]] = fingerprint[same]
    names = pd.Series(dataset).map("D{:02d}".format)
    donors = names + "_P" + pd.Series(donor).astype(str)
    frame = pd.DataFrame(
        {
            "dataset": names,
            "cell": [f"cell{i:06d}" for i in range(n_cells)],
            "sample": donors,
            "donor": donors,
            "study": pd.Series(dataset % N_STUDIES).map("S{:02d}".format),
            "label": np.where(donor % 2, "sensitive", "resistant"),
            "fingerprint": pd.Series(fingerprint).map("{:032x}".format),
        }
    )
    # copies would tie nearly all patients at random; a real copy is a shared control
    frame.loc[copied, "fingerprint"] = ""
    return Design(frame.astype(object))


def simulate_predictions(split: Split, seed: int, model: str) -> pd.DataFrame:
    """Predict the test cells of all folds with an effect of the patient."""
    table = split.table[split.table["role"] == "test"]
    random = np.random.default_rng([seed, MODELS.index(model)])
    sensitive = (table["label"] == "sensitive").to_numpy()
    code, donors = pd.factorize(table["donor"])
    effect = random.normal(0, 1, len(donors))[code]
    logit = 0.8 * sensitive + effect + random.normal(0, 1, len(table)) - 0.4
    return pd.DataFrame(
        {
            "dataset": table["dataset"],
            "cell": table["cell"],
            "sample": table["sample"],
            "model": model,
            "strategy": "frozen",
            "fold": table["fold"],
            "seed": seed,
            "role": "test",
            "p_sensitive": 1 / (1 + np.exp(-logit)),
            "threshold": 0.5,
            "state": "answered",
            "reason": "",
        }
    )


def measure_splits(design: Design, protocols: Sequence[str], times: Times) -> dict[str, Split]:
    """Make the manifests."""
    from scdrugmap.evaluation.splits import make_split

    splits = {}
    for protocol in protocols:
        with timed(times, f"split {protocol}, {FOLDS} folds"):
            splits[protocol] = make_split(design, protocol, folds=FOLDS)
    return splits


def measure_heads(n_cells: int, times: Times) -> None:
    """Train and apply the head of one fold."""
    from scdrugmap.train.heads import make_head

    random = np.random.default_rng(0)
    y = random.integers(0, 2, n_cells)
    donor = random.integers(0, 800, n_cells)
    x = random.standard_normal((n_cells, WIDTH), np.float32)
    x += 0.5 * random.standard_normal((800, WIDTH), np.float32)[donor]
    x[:, :20] += 0.3 * y[:, None].astype(np.float32)
    n_train = n_cells * (FOLDS - 1) // FOLDS
    head = make_head("logistic", WIDTH)
    with timed(times, "logistic head, one fold"):
        head.fit(x[:n_train], y[:n_train], 0)
        head.predict(x[n_train:])
    n = FOLDS * N_SEEDS * len(PROTOCOLS)
    times[f"logistic heads, {n} folds and seeds (extrapolated)"] = round(
        n * times["logistic head, one fold"], 1
    )


def measure_mlp(n_cells: int, times: Times) -> None:
    """Train the authors' MLP on a part of a fold, and extend that to all of it: steps count."""
    from scdrugmap.train.heads import make_head

    n_train = n_cells * (FOLDS - 1) // FOLDS // MLP_SHARE
    random = np.random.default_rng(0)
    x = random.standard_normal((n_train, WIDTH), np.float32)
    y = random.integers(0, 2, n_train)
    part = f"MLP, 10 epochs, 1/{MLP_SHARE} of a fold"
    with timed(times, part):
        make_head("mlp", WIDTH).fit(x, y, 0)
    one = times[part] * MLP_SHARE
    times["MLP, one fold (extrapolated)"] = round(one, 1)
    times[f"MLP, {FOLDS} folds x {N_SEEDS} seeds (extrapolated)"] = round(FOLDS * N_SEEDS * one, 1)


def measure_scores(splits: dict[str, Split], seeds: int, times: Times) -> None:
    """Score one model over some seeds."""
    from scdrugmap.evaluation.evaluate import evaluate

    for protocol, split in splits.items():
        parts = [simulate_predictions(split, seed, MODELS[0]) for seed in range(seeds)]
        with timed(times, f"evaluate {protocol}, {seeds} seeds, 2,000 draws"):
            evaluate(pd.concat(parts, ignore_index=True), split.table)


def measure_comparisons(splits: dict[str, Split], seeds: int, times: Times) -> None:
    """Compare two models over some seeds."""
    from scdrugmap.evaluation.compare import compare_models

    for protocol, split in splits.items():
        parts = [
            simulate_predictions(split, seed, model) for model in MODELS for seed in range(seeds)
        ]
        with timed(times, f"compare {protocol}, 2 models x {seeds} seeds, 2,000 draws"):
            compare_models(pd.concat(parts, ignore_index=True), split.table)


def measure_copies(n_cells: int, times: Times) -> None:
    """Hash all cells of a sparse matrix block by block, and tie the copies.

    The blocks of a small pool pass again and again, because making them would take longer than
    hashing them; what is hashed is as much as in a matrix of all cells.
    """
    from scipy.sparse import csr_matrix

    from scdrugmap.data.fingerprints import as_text, cell_hashes, gene_hashes
    from scdrugmap.evaluation.groups import connect_cells

    random = np.random.default_rng(0)
    step = N_GENES // N_EXPRESSED
    pool = []
    for _ in range(POOL):
        columns = random.integers(0, step, (BLOCK, N_EXPRESSED)) + np.arange(N_EXPRESSED) * step
        values = 1 + random.poisson(1.0, BLOCK * N_EXPRESSED).astype(np.float32)
        start = np.arange(BLOCK + 1) * N_EXPRESSED
        pool.append(csr_matrix((values, columns.ravel(), start), shape=(BLOCK, N_GENES)))
    genes = gene_hashes(np.array([f"ENSG{i:011d}" for i in range(N_GENES)], object))
    with timed(times, f"hashes of {n_cells:,} x {N_GENES:,} cells, {N_EXPRESSED:,} genes each"):
        parts = []
        for number in range(-(-n_cells // BLOCK)):
            hashes = cell_hashes(pool[number % POOL], genes)
            hashes += np.uint64(number // POOL)  # another cell, but for the first round
            parts.append(as_text(hashes))
    design = simulate_design(n_cells)
    frame = design.frame.assign(fingerprint=np.concatenate(parts)[:n_cells])
    with timed(times, "groups over donors, samples and copies"):
        connect_cells(frame)


def main() -> None:
    """Run what is asked for and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=495_000)
    parser.add_argument("--seeds", type=int, default=N_SEEDS, help="of scores and comparisons")
    parser.add_argument("--only", action="append", choices=STEPS)
    parser.add_argument("--protocol", action="append", choices=PROTOCOLS)
    given = parser.parse_args()
    asked = given.only or STEPS
    times: Times = {}
    if {"splits", "scores", "comparisons"} & set(asked):
        design = simulate_design(given.cells)
        splits = measure_splits(design, given.protocol or PROTOCOLS, times)
        if "scores" in asked:
            measure_scores(splits, given.seeds, times)
        if "comparisons" in asked:
            measure_comparisons(splits, given.seeds, times)
        del splits
    if "heads" in asked:
        measure_heads(given.cells, times)
    if "mlp" in asked:
        measure_mlp(given.cells, times)
    if "copies" in asked:
        measure_copies(given.cells, times)
    RESULTS.parent.mkdir(exist_ok=True)
    kept = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    own = kept.setdefault(str(given.cells), {})
    own |= {**times, "peak_gb": max(own.get("peak_gb", 0), round(peak(), 1))}
    RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    main()
