"""The golden data: made with transformers on random weights, see `golden/README.md`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from scdrugmap.data.cells import open_cells
from scdrugmap.data.genes import Genes
from scdrugmap.model.load import LoadedModel, load_model
from scdrugmap.modelkit import NamedGenes, Tokens
from scdrugmap.text.contract import Question

GOLDEN = Path(__file__).parent / "golden"
CHECKPOINT = GOLDEN / "Meta-Llama-3-8B"
INPUT = GOLDEN / "input.h5ad"

# The golden texts are shorter than the packaged templates' defaults.
SETTINGS = {"top_k": "100", "max_tokens": "256", "question_top_k": "20"}

Cells = tuple[csr_matrix, Genes, np.ndarray]


def load(folder: Path = CHECKPOINT, **settings: str) -> LoadedModel:
    """Load the golden checkpoint."""
    return load_model("llama3", settings={**SETTINGS, **settings}, weights=folder)


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """Arrays that transformers computed."""
    return dict(np.load(GOLDEN / "expected.npz"))


@pytest.fixture(scope="session")
def loaded() -> LoadedModel:
    """The golden checkpoint with default options; nobody changes it."""
    return load()


@pytest.fixture(scope="session")
def cells() -> Cells:
    """Rows, genes and names of the 16 golden cells, as the core reads them."""
    with open_cells(INPUT) as opened:
        return opened.rows(np.arange(opened.n_cells)), opened.genes, opened.names


@pytest.fixture(scope="session")
def questions(cells: Cells) -> list[Question]:
    """The golden cells as questions of 20 genes."""
    rows, genes, names = cells
    named = NamedGenes(genes)
    found = []
    for cell, name in enumerate(names):
        row = slice(rows.indptr[cell], rows.indptr[cell + 1])
        ranked = named.rank(rows.indices[row], rows.data[row], 20)
        found.append(Question(str(name), tuple(named.names[ranked])))
    return found


def encode(loaded: LoadedModel, cells: Cells) -> Tokens:
    """Bind the genes and tokenise the cells."""
    rows, genes, names = cells
    loaded.model.tokenizer.bind(genes)
    return loaded.model.tokenizer.encode(rows, names)


def embed(loaded: LoadedModel, cells: Cells) -> np.ndarray:
    """Send all cells through the network as one padded batch."""
    with torch.inference_mode():
        return loaded.model.module(loaded.model.collate(encode(loaded, cells))).numpy()
