"""Two coordinates per cell for the map of the report; labels are never looked at."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdrugmap.files import hash_json

if TYPE_CHECKING:
    from pathlib import Path

    from scdrugmap.data.cells import Cells
    from scdrugmap.run.cohort import Cohort

MOST_CELLS = 5_000
N_GENES = 2_000
N_COMPONENTS = 30
MIN_CELLS_FOR_UMAP = 500
"""With fewer cells the first two components show as much, without the minute of compiling."""

_TARGET_SUM = 1e4
_SEED = 0


def map_method(n_cells: int) -> str:
    """Say how the map of that many cells is made here."""
    n = min(n_cells, MOST_CELLS)
    of = f"{n:,} cells" if n == n_cells else f"{n:,} of {n_cells:,} cells"
    if _has_umap() and n >= MIN_CELLS_FOR_UMAP:
        return f"UMAP of {of} on {N_COMPONENTS} principal components of log-normalised expression"
    return f"First two principal components of log-normalised expression, {of}"


def cell_map(cohort: Cohort, sources: list[Cells], cache: Path) -> pd.DataFrame:
    """Return the map, from the folder of finished steps if it is there.

    Parameters
    ----------
    cohort : Cohort
    sources : list of Cells
        The files, all cells.
    cache : Path
        Folder of finished steps.

    Returns
    -------
    DataFrame
        dataset, cell, label, group, x, y; at most :data:`MOST_CELLS` rows.
    """
    from scdrugmap.errors import DataError
    from scdrugmap.tables import read_table, write_table

    frame = cohort.design.frame
    recipe = {"map": 1, "content": cohort.content, "method": map_method(len(frame))}
    path = cache / f"map-{hash_json(recipe)}.tsv.gz"
    numbers = {"x": "float64", "y": "float64"}
    columns = ("dataset", "cell", "label", "group", "x", "y")
    if path.is_file():
        try:
            return read_table(path, columns, numbers)
        except DataError:
            path.unlink()
    table = _draw(frame)
    rows = _expression(table, sources)
    table[["x", "y"]] = np.round(_project(rows), 4)
    table = table[list(columns)]
    write_table(table, path)
    return table


def _draw(frame: pd.DataFrame) -> pd.DataFrame:
    from scdrugmap.evaluation.groups import connect_cells

    table = frame[["dataset", "cell", "label"]].assign(group=connect_cells(frame))
    if len(table) > MOST_CELLS:
        keep = np.random.default_rng(_SEED).choice(len(table), MOST_CELLS, replace=False)
        table = table.iloc[np.sort(keep)]
    return table.reset_index(drop=True)


def _expression(table: pd.DataFrame, sources: list[Cells]) -> np.ndarray:
    """Return variable genes of the cells, log-normalised ((n, G) float32, G <= 2,000)."""
    from scipy.sparse import csr_matrix, vstack

    common = sources[0].genes.identity().astype(str)
    for cells in sources[1:]:
        common = common[np.isin(common, cells.genes.identity().astype(str))]
    parts, places = [], []
    for cells in sources:
        own = np.flatnonzero((table["dataset"] == cells.name).to_numpy())
        index = pd.Index(cells.names).get_indexer(pd.Index(table["cell"].iloc[own], dtype=object))
        column = pd.Index(cells.genes.identity().astype(str)).get_indexer(pd.Index(common))
        rows = cells.rows(index)[:, column]
        if cells.matrix.values == "counts":
            total = np.asarray(rows.sum(1)).ravel()
            rows = csr_matrix(rows.multiply((_TARGET_SUM / np.maximum(total, 1))[:, None]))
            rows.data = np.log1p(rows.data)
        parts.append(rows)
        places.append(own)
    joined = vstack(parts, format="csr")[np.argsort(np.concatenate(places), kind="stable")]
    mean = np.asarray(joined.mean(0)).ravel()
    variance = np.asarray(joined.multiply(joined).mean(0)).ravel() - mean**2
    chosen = np.sort(np.argsort(-variance, kind="stable")[:N_GENES])
    return np.asarray(joined[:, chosen].toarray(), np.float32)


def _project(rows: np.ndarray) -> np.ndarray:
    """Return two coordinates per row ((n, 2) float64), the same on any number of threads."""
    from scdrugmap.run.jobs import one_thread

    with one_thread():
        points = _components(rows)
        if _has_umap() and len(points) >= MIN_CELLS_FOR_UMAP:
            return _umap(points)
    return points[:, :2].astype(np.float64)


def _components(rows: np.ndarray) -> np.ndarray:
    """Return at most 30 principal components ((n, k) float32, k >= 2)."""
    from sklearn.decomposition import PCA

    n_components = min(N_COMPONENTS, *rows.shape)
    points: np.ndarray = PCA(n_components, random_state=_SEED).fit_transform(rows)
    if points.shape[1] < 2:
        points = np.column_stack([points, np.zeros(len(points))])
    return points


def _umap(points: np.ndarray) -> np.ndarray:
    """Return the map; the compiler below UMAP sets the threads of torch: call it in `one_thread`."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler below it, on every import
        from umap import UMAP

        made = UMAP(n_components=2, random_state=_SEED, n_jobs=1).fit_transform(points)
    return np.asarray(made, np.float64)


def _has_umap() -> bool:
    return importlib.util.find_spec("umap") is not None
