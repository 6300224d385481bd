"""Peak memory at 30,000 and at 300,000 cells, from disk: it must not follow the file.

For each model its tokenizer alone, over all blocks of the file, and for those that are quick
enough at ``variant=tiny`` the whole way from file to file, without the cache. Each case is a process
of its own; the peak is that of the whole process. Goal: less than 10 % apart.

    python benchmarks/memory.py [--only MODEL]... [--cells 30000 300000]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

RESULTS = Path(__file__).parent / "results" / "memory.json"
N_GENES, N_EXPRESSED, CHUNK = 4_000, 200, 10_000
EMBEDDED = ("scgpt", "geneformer", "tgpt", "cellplm")


def write_cells(path: Path, n_cells: int) -> None:
    """Write an h5ad file of cells of which nothing but the name is known."""
    import pandas as pd

    from scdrugmap.data.genes import gene_table

    names = [f"cell{number}" for number in range(n_cells)]
    write_counts(path, pd.DataFrame(index=names), list(gene_table().names("ensembl")[:N_GENES]))


def write_counts(path: Path, obs: pd.DataFrame, genes: list[str]) -> None:
    """Write an h5ad file of made-up counts, 200 per cell, a chunk of cells at a time."""
    import anndata as ad
    import h5py
    import pandas as pd
    from scipy.sparse import csr_matrix

    n_cells, n_genes = len(obs), len(genes)
    empty = csr_matrix((n_cells, n_genes), dtype=np.float32)
    ad.AnnData(empty, obs=obs, var=pd.DataFrame(index=genes)).write_h5ad(path)
    random = np.random.default_rng(0)
    step = n_genes // N_EXPRESSED
    with h5py.File(path, "r+") as file:
        matrix = file["X"]
        for name in ("data", "indices", "indptr"):
            del matrix[name]
        size = n_cells * N_EXPRESSED
        data = matrix.create_dataset("data", (size,), np.float32)
        indices = matrix.create_dataset("indices", (size,), np.int32)
        for begin in range(0, n_cells, CHUNK):
            n = min(CHUNK, n_cells - begin)
            at = slice(begin * N_EXPRESSED, (begin + n) * N_EXPRESSED)
            columns = random.integers(0, step, (n, N_EXPRESSED)) + np.arange(N_EXPRESSED) * step
            indices[at] = columns.ravel()
            data[at] = 1 + random.poisson(1.0, n * N_EXPRESSED)
        matrix["indptr"] = np.arange(n_cells + 1, dtype=np.int64) * N_EXPRESSED


def tokenise(model: str, source: Path) -> None:
    """Tokenise all cells of a file, a block at a time."""
    from scdrugmap.data.cells import open_cells
    from scdrugmap.model.load import load_model

    loaded = load_model(model, settings={"variant": "tiny"}, weights="random")
    with open_cells(source) as cells:
        loaded.model.tokenizer.bind(cells.genes)
        for block in cells.blocks(1024):
            loaded.model.tokenizer.encode(block.rows, block.names)


def embed(model: str, source: Path) -> None:
    """Embed a file into another, without the cache."""
    from scdrugmap.model.embed_file import ModelRequest, embed_file
    from scdrugmap.run.store import Store

    embed_file(
        source,
        [ModelRequest(model, settings={"variant": "tiny"}, weights="random")],
        source.parent / "embedded.h5ad",
        store=Store.disabled(),
        overwrite=True,
        quiet=True,
    )


def in_child(*arguments: str) -> str:
    """Run this script again for one case; return what it prints."""
    command = [sys.executable, __file__, "--case", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    return done.stdout.decode()


def main() -> None:
    """Print one line per case and write them to one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", metavar="MODEL", help="default: all")
    parser.add_argument("--cells", nargs=2, type=int, default=(30_000, 300_000))
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.case is not None:
        what, argument, path = given.case
        if what == "write":
            write_cells(Path(path), int(argument))
            return
        {"tokenise": tokenise, "embed": embed}[what](argument, Path(path))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return

    from scdrugmap.registry import get_registry
    from scdrugmap.specs import ModelSpec

    models = get_registry().models.values()
    names = [spec.name for spec in models if isinstance(spec, ModelSpec) and spec.needs_weights]
    records = json.loads(given.output.read_text()) if given.output.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{n_cells}.h5ad" for n_cells in given.cells]
        for n_cells, path in zip(given.cells, files, strict=True):
            in_child("write", str(n_cells), str(path))
        for name in given.only or names:
            for what in ("tokenise", "embed") if name in EMBEDDED else ("tokenise",):
                few, many = (int(in_child(what, name, str(path))) / 1024 for path in files)
                records[f"{name} {what}"] = {
                    "cells": list(given.cells),
                    "peak_mb": [round(few), round(many)],
                }
                print(f"{name:14} {what:9} {few:7,.0f} MB, {many:7,.0f} MB, {many / few - 1:+.1%}")
    given.output.parent.mkdir(exist_ok=True)
    given.output.write_text(json.dumps(records, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
