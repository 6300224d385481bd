"""What is known of cells before they are predicted: role, sample, label and group.

Text that repeats is categorical, a byte or a few per cell: a million cells are predicted at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdrugmap.errors import DataError
from scdrugmap.train.gather import as_categories, cell_keys, one_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scdrugmap.data.cells import Cells
    from scdrugmap.train.predictor import Predictor

_OF_SPLIT = ("role", "sample", "label", "group")
_CELLS_AT_ONCE = 65_536
"""Cells for which something is made that is not kept."""


def look_up(
    predictor: Predictor, cells: Cells, datasets: pd.Categorical, splits: pd.DataFrame | None
) -> dict[str, pd.Categorical]:
    """Look cells up in the split that a predictor was trained on.

    Parameters
    ----------
    predictor : Predictor
    cells : Cells
    datasets : (n_cells,) Categorical
    splits : pandas.DataFrame, optional
        All rows of ``splits.tsv``.

    Returns
    -------
    dict of str to (n_cells,) Categorical
        ``role``, ``sample``, ``label``, ``group``; ``""`` for cells that are not in the fold.

    Raises
    ------
    DataError
        Another split than the predictor's.
    """
    if splits is None:
        return {column: one_text("", cells.n_cells) for column in _OF_SPLIT}
    split = predictor.info.split
    given = str(splits["split_id"].iloc[0])
    if given != split.split_id:
        raise DataError(
            f"the predictor was trained on split {split.split_id}, these are the roles of {given}",
            hint="give the splits.tsv that it was trained with, or leave --splits out",
        )
    table = splits[splits["fold"] == split.fold]
    keys = pd.Index(cell_keys(table["dataset"], table["cell"]), dtype=object)
    place = np.empty(cells.n_cells, np.int64)
    for part in _parts(cells.n_cells):
        wanted = pd.Index(cell_keys(datasets[part], cells.names[part]), dtype=object)
        place[part] = keys.get_indexer(wanted)
    return {column: _taken(table[column], place) for column in _OF_SPLIT}


def complete_roles(predictor: Predictor, cells: Cells, known: pd.Categorical) -> pd.Categorical:
    """Return the role of each cell: the one known, else ``train`` for its content, else ``new``."""
    unknown = known == ""
    if not unknown.any():
        return known
    hashes = cells.hashes()
    seen = np.concatenate(
        [predictor.is_training_cell(hashes[part]) for part in _parts(cells.n_cells)]
    )
    roles = known.set_categories(sorted({"new", "train", *known.categories}))
    roles[unknown & seen] = "train"
    roles[unknown & ~seen] = "new"
    return roles


def sample_column(predictor: Predictor, cells: Cells, sample: str | None) -> pd.Categorical | None:
    """Return the sample of each cell from the column named, else that of the training.

    None if no column is named and the file has none of that name.

    Raises
    ------
    UsageError
        The column that is named does not exist.
    """
    from scdrugmap.data.labels import require_column
    from scdrugmap.evaluation.design import as_text

    remembered = predictor.info.sample_column
    if sample is None and remembered in cells.obs.columns:
        sample = remembered
    if sample is None:
        return None
    return as_categories(as_text(require_column(cells.obs, sample, "--sample", cells.where)))


def first_known(some: pd.Categorical, others: pd.Categorical) -> pd.Categorical:
    """Return the text of `some`, and that of `others` where it is ``""``."""
    words = sorted({*some.categories, *others.categories})
    found = some.set_categories(words)
    empty = some == ""
    found[empty] = others.set_categories(words)[empty]
    return found


def units_of(samples: pd.Categorical, roles: pd.Categorical) -> np.ndarray:
    """Name what may be averaged: the cells of one sample and role.

    Training and test cells of one sample (random splits) are never averaged together.

    Returns
    -------
    (n,) object str
        ``""`` for cells of no known sample.
    """
    n_roles = len(roles.categories)
    codes = samples.codes.astype(np.int64) * n_roles + roles.codes
    pairs, place = np.unique(codes, return_inverse=True)
    names = [
        f"{sample}\0{role}" if sample else ""
        for sample, role in zip(
            samples.categories[pairs // n_roles], roles.categories[pairs % n_roles], strict=True
        )
    ]
    return np.array(names, object)[place]


def _taken(column: pd.Series, place: np.ndarray) -> pd.Categorical:
    """Return the text in some rows ((n,) int; -1: ``""``)."""
    words = pd.Categorical(column, categories=sorted({"", *column.unique()}))
    return words.take(place, allow_fill=True, fill_value="")


def _parts(n: int) -> Iterator[slice]:
    return (slice(start, start + _CELLS_AT_ONCE) for start in range(0, n, _CELLS_AT_ONCE))
