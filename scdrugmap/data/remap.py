"""Turn the columns of a file into genes: leave columns out, and add up those of one gene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from scdrugmap.data.sources import assemble

if TYPE_CHECKING:
    from scdrugmap.data.genes import GeneMapping

_ROWS = 128
"""Rows mapped together: small enough for the cache, and a bound on the memory needed."""


class Remapping:
    """Columns of a file to genes.

    Parameters
    ----------
    mapping : GeneMapping
        ``mapping.column`` gives the gene of each column, -1 for none.
    """

    def __init__(self, mapping: GeneMapping) -> None:
        column = mapping.column
        self.n_genes = len(mapping.genes)
        self.nothing_to_do = np.array_equal(column, np.arange(self.n_genes))
        self._column = column.astype(np.int32)
        # The columns that keep their order among themselves need no sorting; the others are few.
        highest = np.maximum.accumulate(np.r_[-1, column])[:-1]
        self._moved = column <= highest

    def apply(self, rows: csr_matrix) -> csr_matrix:
        """Return rows by gene; those given may be overwritten.

        Parameters
        ----------
        rows : csr_matrix float32, (n, n_file_columns)
            Columns rise in each row.

        Returns
        -------
        csr_matrix float32, (n, n_genes)
        """
        if self.nothing_to_do:
            return rows
        data, indices = rows.data, rows.indices
        old = rows.indptr.astype(np.int64)
        indptr = np.zeros_like(old)
        end = 0  # never beyond what was read, so the result can take the place of the input
        for top in range(0, rows.shape[0], _ROWS):
            bottom = min(rows.shape[0], top + _ROWS)
            first, last = old[top], old[bottom]
            piece = self._piece(
                data[first:last], indices[first:last], old[top : bottom + 1] - first
            )
            data[end : end + piece.nnz] = piece.data
            indices[end : end + piece.nnz] = piece.indices
            indptr[top + 1 : bottom + 1] = end + piece.indptr[1:]
            end += piece.nnz
        return assemble(data[:end], indices[:end], indptr, self.n_genes)

    def _piece(self, data: np.ndarray, indices: np.ndarray, indptr: np.ndarray) -> csr_matrix:
        genes, moved = self._column[indices], self._moved[indices]
        if not moved.any():
            return assemble(data, genes, indptr, self.n_genes)
        stay = self._select(data, genes, indptr, ~moved)
        moved &= genes >= 0
        if not moved.any():
            return stay
        extra = self._select(data, genes, indptr, moved)
        extra.has_sorted_indices = extra.has_canonical_format = False
        extra.sum_duplicates()
        return stay + extra

    def _select(
        self, data: np.ndarray, genes: np.ndarray, indptr: np.ndarray, chosen: np.ndarray
    ) -> csr_matrix:
        before = np.concatenate([[0], np.cumsum(chosen)])
        return assemble(data[chosen], genes[chosen], before[indptr], self.n_genes)
