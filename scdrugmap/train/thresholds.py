"""From which probability on a cell is called sensitive."""

from __future__ import annotations

import numpy as np


def best_threshold(p: np.ndarray, y: np.ndarray) -> float:
    """Return the threshold with the best macro-F1; of equally good ones the closest to 0.5.

    Parameters
    ----------
    p : (n,) float
        Probabilities of sensitive.
    y : (n,) float
        1 = sensitive, 0 = resistant; both occur.

    Returns
    -------
    float
        Between two neighbouring probabilities, or 0.5.
    """
    order = np.argsort(-p.astype(np.float64), kind="stable")
    p, y = p[order].astype(np.float64), y[order]
    last = np.append(np.flatnonzero(np.diff(p)), len(p) - 1)  # of each distinct value
    called = last + 1.0
    true_sensitive = np.cumsum(y)[last]
    n_sensitive, n = y.sum(), float(len(y))
    true_resistant = (n - n_sensitive) - (called - true_sensitive)
    f1_sensitive = 2 * true_sensitive / (called + n_sensitive)
    f1_resistant = 2 * true_resistant / ((n - called) + (n - n_sensitive))
    macro = (f1_sensitive + f1_resistant) / 2
    below = np.append(p[last[1:]], 0.0)
    cuts = (p[last] + below) / 2
    # A gap that holds 0.5 is cut there: nothing tells the points of a gap apart.
    cuts = np.where((below < 0.5) & (p[last] >= 0.5), 0.5, cuts)
    best = np.flatnonzero(macro >= macro.max() - 1e-12)
    return float(cuts[best[np.argmin(np.abs(cuts[best] - 0.5))]])
