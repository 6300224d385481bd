"""Cells to tokens: the genes of a cell in descending order of expression.

A cell becomes ``</b>`` (begin) and its 62 most expressed genes; ``</s>`` (end) follows only where
the embedding is a mean over it, since attention is causal. Only ranks count, so counts and log
counts give the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.modelkit import Coverage, Genes, Tokens, bind_genes, rank_tokens

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scdrugmap_plugin_tgpt import Options

SPECIALS = ("<pad>", "</b>", "</s>", "<unk>")
PAD, BEGIN, END, UNKNOWN = SPECIALS

# Besides genes (C1orf43, HLA_A) the published vocabulary holds `:`, `extra_id_0` and words of
# prompts, which are in lower case.
_GENE = re.compile(r"(?=.*[A-Z])[A-Z0-9_]+(?:orf[A-Z0-9_]+)?")
_RIBOSOMAL = re.compile(r"RP[LS]\d")

# The vocabulary writes `_` for both marks; the gene table, by which old names are found, `-`.
_SPELLING = str.maketrans("._", "--")


class Tokenizer:
    """The tokenizer of tGPT.

    Parameters
    ----------
    vocabulary : mapping of str to int
        Gene symbols (``HLA_A`` for HLA-A), special tokens and words of prompts to token ids.
    options : Options
    """

    def __init__(self, vocabulary: Mapping[str, int], options: Options) -> None:
        self.begin, self.end, self.unknown = (vocabulary[name] for name in (BEGIN, END, UNKNOWN))
        self.options = options
        self.genes = {
            name.translate(_SPELLING): token
            for name, token in vocabulary.items()
            if _GENE.fullmatch(name) and not self._excluded(name)
        }
        self._ids = np.empty(0, np.int32)  # (n_genes,) token of each column
        self._known = np.empty(0, bool)  # (n_genes,) whether it is a gene's token
        self._place = np.empty(0, np.int32)  # (n_genes,) rank among equal values, -1: left out

    def bind(self, genes: Genes) -> Coverage:
        """Find the vocabulary's genes among the columns of a file."""
        spelled = Genes(_spell(genes.published), _spell(genes.symbol), genes.ensembl)
        ids, coverage = bind_genes(self.genes, spelled, "symbol")
        self._known = ids >= 0
        if self.options.unknown == "token":
            names = zip(spelled.published, spelled.symbol, strict=True)
            excluded = np.array([any(map(self._excluded, pair)) for pair in names], bool)
            ids[~self._known & ~excluded] = self.unknown
        self._ids = ids.astype(np.int32)
        order = np.arange(len(ids))
        if self.options.ties == "token":
            order = np.lexsort((spelled.published.astype(str), ids))  # all <unk> have one id
        self._place = np.empty(len(ids), np.int32)
        self._place[order] = np.arange(len(ids))
        self._place[ids < 0] = -1
        return coverage

    def encode(self, rows: csr_matrix, cells: np.ndarray, draw: int = 0) -> Tokens:
        """Turn cells into tokens.

        Parameters
        ----------
        rows : (n, n_genes) CSR float32
        cells : (n,) str
        draw : int
            Nothing is drawn.

        Returns
        -------
        Tokens
            Per token ``id`` and ``column`` (int32), in descending order of expression.
        """
        ranked = [np.empty(0, np.int32)]
        usable = np.zeros(rows.shape[0], bool)
        for cell in range(rows.shape[0]):
            row = slice(rows.indptr[cell], rows.indptr[cell + 1])
            columns = rows.indices[row]
            place = self._place.take(columns)
            read = np.flatnonzero(place >= 0)
            top = rank_tokens(
                rows.data[row].take(read), place.take(read), self.options.max_length - 2
            )
            ranked.append(columns[read[top]].astype(np.int32))
            usable[cell] = self._known.take(columns).any()
        return self._frame(ranked, usable)

    def _frame(self, ranked: list[np.ndarray], usable: np.ndarray) -> Tokens:
        """Put the special tokens around the ranked columns of each cell."""
        ends = self.options.pool == "all"
        n_genes = np.array([len(columns) for columns in ranked[1:]], np.int64)
        start = np.concatenate([[0], np.cumsum(n_genes + 1 + ends)])
        column = np.full(start[-1], -1, np.int32)
        token = np.full(start[-1], self.begin, np.int32)
        is_gene = np.ones(start[-1], bool)
        is_gene[start[:-1]] = False
        if ends:
            is_gene[start[1:] - 1] = False
            token[start[1:] - 1] = self.end
        column[is_gene] = np.concatenate(ranked)
        token[is_gene] = self._ids.take(column[is_gene])
        return Tokens(start, {"id": token, "column": column}, {"usable": usable})

    def _excluded(self, name: str) -> bool:
        return self.options.exclude_ribosomal and _RIBOSOMAL.match(name) is not None


def _spell(names: np.ndarray) -> np.ndarray:
    """Write names ((n,) object str) as the keys of ``Tokenizer.genes``."""
    return np.array([name.translate(_SPELLING) for name in names], object)
