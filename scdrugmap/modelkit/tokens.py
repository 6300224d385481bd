"""Ragged tokens: what a tokenizer makes of a block of cells."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Tokens(NamedTuple):
    """Tokens of ``n`` cells; cell ``i`` owns ``flat[name][start[i]:start[i + 1]]``.

    Attributes
    ----------
    start : (n + 1,) int64
        Where each cell begins; ``start[0] == 0``.
    flat : dict of str to (start[-1], ...) array
        One value per token. ``flat["column"]`` is reserved for the dataset column each token came
        from (int32, -1 for special tokens).
    cell : dict of str to (n, ...) array
        One value per cell. ``cell["usable"]`` is reserved: False for a cell without any gene that
        the model knows; such a cell is never sent to the network.
    """

    start: np.ndarray
    flat: dict[str, np.ndarray]
    cell: dict[str, np.ndarray]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.start) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int64 number of tokens of each cell."""
        return np.diff(self.start)

    @property
    def usable(self) -> np.ndarray:
        """(n,) bool, False for cells that must not be sent to the network."""
        usable = self.cell.get("usable")
        return np.ones(self.n_cells, bool) if usable is None else usable.astype(bool)

    def take(self, index: np.ndarray) -> Tokens:
        """Return the tokens of some cells, in the order of `index` ((m,) int)."""
        index = np.asarray(index, np.int64)
        lengths = self.lengths[index]
        start = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        source = np.repeat(self.start[index] - start[:-1], lengths) + np.arange(start[-1])
        return Tokens(
            start,
            {name: values[source] for name, values in self.flat.items()},
            {name: values[index] for name, values in self.cell.items()},
        )

    @staticmethod
    def concatenate(parts: list[Tokens]) -> Tokens:
        """Join blocks of cells, in order."""
        lengths = np.concatenate([part.lengths for part in parts])
        return Tokens(
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            {name: np.concatenate([p.flat[name] for p in parts]) for name in parts[0].flat},
            {name: np.concatenate([p.cell[name] for p in parts]) for name in parts[0].cell},
        )
