"""Measure how fast a model embeds cells here, and how much of this machine it uses."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scdrugmap.data.genes import Genes, gene_table
from scdrugmap.errors import UsageError
from scdrugmap.model.batching import Network
from scdrugmap.model.device import matmul_rate, peak_memory, resolve_device, synchronize
from scdrugmap.model.parts import GROUP_CELLS, group_indices
from scdrugmap.modelkit.tokens import Tokens
from scdrugmap.progress import duration

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scdrugmap.model.load import LoadedModel

DEFAULT_CELLS = 32
DEFAULT_LENGTH = 1500
"""Expressed genes of a cell: typical of droplet data."""

_COUNTED_CELLS = 2  # whose operations are counted; the count per token hardly depends on it
_MEAN_COUNT = 2.0


@dataclass(frozen=True)
class Throughput:
    """What was measured; rates per second of wall clock, memory in bytes."""

    model: str
    weights: str
    device: str
    precision: str
    n_cells: int
    length: int
    tokens_per_cell: float
    tokenize_cells_per_s: float
    cells_per_s: float
    tokens_per_s: float
    peak_memory_bytes: int
    gflop_per_cell: float
    gflop_per_s: float
    matmul_gflop_per_s: float
    n_threads: int

    @property
    def share(self) -> float:
        """Share of the machine's float32 matrix-product rate that the network reaches."""
        return self.gflop_per_s / self.matmul_gflop_per_s

    def hours(self, n_cells: int) -> float:
        """Return how long `n_cells` such cells take, in hours."""
        return n_cells / self.cells_per_s / 3600

    def to_dict(self) -> dict[str, Any]:
        """Return all figures, JSON-able."""
        return {
            **asdict(self),
            "share_of_matmul_rate": self.share,
            "hours_per_10000_cells": self.hours(10_000),
        }

    def lines(self) -> list[str]:
        """Return the figures for people."""
        label = f" ({self.weights})" if self.weights else ""
        arithmetic = (
            f"{self.gflop_per_cell:,.3g} GFLOP per cell, {self.gflop_per_s:,.3g} GFLOP/s: "
            f"{self.share:.0%} of this machine's float32 matrix products "
            f"({self.matmul_gflop_per_s:,.3g} GFLOP/s)"
        )
        if not self.gflop_per_cell:
            arithmetic = "no matrix products"
        rows = {
            "cells": f"{self.n_cells:,} with {self.length:,} expressed genes, "
            f"{self.tokens_per_cell:,.0f} tokens each",
            "network": f"{self.cells_per_s:,.4g} cells/s, {self.tokens_per_s:,.0f} tokens/s",
            "tokenizer": f"{self.tokenize_cells_per_s:,.0f} cells/s (beside the network)",
            "arithmetic": arithmetic,
            "peak memory": f"{self.peak_memory_bytes / 1e9:,.2f} GB",
            "10,000 cells": duration(self.hours(10_000) * 3600),
        }
        return [
            f"{self.model}{label} on {self.device}, {self.precision}, {self.n_threads} threads",
            *(f"  {name:<14}{text}" for name, text in rows.items()),
        ]


