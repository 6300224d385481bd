"""Cells to tokens: for every gene of the model's list, in its order, how highly it is expressed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from scdrugmap.modelkit import Coverage, Tokens, bind_genes, columns_of

if TYPE_CHECKING:
    from scdrugmap.modelkit import Genes

SCALE = 1e4
"""Counts that each cell is scaled to."""

HIGHEST = 5
"""The last level; level n begins at 2^n - 1 counts of the scaled cell."""


class Tokenizer:
    """The tokenizer of scBERT.

    Parameters
    ----------
    genes : mapping of str to int
        Gene symbols to positions, 0 to n - 1; position n is that of the closing token.
    """

    def __init__(self, genes: Mapping[str, int]) -> None:
        self.genes = dict(genes)
        self._places = np.empty(0, np.int64)  # (n_genes,) position of each column, -1: unknown
        self._columns = np.empty(0, np.int32)  # (n + 1,) column of each position, -1: none

    def bind(self, genes: Genes) -> Coverage:
        """Find the model's genes among the columns of a file."""
        self._places, coverage = bind_genes(self.genes, genes, "symbol")
        self._columns = columns_of(self._places, len(self.genes) + 1)
        return coverage

    def encode(self, rows: csr_matrix, cells: np.ndarray, draw: int = 0) -> Tokens:
        """Turn cells into tokens.

        Parameters
        ----------
        rows : (n, n_genes) CSR float32
        cells : (n,) str
            Not used: nothing is drawn.
        draw : int
            Not used.

        Returns
        -------
        Tokens
            All cells are equally long. Per token ``level`` (uint8, 0 to 5) and ``column`` (int32);
            the closing token has level 0.
        """
        n_cells, length = rows.shape[0], len(self._columns)
        cell, place, values, total = self._known(rows)
        level = np.zeros((n_cells, length), np.uint8)
        level[cell, place] = np.minimum(log2_scaled(values, total[cell]), HIGHEST).astype(np.uint8)
        return Tokens(
            np.arange(n_cells + 1, dtype=np.int64) * length,
            {"level": level.reshape(-1), "column": np.tile(self._columns, n_cells)},
            {"usable": total > 0},
        )

    def _known(self, rows: csr_matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return cell, position and value of each known count, and each cell's total of them."""
        n_cells = rows.shape[0]
        cell = np.repeat(np.arange(n_cells), np.diff(rows.indptr))
        place = self._places.take(rows.indices)
        kept = place >= 0
        cell, place, values = cell[kept], place[kept], rows.data[kept]
        # The sum of counts is exact in 64 bits, so that the order of the columns cannot matter.
        total = np.bincount(cell, values, n_cells).astype(np.float32)
        return cell, place, values, total


def log2_scaled(values: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return log2(1 + x) of counts scaled to 10,000 per cell.

    In 32 bits, as the original computes it: values at the border of two levels fall as there.

    Parameters
    ----------
    values, total : (m,) float32
        Counts, and the totals of their cells.

    Returns
    -------
    (m,) float32
    """
    logs = np.log1p(values / (total / np.float32(SCALE)))
    return (logs / np.log(2.0)).astype(np.float32)
