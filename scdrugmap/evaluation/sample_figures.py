"""Sum up the probabilities of the cells of a sample, so that each sample has one vote."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TRIM = 0.1
"""Share of a sample's cells that its trimmed mean leaves out at either end."""
_HALF = 0.5  # a cell at one half, or without an answer, is half a vote


@dataclass(frozen=True)
class Samples:
    """The samples of a test set whose cells share one label.

    Attributes
    ----------
    first : (s,) int64
        Position of a cell of each sample.
    truth : (s,) bool
        True for sensitive.
    summaries : list of (str, (s,) float64, (s,) float64)
        For each way to sum up: what follows the name of a metric, the figure of each sample, and
        its standard error.
    n_torn : int
        Samples with both labels, which are left out.
    """

    first: np.ndarray
    truth: np.ndarray
    summaries: list[tuple[str, np.ndarray, np.ndarray]]
    n_torn: int


def sum_up_samples(
    dataset: np.ndarray, name: np.ndarray, truth: np.ndarray, p_sensitive: np.ndarray
) -> Samples:
    """Sum up cells by the mean probability, its trimmed mean, and the share above one half.

    Parameters
    ----------
    dataset, name : (n,) object str or int64
        Which sample a cell is of.
    truth : (n,) bool
    p_sensitive : (n,) float64
    """
    dataset, name = (np.unique(of, return_inverse=True)[1] for of in (dataset, name))
    _, first, sample = np.unique(
        dataset * (name.max() + 1) + name, return_index=True, return_inverse=True
    )
    p, n = p_sensitive, np.bincount(sample)
    share = np.bincount(sample, truth) / n
    pure = (share == 0) | (share == 1)
    mean = np.bincount(sample, p) / n
    error = np.sqrt(np.bincount(sample, (p - mean[sample]) ** 2) / n / n)
    above = np.bincount(sample, np.where(p == _HALF, _HALF, p > _HALF)) / n
    summaries = [
        ("", mean, error),
        ("_trimmed_mean", _trimmed_mean(p, sample, n), error),
        ("_share_above", above, np.sqrt(above * (1 - above) / n)),
    ]
    return Samples(
        first[pure],
        share[pure] == 1,
        [(suffix, figure[pure], spread[pure]) for suffix, figure, spread in summaries],
        int((~pure).sum()),
    )


def _trimmed_mean(p: np.ndarray, sample: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Average each sample without its tenth of lowest and of highest probabilities, (S,)."""
    order = np.lexsort((p, sample))
    rank = np.arange(len(p)) - np.repeat(np.cumsum(n) - n, n)
    cut = np.floor(TRIM * n).astype(np.int64)
    kept = (rank >= np.repeat(cut, n)) & (rank < np.repeat(n - cut, n))
    return np.bincount(sample[order][kept], p[order][kept], len(n)) / (n - 2 * cut)
