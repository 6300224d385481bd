"""How fast Geneformer's cells are tokenised and embedded on one thread.

Tokenising: cells of 1,800 expressed genes of 18,000, beside what the original's own code reached on
such cells (half of it for building Arrow tables). Embedding: published sizes, random tensors, 1,800
tokens; as share of the rate of a float32 matrix product.

    python benchmarks/geneformer.py [--cells 1024] [--forward 4] [--variant V1-10M --variant V2-104M]
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
from scdrugmap_plugin_geneformer import SPEC, Options
from scdrugmap_plugin_geneformer.model import build
from scdrugmap_plugin_geneformer.tokenizer import SPECIALS, Tokenizer

N_GENES = 18_000
N_VOCABULARY = 20_271
N_EXPRESSED = 1_800
ROUNDS = 3
MATRIX = 1_024

ORIGINAL = {1: 290, 2: 390}
"""Cells per second of processor time of the original's tokenizer, by generation."""


def make_rows(n_cells: int) -> csr_matrix:
    """Return counts of cells of one length."""
    random = np.random.default_rng(0)
    columns = [np.sort(random.choice(N_GENES, N_EXPRESSED, replace=False)) for _ in range(n_cells)]
    mean = np.exp(random.normal(0, 1.2, n_cells * N_EXPRESSED))
    counts = (random.poisson(mean) + 1).astype(np.float32)
    start = np.arange(n_cells + 1) * N_EXPRESSED
    return csr_matrix((counts, np.concatenate(columns), start), shape=(n_cells, N_GENES))


def make_tokenizer(generation: int, max_tokens: int) -> Tokenizer:
    """Return a tokenizer of the published size; its medians are random."""
    names = synthetic_vocabulary("ensembl")[:N_VOCABULARY]
    medians = np.random.default_rng(0).gamma(2.0, 1.0, len(names)) + 0.1
    vocabulary = {
        "tokens": {name: token for token, name in enumerate((*SPECIALS[generation], *names))},
        "medians": dict(zip(names, medians.tolist(), strict=True)),
        "mapping": {},
        "symbols": {},
    }
    tokenizer = Tokenizer(vocabulary, max_tokens)
    tokenizer.bind(Genes.from_names(list(names[:N_GENES]), kind="ensembl"))
    return tokenizer


def rate(n: float, work: Callable[[], object]) -> float:
    """Return `n` per second of processor time, of the best of several rounds."""
    seconds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return n / min(seconds)


def matrix_rate() -> float:
    """Return the floating-point operations per second of a float32 matrix product."""
    a, b = torch.randn(2, MATRIX, MATRIX)
    return rate(20 * 2 * MATRIX**3, lambda: [a @ b for _ in range(20)])


def operations(model: SequenceModel, variant: str, n_tokens: int) -> float:
    """Return the operations of one cell, of those positions and layers that are read."""
    sizes = SPEC.variant(variant).sizes
    dim, hidden = int(sizes["dim"]), int(sizes["hidden"])
    total = 0.0
    for number in range(len(model.module.layers)):
        only_first = model.module.emb_mode == "cls" and number == len(model.module.layers) - 1
        read = 1 if only_first else n_tokens
        keys_and_values = 2 * 2 * dim * dim * n_tokens
        rest = (2 * 2 * dim * dim + 2 * 2 * dim * hidden) * read
        total += keys_and_values + rest + 2 * 2 * n_tokens * dim * read
    return total


def main() -> None:
    """Print one line per way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=1024)
    parser.add_argument("--forward", type=int, default=4, help="cells that are embedded")
    parser.add_argument("--variant", action="append", help="default: V1-10M and V2-104M")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = make_rows(given.cells)
    names = np.array([f"cell{number}" for number in range(given.cells)], object)
    for generation, longest in ((1, 2048), (2, 4096)):
        tokenizer = make_tokenizer(generation, longest)
        ours = rate(given.cells, lambda t=tokenizer: t.encode(rows, names))
        times = ours / ORIGINAL[generation]
        print(
            f"{f'tokens of V{generation}':34} {ours:8,.0f} cells/s, {times:5.1f} times the original"
        )
    yardstick = matrix_rate()
    print(f"{'matrix product':34} {yardstick / 1e9:8,.0f} GFLOP/s on one thread")
    for variant in given.variant or ("V1-10M", "V2-104M"):
        model = build(Options(variant=variant), None, 0)
        ids = torch.randint(4, 20_000, (1, N_EXPRESSED))
        with torch.inference_mode():
            cells = rate(
                given.forward,
                lambda m=model, i=ids: [m.module({"id": i}) for _ in range(given.forward)],
            )
        share = cells * operations(model, variant, N_EXPRESSED) / yardstick
        print(f"{f'forward, {variant}':34} {cells:8.2f} cells/s on one thread, share {share:.0%}")


if __name__ == "__main__":
    main()
