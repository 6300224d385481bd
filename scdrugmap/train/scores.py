"""What every strategy gives: an object that turns cells into probabilities of sensitive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

    from scdrugmap.data.cells import Cells
    from scdrugmap.data.genes import Genes

NO_KNOWN_GENES = "no_known_genes"
FEW_COUNTS = "few_counts"


@dataclass(frozen=True)
class GeneCoverage:
    """How many genes of a file a predictor reads."""

    n_file: int
    """Genes of the file."""
    n_read: int
    """Those of them that are read."""
    n_known: int
    """Genes that the predictor can read at all: a model's vocabulary, an estimator's list."""


@dataclass(frozen=True)
class Scores:
    """Probabilities of some cells.

    Attributes
    ----------
    p : (n,) float32
        NaN where `reason` is not empty.
    reason : (n,) object str
        ``""``, ``few_counts`` (the cell has no counts at all) or ``no_known_genes``; of text
        models also why a model abstained or its answer is invalid.
    notices : tuple of str
    domain : (n,) float32, optional
        Share of the training cells that lie closer to their mean; NaN where `reason` is not
        empty. None: the strategy has no embeddings.
    coverage : GeneCoverage, optional
    state : (n,) object str, optional
        ``answered``, ``abstained`` or ``invalid``; None: invalid where there is a reason.
    answers : pandas.DataFrame, optional
        What a text model said of each cell
        (:data:`~scdrugmap.text.scorer.ANSWER_COLUMNS`).
    """

    p: np.ndarray
    reason: np.ndarray
    notices: tuple[str, ...] = ()
    domain: np.ndarray | None = None
    coverage: GeneCoverage | None = None
    state: np.ndarray | None = None
    answers: pd.DataFrame | None = None

    def states(self) -> np.ndarray:
        """Return the state of each cell ((n,) object str)."""
        if self.state is not None:
            return self.state
        # One text for all cells: astype(object) would make each cell a text of its own.
        words = np.array(["invalid", "answered"], object)
        return words[(self.reason == "").astype(np.int8)]


@dataclass(frozen=True)
class Trial:
    """What came out for the synthetic cells of a self-test.

    Attributes
    ----------
    p : (n,) float32
    tokens : tuple of str
        SHA-256 of each cell's tokens; empty for estimators.
    """

    p: np.ndarray
    tokens: tuple[str, ...] = ()


class Scorer(Protocol):
    """A trained strategy. ``estimator`` and ``frozen`` have one each; others slot in beside them."""

    def scores(
        self,
        cells: Cells,
        *,
        index: np.ndarray | None = None,
        samples: np.ndarray | None = None,
        quiet: bool = False,
    ) -> Scores:
        """Predict cells of a file, in bounded memory.

        Parameters
        ----------
        cells : Cells
        index : (n,) int64, optional
            Positions; None: all cells.
        samples : (n,) object str, optional
            Sample of each of these cells, ``""`` if unknown. Used by predictors of whole samples.
        quiet : bool

        Raises
        ------
        DataError
            The file lacks too many of the genes, or holds other values.
        """

    def trial(self, rows: csr_matrix, genes: Genes, names: np.ndarray) -> Trial:
        """Predict synthetic cells that are in memory."""

    def files(self) -> dict[str, bytes]:
        """Return what was learnt, as members of the predictor's zip file."""


def empty_cells(cells: Cells, index: np.ndarray) -> np.ndarray:
    """Tell which of some cells have no counts at all ((n,) bool)."""
    if not len(index):
        return np.zeros(0, bool)
    return np.concatenate([np.diff(block.rows.indptr) == 0 for block in cells.blocks(index=index)])
