"""The embeddings of a benchmark: one file per network, made once and mapped into memory by all jobs.

::

    jobs/cells.tsv.gz             which cell stands in which row
    jobs/embeddings-KEY.npy       (n, D) float32, NaN for cells without a gene that the model knows

Jobs take rows out of it whatever the split, the fold, the head or the seed, in any process; neither
the files of cells are read for it again, nor is anything hashed. The parts of the store outlive the
run; these files are removed when it is finished.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdrugmap.errors import DataError
from scdrugmap.files import atomic_path, check_room, remove, reserve
from scdrugmap.model.batching import NO_KNOWN_GENES
from scdrugmap.system_errors import resource_error
from scdrugmap.tables import read_table, write_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scdrugmap.data.cells import Cells
    from scdrugmap.model.job import EmbeddingJob
    from scdrugmap.train.frozen import EmbeddingRows

CELLS_FILE = "cells.tsv.gz"
_COLUMNS = ("dataset", "cell")


class CellRows:
    """Which cell of a benchmark stands in which row.

    Parameters
    ----------
    frame : DataFrame
        ``dataset`` and ``cell``; the rows in their order.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.n_cells = len(frame)
        self._rows = {
            str(name): pd.Series(np.asarray(rows), index=pd.Index(frame["cell"].iloc[rows]))
            for name, rows in frame.groupby("dataset", sort=False).indices.items()
        }

    @classmethod
    def read(cls, folder: Path) -> CellRows:
        """Read what :meth:`write` wrote."""
        return cls(read_table(folder / CELLS_FILE, _COLUMNS, {}))

    @staticmethod
    def write(frame: pd.DataFrame, folder: Path) -> None:
        """Write names and order of cells."""
        write_table(frame[list(_COLUMNS)], folder / CELLS_FILE)

    def find(self, dataset: str, names: np.ndarray) -> np.ndarray:
        """Return the row of each cell ((n,) int64).

        Raises
        ------
        DataError
            A cell does not take part in the benchmark.
        """
        known = self._rows.get(dataset)
        rows = (
            np.full(len(names), -1)
            if known is None
            else known.index.get_indexer(pd.Index(names, dtype=object))
        )
        if (rows < 0).any():
            missing = names[int((rows < 0).argmax())]
            raise DataError(f"cell {missing!r} of {dataset} takes no part in this benchmark")
        return known.to_numpy()[rows].astype(np.int64) if known is not None else rows


class MappedEmbeddings:
    """Embeddings of all cells of a benchmark, read row by row from one file.

    Parameters
    ----------
    path : Path
    rows : CellRows

    Raises
    ------
    DataError
        The file is none of embeddings, or of another number of cells.
    """

    def __init__(self, path: Path, rows: CellRows) -> None:
        hint = "give what `scdrugmap step join` wrote for this plan"
        try:
            self.values = np.lib.format.open_memmap(path, mode="r")
        except (EOFError, OSError, ValueError) as err:
            damaged = DataError(f"{path} is no file of embeddings: {err}", hint=hint)
            raise (resource_error(err, path) or damaged) from err
        shape, dtype = self.values.shape, self.values.dtype
        if len(shape) != 2 or shape[0] != rows.n_cells or dtype != np.float32:
            raise DataError(
                f"{path} is no file of embeddings of {rows.n_cells:,} cells: shape {shape}, "
                f"{dtype}, expected float32",
                hint=hint,
            )
        self._rows = rows

    def of(self, cells: Cells, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return embeddings and status of cells of a file.

        Parameters
        ----------
        cells : Cells
        index : (n,) int64

        Returns
        -------
        values : (n, D) float32
        status : (n,) object str
            ``""`` or ``no_known_genes``.
        """
        values = self.values[self._rows.find(cells.name, cells.names[index])]
        status = np.where(np.isnan(values[:, :1]).any(1), NO_KNOWN_GENES, "").astype(object)
        return values, status


def path_of(folder: Path, key: str) -> Path:
    """Return where the embeddings of a network are."""
    return folder / f"embeddings-{key}.npy"


def write_embeddings(path: Path, jobs: Sequence[EmbeddingJob], rows: CellRows, dim: int) -> None:
    """Embed the cells of all files into one file, holding one part at a time.

    Parameters
    ----------
    path : Path
    jobs : sequence of EmbeddingJob
        One per file, of the cells that take part.
    rows : CellRows
    dim : int
        Width of the embedding.
    """
    n_bytes = 4 * dim * rows.n_cells
    check_room(path, n_bytes)
    with atomic_path(path, n_bytes=n_bytes) as target:
        values = np.lib.format.open_memmap(
            target, mode="w+", dtype=np.float32, shape=(rows.n_cells, dim)
        )
        reserve(target)
        for job in jobs:
            names = job.cells.names
            for part in job.run(job.plan()):
                values[rows.find(job.cells.name, names[part.index])] = part.values
        values.flush()
        del values


def remove_embeddings(folder: Path) -> None:
    """Remove the files of a finished run; the store has their parts."""
    for path in (*folder.glob("embeddings-*.npy"), folder / CELLS_FILE):
        remove(path)


if TYPE_CHECKING:
    _is_source: type[EmbeddingRows] = MappedEmbeddings
