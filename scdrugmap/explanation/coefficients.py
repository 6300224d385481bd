"""Linear estimators: what each gene adds to the log-odds is known exactly.

Components are no hindrance: standardising, projecting and classifying are linear, so there is one
weight per gene. The contribution of a gene is its weight times its standardised value, that is,
compared with the mean of the training cells; the contributions and the intercept add up to the
log-odds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, TypeGuard

import numpy as np

from scdrugmap.explanation.attributed import LOG_ODDS, Attributed

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scdrugmap.data.genes import Genes
    from scdrugmap.specs import Values

_BLOCK = 256
_LEAST_DIFFERENCE = 1e-3


class Additive(Protocol):
    """An estimator whose log-odds are a sum over genes; plugins may offer the same."""

    genes: np.ndarray
    """(k,) str identities."""

    def coefficients(self) -> np.ndarray:
        """Return the weight of each gene ((k,) float64): log-odds per standard deviation."""

    def contributions(
        self, rows: csr_matrix, genes: Genes, *, values: Values
    ) -> tuple[np.ndarray, float]:
        """Return what each gene adds to the log-odds ((n, k) float64), and the intercept."""

    def predict(self, rows: csr_matrix, genes: Genes, *, values: Values) -> np.ndarray:
        """Return (n,) float32 probabilities."""


def is_additive(estimator: object) -> TypeGuard[Additive]:
    """Tell whether an estimator says what each gene adds."""
    return all(callable(getattr(estimator, n, None)) for n in ("coefficients", "contributions"))


class Coefficients:
    """Contributions of an additive estimator.

    Parameters
    ----------
    estimator : Additive
    genes : Genes
        Columns of the cells.
    values : {"counts", "lognorm"}
        What the cells hold.
    """

    name, unit, grouped = "coefficients", LOG_ODDS, False

    def __init__(self, estimator: Additive, genes: Genes, values: Values) -> None:
        self.estimator, self.genes, self.values = estimator, genes, values
        column = {name: number for number, name in enumerate(genes.identity().astype(str))}
        found = np.array([column.get(name, -1) for name in estimator.genes.astype(str)], np.int64)
        self._known = np.flatnonzero(found >= 0)
        self._columns = found[self._known]
        self.coefficients: np.ndarray | None = np.full(len(genes), np.nan)
        self.coefficients[self._columns] = estimator.coefficients()[self._known]

    def attribute(
        self, rows: csr_matrix, names: np.ndarray, groups: np.ndarray
    ) -> Iterator[Attributed]:
        """Explain cells; see :class:`~scdrugmap.explanation.attributed.Method`."""
        from scipy.sparse import csr_matrix

        k = len(self._columns)
        for start in range(0, rows.shape[0], _BLOCK):
            block = rows[start : start + _BLOCK]
            n = block.shape[0]
            p = self.estimator.predict(block, self.genes, values=self.values).astype(np.float64)
            parts, bias = self.estimator.contributions(block, self.genes, values=self.values)
            parts = np.where(np.isnan(p)[:, None], 0.0, parts)
            values = csr_matrix(
                (
                    parts[:, self._known].ravel(),
                    np.tile(self._columns, n),
                    np.arange(0, n * k + 1, k),
                ),
                (n, len(self.genes)),
            )
            # What genes that the file lacks would add is zero: they stand at the training mean.
            answer = np.log(p) - np.log1p(-np.clip(p, None, 1 - 1e-12))
            wanted = answer - bias
            error = np.abs(np.asarray(values.sum(1)).ravel() - wanted)
            error /= np.maximum(np.abs(wanted), _LEAST_DIFFERENCE)
            yield Attributed(np.arange(start, start + n), values, p, error)
