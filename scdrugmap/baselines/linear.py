"""Logistic regression on highly variable genes or their principal components.

Standardising, projecting and classifying are linear, so both store one weight per gene.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.baselines.logistic import fit_logistic, sigmoid
from scdrugmap.baselines.options import LogisticOptions, PcaOptions
from scdrugmap.baselines.variable import VariableGenes

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scdrugmap.data.genes import Genes
    from scdrugmap.specs import Values


class Linear(VariableGenes):
    """Logistic regression on genes (``LogisticOptions``) or components (``PcaOptions``)."""

    learnt = ("weight", "bias")
    options: LogisticOptions | PcaOptions

    def _learn(self, x: np.ndarray, y: np.ndarray) -> None:
        axes = None
        if isinstance(self.options, PcaOptions):
            axes = principal_axes(x, self.scale, self.options.n_components, self.seed)
            x = x @ axes.T
            spread = np.maximum(x.std(0), 1e-6)
            axes /= spread[:, None]
            x /= spread
        weight, bias, converged = fit_logistic(x, y, self.options.C)
        if not converged:
            self.notices = ("the logistic regression did not converge; a smaller C helps",)
        self.weight = weight if axes is None else weight @ axes
        self.bias = np.float64(bias)

    def _score(self, x: np.ndarray) -> np.ndarray:
        return sigmoid(x @ np.asarray(self.weight) + float(self.bias))

    def coefficients(self) -> np.ndarray:
        """Return the weight of each gene ((k,) float64): log-odds per standard deviation."""
        return np.asarray(self.weight, np.float64)

    def contributions(
        self, rows: csr_matrix, genes: Genes, *, values: Values
    ) -> tuple[np.ndarray, float]:
        """Return what each gene adds to the log-odds of cells, and the intercept.

        Returns
        -------
        parts : (n, k) float64
            Compared with the mean training cell; 0 for genes that the file lacks.
        bias : float
            ``parts.sum(1) + bias`` are the log-odds.
        """
        return self.standardised(rows, genes, values)[0] * self.coefficients(), float(self.bias)


def principal_axes(x: np.ndarray, scale: np.ndarray, n_components: int, seed: int) -> np.ndarray:
    """Return what standardised values are multiplied with to give principal components.

    The components are those of the log-normalised values: a gene weighs by its variance.

    Parameters
    ----------
    x : (n, k) float32
        Standardised values.
    scale : (k,) float32
        Standard deviations that they were divided by.
    n_components : int
        Most components; never more than ``min(n - 1, k)``.
    seed : int
        Start of the randomised decomposition.

    Returns
    -------
    (d, k) float32
        ``x @ axes.T`` are the scores, signs fixed.
    """
    from sklearn.utils.extmath import randomized_svd
    from threadpoolctl import threadpool_limits

    d = max(1, min(n_components, x.shape[0] - 1, x.shape[1]))
    with threadpool_limits(1, user_api="blas"):
        _, _, axes = randomized_svd(x * scale, d, n_iter=7, random_state=seed, flip_sign=True)
    return np.ascontiguousarray(axes * scale, np.float32)


def build_genes(options: LogisticOptions, seed: int) -> Linear:
    """Return logistic regression on genes."""
    return Linear(options, seed)


def build_components(options: PcaOptions, seed: int) -> Linear:
    """Return logistic regression on principal components."""
    return Linear(options, seed)
