"""Order the genes of a cell by expression, for models that read a cell as a ranked list."""

from __future__ import annotations

import numpy as np


def rank_tokens(values: np.ndarray, ids: np.ndarray, most: int) -> np.ndarray:
    """Return the largest values of one cell, largest first; equal values by ascending id.

    Most genes of a cell share their count with many others, so the rule for ties decides which
    genes a model sees; this one does not depend on the order of the file's columns.

    Parameters
    ----------
    values : (m,) float
        In any order, no NaN.
    ids : (m,) int
        Distinct; order equal values.
    most : int
        How many to keep, at least 1.

    Returns
    -------
    (min(m, most),) int64
        Positions in `values`.
    """
    kept = np.arange(len(values))
    if len(values) > most:
        least = np.partition(values, -most)[-most]
        above, equal = np.flatnonzero(values > least), np.flatnonzero(values == least)
        room = most - len(above)
        if room < len(equal):
            equal = equal[np.argpartition(ids[equal], room - 1)[:room]]
        kept = np.concatenate([above, equal])
    return kept[np.lexsort((ids[kept], -values[kept]))]
