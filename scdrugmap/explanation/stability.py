"""How much of a ranking of genes comes again: with other seeds, or with other cells."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

TOP_SIZES = (5, 10, 20, 50, 100, 200)


def compare_rankings(importances: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Compare every pair of rankings.

    Parameters
    ----------
    importances : mapping of str to mapping of str to float
        Name of a ranking (a predictor, a draw) to the importance of each gene that was read.

    Returns
    -------
    pandas.DataFrame
        ``first``, ``second``, ``n_genes`` (read in both), ``spearman`` (over those), ``k``,
        ``overlap`` (genes among the first k of both, as a share of k), ``chance`` (what two random
        rankings of the genes read in either would have). One row per pair and k; empty with one
        ranking.
    """
    import pandas as pd

    rows = []
    for (first, a), (second, b) in combinations(importances.items(), 2):
        both = [gene for gene in a if gene in b]
        either = len({*a, *b})
        rank = spearman([a[gene] for gene in both], [b[gene] for gene in both])
        orders = [sorted(values, key=lambda gene: (-values[gene], gene)) for values in (a, b)]
        for k in top_sizes(min(len(a), len(b))):
            common = len(set(orders[0][:k]) & set(orders[1][:k]))
            rows.append(
                {
                    "first": first,
                    "second": second,
                    "n_genes": len(both),
                    "spearman": rank,
                    "k": k,
                    "overlap": common / k,
                    "chance": k / either,
                }
            )
    names = ["first", "second", "n_genes", "spearman", "k", "overlap", "chance"]
    return pd.DataFrame(rows, columns=names)


def top_sizes(n_genes: int) -> tuple[int, ...]:
    """Return the numbers of first genes that are compared where there are `n_genes`."""
    return tuple(k for k in TOP_SIZES if k <= n_genes // 2) or (max(n_genes // 2, 1),)


def spearman(a: list[float] | np.ndarray, b: list[float] | np.ndarray) -> float:
    """Return the rank correlation; NaN where there is none (fewer than 3, or constant)."""
    from scipy.stats import rankdata

    if len(a) < 3:
        return float("nan")
    left, right = rankdata(a), rankdata(b)
    if left.std() == 0 or right.std() == 0:
        return float("nan")
    return float(np.corrcoef(left, right)[0, 1])
