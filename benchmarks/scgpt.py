"""How fast scGPT's cells are tokenised and embedded on one thread.

Tokenising: cells of 3,000 expressed genes of 20,000, against the original's rule step by step (dense
row, NumPy quantiles, two passes of digitize, global draws, permutation, padding). Goal: ten times
its rate. Embedding: published sizes, random tensors, 1,200 tokens; with the last layer reading one
position, and with all.

    python benchmarks/scgpt.py [--cells 1000] [--forward 4]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse import csr_matrix

from scdrugmap.data.genes import Genes
from scdrugmap.modelkit import SequenceModel, synthetic_vocabulary
from scdrugmap_plugin_scgpt import Options
from scdrugmap_plugin_scgpt.model import build

N_GENES = 20_000
N_EXPRESSED = 3_000
MAX_LENGTH = 1_200
BATCH = 64
ROUNDS = 3


def make_rows(n_cells: int) -> csr_matrix:
    """Return counts with many ties, as cells have them."""
    random = np.random.default_rng(0)
    columns = [np.sort(random.choice(N_GENES, N_EXPRESSED, replace=False)) for _ in range(n_cells)]
    mean = np.exp(random.normal(0, 1.2, n_cells * N_EXPRESSED))
    counts = (random.poisson(mean) + 1).astype(np.float32)
    start = np.arange(n_cells + 1) * N_EXPRESSED
    return csr_matrix((counts, np.concatenate(columns), start), shape=(n_cells, N_GENES))


def original_rule(rows: csr_matrix) -> None:
    """Tokenise as the original does, one cell after the other, padding batch by batch."""
    for begin in range(0, rows.shape[0], BATCH):
        dense = rows[begin : begin + BATCH].toarray()
        batch = []
        for row in dense:
            (gene,) = row.nonzero()
            value = row[gene]
            edges = np.quantile(value, np.linspace(0, 1, 50))
            upto, below = np.digitize(value, edges), np.digitize(value, edges, right=True)
            draw = np.random.rand(len(value))  # noqa: NPY002
            binned = np.ceil(draw * (below - upto) + upto).astype(np.int64)
            genes = torch.from_numpy(np.insert(gene, 0, N_GENES)).long()
            values = torch.from_numpy(np.insert(binned, 0, -2)).float()
            kept = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(len(gene))])
            batch.append((genes[kept[:MAX_LENGTH]], values[kept[:MAX_LENGTH]]))
        torch.stack([genes for genes, _ in batch]), torch.stack([values for _, values in batch])


def rate(n_cells: int, work: Callable[[], object]) -> float:
    """Return cells per second of processor time, of the best of several rounds."""
    seconds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return n_cells / min(seconds)


def tokenise(model: SequenceModel, rows: csr_matrix, names: np.ndarray) -> None:
    """Tokenise and pad batch by batch."""
    tokens = model.tokenizer.encode(rows, names)
    for begin in range(0, len(names), BATCH):
        model.collate(tokens.take(np.arange(begin, min(begin + BATCH, len(names)))))


def main() -> None:
    """Print one line per way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--forward", type=int, default=4, help="cells that are embedded")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = make_rows(given.cells)
    lognorm = rows.copy()
    lognorm.data = np.log1p(rows.data / 3.7)
    names = np.array([f"cell{number}" for number in range(given.cells)], object)
    genes = Genes.from_names(list(synthetic_vocabulary("symbol")[:N_GENES]), kind="symbol")
    original = rate(given.cells, lambda: original_rule(rows))
    print(f"{'the original rule':34} {original:8,.0f} cells/s")
    for title, source, options in (
        ("counts, sampled", rows, {}),
        ("counts, first genes", rows, {"overlong": "first"}),
        ("counts, legacy bins", rows, {"bins": "legacy"}),
        ("logarithms, sampled", lognorm, {}),
    ):
        model = build(Options(variant="tiny", **options), None, 0)
        model.tokenizer.bind(genes)
        ours = rate(given.cells, lambda m=model, s=source: tokenise(m, s, names))
        print(f"{title:34} {ours:8,.0f} cells/s, {ours / original:5.1f} times the original rule")
    model = build(Options(), None, 0)
    model.tokenizer.bind(genes)
    cells = model.collate(model.tokenizer.encode(rows[: given.forward], names[: given.forward]))
    with torch.inference_mode():
        short = rate(given.forward, lambda: model.module(cells))
        full = rate(given.forward, lambda: model.module.states(cells))
    print(f"{'forward, 12 layers, one position':34} {short:8.2f} cells/s on one thread")
    print(f"{'forward, 12 layers, all positions':34} {full:8.2f} cells/s on one thread")


if __name__ == "__main__":
    main()
