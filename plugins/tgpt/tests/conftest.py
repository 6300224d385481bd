"""The golden data: made with the original code on random weights, see `golden/README.md`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scdrugmap.data.cells import open_cells
from scdrugmap.data.genes import Genes
from scdrugmap.model.load import LoadedModel, load_model
from scdrugmap.modelkit import Tokens

GOLDEN = Path(__file__).parent / "golden"
CHECKPOINT = GOLDEN / "transcriptome-gpt-1024-8-16-64"


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """Arrays that the original code computed."""
    return dict(np.load(GOLDEN / "expected.npz"))


@pytest.fixture(scope="session")
def cells() -> tuple[csr_matrix, Genes, np.ndarray]:
    """Rows, genes and names of the 16 golden cells, as the core reads them."""
    with open_cells(GOLDEN / "input.h5ad") as opened:
        return opened.rows(np.arange(opened.n_cells)), opened.genes, opened.names


def original(**settings: str) -> LoadedModel:
    """Load the golden checkpoint."""
    return load_model("tgpt", settings=settings, weights=CHECKPOINT)


def encode(loaded: LoadedModel, cells: tuple[csr_matrix, Genes, np.ndarray]) -> Tokens:
    """Bind the genes and tokenise the cells."""
    rows, genes, names = cells
    loaded.model.tokenizer.bind(genes)
    return loaded.model.tokenizer.encode(rows, names)
