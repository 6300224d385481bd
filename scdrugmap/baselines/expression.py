"""From raw rows to the values that estimators read: normalising, gene lists, variable genes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    from scdrugmap.baselines.estimator import State
    from scdrugmap.data.genes import Genes
    from scdrugmap.specs import Values

LIBRARY_SIZE = 1e4
"""Counts of a cell are scaled to this total before log1p, as scanpy and Seurat do."""

CLIP = 10.0
"""Standardised values are cut here: one cell with a rare gene must not decide a fit."""

_BINS = 20
_MIN_CELLS = 10
_BLOCK = 4_096


class GeneSpace:
    """The genes that all training files share, and cells of any file expressed in them.

    Totals are taken over these genes alone: a gene that only one file lists changes nothing.

    Parameters
    ----------
    names : (G,) str
        Gene identities.
    share : (G,) float64
        Mean share of each gene in the total of a training cell, used to scale the totals of files
        that lack some of the genes.
    """

    def __init__(self, names: np.ndarray, share: np.ndarray) -> None:
        self.names, self.share = names, share
        self._bound: tuple[Genes | None, np.ndarray] = (None, np.empty(0, np.int64))

    @classmethod
    def learn(cls, rows: csr_matrix, genes: Genes, values: Values) -> GeneSpace:
        """Take the genes of training cells ((n, G) CSR) and their mean shares."""
        share = np.zeros(rows.shape[1])
        for start in range(0, rows.shape[0], _BLOCK):
            block = rows[start : start + _BLOCK].astype(np.float64)
            if values != "counts":
                block.data = np.expm1(block.data)
            totals = np.asarray(block.sum(1)).ravel()
            share += block.T @ np.divide(1.0, totals, out=np.zeros_like(totals), where=totals > 0)
        share /= max(float(share.sum()), 1e-300)
        # As precise as the state that is stored, so that a restored space gives the same bits.
        return cls(genes.identity().astype(str), share.astype(np.float32).astype(np.float64))

    def columns(self, genes: Genes) -> np.ndarray:
        """(G,) int64 column of each gene in a file, -1 where the file lacks it."""
        if self._bound[0] is not genes:
            where = {name: column for column, name in enumerate(genes.identity())}
            found = np.array([where.get(name, -1) for name in self.names], np.int64)
            self._bound = (genes, found)
        return self._bound[1]

    def totals(self, rows: csr_matrix, genes: Genes) -> tuple[np.ndarray, np.ndarray]:
        """Sum each cell over the genes of this space.

        Returns
        -------
        totals : (n,) float64
            Of counts: scaled up by the share of the genes that the file lacks.
        usable : (n,) bool
            Whether the cell has any of the genes.
        """
        columns = self.columns(genes)
        present = columns >= 0
        mask = np.zeros(rows.shape[1])
        mask[columns[present]] = 1.0
        totals = np.asarray(rows @ mask, np.float64)
        usable = totals > 0
        return totals / max(float(self.share[present].sum()), 1e-9), usable

    def lognorm(
        self, rows: csr_matrix, genes: Genes, values: Values, chosen: np.ndarray
    ) -> tuple[csr_matrix, np.ndarray, np.ndarray]:
        """Express cells in some genes of this space.

        Parameters
        ----------
        rows : (n, n_genes) CSR float32
        genes : Genes
            Columns of `rows`.
        values : {"counts", "lognorm"}
        chosen : (k,) int
            Positions in this space.

        Returns
        -------
        values : (n, k) CSR float32
            log1p of counts scaled to 10,000; of log-normalised files the values as they are.
            Columns of genes that the file lacks are empty.
        present : (k,) bool
            Which genes the file has.
        usable : (n,) bool
            Which cells have any gene of the space.
        """
        totals, usable = self.totals(rows, genes)
        columns = self.columns(genes)[chosen]
        present = columns >= 0
        taken = csr_matrix(rows[:, np.where(present, columns, 0)], dtype=np.float32)
        if values == "counts":
            factor = np.divide(LIBRARY_SIZE, totals, out=np.zeros_like(totals), where=usable)
            taken.data = np.log1p(taken.data * np.repeat(factor, np.diff(taken.indptr)))
            taken.data = taken.data.astype(np.float32)
        if not present.all():
            taken.data[~present[taken.indices]] = 0.0
            taken.eliminate_zeros()
        return taken, present, usable

    def blocks(self, rows: csr_matrix, genes: Genes, values: Values) -> Iterator[csr_matrix]:
        """Yield all cells in all genes of this space, log-normalised, (m, G) CSR float32 each."""
        everything = np.arange(len(self.names))
        for start in range(0, rows.shape[0], _BLOCK):
            yield self.lognorm(rows[start : start + _BLOCK], genes, values, everything)[0]

    def state(self) -> State:
        """Return the arrays of this space."""
        return {"space_names": self.names, "space_share": self.share.astype(np.float32)}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> GeneSpace:
        """Return the space that :meth:`state` was taken from."""
        share = np.asarray(state["space_share"], np.float64)
        names = np.asarray(state["space_names"], str)
        if share.shape != names.shape:
            raise ValueError(f"{len(names)} genes but {len(share)} shares")
        return cls(names, share)


def highly_variable(blocks: Iterable[csr_matrix], n_genes: int) -> np.ndarray:
    """Choose the most variable genes of log-normalised cells.

    Genes are binned by mean expression; within a bin they are ranked by the standardised log
    ratio of variance to mean, both of un-logged values (Satija et al. 2015, doi:10.1038/nbt.3192;
    the default of Seurat's first versions and of scanpy). A gene seen in fewer than 10 cells (in
    fewer than 5 % of less than 200 cells) is chosen only where the others do not suffice.

    Parameters
    ----------
    blocks : iterable of (m, G) CSR float32
        Log-normalised values of the training cells, in blocks.
    n_genes : int
        Most genes to choose.

    Returns
    -------
    (k,) int64
        Ascending positions; genes without any variation are never chosen.
    """
    n, seen, mean, variance = _moments(blocks)
    varies = variance > 1e-9 * mean**2
    trusted = varies & (seen >= min(_MIN_CELLS, max(n // 20, 1)))
    score = np.full(len(mean), -np.inf)
    score[varies] = -1e6 + seen[varies] / (n + 1)
    if trusted.any():
        dispersion = np.log(variance[trusted] / mean[trusted])
        score[trusted] = _standardise_in_bins(dispersion, np.log1p(mean[trusted]))
    order = np.argsort(-score, kind="stable")[: min(n_genes, int(varies.sum()))]
    return np.sort(order).astype(np.int64)


def _moments(blocks: Iterable[csr_matrix]) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Count cells, and per gene the cells that show it, mean and variance of un-logged values."""
    n = 0
    seen: np.ndarray = np.zeros(0)
    sums: np.ndarray = np.zeros(0)
    squares: np.ndarray = np.zeros(0)
    for rows in blocks:
        n_genes = rows.shape[1]
        linear = np.expm1(rows.data.astype(np.float64))
        parts = (
            np.bincount(rows.indices, rows.data > 0, n_genes),
            np.bincount(rows.indices, linear, n_genes),
            np.bincount(rows.indices, linear**2, n_genes),
        )
        seen, sums, squares = (
            parts if not n else (seen + parts[0], sums + parts[1], squares + parts[2])
        )
        n += rows.shape[0]
    mean = sums / max(n, 1)
    return n, seen, mean, np.maximum(squares - n * mean**2, 0.0) / max(n - 1, 1)


def _standardise_in_bins(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Standardise values among those of similar `by`; a value alone in its bin counts as 0."""
    edges = np.linspace(by.min(), by.max(), _BINS + 1)[1:-1]
    bins = np.digitize(by, edges)
    standardised = np.zeros_like(values)
    for number in np.unique(bins):
        inside = bins == number
        if inside.sum() > 1:
            spread = max(float(values[inside].std(ddof=1)), 1e-9)
            standardised[inside] = (values[inside] - values[inside].mean()) / spread
    return standardised
