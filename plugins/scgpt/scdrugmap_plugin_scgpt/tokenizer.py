"""Cells to tokens: which genes a cell expresses, and how strongly by its own standards.

A cell becomes ``<cls>`` followed by one token per expressed gene: the gene's id, and the bin of its
value among the quantiles of that cell. Only ranks count, so counts and log counts give the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.modelkit import (
    Coverage,
    Tokens,
    bind_genes,
    cell_keys,
    columns_of,
    sample_tokens,
    token_keys,
)

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scdrugmap.modelkit import Genes
    from scdrugmap_plugin_scgpt import Options

SPECIALS = ("<pad>", "<cls>", "<eoc>")
PAD, CLS, _ = SPECIALS

QUANTILES = np.linspace(0, 1, 50)
"""Edges between the bins, hard-coded in the original's collator, whatever ``n_bins`` says."""

MOST_COUNTS = 32_768
"""Larger counts are sorted like fractional values; speed only."""


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
        self._n_tokens = len(vocabulary)
        self._ids = np.empty(0, np.int32)  # (n_genes,) token of each column, -1: unknown
        self._columns = np.empty(0, np.int32)  # (n_tokens,) column of each token, -1: none

    def bind(self, genes: Genes) -> Coverage:
        """Find the vocabulary's genes among the columns of a file."""
        ids, coverage = bind_genes(self.genes, genes, "symbol")
        self._ids = ids.astype(np.int32)
        self._columns = columns_of(ids, self._n_tokens)
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
        ids, bins = [np.empty(0, np.int32)], [np.empty(0, np.float32)]
        values = as_counts(rows.data)
        for cell, key in enumerate(cell_keys(self.seed, cells, draw)):
            row = slice(rows.indptr[cell], rows.indptr[cell + 1])
            of_cell = self._ids.take(rows.indices[row])
            known = of_cell >= 0
            of_cell, binned = self._tokens(of_cell[known], values[row][known], key)
            ids.append(of_cell)
            bins.append(binned)
        n_genes = np.array([len(of_cell) for of_cell in ids[1:]], np.int64)
        start = np.concatenate([[0], np.cumsum(n_genes + 1)])
        is_gene = np.ones(start[-1], bool)
        is_gene[start[:-1]] = False
        token = np.full(start[-1], self.cls, np.int32)
        token[is_gene] = np.concatenate(ids)
        value = np.full(start[-1], self.cls_value, np.float32)
        value[is_gene] = np.concatenate(bins)
        return Tokens(
            start,
            {"id": token, "value": value, "column": self._columns.take(token)},
            {"usable": n_genes > 0},
        )

    def _tokens(
        self, ids: np.ndarray, values: np.ndarray, key: np.uint64
    ) -> tuple[np.ndarray, np.ndarray]:
        """Choose and bin the known genes of one cell: ((k,) ids, (k,) bins)."""
        room = self.options.max_length - 1
        kept: slice | np.ndarray = slice(None)
        if len(ids) > room:
            sample = self.options.overlong == "sample"
            kept = self.choose(ids, room, key) if sample else slice(room)
        draws = None
        if self.options.bins == "legacy":
            draws = self.draws(ids, key)[kept]
        reference = values[kept] if self.options.cut == "before_binning" else values
        return ids[kept], bin_values(values[kept], reference, draws)

    def choose(self, ids: np.ndarray, room: int, key: np.uint64) -> np.ndarray:
        """Return the positions of the `room` genes that stay in an overlong cell."""
        return sample_tokens(key, ids, room)

    def draws(self, ids: np.ndarray, key: np.uint64) -> np.ndarray:
        """Return a uniform number in [0, 1) for each gene of a cell, for legacy bins."""
        return (token_keys(key, ids) >> np.uint64(11)) * 2.0**-53


def bin_values(
    values: np.ndarray, reference: np.ndarray, draws: np.ndarray | None = None
) -> np.ndarray:
    """Return the bin of each value, 1 to 50, among the quantiles of the cell.

    A value that equals several edges (counts have many ties) may fall into any bin between them.
    The edges are those of ``np.quantile(reference, np.linspace(0, 1, 50))`` to the last bit, since
    whether a value equals an edge decides its bin. All is done on distinct values, of which counts
    have few.

    Parameters
    ----------
    values : (k,) float32 or int32
        Values to bin, all among `reference`; see :func:`as_counts`.
    reference : (m,) float32 or int32
        Values of the cell, positive, in any order.
    draws : (k,) float, optional
        Place of each value between its highest (0) and its lowest (1) admissible bin; None: the
        middle.

    Returns
    -------
    (k,) float32
    """
    if not len(values):
        return np.empty(0, np.float32)
    levels, upto = _distinct(reference)
    edges = _edges(levels.astype(np.float32), upto)
    level = _level(levels, values)
    highest = edges.searchsorted(levels, "right")
    lowest = edges.searchsorted(levels, "left")
    if draws is None:
        return np.ceil((lowest + highest) / 2).astype(np.float32)[level]
    return np.ceil(draws * (lowest - highest)[level] + highest[level]).astype(np.float32)


def as_counts(values: np.ndarray) -> np.ndarray:
    """Return small whole numbers as int32, whose bins are looked up, and others as they are.

    Speed only: the bins are the same.
    """
    if not len(values) or values.max() >= MOST_COUNTS:
        return values
    whole = values.astype(np.int32)
    return whole if (whole == values).all() else values


def _distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted distinct values, and how many values are at or below each."""
    if values.dtype.kind == "i":  # a histogram is faster than a sort
        counts = np.bincount(values)
        levels = np.flatnonzero(counts)
        return levels, counts[levels].cumsum()
    ordered = np.sort(values)
    last = np.append(ordered[1:] != ordered[:-1], True)
    return ordered[last], np.flatnonzero(last) + 1


def _level(levels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the place of each value among the distinct ones."""
    if values.dtype.kind != "i":
        return levels.searchsorted(values)
    table = np.empty(levels[-1] + 1, np.intp)
    table[levels] = np.arange(len(levels))
    return table[values]


def _edges(levels: np.ndarray, upto: np.ndarray) -> np.ndarray:
    """Return the (50,) float64 linear quantiles of values given by :func:`_distinct`."""
    below, above, part = _positions(int(upto[-1]))
    low = levels[upto.searchsorted(below, "right")]
    high = levels[upto.searchsorted(above, "right")]
    step = high - low  # in float32, as NumPy does
    return np.where(part < 0.5, low + step * part, high - step * (1 - part))


@lru_cache(maxsize=4096)
def _positions(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the neighbours of each quantile among `n` sorted values, and how far between it is."""
    position = QUANTILES * (n - 1)
    below = position.astype(np.int64)
    return below, np.minimum(below + 1, n - 1), position - below
