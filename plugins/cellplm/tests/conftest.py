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
FOLDER = GOLDEN / "ckpt"
CHECKPOINTS = {"gmvae": "20230926_85M", "vae": "20231027_85M"}

Cells = tuple[csr_matrix, Genes, np.ndarray]


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """Arrays that the original code computed."""
    return dict(np.load(GOLDEN / "expected.npz"))


@pytest.fixture(scope="session")
def cells() -> Cells:
    """Rows, genes and names of the 16 golden cells; the last has only unknown genes."""
    adata = anndata.read_h5ad(GOLDEN / "input.h5ad")
    genes = Genes.from_names(list(adata.var_names), kind="ensembl")
    return csr_matrix(adata.X), genes, adata.obs_names.to_numpy(object)


@pytest.fixture(scope="session")
def samples() -> np.ndarray:
    """The sample of each golden cell: (16,) str."""
    return anndata.read_h5ad(GOLDEN / "input.h5ad").obs["batch"].to_numpy(object)


def original(latent: str, weights: Path = FOLDER, **settings: str) -> LoadedModel:
    """Load the golden checkpoint of a latent space."""
    return load_model(
        "cellplm", settings={"variant": CHECKPOINTS[latent], **settings}, weights=weights
    )


def encode(loaded: LoadedModel, cells: Cells) -> Tokens:
    """Bind the genes and tokenise the cells."""
    rows, genes, names = cells
    loaded.model.tokenizer.bind(genes)
    return loaded.model.tokenizer.encode(rows, names)
