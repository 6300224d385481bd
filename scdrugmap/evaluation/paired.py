"""Paired tests of two models, and what makes several of them honest together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

EXACT_UNITS = 15
"""Up to so many units every pattern of signs is tried; beyond, patterns are drawn."""
_AT_ONCE = 4_096  # rows of signs, bounds memory

Difference = Callable[[np.ndarray], np.ndarray]
"""Signs (m, U), -1 where the two models change places in a unit -> the difference (m,)."""


class Test(NamedTuple):
    """A p-value, or NaN and the reason."""

    p_value: float
    note: str = ""


def sign_flip(difference: Difference, units: int, *, permutations: int, seed: int) -> Test:
    """Test whether two models are exchangeable within each unit.

    If they are, their predictions may change places in any unit, and the difference found is one
    of many alike. Exact for at most 15 units, drawn beyond (the pattern found counts as one of
    those drawn, so that p is never 0; Phipson and Smyth 2010, doi 10.2202/1544-6115.1585).

    Parameters
    ----------
    difference : callable
        See :data:`Difference`.
    units : int
    permutations : int
        Patterns to draw where there are more than 15 units.
    seed : int

    Returns
    -------
    Test
        Two-sided.
    """
    if units < 2:
        return Test(np.nan, f"no test: {units} units, 2 needed")
    found = abs(float(difference(np.ones((1, units)))[0]))
    if not np.isfinite(found):
        return Test(np.nan, "no test: the difference is undefined")
    exact = units <= EXACT_UNITS
    total = 2**units if exact else permutations
    random = np.random.default_rng([seed, 4])
    as_large = 0
    for start in range(0, total, _AT_ONCE):
        n = min(_AT_ONCE, total - start)
        if exact:
            bits = np.arange(start, start + n)[:, None] >> np.arange(units) & 1
        else:
            bits = random.integers(0, 2, (n, units))
        flipped = np.abs(difference(1.0 - 2.0 * bits))
        as_large += int((flipped >= found * (1 - 1e-9) - 1e-12).sum())
    p_value = as_large / total if exact else (as_large + 1) / (total + 1)
    return Test(p_value, _fewest(2.0 ** (1 - units)))


def wilcoxon(differences: np.ndarray) -> Test:
    """Test whether paired differences are symmetric about 0, by their signed ranks.

    Parameters
    ----------
    differences : (U,) float64
        Of the units; those that are 0 have no sign and are left out.
    """
    from scipy import stats

    kept = differences[np.isfinite(differences) & (differences != 0)]
    if len(kept) < 2:
        return Test(np.nan, f"no test: {len(kept)} units differ, 2 needed")
    p_value = float(stats.wilcoxon(kept).pvalue)
    return Test(p_value, _fewest(2.0 ** (1 - len(kept))))


def nadeau_bengio(differences: np.ndarray, test_share: float) -> Test:
    """Test the mean of fold-wise differences with a variance that knows that folds overlap.

    Parameters
    ----------
    differences : (J,) float64
        Of the folds.
    test_share : float
        Test cells over training cells of a fold.

    Notes
    -----
    Nadeau and Bengio 2003, doi 10.1023/A:1024068626366: the variance of the mean is
    (1 / J + n_test / n_train) times the variance of the differences.
    """
    from scipy import stats

    kept = differences[np.isfinite(differences)]
    n = len(kept)
    if n < 2:
        return Test(np.nan, f"no test: {n} folds are evaluable, 2 needed")
    variance = (1 / n + test_share) * float(kept.var(ddof=1))
    if variance == 0:
        return Test(np.nan, "no test: all folds differ by the same")
    t = float(kept.mean()) / np.sqrt(variance)
    return Test(float(2 * stats.t.sf(abs(t), n - 1)))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Correct p-values of several comparisons (Holm 1979); NaN is no comparison.

    Parameters
    ----------
    p_values : sequence of float

    Returns
    -------
    (n,) float64
        Not below what went in, at most 1, in the order given.
    """
    p = np.asarray(p_values, np.float64)
    corrected = np.full(len(p), np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = np.maximum.accumulate(p[order] * (len(order) - np.arange(len(order))))
    corrected[order] = np.minimum(steps, 1.0)
    return corrected


def effect_size(differences: np.ndarray) -> float:
    """Return the mean difference of the units in standard deviations of it (Cohen's d_z)."""
    kept = differences[np.isfinite(differences)]
    spread = kept.std(ddof=1) if len(kept) > 1 else 0.0
    return float(kept.mean() / spread) if spread > 0 else float("nan")


def _fewest(least: float) -> str:
    return f"p cannot fall below {least:.2g} with so few units" * (least > 0.05)
