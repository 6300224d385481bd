"""Cells to tokens: the genes of a cell, ordered by how unusually strong they are in it.

A cell becomes its expressed genes, sorted by count over the gene's median in the training corpus,
the strongest first. The scale of a cell cancels out; the logarithm of a count does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from scdrugmap.modelkit import Coverage, Tokens, columns_of

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scdrugmap.modelkit import Genes

PAD, MASK, CLS, EOS = "<pad>", "<mask>", "<cls>", "<eos>"
SPECIALS = {1: (PAD, MASK), 2: (PAD, MASK, CLS, EOS)}
"""Special tokens by generation of the model."""


class Tokenizer:
    """The rank-value encoding of Geneformer.

    Parameters
    ----------
    vocabulary : mapping
        ``tokens`` (gene or special token to token id), ``medians`` (gene to the median of its
        non-zero values), ``mapping`` (other Ensembl id to gene) and ``symbols`` (name to gene);
        genes are Ensembl ids. Genes without a median are unknown.
    max_tokens : int
        Longest sequence, special tokens included.
    """

    def __init__(self, vocabulary: Mapping[str, Any], max_tokens: int) -> None:
        tokens, medians = vocabulary["tokens"], vocabulary["medians"]
        self.genes: dict[str, int] = {gene: tokens[gene] for gene in medians if gene in tokens}
        self._medians = np.ones(len(tokens))  # (n_tokens,)
        for gene, token in self.genes.items():
            self._medians[token] = medians[gene]
        self._known = {**self.genes, **self._targets(vocabulary["mapping"])}
        self._symbols = self._targets(vocabulary["symbols"])
        ends = [[tokens[name]] if name in tokens else [] for name in (CLS, EOS)]
        self._first, self._last = (np.array(end, np.int32) for end in ends)
        self._room = max_tokens - len(self._first) - len(self._last)
        self._ids = np.empty(0, np.int64)  # (n_genes,) token of each column, -1: unknown
        self._columns = np.empty(0, np.int32)  # (n_tokens,) first column of a token, -1: none

    def _targets(self, names: Mapping[str, str]) -> dict[str, int]:
        """Return the token that each name, in capitals, leads to; the first of a name counts."""
        return {
            name.upper(): self.genes[gene]
            for name, gene in reversed(list(names.items()))
            if gene in self.genes
        }

    def bind(self, genes: Genes) -> Coverage:
        """Find the vocabulary's genes among the columns of a file.

        Retired ids lead to their successors; several columns may be one gene and are then summed.
        """
        names = zip(genes.ensembl, genes.published, genes.symbol, strict=True)
        self._ids = np.array([self._token(*of_gene) for of_gene in names], np.int64)
        matched = self._ids >= 0
        self._columns = columns_of(self._ids, len(self._medians))
        return Coverage(len(genes), int(matched.sum()), len(self.genes), matched)

    def _token(self, ensembl: str, published: str, symbol: str) -> int:
        for lookup, name in (
            (self._known, ensembl),
            (self._known, published),
            (self._symbols, published),
            (self._symbols, symbol),
        ):
            token = lookup.get(name.upper())
            if token is not None:
                return token
        return -1

    def encode(self, rows: csr_matrix, cells: np.ndarray, draw: int = 0) -> Tokens:
        """Turn cells into tokens; nothing is drawn at random.

        Parameters
        ----------
        rows : (n, n_genes) CSR float32
        cells : (n,) str
        draw : int

        Returns
        -------
        Tokens
            Per token ``id`` (int32) and ``column`` (int32).
        """
        pieces = [np.empty(0, np.int32)]
        n_genes = np.zeros(len(cells), np.int64)
        for cell in range(len(cells)):
            row = slice(rows.indptr[cell], rows.indptr[cell + 1])
            ranked = self._rank(self._ids.take(rows.indices[row]), rows.data[row])
            n_genes[cell] = len(ranked)
            pieces += [self._first, ranked, self._last]
        lengths = n_genes + len(self._first) + len(self._last)
        ids = np.concatenate(pieces)
        return Tokens(
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            {"id": ids, "column": self._columns.take(ids)},
            {"usable": n_genes > 0},
        )

    def _rank(self, ids: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return the tokens of one cell ((k,) int32), the strongest first, equal ones by id."""
        known = ids >= 0
        # Sums the columns of one gene, and puts the genes in the order of their ids.
        totals = np.bincount(ids[known], counts[known], len(self._medians))  # (n_tokens,) float64
        tokens = np.flatnonzero(totals > 0)  # of bool: three times as fast as of float
        values = -(totals[tokens] / self._medians[tokens])
        order = np.argsort(values)  # several times as fast as a stable sort
        ranked = values[order]
        if (ranked[1:] == ranked[:-1]).any():
            order = np.argsort(values, kind="stable")
        return tokens[order[: self._room]].astype(np.int32)
