"""A small valid h5ad, made by code, that each test breaks in one place; and how it must end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scdrugmap.data.cells import Cells, open_cells
from scdrugmap.data.gene_table import gene_table
from scdrugmap.errors import ScDrugMapError

N_CELLS, N_GENES = 20, 30


class Maker:
    """Writes h5ad files into a folder, element by element, without anndata."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def genes(n: int = N_GENES) -> list[str]:
        return list(gene_table().names("symbol")[:n])

    @staticmethod
    def counts(n_cells: int = N_CELLS, n_genes: int = N_GENES) -> np.ndarray:
        counts = np.random.default_rng(0).poisson(0.8, (n_cells, n_genes)).astype(np.float32)
        counts[:, 0] = 1 + np.arange(n_cells) % 3  # no empty cell, no constant matrix
        return counts

    def h5ad(self, name: str = "cells.h5ad", counts: np.ndarray | None = None, **more: Any) -> Path:
        """Write a valid file; `more` replaces elements: ``X``, ``obs``, ``var``."""
        counts = self.counts() if counts is None else counts
        path = self.folder / name
        with h5py.File(path, "w") as file:
            file.attrs["encoding-type"], file.attrs["encoding-version"] = "anndata", "0.1.0"
            self.matrix(file, "X", more.get("X", sparse.csr_matrix(counts)))
            obs = pd.DataFrame(index=[f"cell{i}" for i in range(counts.shape[0])])
            var = pd.DataFrame(index=self.genes(counts.shape[1]))
            self.frame(file, "obs", more.get("obs", obs))
            self.frame(file, "var", more.get("var", var))
            file.create_group("uns")
        return path

    @staticmethod
    def matrix(file: h5py.Group, where: str, matrix: Any) -> None:
        """Write a sparse or dense matrix as anndata does."""
        if where in file:
            del file[where]
        if not sparse.issparse(matrix):
            file[where] = matrix
            file[where].attrs["encoding-type"] = "array"
            return
        group = file.create_group(where)
        group.attrs["encoding-type"] = f"{matrix.format}_matrix"
        group.attrs["encoding-version"] = "0.1.0"
        group.attrs["shape"] = np.array(matrix.shape)
        group["data"], group["indices"] = matrix.data, matrix.indices
        group["indptr"] = matrix.indptr

    @staticmethod
    def frame(file: h5py.Group, where: str, frame: pd.DataFrame) -> None:
        """Write a table as anndata does."""
        if where in file:
            del file[where]
        group = file.create_group(where)
        group.attrs["encoding-type"], group.attrs["encoding-version"] = "dataframe", "0.2.0"
        group.attrs["_index"] = "_index"
        group.attrs["column-order"] = np.array(list(frame.columns), dtype=h5py.string_dtype())
        group.create_dataset("_index", data=list(frame.index), dtype=h5py.string_dtype())
        for column in frame:
            values = frame[column].to_numpy()
            kind = h5py.string_dtype() if values.dtype == object else None
            group.create_dataset(column, data=values, dtype=kind)

    @contextmanager
    def edit(self, path: Path | None = None) -> Iterator[h5py.File]:
        """Open a file (a fresh valid one by default) to break it."""
        with h5py.File(path or self.h5ad(), "r+") as file:
            yield file


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


@pytest.fixture
def path(make: Maker) -> Path:
    """A valid file of 20 cells and 30 genes, for a test to break."""
    return make.h5ad()


@pytest.fixture
def read() -> Iterator[Callable[..., tuple[Cells, np.ndarray]]]:
    """Open cells and read them all: gives the object and the dense values."""
    opened: list[Cells] = []

    def run(source: Any, **options: Any) -> tuple[Cells, np.ndarray]:
        cells = open_cells(source, **options)
        opened.append(cells)
        blocks = [block.rows.toarray() for block in cells.blocks(7)]
        return cells, np.concatenate(blocks)

    yield run
    for cells in opened:
        cells.close()


@pytest.fixture
def refused(cli: Callable[..., Any], read: Callable[..., Any]) -> Callable[..., ScDrugMapError]:
    """Assert that a source is refused as it should be, by the library and by ``check``.

    Class, exit code, a part of the message, a part of the hint; one line; no traceback.
    """

    def run(
        source: Any, kind: type[ScDrugMapError], message: str, hint: str, **options: Any
    ) -> ScDrugMapError:
        with pytest.raises(kind) as caught:
            read(source, **options)
        error = caught.value
        assert type(error) is kind
        assert message in error.message
        assert hint in error.hint
        assert error.hint, "an error says what to do next"
        assert "\n" not in error.message
        if not options and isinstance(source, str | Path):
            result = cli("check", source)
            assert result.code == kind.exit_code
            assert result.err.startswith("Error: ")
            assert message in " ".join(result.err.split())
            assert "Traceback" not in result.err
        return error

    return run
