"""Logistic regression whose result is two arrays and the same on any number of threads."""

from __future__ import annotations

import warnings

import numpy as np

_MOST_ITERATIONS = 2_000


def fit_logistic(x: np.ndarray, y: np.ndarray, C: float) -> tuple[np.ndarray, float, bool]:
    """Fit an L2-penalised logistic regression.

    Parameters
    ----------
    x : (n, k) float
        Standardised values.
    y : (n,) int
        1 = sensitive, 0 = resistant; both occur.
    C : float
        Inverse strength of the penalty.

    Returns
    -------
    weight : (k,) float32
    bias : float
    converged : bool
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    model = LogisticRegression(C=C, max_iter=_MOST_ITERATIONS)
    # Sums of a threaded matrix product depend on the number of threads.
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # reported as a notice instead
        model.fit(x, y)
    converged = bool(np.max(model.n_iter_) < _MOST_ITERATIONS)
    return model.coef_[0].astype(np.float32), float(model.intercept_[0]), converged


def sigmoid(logit: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-logit)) without overflow."""
    from scipy.special import expit

    return np.asarray(expit(logit))
