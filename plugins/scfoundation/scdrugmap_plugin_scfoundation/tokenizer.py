"""Cells to tokens: the depths S and T, then each expressed gene with its log-normalised value.

S is the logarithm, base 10, of a cell's total, T the depth that the network is asked for. The
original puts both behind the genes; the network does not read the order of tokens, and in front
they are found without a look at the length of a cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.modelkit import (
    Coverage,
    Tokens,
    bind_genes,
    columns_of,
    known_values,
    rank_tokens,
)
from scdrugmap_plugin_scfoundation import split_resolution

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scdrugmap.modelkit import Genes
    from scdrugmap_plugin_scfoundation import Options

N_DEPTHS = 2
"""Tokens in front of the genes: S, then T."""

SCALE = 1e4
"""Counts that each cell is scaled to."""


class Tokenizer:
    """The tokenizer of scFoundation.

    Parameters
    ----------
    genes : mapping of str to int
        Gene symbols to token ids, 0 to n - 1; T is n, S is n + 1.
    options : Options
    """

    def __init__(self, genes: Mapping[str, int], options: Options) -> None:
        self.genes = dict(genes)
        self.target, self.source = len(self.genes), len(self.genes) + 1
        self.options = options
        self._ids = np.empty(0, np.int32)  # (n_genes,) token of each column, -1: unknown
        self._columns = np.empty(0, np.int32)  # (n + 2,) column of each token, -1: none

    def bind(self, genes: Genes) -> Coverage:
        """Find the model's genes among the columns of a file."""
        ids, coverage = bind_genes(self.genes, genes, "symbol")
        self._ids = ids.astype(np.int32)
        self._columns = columns_of(ids, len(self.genes) + N_DEPTHS)
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
            Per token ``id`` (int32), ``value`` (float32) and ``column`` (int32): S, T, and the
            genes by ascending id.
        """
        known = known_values(rows, self._ids, len(self.genes))
        n_cells = known.shape[0]
        cell = np.repeat(np.arange(n_cells), np.diff(known.indptr))
        total = np.bincount(cell, known.data, n_cells)  # (n,) float64, all known genes
        is_log = self._is_log(known.data, cell, n_cells)
        scaled = known.data / total[cell] * SCALE
        values = np.where(is_log[cell], known.data, np.log1p(scaled)).astype(np.float32)
        ids = known.indices.astype(np.int32)
        if self.options.max_genes is not None:
            kept = highest(known.indptr, values, ids, self.options.max_genes)
            cell, values, ids = cell[kept], values[kept], ids[kept]
        n_genes = np.bincount(cell, minlength=n_cells)
        start = np.concatenate([[0], np.cumsum(n_genes + N_DEPTHS)]).astype(np.int64)
        is_gene = np.ones(start[-1], bool)
        token, value = np.empty(start[-1], np.int32), np.empty(start[-1], np.float32)
        for place, (of_depth, depth) in enumerate(self._depths(total)):
            at = start[:-1] + place
            is_gene[at], token[at], value[at] = False, of_depth, depth
        token[is_gene], value[is_gene] = ids, values
        return Tokens(
            start,
            {"id": token, "value": value, "column": self._columns.take(token)},
            {"usable": n_genes > 0},
        )

    def _is_log(self, values: np.ndarray, cell: np.ndarray, n_cells: int) -> np.ndarray:
        """Return for each cell whether its values are log-normalised, not counts: (n,) bool."""
        if self.options.pre_normalized is not None:
            return np.full(n_cells, self.options.pre_normalized)
        return np.bincount(cell[values != np.rint(values)], minlength=n_cells) > 0

    def _depths(self, total: np.ndarray) -> tuple[tuple[int, np.ndarray], ...]:
        """Return token id and values, (n,) float64, of S and of T."""
        kind, number = split_resolution(self.options.target_resolution)
        total = np.where(total > 0, total, 1)  # a cell without a known gene is not read
        source = np.log10(total)
        if kind == "t":
            target = np.full(len(total), number)
        else:
            target = source + (number if kind == "a" else np.log10(number))
        return (self.source, source), (self.target, target)


def highest(indptr: np.ndarray, values: np.ndarray, ids: np.ndarray, most: int) -> np.ndarray:
    """Return which genes stay where a cell may have at most `most`.

    Parameters
    ----------
    indptr : (n + 1,) int
        Where the genes of each cell begin.
    values, ids : (m,) float and int
        Of each gene; of equal values the smaller ids stay.
    most : int

    Returns
    -------
    (k,) int64
        Positions in `values`, ascending.
    """
    kept = [np.empty(0, np.int64)]
    for first, last in pairwise(indptr):
        kept.append(first + np.sort(rank_tokens(values[first:last], ids[first:last], most)))
    return np.concatenate(kept)
