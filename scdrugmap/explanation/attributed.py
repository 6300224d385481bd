"""What every method gives: one number per cell and gene, and how exact that is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

LOG_ODDS, PROBABILITY = "log-odds of sensitive", "p_sensitive"
"""Units of attributions."""


@dataclass(frozen=True)
class Attributed:
    """Attributions of some cells.

    Attributes
    ----------
    cells : (n,) int64
        Which of the cells that were handed over.
    values : (n, n_genes) CSR float64
        What each gene of the file adds to the answer; stored zeros are genes that were read.
    p : (n,) float64
        Probability of sensitive, before any temperature; NaN for a cell that cannot be predicted.
    error : (n,) float64
        Share of the answer that the attributions do not account for:
        ``|sum - (answer - answer of the baseline)| / |answer - answer of the baseline|``; NaN where
        the method has no such sum.
    """

    cells: np.ndarray
    values: csr_matrix
    p: np.ndarray
    error: np.ndarray


class Method(Protocol):
    """A way to explain; made for one predictor and the genes of one file.

    Attributes
    ----------
    name : str
        ``gradients``, ``coefficients`` or ``permutation``.
    unit : str
        :data:`LOG_ODDS` or :data:`PROBABILITY`.
    grouped : bool
        Whether the cells of a sample see each other.
    coefficients : (n_genes,) float64 or None
        One weight per gene of the file, NaN for those that are not read.
    """

    name: str
    unit: str
    grouped: bool
    coefficients: np.ndarray | None

    def attribute(
        self, rows: csr_matrix, names: np.ndarray, groups: np.ndarray
    ) -> Iterator[Attributed]:
        """Explain cells, some at a time.

        Parameters
        ----------
        rows : (n, n_genes) CSR float32
        names : (n,) object str
        groups : (n,) object str
            Sample of each cell, for models whose cells see each other.
        """