def measure_throughput(
    loaded: LoadedModel,
    *,
    n_cells: int = DEFAULT_CELLS,
    length: int = DEFAULT_LENGTH,
    device: str = "auto",
    precision: str = "float32",
    token_budget: int | None = None,
    seed: int = 0,
) -> Throughput:
    """Embed made-up cells and measure it, after one batch to warm up.

    Parameters
    ----------
    loaded : LoadedModel
    n_cells : int
    length : int
        Expressed genes of each cell, all known to the model; a model that cuts long cells still
        does.
    device, precision, token_budget
        See :class:`scdrugmap.model.batching.Network`.
    seed : int
        Of the cells.

    Returns
    -------
    Throughput
        Operations are counted on two cells (matrix products and attention, as torch counts
        them); the network's time holds collating and moving batches, not tokenising.

    Raises
    ------
    UsageError
        The model knows fewer genes than `length`.
    """
    where = resolve_device(device)
    network = Network(
        loaded.model, device=where, precision=precision, token_budget=token_budget, name=loaded.name
    )
    rows = made_up_cells(loaded, n_cells, length, seed)
    names = np.array([f"cell{number}" for number in range(n_cells)], object)
    began = time.perf_counter()
    tokens = loaded.model.tokenizer.encode(rows, names)
    tokenize_s = time.perf_counter() - began
    groups = group_indices(None, n_cells) if loaded.spec.cell_batching == "group" else None
    network.embed(tokens.take(np.arange(min(_COUNTED_CELLS, n_cells))), _first(groups, n_cells))
    synchronize(where)
    began = time.perf_counter()
    network.embed(tokens, groups)
    synchronize(where)
    network_s = time.perf_counter() - began
    n_tokens = int(loaded.model.cost(tokens).sum())
    gflop = flop_per_cell(network, tokens, None if groups is None else n_cells) / 1e9
    weights = loaded.weights
    return Throughput(
        model=loaded.name,
        weights="" if weights.source == "none" else weights.label,
        device=str(where),
        precision=network.precision,
        n_cells=n_cells,
        length=length,
        tokens_per_cell=n_tokens / n_cells,
        tokenize_cells_per_s=n_cells / tokenize_s,
        cells_per_s=n_cells / network_s,
        tokens_per_s=n_tokens / network_s,
        peak_memory_bytes=peak_memory(where),
        gflop_per_cell=gflop,
        gflop_per_s=gflop * n_cells / network_s,
        matmul_gflop_per_s=matmul_rate(where) / 1e9,
        n_threads=torch.get_num_threads(),
    )


def made_up_cells(loaded: LoadedModel, n_cells: int, length: int, seed: int) -> csr_matrix:
    """Return cells to measure with, and bind the model to their genes.

    Parameters
    ----------
    loaded : LoadedModel
    n_cells : int
    length : int
        Expressed genes of each cell, all known to the model.
    seed : int

    Returns
    -------
    (n_cells, G) CSR float32
        Counts (Poisson plus one; their logarithms where the model takes no counts) over the genes
        of the packaged table.

    Raises
    ------
    UsageError
        The model knows fewer genes than `length`, or a group holds fewer cells.
    """
    from scipy.sparse import csr_matrix

    if n_cells < 1 or length < 1:
        raise UsageError(f"--cells {n_cells} and --length {length} must be at least 1")
    if loaded.spec.cell_batching == "group" and n_cells > GROUP_CELLS:
        raise UsageError(f"--cells {n_cells:,} is more than a group holds ({GROUP_CELLS:,})")
    kind = loaded.spec.gene_id
    genes = Genes.from_names(gene_table().names(kind), kind=kind)
    coverage = loaded.model.tokenizer.bind(genes)
    known = np.flatnonzero(coverage.matched)
    if length > len(known):
        raise UsageError(
            f"--length {length:,} is more than the {len(known):,} genes that {loaded.name} knows"
        )
    random = np.random.default_rng(seed)
    columns = [np.sort(random.choice(known, length, replace=False)) for _ in range(n_cells)]
    data = 1 + random.poisson(_MEAN_COUNT, n_cells * length)
    values = data.astype(np.float32)
    if "counts" not in loaded.spec.accepts:
        values = np.log1p(values)
    indptr = np.arange(n_cells + 1) * length
    return csr_matrix((values, np.concatenate(columns), indptr), shape=(n_cells, len(genes)))


def _first(groups: list[np.ndarray] | None, n_cells: int) -> list[np.ndarray] | None:
    return None if groups is None else [np.arange(min(_COUNTED_CELLS, n_cells))]


def flop_per_cell(network: Network, tokens: Tokens, group: int | None = None) -> float:
    """Count the floating-point operations of a forward pass, per cell.

    Attention is counted on its plain form: torch has no count for the fused one of processors.

    Parameters
    ----------
    network : Network
    tokens : Tokens
    group : int, optional
        Cells of one sequence, for models whose cells see each other; None: cells are independent.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    n = group or min(_COUNTED_CELLS, tokens.n_cells)
    some = tokens.take(np.arange(n))
    groups = None if group is None else [np.arange(n)]
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network.embed(some, groups)
    return counter.get_total_flops() / n
