"""The one loop that every model goes through: tokens in, one vector per cell out.

Cells are sorted by cost, batches filled to a token budget, the order restored. What is special to
a model is in its ``collate``, its ``cost`` and its network; device, precision and memory are here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from scdrugmap.errors import PluginError, ResourceError
from scdrugmap.model.device import (
    Precision,
    arithmetic,
    free_memory,
    is_out_of_memory,
    resolve_precision,
)

if TYPE_CHECKING:
    from torch import Tensor

    from scdrugmap.modelkit.contract import CellModel
    from scdrugmap.modelkit.tokens import Tokens

CPU_BUDGET = 4096
"""Tokens of a batch on a processor: more gains nothing and delays the first sign of progress."""

GPU_BUDGET = 65_536

EXACT_ABOVE = 500
"""On a processor, longer cells are batched only with cells of their own length: attention without
a mask is faster than a fuller batch (measured: 1.24 against 0.91 cells/s)."""

NO_KNOWN_GENES = "no_known_genes"
"""Status of a cell without any gene that the model knows."""


def default_budget(device: torch.device) -> int:
    """Return the tokens of a batch on a device, unless told otherwise."""
    return CPU_BUDGET if device.type == "cpu" else GPU_BUDGET


def plan_batches(
    cost: np.ndarray, budget: int, *, exact_above: int | None = None
) -> list[np.ndarray]:
    """Divide cells into batches of similar cost, the most expensive first.

    Parameters
    ----------
    cost : (n,) int64
        Tokens of each cell.
    budget : int
        Most tokens of a batch, padding included; a cell that costs more gets a batch of its own.
    exact_above : int, optional
        Cells that cost more than this stay with cells of equal cost.

    Returns
    -------
    list of (m,) int64
        Positions of the cells of each batch; every cell is in exactly one.
    """
    order = np.argsort(-np.asarray(cost, np.int64), kind="stable")
    ranked = np.asarray(cost, np.int64)[order]
    batches: list[np.ndarray] = []
    start = 0
    while start < len(order):
        widest = int(ranked[start])
        stop = start + max(1, budget // max(widest, 1))
        if exact_above is not None and widest > exact_above:
            stop = min(stop, int(np.searchsorted(-ranked, -widest, side="right")))
        batches.append(order[start:stop])
        start = stop
    return batches


class Network:
    """A model on a device, ready to embed tokens.

    Parameters
    ----------
    model : CellModel
        Its module is moved to the device and stays there.
    device : torch.device
    precision : {"float32", "bfloat16"}
        As asked for; :attr:`precision` is what is used.
    token_budget : int, optional
        Most tokens of a batch; default: by device. Halved for the rest of the run when memory
        does not suffice.
    name : str
        What errors call the model.

    Attributes
    ----------
    notices : list of str
        What the user should know: another precision, a smaller budget.
    """

    def __init__(
        self,
        model: CellModel,
        *,
        device: torch.device,
        precision: str = "float32",
        token_budget: int | None = None,
        name: str = "the model",
    ) -> None:
        self.model, self.device, self.name = model, device, name
        self.budget = token_budget or default_budget(device)
        used, notice = resolve_precision(precision, device)
        self.precision: Precision = used
        self.notices = [notice] if notice else []
        model.module.to(device)

    def embed(
        self,
        tokens: Tokens,
        groups: Sequence[np.ndarray] | None = None,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Send cells through the network.

        Parameters
        ----------
        tokens : Tokens
            n cells.
        groups : sequence of (m,) int, optional
            For models whose cells see each other: positions of the cells of each sequence; each
            is one batch. Unusable cells stay in their sequence.
        on_batch : callable, optional
            Told the cells and tokens of each finished batch.

        Returns
        -------
        (n, D) float32
            NaN for unusable cells.

        Raises
        ------
        ResourceError
            A single cell, or a group, does not fit into memory.
        PluginError
            The network returns another shape, or values that are not finite.
        """
        values = np.full((tokens.n_cells, self.model.traits.dim), np.nan, np.float32)
        if not tokens.n_cells:
            return values
        cost = np.asarray(self.model.cost(tokens), np.int64)
        usable = tokens.usable
        pending = (
            self._plan(cost, np.flatnonzero(usable))
            if groups is None
            else [np.asarray(group, np.int64) for group in groups if usable[group].any()]
        )
        training = [(part, part.training) for part in self.model.module.modules()]
        self.model.module.eval()
        try:
            with arithmetic(self.device, self.precision):
                while pending:
                    batch = pending.pop(0)
                    found = self._forward(tokens, batch)
                    if found is None:
                        self._give_way(batch, cost, grouped=groups is not None)
                        rest = np.concatenate([batch, *pending])
                        pending = self._plan(cost, np.sort(rest))
                        continue
                    values[batch] = found
                    if on_batch is not None:
                        on_batch(len(batch), int(cost[batch].sum()))
        finally:
            for part, mode in training:
                part.training = mode
        values[~usable] = np.nan
        self._require_finite(values, usable)
        return values

    def _plan(self, cost: np.ndarray, cells: np.ndarray) -> list[np.ndarray]:
        exact = EXACT_ABOVE if self.device.type == "cpu" else None
        return [cells[batch] for batch in plan_batches(cost[cells], self.budget, exact_above=exact)]

    def _forward(self, tokens: Tokens, batch: np.ndarray) -> np.ndarray | None:
        """Run one batch: (m, D) float32, or None if memory does not suffice."""
        inputs: dict[str, Tensor] = {}
        try:
            whole = len(batch) == tokens.n_cells and bool((np.diff(batch) == 1).all())
            inputs = self.model.collate(tokens if whole else tokens.take(batch))
            inputs = {name: value.to(self.device) for name, value in inputs.items()}
            output: Tensor = self.model.module(inputs)
            expected = (len(batch), self.model.traits.dim)
            if tuple(output.shape) != expected:
                raise PluginError(
                    f"{self.name} returns a tensor of shape {tuple(output.shape)} for a batch, "
                    f"expected {expected}"
                )
            return output.float().cpu().numpy()
        except (RuntimeError, MemoryError) as err:
            if not is_out_of_memory(err):
                raise
        return None

    def _give_way(self, batch: np.ndarray, cost: np.ndarray, *, grouped: bool) -> None:
        """Halve the budget, or give up where a batch cannot be divided."""
        free_memory(self.device)
        tokens = int(cost[batch].max()) * len(batch)
        if grouped or len(batch) == 1:
            what = f"a group of {len(batch):,} cells" if grouped else "one cell"
            raise ResourceError(
                f"{self.name}: {what} with {tokens:,} tokens does not fit into the memory of "
                f"{self.device}",
                hint="use a device with more memory, or a shorter length (see `scdrugmap models "
                "show`, --set)",
            )
        self.budget = max(1, tokens // 2)
        self.notices.append(
            f"{self.name}: {tokens:,} tokens in a batch are too many for the memory of "
            f"{self.device}; going on with {self.budget:,}"
        )

    def _require_finite(self, values: np.ndarray, usable: np.ndarray) -> None:
        bad = usable & ~np.isfinite(values).all(axis=1)
        if bad.any():
            raise PluginError(
                f"{self.name} returns values that are not finite for {int(bad.sum()):,} of "
                f"{len(bad):,} cells",
                hint="use --precision float32; if it is, this is a fault of the model or its "
                "weights",
            )
