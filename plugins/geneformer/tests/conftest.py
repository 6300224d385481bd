"""The golden data: made with the original code on random weights, see `golden/README.md`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from scdrugmap.data.cells import open_cells
from scdrugmap.data.genes import Genes
from scdrugmap.model.load import LoadedModel, load_model
from scdrugmap.modelkit import Tokens

GOLDEN = Path(__file__).parent / "golden"
INPUT = GOLDEN / "input.h5ad"

Cells = tuple[csr_matrix, Genes, np.ndarray]


@dataclass(frozen=True)
class Generation:
    """One of the two golden repositories."""

    name: str
    variant: str
    n_layers: int

    @property
    def repository(self) -> Path:
        """The folder as the authors ship it."""
        return GOLDEN / self.name

    @property
    def folder(self) -> Path:
        """The model's own folder."""
        return self.repository / f"Geneformer-{self.variant}"

    @cached_property
    def golden(self) -> dict[str, np.ndarray]:
        """Arrays that the original code computed."""
        return dict(np.load(self.repository / "expected.npz"))

    def load(self, **settings: str) -> LoadedModel:
        """Load the golden checkpoint."""
        settings = {"variant": self.variant, **settings}
        return load_model("geneformer", settings=settings, weights=self.repository)


V1, V2 = Generation("v1", "V1-10M", 2), Generation("v2", "V2-104M", 3)


@pytest.fixture(params=[V1, V2], ids=["V1", "V2"])
def generation(request: pytest.FixtureRequest) -> Generation:
    """Each golden repository in turn."""
    return request.param


@pytest.fixture(scope="session")
def cells() -> Cells:
    """Rows, genes and names of the 16 golden cells, as the core reads them."""
    with open_cells(INPUT) as opened:
        return opened.rows(np.arange(opened.n_cells)), opened.genes, opened.names


def encode(loaded: LoadedModel, cells: Cells) -> Tokens:
    """Bind the genes and tokenise the cells."""
    rows, genes, names = cells
    loaded.model.tokenizer.bind(genes)
    return loaded.model.tokenizer.encode(rows, names)


def embed(loaded: LoadedModel, cells: Cells) -> np.ndarray:
    """Send all cells through the network as one padded batch."""
    with torch.inference_mode():
        return loaded.model.module(loaded.model.collate(encode(loaded, cells))).numpy()
