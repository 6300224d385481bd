"""Order the genes of a cell by expression, for models that read a cell as a ranked list."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scdrugmap.data.genes import Genes

_ENSEMBL = re.compile(r"ENS[A-Z]*G\d{6,}(?:\.\d+)?")

_RIBOSOMAL = re.compile(r"(?!RPS6K)RP[SL](?:A?P)?\d+[A-Z]*\d*|RPSA\d?")
"""Symbols of the cytosolic ribosome's proteins and their pseudogenes; RPS6K... are kinases."""


def rank_tokens(values: np.ndarray, ids: np.ndarray, most: int) -> np.ndarray:
    """Return the largest values of one cell, largest first; equal values by ascending id.

    Most genes of a cell share their count with many others, so the rule for ties decides which
    genes a model sees; this one does not depend on the order of the file's columns.

    Parameters
    ----------
    values : (m,) float
        In any order, no NaN.
    ids : (m,) int
        Distinct; order equal values.
    most : int
        How many to keep, at least 1.

    Returns
    -------
    (min(m, most),) int64
        Positions in `values`.
    """
    kept = np.arange(len(values))
    if len(values) > most:
        least = np.partition(values, -most)[-most]
        above, equal = np.flatnonzero(values > least), np.flatnonzero(values == least)
        room = most - len(above)
        if room < len(equal):
            equal = equal[np.argpartition(ids[equal], room - 1)[:room]]
        kept = np.concatenate([above, equal])
    return kept[np.lexsort((ids[kept], -values[kept]))]


class NamedGenes:
    """The genes of a file by the names that language models read, ready to be ranked.

    A gene is shown by its name in the file, or by its current symbol where that name is an Ensembl
    id. Genes that the packaged gene table does not know are left out. Columns shown by the same
    name are one gene; their values are summed.

    Parameters
    ----------
    genes : Genes
        Columns of the file.
    leave_out : collection of {"mitochondrial", "ribosomal", "malat1"}
        Kinds of genes that are never named.

    Attributes
    ----------
    names : (m,) object str
        Distinct, in code-point order: the position of a name is its id and decides ties.
    of_column : (n_genes,) int64
        Name of each column, -1: left out.
    column : (m,) int32
        First column of each name.
    """

    def __init__(self, genes: Genes, leave_out: Collection[str] = ()) -> None:
        shown = shown_names(genes)
        known = shown != ""
        for kind in leave_out:
            known &= ~_KINDS[kind](genes)
        columns = np.flatnonzero(known)
        self.names, of_known = np.unique(shown[columns].astype(object), return_inverse=True)
        self.of_column = np.full(len(genes), -1, np.int64)
        self.of_column[columns] = of_known
        self.column = np.full(len(self.names), -1, np.int32)
        self.column[of_known[::-1]] = columns[::-1]  # the first column of a name is set last
        self._joined = len(columns) > len(self.names)

    def rank(self, columns: np.ndarray, values: np.ndarray, most: int) -> np.ndarray:
        """Return the expressed genes of one cell, highest first, equal ones by name.

        Parameters
        ----------
        columns : (m,) int
            Columns of the cell's values, distinct.
        values : (m,) float
            Counts; values that are not positive are not expressed.
        most : int
            How many to keep, at least 1.

        Returns
        -------
        (k,) int64
            Positions in `names`.
        """
        ids = self.of_column.take(columns)
        kept = (ids >= 0) & (values > 0)
        ids, values = ids[kept], values[kept]
        if self._joined:
            ids, inverse = np.unique(ids, return_inverse=True)
            values = np.bincount(inverse, values, len(ids))
        return ids[rank_tokens(values, ids, most)]


def shown_names(genes: Genes) -> np.ndarray:
    """Return what each gene is called in a text ((n,) object str); ``""``: it is not known."""
    shown = np.array(
        [
            symbol if _ENSEMBL.fullmatch(published) else published
            for published, symbol in zip(genes.published, genes.symbol, strict=True)
        ],
        object,
    )
    shown[genes.symbol == ""] = ""
    return shown


def _is_ribosomal(genes: Genes) -> np.ndarray:
    return np.array([_RIBOSOMAL.fullmatch(symbol) is not None for symbol in genes.symbol], bool)


def _is_malat1(genes: Genes) -> np.ndarray:
    return np.asarray(genes.symbol == "MALAT1", bool)


_KINDS: dict[str, Callable[[Genes], np.ndarray]] = {
    "mitochondrial": lambda genes: genes.is_mitochondrial(),
    "ribosomal": _is_ribosomal,
    "malat1": _is_malat1,
}
