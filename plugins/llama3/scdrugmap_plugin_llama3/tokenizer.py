"""Cells to tokens: the names of a cell's genes, highest first, as a text that is never written.

A byte-pair tokenizer cuts a text at blanks before it does anything else, so the ids of a list of
genes are those of its parts. They are looked up once per file; a cell is then a gathering of
pieces. Where the parts do not add up (another tokenizer, another separator) the text is written
and tokenised cell by cell.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.errors import ScDrugMapWarning
from scdrugmap.modelkit import Coverage, NamedGenes, Tokens, most_genes
from scdrugmap_plugin_llama3.texts import as_ids

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scdrugmap.modelkit import Genes, Template
    from scdrugmap_plugin_llama3.texts import TextIds

Piece = tuple[np.ndarray, np.ndarray]
"""Ids ((t,) int32) and their dataset columns ((t,) int32, -1: of no gene) of a cell."""

_LIST_LENGTH = 200  # names in one text when the table is compared with plain tokenising


class CellTokenizer:
    """Ranked gene names as token ids.

    Parameters
    ----------
    texts : TextIds
    template : Template
        Of kind ``embed``.
    begin : sequence of int
        Ids before the text.
    top_k : int, optional
        Most genes; None: all.
    max_tokens : int
        Longest sequence, `begin` included.
    n_vocabulary : int
        Genes that have a name at all.
    """

    def __init__(
        self,
        texts: TextIds,
        template: Template,
        begin: tuple[int, ...],
        top_k: int | None,
        max_tokens: int,
        n_vocabulary: int,
    ) -> None:
        self.texts, self.template = texts, template
        self.max_tokens, self.n_vocabulary = max_tokens, n_vocabulary
        self._begin = as_ids(begin)
        self._top_k = top_k
        self._shown = np.empty(0, object)  # names of all columns, for texts in column order
        self._named: NamedGenes | None = None
        self._table: Table | None = None

    def bind(self, genes: Genes) -> Coverage:
        """Find the names of a file's genes, and tokenise each of them once."""
        self._named = NamedGenes(genes, self.template.leave_out)
        self._shown = genes.published
        self._table = None
        if self.template.order == "rank" and self.template.cut == "genes":
            self._table = Table.of(self.texts, self.template, self._named.names)
            if self._table is None:
                warnings.warn(
                    f"template {self.template.name}: this tokenizer joins neighbouring genes; "
                    "cells are tokenised one by one, slowly",
                    ScDrugMapWarning,
                    stacklevel=2,
                )
        matched = self._named.of_column >= 0
        return Coverage(len(genes), int(matched.sum()), self.n_vocabulary, matched)

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
        named = self._named
        if named is None:
            raise ValueError("bind() must come before encode()")
        pieces = []
        usable = np.zeros(len(cells), bool)
        for cell in range(len(cells)):
            row = slice(rows.indptr[cell], rows.indptr[cell + 1])
            most = self._top_k or rows.shape[1]
            ranked = named.rank(rows.indices[row], rows.data[row], max(most, 1))
            usable[cell] = len(ranked) > 0
            if self.template.order == "columns":
                pieces.append(self._in_column_order(rows.indices[row], rows.data[row]))
            elif self._table is not None:
                pieces.append(self._gathered(ranked, self._table))
            else:
                pieces.append(self._written(ranked))
        begin = (self._begin, np.full(len(self._begin), -1, np.int32))
        lengths = np.array([len(begin[0]) + len(ids) for ids, _ in pieces], np.int64)
        parts = [part for piece in pieces for part in (begin, piece)]
        empty = np.empty(0, np.int32)
        return Tokens(
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            {
                "id": np.concatenate([empty, *(ids for ids, _ in parts)]),
                "column": np.concatenate([empty, *(column for _, column in parts)]),
            },
            {"usable": usable},
        )

    @property
    def _room(self) -> int:
        return self.max_tokens - len(self._begin)

    def _gathered(self, ranked: np.ndarray, table: Table) -> Piece:
        """Look the pieces of a cell up; `ranked` ((k,) int64) are positions of names."""
        assert self._named is not None
        lengths = table.lengths(ranked)
        ends = np.concatenate([[0], np.cumsum(lengths)])
        what = self.template.name
        n = most_genes(len(ranked), lambda n: table.n_around(n) + int(ends[n]), self._room, what)
        columns = self._named.column[ranked[:n]]
        return table.gather(ranked[:n], columns, lengths[:n])

    def _written(self, ranked: np.ndarray) -> Piece:
        assert self._named is not None
        names = [str(name) for name in self._named.names[ranked]]

        def n_tokens(n: int) -> int:
            return len(self.texts.ids(self.template.render(names[:n])))

        n = most_genes(len(names), n_tokens, self._room, self.template.name)
        columns = self._named.column[ranked[:n]]
        return self._located(names[:n], columns, None)

    def _in_column_order(self, indices: np.ndarray, data: np.ndarray) -> Piece:
        """Write out columns from the first on, zeros included, as far as there is room."""
        # Each gene has a token or more, so no more columns than tokens are read.
        n = min(len(self._shown), self._top_k or len(self._shown), self._room)
        values = np.zeros(n)
        values[indices[indices < n]] = data[indices < n]
        with_value = self.template.gene == "{name}{value}"
        names = [
            f"{name}{_number(value)}" if with_value else str(name)
            for name, value in zip(self._shown[:n], values, strict=True)
        ]
        return self._located(names, np.arange(n, dtype=np.int32), self._room)

    def _located(self, names: list[str], columns: np.ndarray, most: int | None) -> Piece:
        """Tokenise a text as a whole, and say of which column each token is."""
        ids, ends = self.texts.spans(self.template.render(names))
        before, _ = self.template.frame()
        separator = len(self.template.separator)
        gene_ends = len(before) + np.cumsum([len(name) for name in names], dtype=np.int64)
        gene_ends += separator * np.arange(len(names))
        token_ends = np.asarray(ends, np.int64)
        gene = np.searchsorted(gene_ends, token_ends)  # (t,) first gene that ends there or later
        inside = (token_ends > len(before)) & (gene < len(names))
        column = np.full(len(ids), -1, np.int32)
        column[inside] = columns[gene[inside]]
        return as_ids(ids)[:most], column[:most]


