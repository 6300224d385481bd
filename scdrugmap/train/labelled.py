"""Tokens of cells whose labels are known, and how they are embedded to look at what was learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scdrugmap.model.batching import Network
    from scdrugmap.model.token_store import CellTokens
    from scdrugmap.progress import Progress

_BLOCK = 512


@dataclass(frozen=True)
class LabelledTokens:
    """Cells to learn from, or to tell when to stop.

    Attributes
    ----------
    tokens : CellTokens
        n usable cells.
    y : (n,) float
        1 for sensitive.
    groups : (n,) object str
        Group of the split.
    sequences : (n,) int or None
        Which cells see each other, for models that have such batches.
    """

    tokens: CellTokens
    y: np.ndarray
    groups: np.ndarray
    sequences: np.ndarray | None

    def take(self, cells: np.ndarray) -> LabelledTokens:
        """Return some of the cells ((m,) int)."""
        sequences = None if self.sequences is None else self.sequences[cells]
        return LabelledTokens(
            self.tokens.subset(cells), self.y[cells], self.groups[cells], sequences
        )

    def blocks(self, cells: np.ndarray) -> list[np.ndarray]:
        """Divide cells ((m,) int) into what is read and embedded together."""
        if self.sequences is None:
            return [cells[start : start + _BLOCK] for start in range(0, len(cells), _BLOCK)]
        return [cells[self.sequences[cells] == one] for one in np.unique(self.sequences[cells])]

    def embed_block(
        self, network: Network, block: np.ndarray, progress: Progress | None = None
    ) -> np.ndarray:
        """Embed a block of :meth:`blocks` in ``eval()``: (m, D) float32."""
        together = None if self.sequences is None else [np.arange(len(block))]
        tell = None if progress is None else (lambda n, tokens: progress.advance(n, tokens=tokens))
        return network.embed(self.tokens.take(block), together, tell)

    def embed(
        self, network: Network, cells: np.ndarray, progress: Progress | None = None
    ) -> np.ndarray:
        """Embed cells ((m,) int) as predictions do, in ``eval()``: (m, D) float32."""
        found = np.zeros((len(cells), network.model.traits.dim), np.float32)
        place = np.full(len(self.y), -1, np.int64)
        place[cells] = np.arange(len(cells))
        for block in self.blocks(cells):
            found[place[block]] = self.embed_block(network, block, progress)
        return found
