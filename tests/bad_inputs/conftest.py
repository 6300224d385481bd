"""A small valid h5ad, made by code, that each test breaks in one place; and how it must end."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scdrugmap.data.gene_table import gene_table
from scdrugmap.errors import ScDrugMapError

from . import children

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


class Server:
    """The process of ``children.py``, and how often it was asked."""

    def __init__(self) -> None:
        threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(Path(children.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **dict.fromkeys(threads, "1")},
        )
        self.n_asked = 0

    def ask(self, request: dict[str, Any]) -> children.Ended:
        """Let a child do something; return how it ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.n_asked += 1
        pickle.dump(request, self.process.stdin)
        self.process.stdin.flush()
        return children.Ended(**pickle.load(self.process.stdout))

    def close(self) -> None:
        """End it."""
        self.process.communicate(timeout=30)


class Child:
    """Runs the command line or a function in a child with limits."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def cli(
        self,
        *arguments: object,
        folder: Path | None = None,
        limits: dict[str, int] | None = None,
        drop: Sequence[str] = (),
        **environment: str,
    ) -> children.Ended:
        """Run a command; it ends with a code that is ours, and shows no traceback."""
        variables = {**os.environ, **environment}
        ended = self.server.ask(
            {
                "arguments": [str(argument) for argument in arguments],
                "environment": {k: v for k, v in variables.items() if k not in drop},
                "folder": str(folder or Path.cwd()),
                "limits": limits or {},
            }
        )
        assert ended.code in (0, 2, 3, 4, 5, 130), ended
        assert "Traceback" not in ended.err
        return ended

    def call(self, function: str, *arguments: Any, **options: Any) -> Any:
        """Call a function of the library; give or raise what it gave or raised."""
        ended = self.server.ask(
            {
                "arguments": arguments,
                "function": function,
                "options": options,
                "environment": dict(os.environ),
                "folder": str(Path.cwd()),
            }
        )
        assert ended.code == 0, ended
        if ended.error is not None:
            raise ended.error
        return ended.value


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One process that forks a child per case."""
    running = Server()
    yield running
    running.close()


@pytest.fixture
def child(server: Server) -> Child:
    """Run something as a case: in a child of 4 GB and ten seconds of processor time."""
    return Child(server)


@pytest.fixture
def process(server: Server, run_process: Callable[..., Any]) -> Callable[..., Any]:
    """Run the command line in a process started from scratch, for what Python does at its start."""

    def run(*arguments: object, **environment: str) -> Any:
        server.n_asked += 1
        ended = run_process(*arguments, **environment)
        assert ended.code in (0, 2, 3, 4, 5, 130), ended
        assert "Traceback" not in ended.err
        return ended

    return run


@pytest.fixture(autouse=True)
def _cases_run_in_children(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Iterator[None]:
    """Note the numbers of a case in the test report, and see that a child was asked."""
    numbers = [n for mark in request.node.iter_markers("case") for n in mark.args]
    if not numbers:
        yield
        return
    for number in numbers:
        record_property("case", number)
    server = request.getfixturevalue("server")
    before = server.n_asked
    yield
    assert server.n_asked > before, "a case runs in a child"


@pytest.fixture
def read(child: Child) -> Callable[..., tuple[children.Seen, np.ndarray]]:
    """Read cells in a child: gives what was seen and the dense values."""

    def run(source: Any, **options: Any) -> tuple[children.Seen, np.ndarray]:
        seen = children.Seen(**child.call("children:read_all", source, options))
        return seen, seen.rows.toarray()

    return run


@pytest.fixture
def refused(child: Child, read: Callable[..., Any]) -> Callable[..., ScDrugMapError]:
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
            result = child.cli("check", source)
            assert result.code == kind.exit_code
            assert result.err.startswith("Error: ")
            assert message in " ".join(result.err.split())
        return error

    return run


@pytest.fixture
def refused_here(cli: Callable[..., Any]) -> Callable[..., None]:
    """Assert that ``check`` refuses a source, in this process: where a test changes its parts."""

    def run(source: Path, kind: type[ScDrugMapError], message: str, hint: str) -> None:
        result = cli("check", source)
        assert result.code == kind.exit_code
        words = " ".join(result.err.split())
        assert words.startswith("Error: ")
        assert message in words
        assert hint in words
        assert "Traceback" not in words

    return run


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark that carries the numbers of cases."""
    config.addinivalue_line("markers", "case(*numbers): a numbered bad input; see test_cases.py")
