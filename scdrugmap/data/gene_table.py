"""The packaged table of human genes: current symbols, older names, Ensembl ids and positions.

Made by ``scripts/make_gene_table.py``; sources and licences are in ``docs/third_party.md``.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from importlib import resources
from typing import Literal

import numpy as np

NameKind = Literal["symbol", "ensembl", "auto"]

ENSEMBL_ID = re.compile(r"(ENSG[0-9]{11})(?:\.[0-9]+)?(?:_PAR_Y)?")
"""A human Ensembl gene id, with or without version; matched in full."""

_COLUMNS = [
    "symbol",
    "ensembl_id",
    "aliases",
    "ambiguous_aliases",
    "biotype",
    "chromosome",
    "start",
    "preferred",
]


class GeneTable:
    """Human genes that have a symbol, in the order of the genome.

    Parameters
    ----------
    packed : bytes
        Content of ``genes.tsv.gz``.

    Attributes
    ----------
    version : str
        SHA-256 (hex) of the file; part of everything that depends on the mapping.
    """

    def __init__(self, packed: bytes) -> None:
        self.version = hashlib.sha256(packed).hexdigest()
        header, *lines = gzip.decompress(packed).decode("utf-8").rstrip("\n").split("\n")
        if header.split("\t") != _COLUMNS:
            raise ValueError(f"the gene table has the columns {header!r}")
        columns = list(zip(*(line.split("\t") for line in lines), strict=True))
        self._symbol, self._ensembl, self._aliases, self._ambiguous = columns[:4]
        self._biotype, self._chromosome, self._start, self._preferred = columns[4:]

    def __len__(self) -> int:
        return len(self._symbol)

    def names(self, kind: Literal["symbol", "ensembl"]) -> tuple[str, ...]:
        """Return all current symbols, or all ids, each once, in the order of the genome."""
        if kind == "ensembl":
            return self._ensembl
        return tuple(dict.fromkeys(self._symbol))

    def resolve(
        self, names: Sequence[str] | np.ndarray, kind: NameKind = "auto"
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Find the gene that each name means.

        A symbol is looked up as it is, then among the older names that mean one gene only, then
        once more without regard to case. An Ensembl id is looked up without its version; one that
        the table has no symbol for keeps its id.

        Parameters
        ----------
        names : (n,) str
        kind : {"symbol", "ensembl", "auto"}
            ``symbol`` and ``auto`` look at each name: those written like an Ensembl id are taken
            as one. ``ensembl`` knows nothing else.

        Returns
        -------
        symbol : (n,) object str
            Current symbol, ``""`` where unmapped.
        ensembl : (n,) object str
            Id without version, ``""`` where unmapped.
        how : (n,) object str
            ``exact``, ``alias``, ``case`` or ``unmapped``.
        """
        symbol = np.full(len(names), "", object)
        ensembl = np.full(len(names), "", object)
        how = np.full(len(names), "unmapped", object)
        for i, name in enumerate(names):
            identifier = ENSEMBL_ID.fullmatch(name)
            if identifier:
                ensembl[i] = identifier[1]
                row = self._by_ensembl.get(identifier[1])
                if row is not None:
                    symbol[i], how[i] = self._symbol[row], "exact"
                continue
            if kind == "ensembl" or not name:
                continue
            row, found = self._find_symbol(name)
            if row is not None:
                symbol[i], ensembl[i], how[i] = self._symbol[row], self._ensembl[row], found
        return symbol, ensembl, how

    def positions(self, ensembl: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return where genes begin.

        Parameters
        ----------
        ensembl : (n,) str
            Ids without version.

        Returns
        -------
        chromosome : (n,) object str
            ``1`` to ``22``, ``X``, ``Y``, ``MT``, the name of a scaffold, or ``""`` if unknown.
        start : (n,) int64
            First base on GRCh38, counted from 1; 0 if unknown.
        """
        rows = [self._by_ensembl.get(name) for name in ensembl]
        chromosome = np.array(["" if r is None else self._chromosome[r] for r in rows], object)
        start = np.array([0 if r is None else int(self._start[r]) for r in rows], np.int64)
        return chromosome, start

    def biotypes(self, ensembl: Iterable[str]) -> np.ndarray:
        """Return the GENCODE biotype of each id ((n,) object str), ``""`` if unknown."""
        rows = (self._by_ensembl.get(name) for name in ensembl)
        return np.array(["" if row is None else self._biotype[row] for row in rows], object)

    @cached_property
    def ambiguous(self) -> frozenset[str]:
        """Older names that several genes share; they are never resolved."""
        return frozenset(name for names in self._ambiguous if names for name in names.split("|"))

    def _find_symbol(self, name: str) -> tuple[int | None, str]:
        row = self._by_symbol.get(name)
        if row is not None:
            return row, "exact"
        row = self._by_alias.get(name)
        if row is not None:
            return row, "alias"
        return self._by_folded.get(name.upper()), "case"

    @cached_property
    def _by_ensembl(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self._ensembl)}

    @cached_property
    def _by_symbol(self) -> dict[str, int]:
        rows = zip(self._symbol, self._preferred, strict=True)
        return {symbol: row for row, (symbol, preferred) in enumerate(rows) if preferred == "1"}

    @cached_property
    def _by_alias(self) -> dict[str, int]:
        return {
            name: row
            for row, names in enumerate(self._aliases)
            if names
            for name in names.split("|")
        }

    @cached_property
    def _by_folded(self) -> dict[str, int]:
        """Upper-cased symbols, then upper-cased aliases; those of several genes are left out."""
        symbols = _fold(self._by_symbol)
        known = {name.upper() for name in (*self._by_symbol, *self.ambiguous)}
        aliases = _fold(self._by_alias)
        return {**{name: row for name, row in aliases.items() if name not in known}, **symbols}


def _fold(rows: dict[str, int]) -> dict[str, int]:
    folded: dict[str, int] = {}
    clash: set[str] = set()
    for name, row in rows.items():
        if folded.setdefault(name.upper(), row) != row:
            clash.add(name.upper())
    return {name: row for name, row in folded.items() if name not in clash}


@lru_cache(maxsize=1)
def gene_table() -> GeneTable:
    """Return the packaged gene table, read once per process."""
    return GeneTable(resources.files("scdrugmap.data").joinpath("genes.tsv.gz").read_bytes())
