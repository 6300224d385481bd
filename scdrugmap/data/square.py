"""Find out whether a square matrix was labelled the wrong way round.

The shape of a square sparse matrix cannot show whether rows or columns were compressed. Columns
of obs and var that hold totals (``total_counts``, ``n_genes``) can: they fit one way only.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from scdrugmap.data.sources import RowSource
from scdrugmap.errors import DataError

_ROWS = 4096
_FITTING = 0.95
"""Share of rows whose total must be the one in the table; rounding spoils a few."""


def check_square(
    source: RowSource, obs: pd.DataFrame, var: pd.DataFrame, *, part: str, where: str
) -> tuple[str, ...]:
    """Compare totals of rows and columns with the tables.

    Parameters
    ----------
    source : RowSource
        A matrix with as many rows as columns.
    obs, var : pandas.DataFrame
        Tables of its rows and columns.

    Returns
    -------
    tuple of str
        A notice if the tables hold no totals, so that nothing can be said.

    Raises
    ------
    DataError
        Totals in obs are those of the columns, or totals in var those of the rows.
    """
    n = source.shape[0]
    by_row, by_column = np.zeros((2, n)), np.zeros((2, n))  # totals, filled entries
    for start in range(0, n, _ROWS):
        rows = source.read([(start, min(n, start + _ROWS))])
        filled = rows.data != 0
        at = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
        for i, weights in enumerate((rows.data, filled)):
            by_row[i, start : start + rows.shape[0]] = np.bincount(at, weights, rows.shape[0])
            by_column[i] += np.bincount(rows.indices, weights, n)
    for table, name, own, other in (
        (obs, "obs", by_row, by_column),
        (var, "var", by_column, by_row),
    ):
        for column in table.select_dtypes("number"):
            values = table[column].to_numpy(dtype=np.float64, na_value=np.nan)
            if _fits(values, own):
                return ()
            if _fits(values, other):
                raise DataError(
                    f"{where}: {part} lies on its side: {column!r} of {name} holds the totals of "
                    f"its {'columns' if name == 'obs' else 'rows'}",
                    hint="its encoding-type says csr_matrix instead of csc_matrix or the reverse: "
                    "correct it, or write the file again",
                )
    notice = (
        f"{where}: {part} is square ({n:,} x {n:,}), and no column of totals in obs or var shows "
        "that its rows are cells"
    )
    return (notice,)


def _fits(values: np.ndarray, totals: np.ndarray) -> bool:
    if len(np.unique(values)) < 2:
        return False
    return any(np.isclose(values, kind, rtol=1e-3).mean() >= _FITTING for kind in totals)
