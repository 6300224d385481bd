"""How fast UCE's cells are tokenised and embedded on one thread.

Tokenising: cells of 2,240 expressed genes of 12,000, beside what the original's own code reached on
such cells. Goal: ten times its rate. Embedding: the sizes of the 4-layer checkpoint, random tensors,
1,024 drawn genes; with the table of encoded tokens, the last layer and the decoder for one position,
and without these short cuts. Both must agree within 1e-5. The yardstick is the rate of matrix
products in this process.

    python benchmarks/uce.py [--cells 512] [--forward 3]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix
from torch import Tensor

from scdrugmap.data.genes import Genes
from scdrugmap.modelkit import synthetic_vocabulary
from scdrugmap_plugin_uce import SIZES, Options
from scdrugmap_plugin_uce.model import UCE, TokenEncoder, build

N_GENES = 12_000
N_EXPRESSED = 2_240
PROTEIN_DIM = 5_120
ORIGINAL = 94
"""Cells per second of the original's sampler, measured once on a core of 110 GFLOP/s."""

ROUNDS = 3
MATRIX = 2_048
TOLERANCE = 1e-5


def make_rows(n_cells: int) -> csr_matrix:
    """Return counts with many ties, as cells have them."""
    random = np.random.default_rng(0)
    columns = [np.sort(random.choice(N_GENES, N_EXPRESSED, replace=False)) for _ in range(n_cells)]
    counts = (random.poisson(1.5, n_cells * N_EXPRESSED) + 1).astype(np.float32)
    start = np.arange(n_cells + 1) * N_EXPRESSED
    return csr_matrix((counts, np.concatenate(columns), start), shape=(n_cells, N_GENES))


def rate(amount: float, work: Callable[[], object]) -> float:
    """Return an amount per second of processor time, of the best of several rounds."""
    seconds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return amount / min(seconds)


def flops(n_tokens: int) -> float:
    """Return the operations per cell that the short cuts leave; multiply and add are two."""
    dim, hidden, out = int(SIZES["dim"]), int(SIZES["hidden"]), int(SIZES["out_dim"])
    layer = n_tokens * (4 * dim * dim + 2 * dim * hidden + 2 * n_tokens * dim)
    last = n_tokens * (2 * dim * dim + 2 * dim) + 2 * dim * dim + 2 * dim * hidden
    decoder = dim * int(SIZES["decoder_dim"]) + int(SIZES["decoder_dim"]) * out + 2 * out * out
    return 2.0 * ((int(SIZES["n_layers"]) - 1) * layer + last + decoder)


def main() -> None:
    """Print one line per way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=512)
    parser.add_argument("--forward", type=int, default=3, help="cells that are embedded")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = make_rows(given.cells)
    names = np.array([f"cell{number}" for number in range(given.cells)], object)
    genes = Genes.from_names(list(synthetic_vocabulary("symbol")[:N_GENES]), kind="symbol")
    for title, options in (
        ("tokenising, per cell", {}),
        ("tokenising, legacy sampler", {"sampler": "legacy"}),
        ("tokenising, 5 sentences", {"n_samples": 5}),
    ):
        model = build(Options(variant="tiny", **options), None, 0)
        model.tokenizer.bind(genes)
        ours = rate(given.cells, lambda m=model: m.tokenizer.encode(rows, names))
        print(f"{title:34} {ours:8,.0f} cells/s, {ours / ORIGINAL:4.0f} times the original")

    model = build(Options(), None, 0)
    model.tokenizer.bind(genes)
    batch = model.collate(model.tokenizer.encode(rows[: given.forward], names[: given.forward]))
    network: UCE = model.module
    encoder = TokenEncoder(PROTEIN_DIM, int(SIZES["dim"])).eval()
    used, place = torch.unique(batch["id"], return_inverse=True)
    proteins = torch.randn(len(used), PROTEIN_DIM, generator=torch.Generator().manual_seed(0))

    def without_short_cuts() -> Tensor:
        """Encode every token of every cell, transform and decode all positions."""
        torch.testing.assert_close(encoder(proteins[place]), network.tokens(batch["id"]))
        return F.normalize(network.decoder(network.states(batch))[:, 0], dim=-1)

    factor = torch.randn(MATRIX, MATRIX)
    with torch.inference_mode():
        network.tokens.weight[used] = encoder(proteins)
        products = rate(2.0 * MATRIX**3, lambda: factor @ factor)
        short = rate(given.forward, lambda: network(batch))
        full = rate(given.forward, without_short_cuts)
        difference = float((network(batch) - without_short_cuts()).abs().max())
    share = short * flops(batch["id"].shape[1]) / products
    print(f"{'matrix products':34} {products / 1e9:8.1f} GFLOP/s")
    print(f"{'forward, 4 layers':34} {short:8.2f} cells/s on one thread, share {share:.0%}")
    print(f"{'forward, without short cuts':34} {full:8.2f} cells/s, {difference:.1e} apart")
    if difference > TOLERANCE:
        raise SystemExit(f"the short cuts change embeddings by more than {TOLERANCE}")


if __name__ == "__main__":
    main()
