"""The golden data: made with the original code on random weights, see `golden/README.md`."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scdrugmap.data.genes import Genes
from scdrugmap.model.load import LoadedModel, load_model
from scdrugmap.modelkit import Tokens

GOLDEN = Path(__file__).parent / "golden"
FOLDER = GOLDEN / "model_files"
SIZES = {"nhead": "4", "sample_size": "64", "pad_length": "160"}


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """Arrays that the original code computed."""
    return dict(np.load(GOLDEN / "expected.npz"))


@pytest.fixture(scope="session")
def cells() -> tuple[csr_matrix, Genes, np.ndarray]:
    """Rows, genes and names of the 16 golden cells, column by column as in the file.

    The core joins two pairs of columns, an old and a new name of one gene; the original does not.
    """
    adata = anndata.read_h5ad(GOLDEN / "input.h5ad")
    genes = Genes.from_names(list(adata.var_names), kind="symbol")
    return csr_matrix(adata.X), genes, adata.obs_names.to_numpy(object)


def original(weights: Path = FOLDER, **settings: str) -> LoadedModel:
    """Load the golden checkpoint with the original's sizes."""
    return load_model("uce", settings={**SIZES, **settings}, weights=weights)


def encode(loaded: LoadedModel, cells: tuple[csr_matrix, Genes, np.ndarray]) -> Tokens:
    """Bind the genes and tokenise the cells."""
    rows, genes, names = cells
    loaded.model.tokenizer.bind(genes)
    return loaded.model.tokenizer.encode(rows, names)
