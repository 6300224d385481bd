"""Nearest prototypes: k nearest neighbours without keeping a training cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.baselines.linear import principal_axes
from scdrugmap.baselines.options import NeighbourOptions
from scdrugmap.baselines.variable import VariableGenes

if TYPE_CHECKING:
    from sklearn.cluster import KMeans

_FEWEST_CELLS = 3
"""Cells behind a prototype; the centre of fewer would all but store a cell."""


class Prototypes(VariableGenes):
    """The k nearest of the k-means centres of each class vote.

    A vote weighs the share of its class that the prototype stands for times the share of the class
    among training cells, divided by the squared distance.
    """

    learnt = ("axes", "centres", "weights", "sensitive")
    options: NeighbourOptions

    def _learn(self, x: np.ndarray, y: np.ndarray) -> None:
        self.axes = principal_axes(x, self.scale, self.options.n_components, self.seed)
        points = x @ self.axes.T
        centres, sizes, sensitive = [], [], []
        for label in (0, 1):
            of_class, counts = self._centres(points[y == label])
            centres.append(of_class)
            sizes.append(counts)
            sensitive.append(np.full(len(counts), label))
        self.centres = np.concatenate(centres).astype(np.float32)
        self.weights = (np.concatenate(sizes) / len(y)).astype(np.float32)
        self.sensitive = np.concatenate(sensitive).astype(np.float32)
        self.notices = (f"{len(self.centres)} prototypes stand for {len(y)} training cells",)

    def _centres(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return k-means centres of one class and the number of cells behind each."""
        from threadpoolctl import threadpool_limits

        n = max(1, min(self.options.n_prototypes, len(points) // (2 * _FEWEST_CELLS)))
        with threadpool_limits(1):
            clusters = _kmeans(n, self.seed).fit(points)
        counts = np.bincount(clusters.labels_, minlength=n)
        large = counts >= _FEWEST_CELLS
        if not large.any():  # a class of one or two cells
            return points.mean(0, keepdims=True), np.array([len(points)])
        return clusters.cluster_centers_[large], counts[large]

    def _score(self, x: np.ndarray) -> np.ndarray:
        points = x @ self.axes.T
        distance = (
            (points**2).sum(1)[:, None]
            - 2 * points @ self.centres.T
            + (self.centres**2).sum(1)[None, :]
        )
        k = min(self.options.k, len(self.centres))
        near = np.argsort(distance, axis=1, kind="stable")[:, :k]
        votes = self.weights[near] / np.maximum(np.take_along_axis(distance, near, 1), 1e-6)
        return (votes * self.sensitive[near]).sum(1) / votes.sum(1)


def _kmeans(n: int, seed: int) -> KMeans:
    from sklearn.cluster import KMeans

    return KMeans(n, n_init=3, random_state=seed)


def build(options: NeighbourOptions, seed: int) -> Prototypes:
    """Return the nearest-prototype classifier."""
    return Prototypes(options, seed)
