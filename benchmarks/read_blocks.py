"""How fast cells are read, against HDF5 itself on the same file in the same run.

Writes a matrix of 100,000 cells x 20,000 genes at 7 % density (1.1 GB, under ``$TMPDIR``), plain
and with gzip, and prints one line per way of reading. Goals: plain file, one thread, sequential
blocks >= 50,000 rows/s and block-shuffled >= 35,000 rows/s where raw HDF5 slabs give 130,000 (at
least a third, and 27 %, of raw HDF5 in the same run); memory <= 200 MB above the process after
its imports; gzip file, block-shuffled >= 10 times the rate of single rows of a backed AnnData in
random order.

    python benchmarks/read_blocks.py [--cells 100000]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

from scdrugmap.data.cells import BLOCK, open_cells
from scdrugmap.data.gene_table import gene_table

N_GENES = 20_000
PER_CELL = 1_400  # 7 %
GZIP_SHARE = 10  # of the cells: compressing all takes minutes and measures nothing more
BACKED_ROWS = 300
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def write(path: Path, n_cells: int, compression: str | None = None) -> None:
    """Write the matrix as anndata does, without holding it in memory."""
    random = np.random.default_rng(0)
    patterns = [np.sort(random.choice(N_GENES, PER_CELL, replace=False)) for _ in range(512)]
    with h5py.File(path, "w") as file:
        file.attrs["encoding-type"], file.attrs["encoding-version"] = "anndata", "0.1.0"
        group = file.create_group("X")
        group.attrs["encoding-type"], group.attrs["encoding-version"] = "csr_matrix", "0.1.0"
        group.attrs["shape"] = np.array([n_cells, N_GENES])
        size = (n_cells * PER_CELL,)
        data = group.create_dataset("data", size, "f4", maxshape=(None,), compression=compression)
        indices = group.create_dataset(
            "indices", size, "i4", maxshape=(None,), compression=compression
        )
        group["indptr"] = np.arange(n_cells + 1, dtype=np.int64) * PER_CELL
        for start in range(0, n_cells, 5000):
            stop = min(n_cells, start + 5000)
            part = np.s_[start * PER_CELL : stop * PER_CELL]
            chosen = random.integers(0, len(patterns), stop - start)
            indices[part] = np.concatenate([patterns[i] for i in chosen])
            data[part] = random.geometric(0.5, (stop - start) * PER_CELL)
        names = gene_table().names("symbol")[:N_GENES]
        for part, values in (("obs", [f"cell{i}" for i in range(n_cells)]), ("var", list(names))):
            table = file.create_group(part)
            table.attrs["encoding-type"], table.attrs["encoding-version"] = "dataframe", "0.2.0"
            table.attrs["_index"] = "_index"
            table.attrs["column-order"] = np.array([], dtype=h5py.string_dtype())
            table.create_dataset("_index", data=values, dtype=h5py.string_dtype())


def raw_slabs(path: Path) -> Iterator[int]:
    """Read both arrays slab by slab with h5py and do nothing else."""
    with h5py.File(path) as file:
        indptr = file["X/indptr"][:]
        for start in range(0, len(indptr) - 1, BLOCK):
            stop = min(len(indptr) - 1, start + BLOCK)
            part = np.s_[indptr[start] : indptr[stop]]
            file["X/data"][part]
            file["X/indices"][part]
            yield stop - start


def shuffled(n_cells: int, run: int) -> np.ndarray:
    """Return all cells, in runs of neighbours that are in random order."""
    starts = np.random.default_rng(1).permutation(np.arange(0, n_cells, run))
    return np.concatenate([np.arange(start, min(n_cells, start + run)) for start in starts])


def blocks(path: Path, order: Callable[[int], np.ndarray | None]) -> Iterator[int]:
    """Read with ``open_cells``; opening (0.5 s, whatever the size) is not counted."""
    with open_cells(path) as cells:
        index = order(cells.n_cells)
        yield 0
        for block in cells.blocks(index=index):
            yield block.rows.shape[0]


def backed_rows(path: Path) -> Iterator[int]:
    """Read single rows in random order through a backed AnnData."""
    import anndata

    adata = anndata.read_h5ad(path, backed="r")
    matrix = adata.X
    yield 0
    for row in np.random.default_rng(1).permutation(adata.n_obs)[:BACKED_ROWS]:
        yield matrix[int(row) : int(row) + 1].shape[0]
    adata.file.close()


WAYS: dict[str, Callable[[Path], Iterator[int]]] = {
    "raw": raw_slabs,
    "sequential": lambda path: blocks(path, lambda n: None),
    "block-shuffled": lambda path: blocks(path, lambda n: shuffled(n, BLOCK)),
    "runs of 64": lambda path: blocks(path, lambda n: shuffled(n, 64)),
    "single rows": lambda path: blocks(path, lambda n: shuffled(n, 1)),
    "fingerprints": lambda path: fingerprints(path),
    "backed rows": backed_rows,
}


def fingerprints(path: Path) -> Iterator[int]:
    """Read and hash all cells."""
    with open_cells(path) as cells:
        yield 0
        yield len(cells.fingerprints())


def measure(path: Path, way: str) -> tuple[float, float]:
    """Return rows per second and megabytes above the start, in this process."""
    import anndata  # noqa: F401  counted as an import, not as memory of reading
    import scipy.sparse  # noqa: F401

    gene_table()
    before = memory("VmRSS")
    steps = WAYS[way](path)
    n_rows = next(steps)
    began = time.perf_counter()
    for number in steps:
        n_rows += number
    seconds = time.perf_counter() - began
    return n_rows / seconds, memory("VmHWM") - before


def memory(kind: str) -> float:
    """Return resident memory now (``VmRSS``) or at its peak (``VmHWM``), in MB; NaN off Linux."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024


def main() -> None:
    """Write the files, measure each way in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--one", nargs=2, metavar=("FILE", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        sys.stdout.write(json.dumps(measure(Path(options.one[0]), options.one[1])))
        return
    with tempfile.TemporaryDirectory() as folder:
        for kind, n_cells, ways in (
            ("plain", options.cells, list(WAYS)[:-1]),
            ("gzip", options.cells // GZIP_SHARE, list(WAYS)),
        ):
            path = Path(folder, f"{kind}.h5ad")
            write(path, n_cells, None if kind == "plain" else kind)
            raw = 0.0
            for way in ways:
                done = subprocess.run(
                    [sys.executable, __file__, "--one", str(path), way],
                    stdout=subprocess.PIPE,
                    env={**os.environ, **ONE_THREAD},
                    check=True,
                )
                rate, peak = json.loads(done.stdout)
                raw = raw or rate
                sys.stdout.write(
                    f"{kind:6} {way:15} {rate:10,.0f} rows/s {rate / raw:6.2f} of raw "
                    f"{peak:6.0f} MB\n"
                )
                sys.stdout.flush()


if __name__ == "__main__":
    main()
