"""What the estimators on highly variable genes share: select, standardise, remember."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from scdrugmap.baselines.expression import CLIP, GeneSpace, highly_variable
from scdrugmap.errors import DataError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scdrugmap.baselines.estimator import State
    from scdrugmap.baselines.options import GeneOptions
    from scdrugmap.data.genes import Genes
    from scdrugmap.specs import Values


class VariableGenes(ABC):
    """An estimator on the standardised log-normalised values of highly variable genes.

    Subclasses see dense (n, k) float32 values with mean 0 and standard deviation 1 among the
    training cells, and name the arrays they learn in ``learnt``.
    """

    learnt: ClassVar[tuple[str, ...]]

    def __init__(self, options: GeneOptions, seed: int) -> None:
        self.options, self.seed = options, seed
        self.notices: tuple[str, ...] = ()

    @property
    def genes(self) -> np.ndarray:
        """(k,) str identities of the chosen genes."""
        return self.space.names[self.chosen]

    def fit(
        self, rows: csr_matrix, genes: Genes, y: np.ndarray, groups: np.ndarray, *, values: Values
    ) -> None:
        """Choose genes, standardise and learn; see :class:`~.estimator.Estimator`.

        Raises
        ------
        DataError
            No gene varies among the training cells.
        """
        self.space = GeneSpace.learn(rows, genes, values)
        self.chosen = highly_variable(self.space.blocks(rows, genes, values), self.options.n_genes)
        if not len(self.chosen):
            raise DataError(
                f"none of {len(self.space.names)} genes varies among {rows.shape[0]} training cells",
                hint="look at the file with `scdrugmap check`",
            )
        dense = self.space.lognorm(rows, genes, values, self.chosen)[0].toarray()
        self.mean = dense.mean(0, dtype=np.float64).astype(np.float32)
        self.scale = dense.std(0, dtype=np.float64).astype(np.float32)
        self._learn(self._standardise(dense), y.astype(np.int64))

    def predict(self, rows: csr_matrix, genes: Genes, *, values: Values) -> np.ndarray:
        """Predict cells ((n,) float32); see :class:`~.estimator.Estimator`."""
        dense, usable = self.standardised(rows, genes, values)
        return np.where(usable, self._score(dense), np.nan).astype(np.float32)

    def standardised(
        self, rows: csr_matrix, genes: Genes, values: Values
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what cells of any file are to :meth:`_score`.

        Returns
        -------
        dense : (n, k) float32
            0, the training mean, for genes that the file lacks.
        usable : (n,) bool
            Whether the cell has any gene of the gene list.
        """
        lognorm, present, usable = self.space.lognorm(rows, genes, values, self.chosen)
        dense = self._standardise(lognorm.toarray())
        dense[:, ~present] = 0.0
        return dense, usable

    def _standardise(self, dense: np.ndarray) -> np.ndarray:
        """Standardise and clip (n, k) values in place."""
        dense -= self.mean
        dense /= self.scale
        return np.clip(dense, -CLIP, CLIP, out=dense)

    @abstractmethod
    def _learn(self, x: np.ndarray, y: np.ndarray) -> None:
        """Learn from (n, k) float32 values and (n,) int64 labels, 1 = sensitive."""

    @abstractmethod
    def _score(self, x: np.ndarray) -> np.ndarray:
        """Return (n,) probabilities for (n, k) float32 values; may change `x`."""

    def state(self) -> State:
        """Return what was learnt."""
        return {
            **self.space.state(),
            "chosen": self.chosen,
            "mean": self.mean,
            "scale": self.scale,
            **{name: getattr(self, name) for name in self.learnt},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become the estimator that the state was taken from."""
        self.space = GeneSpace.restored(state)
        self.chosen = np.asarray(state["chosen"], np.int64)
        self.mean = np.asarray(state["mean"], np.float32)
        self.scale = np.asarray(state["scale"], np.float32)
        if not len(self.chosen) == len(self.mean) == len(self.scale):
            raise ValueError("chosen, mean and scale differ in length")
        if len(self.chosen) and not 0 <= self.chosen.min() <= self.chosen.max() < len(
            self.space.names
        ):
            raise ValueError("chosen genes lie outside the gene list")
        for name in self.learnt:
            setattr(self, name, np.asarray(state[name]))
