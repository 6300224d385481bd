"""The golden data: made with the original code on random weights, see `golden/README.md`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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
def cells() -> Cells:
    """The 16 golden cells, column by column as in the file."""
    return read_cells(INPUT)


def original(weights: Path = CHECKPOINT, **settings: str) -> LoadedModel:
    """Load the golden checkpoint."""
    return load_model("scfoundation", settings=settings, weights=weights)
