"""Attributions summed up over all cells, classes, samples and draws, a batch at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from scipy.sparse import csr_matrix

    from scdrugmap.data.genes import Genes

Level = Literal["all", "class", "sample", "draw"]
Stratum = tuple[Level, str]
"""A set of cells: ``("class", "sensitive")``, ``("sample", "P01")``, ``("all", "all")``."""

ALL: Stratum = ("all", "all")

_LEAST_SPREAD = 1e-12


class Sums:
    """Running sums per stratum and gene; memory does not grow with the cells.

    Parameters
    ----------
    strata : sequence of Stratum
        :data:`ALL` among them.
    n_genes : int
    """

    def __init__(self, strata: Sequence[Stratum], n_genes: int) -> None:
        self.strata = list(strata)
        self.n_cells = np.zeros(len(self.strata), np.int64)
        shape = (len(self.strata), n_genes)
        # Of attributions a and expression x: a, a**2, |a|, x, x**2, a * x, x > 0.
        self._sums = np.zeros((7, *shape))
        self.read = np.zeros(n_genes, bool)

    def add(
        self, members: Sequence[Sequence[Stratum]], values: csr_matrix, expression: csr_matrix
    ) -> None:
        """Add cells.

        Parameters
        ----------
        members : sequence of sequence of Stratum
            Strata of each of the n cells.
        values : (n, n_genes) CSR
            Attributions.
        expression : (n, n_genes) CSR
            Log-normalised.
        """
        from scipy.sparse import csr_matrix

        place = {stratum: number for number, stratum in enumerate(self.strata)}
        pairs = [
            (place[stratum], cell)
            for cell, strata in enumerate(members)
            for stratum in strata
            if stratum in place
        ]
        if not pairs:
            return
        rows, cells = np.array(pairs).T
        matrix = csr_matrix((np.ones(len(rows)), (rows, cells)), (len(place), len(members)))
        self.n_cells += np.bincount(rows, minlength=len(place))
        self.read |= np.bincount(values.indices, minlength=len(self.read)) > 0
        parts = (
            values,
            values.multiply(values),
            abs(values),
            expression,
            expression.multiply(expression),
            values.multiply(expression),
            expression > 0,
        )
        for total, part in zip(self._sums, parts, strict=True):
            total += (matrix @ csr_matrix(part)).toarray()

    def importance(self, stratum: Stratum = ALL) -> np.ndarray:
        """Return the mean absolute attribution of each gene ((n_genes,) float64)."""
        place = self.strata.index(stratum)
        return self._sums[2, place] / max(self.n_cells[place], 1)

    def mean(self, stratum: Stratum = ALL) -> np.ndarray:
        """Return the mean attribution of each gene ((n_genes,) float64), NaN where not read."""
        place = self.strata.index(stratum)
        return np.where(self.read, self._sums[0, place] / max(self.n_cells[place], 1), np.nan)

    def table(self, stratum: Stratum, genes: Genes) -> pd.DataFrame:
        """Return one row per gene that was read, by rank; see ``docs/reference/files.md``.

        ``column`` is the gene's number in the file.
        """
        import pandas as pd

        place = self.strata.index(stratum)
        n = int(self.n_cells[place])
        read = np.flatnonzero(self.read)
        sums = self._sums[:, place][:, read] / max(n, 1)
        a, aa, absolute, x, xx, ax, expressing = sums
        spread = np.sqrt(np.clip(aa - a**2, 0, None))
        of_x = np.sqrt(np.clip(xx - x**2, 0, None))
        varies = (spread > _LEAST_SPREAD) & (of_x > _LEAST_SPREAD)
        direction = np.full(len(read), np.nan)
        np.divide(ax - a * x, spread * of_x, out=direction, where=varies)
        total = absolute.sum()
        frame = pd.DataFrame(
            {
                "level": stratum[0],
                "stratum": stratum[1],
                "gene": genes.published[read],
                "symbol": genes.symbol[read],
                "ensembl": genes.ensembl[read],
                "n_cells": n,
                "n_expressing": np.rint(expressing * n).astype(np.int64),
                "attribution_mean": a,
                "attribution_sd": spread,
                "attribution_abs": absolute,
                "share": absolute / total if total > 0 else np.full(len(read), np.nan),
                "direction": np.clip(direction, -1, 1),
                "column": read,
            }
        )
        frame = frame.sort_values("attribution_abs", ascending=False, kind="stable")
        return frame.assign(rank=np.arange(1, len(frame) + 1)).reset_index(drop=True)
