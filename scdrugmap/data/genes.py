"""The columns of a file as genes: what each is called, what it means, and which are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from scdrugmap.data.gene_table import GeneTable, NameKind, gene_table

__all__ = ["GeneTable", "Genes", "gene_table"]


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
