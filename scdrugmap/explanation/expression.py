"""Expression of cells on one scale, whatever a file holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.baselines.expression import LIBRARY_SIZE

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def lognorm(rows: csr_matrix, values: str) -> csr_matrix:
    """Return log1p of counts scaled to 10,000; log-normalised values as they are.

    Parameters
    ----------
    rows : (n, n_genes) CSR float32
    values : {"counts", "lognorm"}

    Returns
    -------
    (n, n_genes) CSR float64
    """
    from scipy.sparse import csr_matrix

    found = csr_matrix(rows, dtype=np.float64, copy=True)
    if values == "counts":
        totals = np.asarray(found.sum(1)).ravel()
        factor = np.divide(LIBRARY_SIZE, totals, out=np.zeros_like(totals), where=totals > 0)
        found.data = np.log1p(found.data * np.repeat(factor, np.diff(found.indptr)))
    return found
