"""Predictors that look at no gene: the floor under every figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from scdrugmap.modelkit.randomness import cell_keys, token_keys

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scdrugmap.baselines.estimator import State
    from scdrugmap.data.genes import Genes
    from scdrugmap.specs import Options, Values


class Constant:
    """Answers the share of sensitive cells of the training set, so that it calls the majority."""

    def __init__(self, options: Options, seed: int) -> None:
        self.seed = seed
        self.genes = np.empty(0, str)
        self.notices: tuple[str, ...] = ()
        self.share = 0.5

    def fit(
        self, rows: csr_matrix, genes: Genes, y: np.ndarray, groups: np.ndarray, *, values: Values
    ) -> None:
        """Learn the share; see :class:`~.estimator.Estimator`."""
        self.share = float(y.mean())

    def predict(self, rows: csr_matrix, genes: Genes, *, values: Values) -> np.ndarray:
        """(n,) float32, all the same."""
        return np.full(rows.shape[0], self.share, np.float32)

    def state(self) -> State:
        """Return the share and the seed."""
        return {"share": self.share, "seed": self.seed}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become the estimator that the state was taken from."""
        self.share, self.seed = float(state["share"]), int(state["seed"])


class Stratified(Constant):
    """Calls a cell sensitive with the share of sensitive training cells, 0 or 1 at random.

    The draw depends on the seed and on the cell's values, not on its position, its name or the
    order of the genes.
    """

    def __init__(self, options: Options, seed: int) -> None:
        super().__init__(options, seed)
        self._bound: tuple[Genes | None, np.ndarray] = (None, np.empty(0, np.uint64))

    def predict(self, rows: csr_matrix, genes: Genes, *, values: Values) -> np.ndarray:
        """(n,) float32, each 0 or 1."""
        if self._bound[0] is not genes:
            self._bound = (genes, cell_keys(self.seed, genes.identity()))
        bits = rows.data.astype(np.float32).view(np.uint32)
        keys = token_keys(self._bound[1][rows.indices], bits)
        starts = np.concatenate([[np.uint64(0)], np.cumsum(keys, dtype=np.uint64)])
        sums = starts[rows.indptr[1:]] - starts[rows.indptr[:-1]]  # modulo 2^64: free of order
        draw = token_keys(sums, np.zeros(len(sums), np.int64)) / 2.0**64
        return (draw < self.share).astype(np.float32)


def build_constant(options: Options, seed: int) -> Constant:
    """Return the constant predictor."""
    return Constant(options, seed)


def build_stratified(options: Options, seed: int) -> Stratified:
    """Return the random predictor."""
    return Stratified(options, seed)
