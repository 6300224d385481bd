"""The columns of a file as genes: what each is called, what it means, and which are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.data.gene_names import (
    as_text,
    is_ensembl,
    is_number,
    looks_transposed,
    refuse_other_kinds,
    spreadsheet_dates,
    strip_genome,
)
from scdrugmap.data.gene_table import GeneTable, NameKind, gene_table
from scdrugmap.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["GeneMapping", "GeneTable", "Genes", "gene_table", "read_genes"]

ENSEMBL_COLUMNS = ("gene_ids", "gene_id", "ensembl_id", "ensembl", "ensembl_gene_id")
"""Columns of var that may hold Ensembl ids, in the order they are tried."""

SYMBOL_COLUMNS = (
    "feature_name",
    "gene_name",
    "gene_names",
    "gene_symbol",
    "gene_symbols",
    "symbol",
    "gene_short_name",
    "hgnc_symbol",
)
"""Columns of var that may hold symbols, in the order they are tried."""

EXPRESSION = "Gene Expression"
"""What 10x calls a gene in ``feature_types``."""

_FEW_KNOWN = 0.1  # below this share of known names, a column of symbols is tried instead
_ENOUGH_TO_COMPARE = 20


@dataclass(frozen=True)
class Genes:
    """Genes of a file or of a vocabulary.

    Parameters
    ----------
    published : (n,) object str
        Name in the file (the first one where columns were joined).
    symbol : (n,) object str
        Current symbol, ``""`` where unmapped.
    ensembl : (n,) object str
        Ensembl id without version, ``""`` where unmapped.
    """

    published: np.ndarray
    symbol: np.ndarray
    ensembl: np.ndarray

    @classmethod
    def from_names(cls, names: Sequence[str] | np.ndarray, *, kind: NameKind = "auto") -> Genes:
        """Look names up in the gene table; nothing is joined.

        Parameters
        ----------
        names : (n,) str
        kind : {"symbol", "ensembl", "auto"}
        """
        published = np.empty(len(names), object)
        published[:] = [str(name) for name in names]
        symbol, ensembl, _ = gene_table().resolve(published, kind)
        return cls(published, symbol, ensembl)

    def __len__(self) -> int:
        return len(self.published)

    def take(self, columns: np.ndarray | Sequence[int]) -> Genes:
        """Return some genes, in the order of `columns` ((m,) int)."""
        columns = np.asarray(columns)
        return Genes(self.published[columns], self.symbol[columns], self.ensembl[columns])

    @cached_property
    def _identity(self) -> np.ndarray:
        return np.where(self.ensembl != "", self.ensembl, self.published)

    def identity(self) -> np.ndarray:
        """Return what genes are compared by ((n,) object str).

        The Ensembl id where there is one, else the published name.
        """
        return self._identity

    def is_mitochondrial(self) -> np.ndarray:
        """Return which genes lie on the mitochondrial chromosome ((n,) bool)."""
        chromosome, _ = gene_table().positions(self.ensembl)
        named = np.array([name.upper().startswith("MT-") for name in self.published], bool)
        return (chromosome == "MT") | (named & (self.ensembl == ""))

    def digest(self) -> str:
        """Return the SHA-256 (hex) of all names and of the table they were mapped with."""
        parts = (*self.published, "\n", *self.symbol, "\n", *self.ensembl, gene_table().version)
        return hashlib.sha256("\t".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class GeneMapping:
    """How the columns of a file become genes.

    Parameters
    ----------
    genes : Genes
        One per gene, in the order of the file.
    column : (n_file_columns,) int64
        Gene of each column of the file; -1: the column is left out.
    gene_id : str
        What the names were: ``symbol`` or ``ensembl``.
    counts : dict of str to int
        Columns found as ``exact``, ``alias``, ``case``; ``unmapped`` (without a current symbol);
        ``joined`` (columns that are a gene met before); ``dropped``.
    notices : tuple of str
        What the user should know, one line each.
    """

    genes: Genes
    column: np.ndarray
    gene_id: str
    counts: dict[str, int]
    notices: tuple[str, ...]

    @property
    def n_mapped(self) -> int:
        """Genes that the gene table knows, after joining."""
        return int((self.genes.symbol != "").sum())


def read_genes(
    var: pd.DataFrame,
    *,
    gene_id: str | None = None,
    values: str = "counts",
    where: str = "file.h5ad",
    totals: np.ndarray | None = None,
    obs_names: Sequence[str] | None = None,
) -> GeneMapping:
    """Find out which genes the columns of a file are, and join those that are the same.

    Ensembl ids decide where the file has them, as index or in a usual column; symbols fill the
    gaps. Columns of one gene are summed (counts), or all but the one with the largest total left
    out (log-normalised values).

    Parameters
    ----------
    var : pandas.DataFrame
        Table of genes as stored, one row per column of the matrix.
    gene_id : {"symbol", "ensembl"}, optional
        Use only names of this kind.
    values : {"counts", "lognorm"}
    where : str
        Name of the file for messages.
    totals : (n_file_columns,) float, optional
        Total of each column; needed to choose among equal columns of log-normalised values.
    obs_names : sequence of str, optional
        Names of the cells, to notice a file that lies on its side.

    Raises
    ------
    DataError
        Names are missing, of another species or kind, or none is known.
    """
    table = gene_table()
    names = as_text(var.index.to_numpy(object), where)
    bare, is_mouse, n_stripped = strip_genome(names)
    notices: list[str] = []
    kept = _kept_columns(var, is_mouse, where, notices)
    if n_stripped:
        example = names[(bare != names) & ~is_mouse][0]
        notices.append(f"{where}: the genome was taken off {n_stripped:,} gene names ({example})")
    try:
        found = _choose_names(var, bare, kept, gene_id, where, notices)
        symbol, ensembl, how = table.resolve(found.primary[kept], "auto")
        if found.secondary is not None:
            _fill_gaps((symbol, ensembl, how), found.secondary[kept])
        if not (ensembl != "").any():
            raise DataError(
                f"{where}: none of the {len(symbol):,} gene names is a known human gene "
                f"({', '.join(found.primary[kept][:3])})",
                hint="var_names must be HGNC symbols or Ensembl ids; --transpose if genes are in "
                "rows",
            )
    except DataError as err:
        if obs_names is not None and looks_transposed(obs_names, names.tolist()):
            raise DataError(
                f"{where}: the cells ({obs_names[0]}, ...) are called like genes and the genes "
                f"({names[0]}, ...) like cells",
                hint="if genes are in rows, add --transpose",
            ) from err
        raise
    published = found.published[kept]
    genes = Genes(published, symbol, ensembl)
    if found.gene_id == "ensembl":
        known = int((symbol != "").sum())
        notices.append(f"{where}: {known:,} of {len(symbol):,} Ensembl ids have a current symbol")
    dates = spreadsheet_dates(published[symbol == ""])
    if dates:
        notices.append(
            f"{where}: {len(dates)} gene names are dates made by a spreadsheet "
            f"({', '.join(dates[:3])}); they stay unknown"
        )
    joined, first = _join(genes.identity())
    column = np.full(len(names), -1, np.int64)
    column[kept] = joined
    n_joined = len(joined) - len(first)
    if n_joined:
        notices.append(_say_joined(where, published, joined, first, values))
        if values == "lognorm" and totals is not None:
            column = _keep_largest(column, np.asarray(totals, np.float64))
    ways, numbers = np.unique(how, return_counts=True)
    counts = dict.fromkeys(("exact", "alias", "case", "unmapped"), 0)
    counts.update(dict(zip(map(str, ways), map(int, numbers), strict=True)))
    counts.update(joined=n_joined, dropped=len(names) - len(joined))
    return GeneMapping(genes.take(first), column, found.gene_id, counts, tuple(notices))


@dataclass(frozen=True)
class _Names:
    """Which names of a file decide (`primary`), help out (`secondary`), and are shown."""

    primary: np.ndarray
    secondary: np.ndarray | None
    published: np.ndarray
    gene_id: str


def _kept_columns(
    var: pd.DataFrame, is_mouse: np.ndarray, where: str, notices: list[str]
) -> np.ndarray:
    """Return the columns ((m,) int64) that are human genes as far as the file says."""
    keep = np.ones(len(var), bool)
    if is_mouse.any() and not is_mouse.all():
        keep &= ~is_mouse
        notices.append(f"{where}: {int(is_mouse.sum()):,} mouse genes are left out")
    if "feature_types" in var:
        kinds = var["feature_types"].astype(str).to_numpy(object)
        other = kinds != EXPRESSION
        if other.any() and not other.all():
            keep &= ~other
            names = ", ".join(sorted(set(kinds[other])))
            notices.append(
                f"{where}: {int(other.sum()):,} features that are not genes are left out ({names})"
            )
    return np.flatnonzero(keep)


def _choose_names(
    var: pd.DataFrame,
    index: np.ndarray,
    kept: np.ndarray,
    gene_id: str | None,
    where: str,
    notices: list[str],
) -> _Names:
    """Decide which names of a file say what its genes are.

    Raises
    ------
    DataError
        There are none, or none of the kind asked for.
    """
    index_is_ensembl = is_ensembl(index[kept])
    ids = index if index_is_ensembl else _column(var, ENSEMBL_COLUMNS, kept, is_ensembl)
    if index_is_ensembl or is_number(index[kept]):
        symbols = _column(var, SYMBOL_COLUMNS, kept, _is_symbol)
    else:
        symbols = index
        if _n_known(index[kept]) < _FEW_KNOWN * len(kept):
            other = _column(var, SYMBOL_COLUMNS, kept, _is_symbol)
            if other is not None and _n_known(other[kept]) > _n_known(index[kept]):
                symbols = other
    if gene_id == "ensembl":
        if ids is None:
            raise DataError(
                f"{where}: the gene names are no Ensembl ids ({', '.join(index[kept][:3])})",
                hint="try --gene-id symbol, or leave --gene-id out",
            )
        return _Names(ids, None, ids, "ensembl")
    if gene_id == "symbol":
        if symbols is None:
            raise DataError(
                f"{where}: the gene names are Ensembl ids ({', '.join(index[kept][:3])}) and no "
                "column of var holds symbols",
                hint="try --gene-id ensembl, or leave --gene-id out",
            )
        refuse_other_kinds(symbols[kept], where)
        return _Names(symbols, None, symbols, "symbol")
    if ids is not None and symbols is not None and not _agree(ids[kept], symbols[kept]):
        notices.append(
            f"{where}: the Ensembl ids and the symbols of var are of different genes; "
            f"only the {'ids' if index_is_ensembl else 'symbols'} are used"
        )
        ids, symbols = (ids, None) if index_is_ensembl else (None, symbols)
    if ids is not None:
        # Symbols are shown wherever there are some, so that a file gives the same genes whichever
        # of the two is its index.
        shown = ids if symbols is None else np.where(symbols != "", symbols, ids)
        return _Names(ids, symbols, shown, "ensembl" if index_is_ensembl else "symbol")
    names = index if symbols is None else symbols
    refuse_other_kinds(names[kept], where)
    return _Names(names, None, names, "symbol")


def _column(
    var: pd.DataFrame, names: Iterable[str], kept: np.ndarray, test: object
) -> np.ndarray | None:
    """Return the first column ((n,) object str) whose filled values pass a test."""
    for name in names:
        if name not in var:
            continue
        text = var[name].astype(object)
        values = np.array(["" if value != value else str(value).strip() for value in text], object)
        filled = values[kept][values[kept] != ""]
        if len(filled) and callable(test) and test(filled):
            return values
    return None


def _is_symbol(names: np.ndarray) -> bool:
    return not is_ensembl(names) and not is_number(names)


def _n_known(names: np.ndarray) -> int:
    return int((gene_table().resolve(names)[1] != "").sum())


def _agree(ids: np.ndarray, symbols: np.ndarray) -> bool:
    """Tell whether most ids are those of the symbols beside them."""
    table = gene_table()
    by_id, by_symbol = table.resolve(ids)[0], table.resolve(symbols)[0]
    both = (by_id != "") & (by_symbol != "")
    if both.sum() < _ENOUGH_TO_COMPARE:
        return True
    return bool((by_id[both] == by_symbol[both]).mean() > 0.5)


def _fill_gaps(found: tuple[np.ndarray, np.ndarray, np.ndarray], names: np.ndarray) -> None:
    """Look up genes without a symbol by their other name, in place."""
    symbol, ensembl, how = found
    gaps = np.flatnonzero(symbol == "")
    other_symbol, other_ensembl, other_how = gene_table().resolve(names[gaps])
    found_now = other_symbol != ""
    symbol[gaps[found_now]] = other_symbol[found_now]
    how[gaps[found_now]] = other_how[found_now]
    # An id that the table lacks stays: a retired gene is still what its id says.
    without_id = found_now & (ensembl[gaps] == "")
    ensembl[gaps[without_id]] = other_ensembl[without_id]


def _join(identity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number genes by first appearance: gene of each column, first column of each gene."""
    number: dict[str, int] = {}
    joined = np.array([number.setdefault(name, len(number)) for name in identity], np.int64)
    first = np.full(len(number), -1, np.int64)
    first[joined[::-1]] = np.arange(len(joined))[::-1]
    return joined, first


def _keep_largest(column: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Leave out all columns of a gene but the first one with the largest total."""
    order = np.lexsort((np.arange(len(column)), -totals, column))
    again = np.zeros(len(column), bool)
    again[1:] = column[order][1:] == column[order][:-1]
    out = column.copy()
    out[order[again]] = -1
    return out


def _say_joined(
    where: str, published: np.ndarray, joined: np.ndarray, first: np.ndarray, values: str
) -> str:
    again = np.flatnonzero(first[joined] != np.arange(len(joined)))
    examples = ", ".join(
        f"{published[i]} is {published[first[joined[i]]]}"
        if published[i] != published[first[joined[i]]]
        else f"{published[i]} twice"
        for i in again[:3]
    )
    done = "summed" if values == "counts" else "reduced to the one with the largest total"
    return f"{where}: {len(again):,} columns repeat a gene and were {done} ({examples})"
