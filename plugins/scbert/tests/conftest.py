"""The golden data: made with the original code on random weights, see `golden/README.md`."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from scdrugmap.data.genes import Genes
from scdrugmap.model.load import LoadedModel, load_model
from scdrugmap.modelkit import Tokens

GOLDEN = Path(__file__).parent / "golden"
INPUT = GOLDEN / "input.h5ad"
CHECKPOINT = GOLDEN / "checkpoint"

Cells = tuple[csr_matrix, Genes, np.ndarray]


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """Arrays that the original code computed."""
    return dict(np.load(GOLDEN / "expected.npz"))


@pytest.fixture(scope="session")
def cells() -> Cells:
    """Rows, genes and names of the 16 golden cells, column by column as in the file."""
    adata = anndata.read_h5ad(INPUT)
    genes = Genes.from_names(list(adata.var_names), kind="symbol")
    return csr_matrix(adata.X), genes, adata.obs_names.to_numpy(object)


def original(weights: Path = CHECKPOINT, **settings: str) -> LoadedModel:
    """Load the golden checkpoint."""
    return load_model("scbert", settings=settings, weights=weights)


def encode(loaded: LoadedModel, cells: Cells) -> Tokens:
    """Bind the genes and tokenise the cells."""
    rows, genes, names = cells
    loaded.model.tokenizer.bind(genes)
    return loaded.model.tokenizer.encode(rows, names)


def embed(loaded: LoadedModel, cells: Cells) -> np.ndarray:
    """Send all cells through the network as one batch."""
    with torch.inference_mode():
        return loaded.model.module(loaded.model.collate(encode(loaded, cells))).numpy()
