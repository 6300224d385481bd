"""Cells to tokens: CLS, then each expressed gene with its level, then one token for all padding.

The original pads every cell to one length, and its network reads how much padding there is. All
padding of a cell is alike, so that one token stands for it here, with the number that it replaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from scdrugmap.errors import DataError
from scdrugmap.modelkit import Coverage, Tokens, bind_genes, columns_of, known_values

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scdrugmap.modelkit import Genes

SCALE = 1e4
"""Counts that each cell is scaled to."""

N_SPECIALS = 2
"""Last two levels, and last two positions behind the genes: of CLS, then of padding."""


class Tokenizer:
    """The tokenizer of CellLM.

    Parameters
    ----------
    genes : mapping of str to int
        Gene symbols to positions, 0 to n - 1; CLS is n, padding n + 1.
    n_levels : int
        Levels of expression, CLS and padding among them.
    max_seq_len : int
        Tokens that each cell is padded or cut to.
    values : {"lognorm", "counts"}
        What is cut to levels.
    """

    def __init__(
        self,
        genes: Mapping[str, int],
        n_levels: int,
        max_seq_len: int,
        values: Literal["lognorm", "counts"],
    ) -> None:
        self.genes = dict(genes)
        self.cls, self.pad = len(self.genes), len(self.genes) + 1
        self.cls_level, self.pad_level = n_levels - 2, n_levels - 1
        self.max_seq_len = max_seq_len
        self.values = values
        self._places = np.empty(0, np.int32)  # (n_genes,) position of each column, -1: unknown
        self._columns = np.empty(0, np.int32)  # (n + 2,) column of each position, -1: none

    def bind(self, genes: Genes) -> Coverage:
        """Find the model's genes among the columns of a file."""
        places, coverage = bind_genes(self.genes, genes, "symbol")
        self._places = places.astype(np.int32)
        self._columns = columns_of(places, len(self.genes) + N_SPECIALS)
        return coverage

    def encode(self, rows: csr_matrix, cells: np.ndarray, draw: int = 0) -> Tokens:
        """Turn cells into tokens.

        Parameters
        ----------
        rows : (n, n_genes) CSR float32
        cells : (n,) str
            For messages only: nothing is drawn.
        draw : int
            Not used.

        Returns
        -------
        Tokens
            Per token ``level`` (uint8), ``gene`` (int32), ``column`` (int32) and ``count`` (int32):
            1, and for padding how many tokens it stands for. Genes come in the order of the list;
            those beyond the room are cut. A cell without room for padding has none.

        Raises
        ------
        DataError
            Counts are to be levels, and a cell has fractional values.
        """
        known = known_values(rows, self._places, len(self.genes))
        n_cells = known.shape[0]
        cell = np.repeat(np.arange(n_cells), np.diff(known.indptr))
        levels = self._levels(known.data, cell, cells)
        place = np.arange(len(cell)) - known.indptr[cell]  # among the genes of its cell
        kept = place < self.max_seq_len - 1
        n_genes = np.bincount(cell[kept], minlength=n_cells)
        n_padding = self.max_seq_len - 1 - n_genes
        start = np.concatenate([[0], np.cumsum(1 + n_genes + (n_padding > 0))]).astype(np.int64)
        at_cls, at_pad = start[:-1], start[1:][n_padding > 0] - 1
        is_gene = np.ones(start[-1], bool)
        level = np.empty(start[-1], np.uint8)
        gene, count = np.empty(start[-1], np.int32), np.ones(start[-1], np.int32)
        for at, special, of_special in (
            (at_cls, self.cls, self.cls_level),
            (at_pad, self.pad, self.pad_level),
        ):
            is_gene[at], gene[at], level[at] = False, special, of_special
        gene[is_gene], level[is_gene] = known.indices[kept], levels[kept]
        count[at_pad] = n_padding[n_padding > 0]
        return Tokens(
            start,
            {"level": level, "gene": gene, "count": count, "column": self._columns.take(gene)},
            {"usable": n_genes > 0},
        )

    def _levels(self, values: np.ndarray, cell: np.ndarray, names: np.ndarray) -> np.ndarray:
        """Return the level of each value of a cell, (m,) uint8."""
        n_cells = len(names)
        # Log-normalised cells are told by their own values: whole numbers are counts.
        is_log = np.bincount(cell, values != np.trunc(values), n_cells) > 0
        if self.values == "lognorm":
            total = np.bincount(cell, values, n_cells)  # (n,) all known genes
            scaled = np.log1p(values / total[cell] * SCALE)
            values = np.where(is_log[cell], values, scaled)
        elif is_log.any():
            name = names[is_log][0]
            raise DataError(
                f"celllm: cell {name} holds fractional values; input=counts takes counts for levels",
                hint="--set input=lognorm, or name the matrix of counts (see `scdrugmap check`)",
            )
        highest = self.cls_level - 1
        return np.minimum(values, highest).astype(np.uint8)