class Table:
    """The pieces of all names of a file, once as the first of a text and once as a later one.

    Parameters
    ----------
    first, later : list of list of int
        Ids of each name with what stands before it.
    after : list of int
        Ids of what follows the last gene.
    alone : list of int
        Ids of a text without genes.
    n_before : int
        Ids of a first piece that belong to what stands before it.
    """

    def __init__(
        self,
        first: list[list[int]],
        later: list[list[int]],
        after: list[int],
        alone: list[int],
        n_before: int,
    ) -> None:
        self._after, self._alone, self._n_before = as_ids(after), as_ids(alone), n_before
        pieces = first + later
        self._lengths = np.array([len(piece) for piece in pieces], np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._lengths)])
        self._flat = as_ids([token for piece in pieces for token in piece])
        self._n_names = len(first)

    @classmethod
    def of(cls, texts: TextIds, template: Template, names: np.ndarray) -> Table | None:
        """Tokenise all names; None where the parts of a text do not add up to the whole."""
        before, after = template.frame()
        plain = [str(name) for name in names]
        first = texts.many([before + name for name in plain])
        later = texts.many([template.separator + name for name in plain])
        alone, tail = texts.ids(template.render([])), texts.ids(after)
        n_before = len(texts.ids(before.rstrip()))  # a blank before a gene is part of its token
        table = cls(first, later, tail, alone, n_before)
        return table if table._adds_up(texts, template, plain) else None

    def _adds_up(self, texts: TextIds, template: Template, names: list[str]) -> bool:
        """Compare with plain tokenising: every name, in two orders."""
        shuffled = np.random.default_rng(0).permutation(len(names))
        for order in (np.arange(len(names)), shuffled):
            for start in range(0, len(order), _LIST_LENGTH):
                some = order[start : start + _LIST_LENGTH]
                ids, _ = self.gather(some, some.astype(np.int32), self.lengths(some))
                if ids.tolist() != texts.ids(template.render([names[i] for i in some])):
                    return False
        return True

    def lengths(self, ranked: np.ndarray) -> np.ndarray:
        """Return the tokens of each name of a cell ((k,) int64)."""
        return self._lengths[self._places(ranked)]

    def n_around(self, n_genes: int) -> int:
        """Return the tokens of a text beside those of its genes' pieces."""
        return len(self._after) if n_genes else len(self._alone)

    def gather(self, ranked: np.ndarray, columns: np.ndarray, lengths: np.ndarray) -> Piece:
        """Return ids and columns of a cell.

        Parameters
        ----------
        ranked : (k,) int64
            Positions of its names.
        columns : (k,) int32
            Their dataset columns.
        lengths : (k,) int64
            From :meth:`lengths`.
        """
        if not len(ranked):
            return self._alone, np.full(len(self._alone), -1, np.int32)
        starts = self._starts[self._places(ranked)]
        ends = np.cumsum(lengths)
        source = np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1])
        column = np.repeat(columns, lengths)
        column[: min(self._n_before, int(lengths[0]) - 1)] = -1
        around = np.full(len(self._after), -1, np.int32)
        return np.concatenate([self._flat[source], self._after]), np.concatenate([column, around])

    def _places(self, ranked: np.ndarray) -> np.ndarray:
        """Return which piece each name of a cell is: the first one stands at the start."""
        places = ranked + self._n_names
        if len(places):
            places[0] = ranked[0]
        return places


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"
