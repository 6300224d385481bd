"""Measure the embedding of files: cells/s of the whole way, and memory that must not grow.

Each case runs in a process of its own, on made-up cells. Prints one JSON object per case:

- ``randproj``: file to file, with and without the cache, and once more from the cache;
- ``memory``: peak above the process after its imports, for n and 4 n cells without the cache
  (values alone are ``value_bytes``);
- ``scgpt``: share of the machine's matrix-product rate, published sizes, random weights.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

N_CELLS, N_GENES, DENSITY = 20_000, 5_000, 0.2
FOLDER = "SCDRUGMAP_BENCHMARK_FOLDER"


def write_cells(path: Path, n_cells: int) -> Path:
    import anndata as ad
    import pandas as pd
    from scipy.sparse import csr_matrix

    from scdrugmap.data.genes import gene_table

    random = np.random.default_rng(0)
    per_cell = int(N_GENES * DENSITY)
    columns = random.integers(0, N_GENES // per_cell, (n_cells, per_cell))
    columns = np.arange(per_cell) * (N_GENES // per_cell) + columns
    data = (1 + random.poisson(1.0, columns.size)).astype(np.float32)
    indptr = np.arange(n_cells + 1) * per_cell
    matrix = csr_matrix((data, columns.ravel(), indptr), shape=(n_cells, N_GENES))
    var = pd.DataFrame(index=list(gene_table().names("symbol")[:N_GENES]))
    obs = pd.DataFrame(index=[f"cell{number}" for number in range(n_cells)])
    ad.AnnData(matrix, obs=obs, var=var).write_h5ad(path)
    return path


def embed(source: Path, target: Path, *, cached: bool) -> float:
    from scdrugmap.model.embed_file import ModelRequest, embed_file
    from scdrugmap.run.store import Store

    store = Store(source.parent / "cache", quiet=True) if cached else Store.disabled()
    began = time.perf_counter()
    embed_file(source, [ModelRequest("randproj")], target, store=store, overwrite=True, quiet=True)
    return time.perf_counter() - began


def randproj(folder: Path) -> dict[str, float]:
    source = write_cells(folder / "cells.h5ad", N_CELLS)
    plain = embed(source, folder / "o.h5ad", cached=False)
    first = embed(source, folder / "o.h5ad", cached=True)
    again = embed(source, folder / "o.h5ad", cached=True)
    return {
        "no_cache_cells_per_s": N_CELLS / plain,
        "first_cells_per_s": N_CELLS / first,
        "again_cells_per_s": N_CELLS / again,
    }


def memory(folder: Path, n_cells: int) -> dict[str, float]:
    import torch  # noqa: F401  what every run imports
    from anndata.io import write_elem  # noqa: F401

    from scdrugmap.model.load import load_model

    source = folder / f"cells{n_cells}.h5ad"
    dim = load_model("randproj").model.traits.dim
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    embed(source, folder / "o.h5ad", cached=False)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "n_cells": n_cells,
        "peak_mb_above_start": (after - before) / 1024,
        "value_bytes": 4 * n_cells * dim,
    }


def scgpt() -> dict[str, object]:
    from scdrugmap.model.load import load_model
    from scdrugmap.model.throughput import measure_throughput

    measured = measure_throughput(
        load_model("scgpt", weights="random"), n_cells=8, length=1200, device="cpu"
    )
    return measured.to_dict()


def run(case: str) -> None:
    folder = Path(os.environ[FOLDER])
    name, _, number = case.partition(":")
    if name == "write":
        write_cells(folder / f"cells{number}.h5ad", int(number))
    elif name == "randproj":
        print(json.dumps({"case": case, **randproj(folder)}))
    elif name == "memory":
        print(json.dumps({"case": case, **memory(folder, int(number))}))
    else:
        print(json.dumps({"case": case, **scgpt()}))


def main() -> None:
    if len(sys.argv) > 1:
        run(sys.argv[1])
        return
    with tempfile.TemporaryDirectory() as folder:
        for case in (
            "randproj",
            *(f"{step}:{n}" for n in (N_CELLS, 4 * N_CELLS) for step in ("write", "memory")),
            "scgpt",
        ):
            environment = {**os.environ, FOLDER: folder, "OMP_NUM_THREADS": "1"}
            subprocess.run([sys.executable, __file__, case], env=environment, check=True)


if __name__ == "__main__":
    main()
