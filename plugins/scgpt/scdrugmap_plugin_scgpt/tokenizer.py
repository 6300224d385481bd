"""Cells to tokens: which genes a cell expresses, and how strongly by its own standards.

A cell becomes ``<cls>`` followed by one token per expressed gene: the gene's id, and the bin of its
value among the quantiles of that cell. Only ranks count, so counts and log counts give the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.modelkit import Coverage, Tokens, bind_genes, cell_keys, token_keys

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scdrugmap.modelkit import Genes
    from scdrugmap_plugin_scgpt import Options

SPECIALS = ("<pad>", "<cls>", "<eoc>")
PAD, CLS, _ = SPECIALS

N_EDGES = 50
"""Edges of the bins; hard-coded in the original's collator, whatever ``n_bins`` says."""


class Tokenizer:
    """The tokenizer of scGPT.

    Parameters
    ----------
    vocabulary : mapping of str to int
        Gene symbols and special tokens to token ids.
    cls_value : float
        Value that ``<cls>`` has in place of a bin.
    options : Options
    seed : int
        Decides, together with a cell's name, all that is drawn at random.
    """

    def __init__(
        self, vocabulary: Mapping[str, int], cls_value: float, options: Options, seed: int
    ) -> None:
        self.genes = {name: token for name, token in vocabulary.items() if name not in SPECIALS}
        self.cls = vocabulary[CLS]
        self.cls_value = cls_value
        self.options = options
        self.seed = seed
        self._ids = np.empty(0, np.int32)  # (n_genes,) token of each column, -1: unknown

    def bind(self, genes: Genes) -> Coverage:
        """Find the vocabulary's genes among the columns of a file."""
        ids, coverage = bind_genes(self.genes, genes, "symbol")
        self._ids = ids.astype(np.int32)
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
            Per token ``id`` (int32), ``value`` (float32) and ``column`` (int32); ``<cls>`` first.
        """
        known = self._ids >= 0
        columns, bins = [], []
        for cell, key in enumerate(cell_keys(self.seed, cells, draw)):
            row = slice(rows.indptr[cell], rows.indptr[cell + 1])
            usable = known[rows.indices[row]]
            of_cell = self._tokens(rows.indices[row][usable], rows.data[row][usable], key)
            columns.append(of_cell[0])
            bins.append(of_cell[1])
        n_genes = np.array([len(column) for column in columns], np.int64)
        start = np.concatenate([[0], np.cumsum(n_genes + 1)])
        gene = np.ones(start[-1], bool)
        gene[start[:-1]] = False
        column = np.full(start[-1], -1, np.int32)
        ids = np.full(start[-1], self.cls, np.int32)
        value = np.full(start[-1], self.cls_value, np.float32)
        if len(cells):
            column[gene] = np.concatenate(columns)
            ids[gene] = self._ids[column[gene]]
            value[gene] = np.concatenate(bins)
        return Tokens(
            start, {"id": ids, "value": value, "column": column}, {"usable": n_genes > 0}
        )

    def _tokens(
        self, column: np.ndarray, value: np.ndarray, key: np.uint64
    ) -> tuple[np.ndarray, np.ndarray]:
        """Choose and bin the known genes of one cell: ((k,) columns, (k,) bins)."""
        room = self.options.max_length - 1
        kept: slice | np.ndarray = slice(None)
        if len(column) > room:
            sample = self.options.overlong == "sample"
            kept = self.choose(self._ids[column], room, key) if sample else slice(room)
        reference = np.sort(value[kept] if self.options.cut == "before_binning" else value)
        if self.options.bins == "legacy":
            where = self.draws(len(value), key)[kept]
        else:
            where = 0.5
        return column[kept], bin_values(value[kept], edges(reference), where)

    def choose(self, ids: np.ndarray, room: int, key: np.uint64) -> np.ndarray:
        """Return positions of the genes that stay in an overlong cell, whatever their order.

        Parameters
        ----------
        ids : (m,) int32
            Token ids of the cell's genes, more than `room`.
        room : int
            How many stay.
        key : uint64
            The cell's key.
        """
        keys = token_keys(key, ids)
        return np.flatnonzero(keys <= np.partition(keys, room - 1)[room - 1])

    def draws(self, n: int, key: np.uint64) -> np.ndarray:
        """Return (n,) uniform numbers in [0, 1): where between its bins a value falls (legacy)."""
        return np.random.RandomState(int(key) % 2**32).random_sample(n)


def edges(reference: np.ndarray) -> np.ndarray:
    """Return the quantiles that bound the bins of a cell.

    The same numbers as ``np.quantile(reference, np.linspace(0, 1, 50))`` to the last bit, six times
    as fast; a value equal to an edge must compare equal.

    Parameters
    ----------
    reference : (m,) float32
        Values of the cell, sorted.

    Returns
    -------
    (50,) float64
    """
    if not len(reference):
        return np.zeros(N_EDGES)
    position = np.linspace(0, 1, N_EDGES) * (len(reference) - 1)
    below = position.astype(np.int64)
    above = np.minimum(below + 1, len(reference) - 1)
    part = position - below
    low, high = reference[below], reference[above]
    step = high - low  # float32, as in NumPy
    return np.where(part < 0.5, low + step * part, high - step * (1 - part))


def bin_values(
    value: np.ndarray, edges: np.ndarray, where: float | np.ndarray = 0.5
) -> np.ndarray:
    """Return the bin of each value, 1 to 50.

    A value that equals several edges (counts have many ties) may fall into any of the bins between
    them.

    Parameters
    ----------
    value : (k,) float32
    edges : (50,) float64
    where : float or (k,) float
        Place between the highest (0) and the lowest (1) of the admissible bins.

    Returns
    -------
    (k,) float32
    """
    below = np.searchsorted(edges, value, "left")
    upto = np.searchsorted(edges, value, "right")
    return np.ceil(where * (below - upto) + upto).astype(np.float32)
