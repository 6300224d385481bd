"""The golden data: made with the original code on random weights, see `golden/README.md`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scdrugmap.model.load import LoadedModel, load_model
from scdrugmap.testing import Cells, read_cells

GOLDEN = Path(__file__).parent / "golden"
INPUT = GOLDEN / "input.h5ad"
CHECKPOINT = GOLDEN / "checkpoint"


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """Arrays that the original code computed."""
    return dict(np.load(GOLDEN / "expected.npz"))


@pytest.fixture(scope="session")
def counts() -> Cells:
    """The 16 golden cells, column by column as in the file."""
    return read_cells(INPUT)


@pytest.fixture(scope="session")
def lognorm(counts: Cells) -> Cells:
    """The same, each cell scaled to 10,000 over all of its genes, then its natural logarithm."""
    dense = counts.rows.toarray().astype(np.float64)
    scaled = np.log1p(dense / dense.sum(1, keepdims=True) * 1e4).astype(np.float32)
    return counts._replace(rows=csr_matrix(scaled))


@pytest.fixture(params=["counts", "lognorm"])
def given(request: pytest.FixtureRequest) -> tuple[str, Cells]:
    """Both inputs in turn: the name of the option, and the cells."""
    return request.param, request.getfixturevalue(request.param)


def original(weights: Path = CHECKPOINT, **settings: str) -> LoadedModel:
    """Load the golden checkpoint."""
    return load_model("celllm", settings=settings, weights=weights)
