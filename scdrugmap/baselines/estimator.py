"""The contract of an estimator: a predictor trained from expression alone.

An :class:`~scdrugmap.specs.EstimatorSpec` names a ``factory(options, seed)`` that returns one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_matrix

    from scdrugmap.data.genes import Genes
    from scdrugmap.specs import Values

State = dict[str, "np.ndarray | str | int | float | bool | None"]
"""Everything an estimator learnt, as arrays (no object arrays), numbers and text."""


class Estimator(Protocol):
    """Learns from the training cells of one fold and predicts any cells.

    For specs of level ``sample`` the core hands over one row per sample (counts summed over the
    sample's cells, log-normalised values averaged) instead of one per cell, in both methods.
    """

    genes: np.ndarray
    """(k,) str identities (:meth:`Genes.identity`) of the genes that matter: the core counts those
    that a file lacks, and refuses the file above a share of 20 %."""
    notices: tuple[str, ...]
    """One line each: what a reader of the results should know about the fit."""

    def fit(
        self, rows: csr_matrix, genes: Genes, y: np.ndarray, groups: np.ndarray, *, values: Values
    ) -> None:
        """Learn from training cells; selection and scaling see nothing else.

        Parameters
        ----------
        rows : (n, n_genes) CSR float32
            Counts or log-normalised values; no row is empty.
        genes : Genes
            The genes that all training files share.
        y : (n,) float
            1 for sensitive, 0 for resistant; both occur.
        groups : (n,) str
            Group (patient, cell line) of each cell.
        values : {"counts", "lognorm"}
            What `rows` holds.
        """

    def predict(self, rows: csr_matrix, genes: Genes, *, values: Values) -> np.ndarray:
        """Predict cells of any file, in blocks.

        A cell's result depends on nothing but its own row. A stored gene that the file lacks counts
        as the mean of the training cells.

        Returns
        -------
        (n,) float32
            Probability of sensitive; NaN for a cell without any gene that the estimator knows.
        """

    def state(self) -> State:
        """Return what was learnt; holds no training cell."""

    def restore(self, state: Mapping[str, object]) -> None:
        """Become the estimator that :meth:`state` was taken from.

        Raises
        ------
        KeyError, TypeError, ValueError
            The state is not one of this estimator's.
        """
