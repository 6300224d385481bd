"""The table of cells of a file, read without its matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from scdrugmap.data.containers import open_container, reading
from scdrugmap.data.names import select_cells, unique_names

if TYPE_CHECKING:
    from anndata import AnnData

    from scdrugmap.data.samplesheet import Samplesheet


def read_obs(
    source: str | Path | AnnData,
    *,
    where: Sequence[tuple[str, str]] = (),
    sample: str | None = None,
    sheet: Samplesheet | None = None,
) -> tuple[str, pd.DataFrame]:
    """Read the table of cells and nothing else.

    Returns
    -------
    name : str
        Name of the dataset.
    obs : pandas.DataFrame
        Index = unique cell names, as :func:`~scdrugmap.data.cells.open_cells` gives them.

    Raises
    ------
    UsageError, DataError, ResourceError
        As :func:`~scdrugmap.data.cells.open_cells`.
    """
    container = open_container(source)
    try:
        with reading(container.where):
            obs = container.obs()
        if sheet is not None:
            obs, _ = sheet.describe(container.path, obs)
        names, _ = unique_names(obs, sample, container.where)
        obs = obs.set_axis(pd.Index(names, dtype=object))
        return container.name, obs.iloc[select_cells(obs, where, container.where)]
    finally:
        container.close()
