"""Which cells of a file are explained, and into which groups their attributions are summed up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scdrugmap.data.cells import Cells
    from scdrugmap.data.labels import LabelMap

N_DRAWS = 5
"""Disjoint draws whose rankings are compared where there is one predictor."""


@dataclass(frozen=True)
class Drawn:
    """Cells that are explained, and what is known of all cells of the file.

    Attributes
    ----------
    index : (n,) int64
        Positions in the file, ascending.
    draw : (n,) int64
        Number of the draw that each belongs to, 0 to :data:`N_DRAWS` - 1.
    samples : (n_cells,) object str
        Sample of every cell of the file; ``""``: not known.
    labels : (n_cells,) object str
        ``sensitive``, ``resistant``, ``""``: not known; of every cell of the file.
    notices : tuple of str
    """

    index: np.ndarray
    draw: np.ndarray
    samples: np.ndarray
    labels: np.ndarray
    notices: tuple[str, ...]

    @property
    def has_labels(self) -> bool:
        """Whether the labels were named."""
        return bool((self.labels != "").any())

    @property
    def has_samples(self) -> bool:
        """Whether more than one sample is known."""
        return len(set(self.samples) - {""}) > 1


def draw_cells(
    cells: Cells,
    *,
    most: int,
    seed: int,
    sample: str | None = None,
    label: str | None = None,
    meaning: LabelMap | None = None,
) -> Drawn:
    """Draw cells evenly over samples, and over labels within a sample.

    Parameters
    ----------
    cells : Cells
    most : int
    seed : int
    sample, label : str, optional
        Columns of obs. With a label, cells without one are left out.
    meaning : LabelMap, optional
        What the words of `label` mean; default: sensitive and resistant.

    Raises
    ------
    UsageError
        A column that does not exist; labels with a meaning but no column.
    DataError
        No cell has a label, or the words mean nothing.
    """
    from scdrugmap.data.labels import LabelMap, require_column
    from scdrugmap.evaluation.design import as_text

    samples = np.full(cells.n_cells, "", object)
    labels = np.full(cells.n_cells, "", object)
    notices: list[str] = []
    if sample is not None:
        column = require_column(cells.obs, sample, "--sample", cells.where)
        samples = as_text(column).to_numpy(object)
    candidates = np.arange(cells.n_cells)
    if label is not None:
        column = require_column(cells.obs, label, "--label", cells.where)
        found = (meaning or LabelMap.parse()).apply(column, where=cells.where)
        labels = found.values
        notices += found.notices
        candidates = np.flatnonzero(found.labelled)
    elif meaning is not None:
        raise UsageError("labels have a meaning but no column", hint="name it: --label COLUMN")
    if not len(candidates):
        raise DataError(f"{cells.where} has no cell to explain")
    random = np.random.default_rng(seed)
    unit = np.array([f"{s}\0{c}" for s, c in zip(samples, labels, strict=True)], object)[candidates]
    chosen, draw = draw_evenly(unit, most, random)
    if len(chosen) < len(candidates):
        over = f", drawn evenly over {len(set(samples[candidates])):,} samples" if sample else ""
        notices.append(
            f"{len(chosen):,} of {len(candidates):,} cells are explained{over} (--max-cells)"
        )
    return Drawn(candidates[chosen], draw, samples, labels, tuple(notices))


def draw_evenly(
    units: Sequence[object] | np.ndarray, most: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw as many cells of every unit, as far as it has them.

    Returns
    -------
    chosen : (m,) int64
        Ascending positions, m at most `most`.
    draw : (m,) int64
        0 to :data:`N_DRAWS` - 1, each about as often within a unit.
    """
    _, code = np.unique(np.asarray(units, object).astype(str), return_inverse=True)
    order = random.permutation(len(code))
    order = order[np.argsort(code[order], kind="stable")]
    sizes = np.bincount(code)
    # Place of each cell in its unit; all firsts come before all seconds.
    place = np.arange(len(code)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    turn = np.lexsort((random.permutation(len(code)), place))
    taken = order[turn[: max(min(most, len(code)), 1)]]
    number = place[turn[: len(taken)]] + code[taken]  # units begin with different draws
    ascending = np.argsort(taken)
    return taken[ascending].astype(np.int64), (number[ascending] % N_DRAWS).astype(np.int64)
