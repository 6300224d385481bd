"""Cells to tokens: the known genes that a cell expresses, and the logarithms of their counts.

Counts are not brought to one total, so a cell's depth goes into its embedding, as in the original.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.modelkit import Coverage, Tokens, bind_genes, cell_keys, token_keys

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scdrugmap.modelkit import Genes

_LEAST = 1e-20


class Tokenizer:
    """The tokenizer of CellPLM.

    Parameters
    ----------
    vocabulary : mapping of str to int
        Ensembl id to row of the gene table.
    max_genes : int, optional
        Read only the first so many known columns of a file.
    n_draws : int
        Random numbers per cell, for clusters that are drawn.
    seed : int
        Decides them, together with the cell's name.
    """

    def __init__(
        self, vocabulary: Mapping[str, int], max_genes: int | None, n_draws: int, seed: int
    ) -> None:
        self.genes = vocabulary
        self.max_genes = max_genes
        self.n_draws = n_draws
        self.seed = seed
        self._ids = np.empty(0, np.int32)  # (n_genes,) token of each column, -1: not read

    def bind(self, genes: Genes) -> Coverage:
        """Find the vocabulary's genes among the columns of a file."""
        ids, coverage = bind_genes(self.genes, genes, "ensembl")
        self._ids = ids.astype(np.int32)
        if self.max_genes is not None:
            self._ids[np.flatnonzero(ids >= 0)[self.max_genes :]] = -1
        return coverage

    def encode(self, rows: csr_matrix, cells: np.ndarray, draw: int = 0) -> Tokens:
        """Turn cells into tokens.

        Parameters
        ----------
        rows : (n, n_genes) CSR float32
        cells : (n,) str
        draw : int

        Returns
        -------
        Tokens
            Per token ``id`` (int32), ``value`` (float32, log(1 + count)) and ``column`` (int32);
            per cell ``noise`` ((n, n_draws) float32) where clusters are drawn.
        """
        columns = np.asarray(rows.indices)
        ids = self._ids.take(columns)
        known = ids >= 0
        # Reading all of an array is faster than choosing from it, and most genes are known.
        start = np.concatenate([[0], np.cumsum(known, dtype=np.int64)])[rows.indptr]
        of_cell: dict[str, np.ndarray] = {"usable": np.diff(start) > 0}
        if self.n_draws:
            of_cell["noise"] = gumbel(self.uniforms(cells, draw))
        return Tokens(
            start,
            {
                "id": ids[known],
                "value": np.log1p(rows.data[known], dtype=np.float32),
                "column": columns[known].astype(np.int32),
            },
            of_cell,
        )

    def uniforms(self, cells: np.ndarray, draw: int) -> np.ndarray:
        """Return random numbers in [0, 1): (n, n_draws) float64."""
        keys = cell_keys(self.seed, cells, draw)[:, None]
        return (token_keys(keys, np.arange(self.n_draws)) >> np.uint64(11)) * 2.0**-53


def gumbel(uniforms: np.ndarray) -> np.ndarray:
    """Turn uniform numbers into Gumbel noise, as the original does, in float32.

    Added to logits, it makes the largest one a draw from their softmax.
    """
    return -np.log(-np.log(uniforms + _LEAST) + _LEAST).astype(np.float32)
