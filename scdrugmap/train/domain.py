"""How far a cell lies from the cells that a predictor was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_SHARES = np.linspace(0, 1, 101)
_DIGITS = 9
"""Digits of a quantile: all that float32 has."""

EDGE = 0.99
"""Share of the training cells that lie inside; a cell further away is outside."""


@dataclass(frozen=True)
class Domain:
    """Where training embeddings lie: their mean, and quantiles of the distance to it.

    Attributes
    ----------
    center : (D,) float32
    quantiles : (101,) float64
        Of the Euclidean distance of training cells to `center`, ascending: 0 %, 1 %, ... 100 %.
    """

    center: np.ndarray
    quantiles: np.ndarray

    @classmethod
    def of(cls, embeddings: np.ndarray) -> Domain:
        """Describe training embeddings ((n, D) float32, all finite)."""
        center = embeddings.mean(0, dtype=np.float64).astype(np.float32)
        found = np.quantile(_distance(embeddings, center), _SHARES)
        return cls(center, np.array([float(f"{value:.{_DIGITS}g}") for value in found]))

    def place(self, embeddings: np.ndarray) -> np.ndarray:
        """Say which share of the training cells lies closer to their mean than each cell.

        Parameters
        ----------
        embeddings : (n, D) float32

        Returns
        -------
        (n,) float32
            0 to 1; above 0.99 outside of what 99 % of the training cells do not exceed, 1 from
            the farthest training cell on. NaN for NaN rows.
        """
        distance = _distance(embeddings, self.center)
        found = np.interp(distance, self.quantiles, _SHARES)
        # Of equal quantiles the first holds: nothing at the 99 % distance itself is outside.
        first = np.searchsorted(self.quantiles, distance).clip(max=len(_SHARES) - 1)
        tied = self.quantiles[first] == distance
        return np.where(tied, _SHARES[first], found).astype(np.float32)


def _distance(embeddings: np.ndarray, center: np.ndarray) -> np.ndarray:
    return np.sqrt(((embeddings - center).astype(np.float64) ** 2).sum(1))


def outside(domain: np.ndarray) -> np.ndarray:
    """Tell which cells lie outside the 99 % distance ((n,) bool; False where NaN)."""
    return domain > np.float32(EDGE)
