"""How much can be told from a cell's quality alone: if this wins, the data are confounded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix

from scdrugmap.baselines.expression import GeneSpace
from scdrugmap.baselines.logistic import fit_logistic, sigmoid
from scdrugmap.errors import DataError

if TYPE_CHECKING:
    from scdrugmap.baselines.estimator import State
    from scdrugmap.data.genes import Genes
    from scdrugmap.specs import Options, Values

_C = 1.0


class Technical:
    """Logistic regression on log total counts, log detected genes and mitochondrial share.

    Log-normalised values have lost the total counts; there it uses the other two. Without any
    mitochondrial gene it leaves that share out. Both are said in ``notices``.
    """

    single_genes = False
    """No gene has a part of its own in the answer: it cannot be explained."""

    def __init__(self, options: Options, seed: int) -> None:
        self.notices: tuple[str, ...] = ()

    @property
    def genes(self) -> np.ndarray:
        """(G,) str identities of the genes that are counted."""
        return self.space.names

    def fit(
        self, rows: csr_matrix, genes: Genes, y: np.ndarray, groups: np.ndarray, *, values: Values
    ) -> None:
        """Learn three weights at most; see :class:`~.estimator.Estimator`."""
        self.space = GeneSpace.learn(rows, genes, values)
        self.mitochondrial = np.asarray(genes.is_mitochondrial(), bool)
        self.detected = np.bincount(rows.indices, minlength=rows.shape[1]) / rows.shape[0]
        self.uses_totals = values == "counts"
        self.uses_mitochondria = bool(self.mitochondrial.any())
        left_out = []
        if not self.uses_totals:
            left_out.append("total counts (the values are log-normalised)")
        if not self.uses_mitochondria:
            left_out.append("mitochondrial share (no MT- gene)")
        if left_out:
            self.notices = (f"technical goes without {' and '.join(left_out)}",)
        features, _ = self._features(rows, genes, values)
        self.mean = features.mean(0)
        self.scale = np.maximum(features.std(0), 1e-9)
        weight, bias, _ = fit_logistic((features - self.mean) / self.scale, y.astype(np.int64), _C)
        self.weight, self.bias = weight.astype(np.float64), bias

    def predict(self, rows: csr_matrix, genes: Genes, *, values: Values) -> np.ndarray:
        """Predict cells ((n,) float32); see :class:`~.estimator.Estimator`.

        Raises
        ------
        DataError
            It was trained on total counts and the file has only log-normalised values.
        """
        if self.uses_totals and values != "counts":
            raise DataError(
                "the estimator technical was trained on counts; these values are log-normalised",
                hint="give a file with counts, or train it on log-normalised values",
            )
        features, usable = self._features(rows, genes, values)
        score = sigmoid(((features - self.mean) / self.scale) @ self.weight + self.bias)
        return np.where(usable, score, np.nan).astype(np.float32)

    def _features(
        self, rows: csr_matrix, genes: Genes, values: Values
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (n, 1 to 3) float64 features and (n,) bool whether the cell has a known gene."""
        columns = self.space.columns(genes)
        present = columns >= 0
        known = np.zeros(rows.shape[1])
        known[columns[present]] = 1.0
        nonzero = csr_matrix((np.ones_like(rows.data), rows.indices, rows.indptr), rows.shape)
        features = []
        totals, usable = self.space.totals(rows, genes)
        if self.uses_totals:
            features.append(np.log1p(totals))
        # A gene that the file lacks counts as often as it was seen in a training cell.
        features.append(np.log1p(nonzero @ known + self.detected[~present].sum()))
        if self.uses_mitochondria:
            mask = np.zeros(rows.shape[1])
            mask[columns[present & self.mitochondrial]] = 1.0
            linear = rows.astype(np.float64)
            if values != "counts":
                linear.data = np.expm1(linear.data)
            whole = linear @ known
            features.append(
                np.divide(linear @ mask, whole, out=np.zeros_like(whole), where=whole > 0)
            )
        return np.column_stack(features), usable

    def state(self) -> State:
        """Return what was learnt."""
        return {
            **self.space.state(),
            "mitochondrial": self.mitochondrial,
            "detected": self.detected,
            "uses_totals": self.uses_totals,
            "uses_mitochondria": self.uses_mitochondria,
            "mean": self.mean,
            "scale": self.scale,
            "weight": self.weight,
            "bias": self.bias,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become the estimator that the state was taken from."""
        self.space = GeneSpace.restored(state)
        self.mitochondrial = np.asarray(state["mitochondrial"], bool)
        self.detected = np.asarray(state["detected"], np.float64)
        self.uses_totals = bool(state["uses_totals"])
        self.uses_mitochondria = bool(state["uses_mitochondria"])
        self.mean = np.asarray(state["mean"], np.float64)
        self.scale = np.asarray(state["scale"], np.float64)
        self.weight = np.asarray(state["weight"], np.float64)
        self.bias = float(state["bias"])
        if not len(self.space.names) == len(self.mitochondrial) == len(self.detected):
            raise ValueError("gene list and its columns differ in length")


def build(options: Options, seed: int) -> Technical:
    """Return the model of technical covariates."""
    return Technical(options, seed)
