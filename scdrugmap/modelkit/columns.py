"""From the columns of a file to the genes of a model, and back."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix


def columns_of(ids: np.ndarray, n_ids: int) -> np.ndarray:
    """Turn what :func:`bind_genes` tells round: the column that stands for each id.

    Parameters
    ----------
    ids : (n_columns,) int
        Id of each column, -1 where the model does not know it.
    n_ids : int
        Ids that there are, special tokens among them.

    Returns
    -------
    (n_ids,) int32
        -1 where no column leads to an id; the first column, where several do.
    """
    columns = np.full(n_ids, -1, np.int32)
    known = np.flatnonzero(ids >= 0)[::-1]  # the first column of an id is set last
    columns[ids[known]] = known
    return columns


def known_values(rows: csr_matrix, ids: np.ndarray, n_ids: int) -> csr_matrix:
    """Keep the values of the genes that a model knows, in the order of the model.

    Parameters
    ----------
    rows : (n, n_columns) CSR float32
        Cells.
    ids : (n_columns,) int
        Id of each column, -1 where the model does not know it; no id twice.
    n_ids : int
        Ids of genes.

    Returns
    -------
    (n, n_ids) CSR float64
        Of each cell by ascending id.
    """
    of_value = ids.take(rows.indices)
    kept = of_value >= 0
    upto = np.concatenate([[0], np.cumsum(kept)])
    known = csr_matrix(
        (rows.data[kept].astype(np.float64), of_value[kept], upto[rows.indptr]),
        shape=(rows.shape[0], n_ids),
    )
    known.sort_indices()
    return known
