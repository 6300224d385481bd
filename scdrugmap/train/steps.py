"""Which cells an optimiser step learns from, and in which batches they go through the network.

All is drawn from (seed, epoch): any step can be found again without those before it, in any
process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scdrugmap.model.batching import plan_batches

STEP_CELLS = 32
"""Cells of an optimiser step, unless told otherwise."""

GROUPED_STEP_CELLS = 1024
"""The same for models whose cells see each other."""

WINDOWS_PER_STEP = 4
"""Sequences that a full step has at least, for models whose cells see each other: the cells of one
sample have one label, and a step should see more than one."""


@dataclass(frozen=True)
class Plan:
    """How training cells become steps.

    Attributes
    ----------
    cost : (n,) int64
        Tokens of each cell.
    groups : (n,) int or None
        Sequence that each cell belongs to, for models whose cells see each other.
    step_cells : int
        Cells of an optimiser step.
    seed : int
    """

    cost: np.ndarray
    groups: np.ndarray | None
    step_cells: int
    seed: int

    @property
    def n_steps(self) -> int:
        """Steps of one epoch."""
        return len(self.epoch(0))

    def epoch(self, epoch: int) -> list[list[np.ndarray]]:
        """Divide all cells into the steps of an epoch.

        Returns
        -------
        list of list of (m,) int64
            Per step the sequences that must stay together; one for models that look at each cell
            alone.
        """
        random = np.random.default_rng([self.seed, epoch])
        if self.groups is None:
            order = random.permutation(len(self.cost))
            return [
                [order[start : start + self.step_cells]]
                for start in range(0, len(order), self.step_cells)
            ]
        size = max(2, self.step_cells // WINDOWS_PER_STEP)
        windows = []
        for group in np.unique(self.groups):
            members = random.permutation(np.flatnonzero(self.groups == group))
            windows += np.array_split(members, -(-len(members) // size))
        steps: list[list[np.ndarray]] = []
        n_cells = self.step_cells
        for number in random.permutation(len(windows)):
            if n_cells + len(windows[number]) > self.step_cells:
                steps.append([])
                n_cells = 0
            steps[-1].append(windows[number])
            n_cells += len(windows[number])
        return steps

    def batches(
        self, step: Sequence[np.ndarray], budget: int, *, exact_above: int | None, at_least: int = 1
    ) -> list[np.ndarray]:
        """Divide the cells of a step into batches of similar length.

        Parameters
        ----------
        step : sequence of (m,) int64
            Of :meth:`epoch`.
        budget : int
            Most tokens of a batch.
        exact_above : int, optional
            See :func:`scdrugmap.model.batching.plan_batches`.
        at_least : int
            Batches wanted, so that no process is idle; fewer if there are not so many cells.
        """
        if self.groups is not None:
            return list(step)
        (cells,) = step
        batches = [
            cells[batch]
            for batch in plan_batches(self.cost[cells], budget, exact_above=exact_above)
        ]
        while len(batches) < min(at_least, len(cells)):
            largest = max(range(len(batches)), key=lambda number: len(batches[number]))
            half = np.array_split(batches[largest], 2)
            batches[largest : largest + 1] = half
        return batches


def n_cells_of(step: Sequence[np.ndarray]) -> int:
    """Return how many cells a step of :meth:`Plan.epoch` has."""
    return sum(map(len, step))


def cell_weights(y: np.ndarray, *, balanced: bool) -> np.ndarray:
    """Return the weight of each training cell in the loss ((n,) float64).

    Parameters
    ----------
    y : (n,) float
        1 for sensitive; both labels occur.
    balanced : bool
        Both labels weigh alike in all; else every cell weighs 1.
    """
    if not balanced:
        return np.ones(len(y))
    share = y.mean()
    return np.where(y > 0, 0.5 / share, 0.5 / (1 - share))
