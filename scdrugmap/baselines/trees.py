"""Gradient-boosted trees, stored as plain arrays: no pickle, no class of scikit-learn."""

from __future__ import annotations

import numpy as np

from scdrugmap.baselines.logistic import sigmoid
from scdrugmap.baselines.options import TreeOptions
from scdrugmap.baselines.variable import VariableGenes

_BINS = 63
"""Bins of a gene's values: expression has few distinct levels, and 255 take four times as long."""


class Trees(VariableGenes):
    """Histogram gradient boosting; all trees' nodes lie one after the other.

    Node ``i`` sends a value of gene ``gene[i]`` that is at most ``threshold[i]`` to node
    ``left[i]``, else to ``right[i]``; a leaf points to itself and adds ``leaf[i]`` to the logit.
    """

    learnt = ("gene", "threshold", "left", "right", "leaf", "root", "bias", "depth")
    options: TreeOptions

    def _learn(self, x: np.ndarray, y: np.ndarray) -> None:
        from sklearn.ensemble import HistGradientBoostingClassifier

        model = HistGradientBoostingClassifier(
            max_iter=self.options.n_trees,
            learning_rate=self.options.learning_rate,
            max_leaf_nodes=self.options.max_leaves,
            max_bins=_BINS,
            early_stopping=False,
            random_state=self.seed,
        ).fit(x, y)
        # The fitted trees have no public form; a test compares ours with predict_proba.
        trees = [predictors[0].nodes for predictors in model._predictors]
        sizes = np.array([len(nodes) for nodes in trees])
        self.root = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        nodes = np.concatenate(trees)
        offset = np.repeat(self.root, sizes)
        own = np.arange(len(nodes))
        is_leaf = nodes["is_leaf"].astype(bool)
        self.gene = np.where(is_leaf, 0, nodes["feature_idx"]).astype(np.int64)
        self.threshold = np.where(is_leaf, 0.0, nodes["num_threshold"])
        self.left = np.where(is_leaf, own, nodes["left"] + offset).astype(np.int64)
        self.right = np.where(is_leaf, own, nodes["right"] + offset).astype(np.int64)
        self.leaf = np.where(is_leaf, nodes["value"], 0.0)
        self.bias = np.float64(np.ravel(model._baseline_prediction)[0])
        self.depth = np.int64(nodes["depth"].max(initial=0))

    def _score(self, x: np.ndarray) -> np.ndarray:
        cells = np.arange(len(x))[:, None]
        node = np.broadcast_to(self.root, (len(x), len(self.root)))  # (n, trees)
        for _ in range(int(self.depth)):
            goes_left = x[cells, self.gene[node]] <= self.threshold[node]
            node = np.where(goes_left, self.left[node], self.right[node])
        return sigmoid(self.leaf[node].sum(1) + float(self.bias))


def build(options: TreeOptions, seed: int) -> Trees:
    """Return the gradient-boosted trees."""
    return Trees(options, seed)
