"""The network and tokenizer of ``randproj``.

Each gene of the packaged table has a Gaussian vector that depends on its Ensembl id alone; a cell
is the sum of its genes' vectors, weighted by log-normalised expression. Distances between cells
are kept up to a factor of about ``1 ± sqrt(log(n) / D)`` (Johnson and Lindenstrauss 1984), so it
holds what expression holds and nothing that was learnt from other cells.

Letters: B cells, T tokens of all cells together, D width, V genes of the table.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from scdrugmap.baselines.randproj import SPEC, Options
from scdrugmap.modelkit import Coverage, Tokens, Traits, bind_genes, cell_keys, token_keys

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from torch import Tensor

    from scdrugmap.data.genes import Genes

TARGET_SUM = 1e4
_GENES_PER_STEP = 4096


def build(options: Options, weights: Path | None, seed: int) -> RandomProjection:
    """Return the model; `weights` and `seed` change nothing, since vectors come from names."""
    from scdrugmap.data.genes import gene_table

    dim = options.dim or int(cast("int", SPEC.variant(options.variant).sizes["dim"]))
    return RandomProjection(gene_table().names("ensembl"), dim)


@lru_cache(
    maxsize=1
)  # a second takes longer than all else of a small file, and nothing alters them
def gene_vectors(names: tuple[str, ...], dim: int) -> np.ndarray:
    """Return the vector of each gene.

    Parameters
    ----------
    names : (V,) str
        Ensembl ids.
    dim : int
        Width D.

    Returns
    -------
    (V, D) float32
        Independent draws from N(0, 1/D), the same for the same name in every process: a random
        word per entry, turned into normal numbers by the transform of Box and Muller (1958).
    """
    half = -(-dim // 2)
    vectors = np.empty((len(names), 2 * half), np.float32)
    for start in range(0, len(names), _GENES_PER_STEP):
        keys = cell_keys(0, names[start : start + _GENES_PER_STEP])[:, None]
        words = token_keys(keys, np.arange(2 * half)[None, :])  # (v, 2 * half)
        uniform = ((words >> np.uint64(11)) + 0.5) * 2.0**-53  # in (0, 1), never 0
        radius = np.sqrt(-2.0 * np.log(uniform[:, :half]))
        angle = 2.0 * np.pi * uniform[:, half:]
        block = vectors[start : start + _GENES_PER_STEP]
        block[:, :half], block[:, half:] = radius * np.cos(angle), radius * np.sin(angle)
    return vectors[:, :dim] / np.float32(np.sqrt(dim))


class ExpressionTokenizer:
    """One token per expressed gene of the table: its row and its log-normalised value.

    Values are scaled to 10,000 per cell over the known genes, then ``log1p``. A cell with
    fractional values is taken as log-normalised already and brought back by ``expm1`` first, so
    counts and their log-normalised form give the same tokens.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.vocabulary = {name: row for row, name in enumerate(names)}
        self._row = np.empty(0, np.int32)

    def bind(self, genes: Genes) -> Coverage:
        """Find the file's genes in the table."""
        rows, coverage = bind_genes(self.vocabulary, genes, "ensembl")
        self._row = rows.astype(np.int32)
        return coverage

    def encode(self, rows: csr_matrix, cells: np.ndarray, draw: int = 0) -> Tokens:
        """Turn cells into tokens; see :class:`scdrugmap.modelkit.Tokenizer`."""
        gene = self._row[rows.indices]  # (nnz,)
        column, data, start = rows.indices, rows.data, rows.indptr
        known = gene >= 0
        if not known.all():
            start = np.concatenate([[0], np.cumsum(known)])[start]
            gene, column, data = gene[known], column[known], data[known]
        start = start.astype(np.int64)  # (n + 1,)
        return Tokens(
            start,
            {
                "gene": gene,
                "value": _log_normalised(data, start),
                "column": column.astype(np.int32),
            },
            {"usable": np.diff(start) > 0},
        )


def _log_normalised(data: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Scale each cell's values ((T,) float32) to :data:`TARGET_SUM` and take ``log1p``."""
    lengths = np.diff(start)
    borders = start[:-1][lengths > 0]
    if not len(borders):
        return data
    fractional = np.add.reduceat(data != np.floor(data), borders) > 0
    if fractional.any():
        is_log = np.repeat(fractional, lengths[lengths > 0])
        data = np.where(is_log, np.expm1(np.where(is_log, data, np.float32(0))), data)
    totals = np.add.reduceat(data, borders, dtype=np.float64)  # hardly depends on the order
    scale = (TARGET_SUM / totals).astype(np.float32)
    return np.log1p(data * np.repeat(scale, lengths[lengths > 0]))


class WeightedSum(nn.Module):
    """Sum of the vectors of a cell's genes, weighted by their values."""

    vectors: Tensor

    def __init__(self, vectors: np.ndarray) -> None:
        super().__init__()
        self.values = nn.Identity()
        self.register_buffer("vectors", torch.from_numpy(vectors))  # (V, D); nothing is trained

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """``gene`` (T,), ``value`` (T,) and ``start`` (B,) to (B, D)."""
        return F.embedding_bag(
            batch["gene"],
            self.vectors,
            batch["start"],
            mode="sum",
            per_sample_weights=self.values(batch["value"]).to(self.vectors.dtype),
        )


class RandomProjection:
    """The model of ``randproj``; batches are packed, not padded."""

    input_module = "values"

    def __init__(self, names: tuple[str, ...], dim: int) -> None:
        self.traits = Traits(dim=dim, max_tokens=None, vocabulary_size=len(names))
        self.tokenizer = ExpressionTokenizer(names)
        self.module = WeightedSum(gene_vectors(names, dim))

    def collate(self, tokens: Tokens) -> dict[str, Tensor]:
        """Put the cells of a batch one after the other."""
        return {
            "gene": torch.from_numpy(tokens.flat["gene"]),
            "value": torch.from_numpy(tokens.flat["value"]),
            "start": torch.from_numpy(tokens.start[:-1].astype(np.int32)),
        }

    def cost(self, tokens: Tokens) -> np.ndarray:
        """One per cell: cells of any length batch well together."""
        return np.ones(tokens.n_cells, np.int64)
