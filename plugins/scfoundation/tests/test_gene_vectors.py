"""Vectors of genes, as a second output of embedding."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scdrugmap.data.cells import open_cells
from scdrugmap.errors import DataError, PluginError, UsageError
from scdrugmap.model.embed_file import ModelRequest, embed_file
from scdrugmap.model.gene_embedding import embed_genes
from scdrugmap.model.load import load_model
from scdrugmap.testing import Cells, encode

from .conftest import CHECKPOINT, INPUT, original

Golden = dict[str, np.ndarray]


def with_groups(path: Path) -> Path:
    adata = anndata.read_h5ad(INPUT)
    adata = adata[:4].copy()
    adata.obs["state"] = ["a", "b", "a", None]
    adata.write_h5ad(path)
    return path


def test_means_over_groups_are_those_of_the_original(golden: Golden, tmp_path: Path) -> None:
    with open_cells(with_groups(tmp_path / "four.h5ad")) as cells:
        found = embed_genes(cells, original(model="gene"), by="state", device="cpu", quiet=True)
    expected = golden["gene_t4_first4"]
    np.testing.assert_allclose(found.values[0], expected[[0, 2]].mean(0), rtol=0, atol=5e-6)
    np.testing.assert_allclose(found.values[1], expected[1], rtol=0, atol=5e-6)
    assert found.groups == ("a", "b")
    assert found.n_cells.tolist() == [2, 1]
    assert found.record["n_without_group"] == 1


def test_embed_writes_cells_and_genes(golden: Golden, tmp_path: Path) -> None:
    source, target = with_groups(tmp_path / "four.h5ad"), tmp_path / "genes.h5ad"
    request = ModelRequest("scfoundation", {"model": "gene"}, str(CHECKPOINT))
    embed_file(source, [request], tmp_path / "cells.h5ad", genes=target, quiet=True)
    genes = anndata.read_h5ad(target)
    expected = golden["gene_t4_first4"].mean(0)
    np.testing.assert_allclose(genes.obsm["X_scfoundation"], expected, rtol=0, atol=5e-6)
    lines = (CHECKPOINT / "OS_scRNA_gene_index.19264.tsv").read_text().splitlines()[1:]
    assert genes.obs["gene"].tolist() == [line.split("\t")[0] for line in lines]
    record = json.loads(genes.uns["scdrugmap"]["genes_scfoundation"])
    assert record["n_cells"] == 4
    assert anndata.read_h5ad(tmp_path / "cells.h5ad").obsm["X_scfoundation"].shape == (4, 128)


def test_other_networks_give_no_vectors_of_genes(tmp_path: Path) -> None:
    with (
        open_cells(INPUT) as cells,
        pytest.raises(UsageError, match="no vectors of genes with these options"),
    ):
        embed_genes(cells, original(), quiet=True)
    with (
        open_cells(INPUT) as cells,
        pytest.raises(PluginError, match="randproj cannot embed-genes"),
    ):
        embed_genes(cells, load_model("randproj"), quiet=True)


def test_a_column_that_is_missing_is_named(tmp_path: Path) -> None:
    with open_cells(INPUT) as cells, pytest.raises(UsageError, match="'response'"):
        embed_genes(cells, original(model="gene"), by="response", quiet=True)


def test_cells_without_a_known_gene_give_an_error(tmp_path: Path) -> None:
    adata = anndata.read_h5ad(INPUT)
    known = set(original().model.tokenizer.genes)
    kept = np.array([name in known for name in adata.var_names])
    adata.X = csr_matrix(adata.X.toarray() * ~kept)
    adata.write_h5ad(tmp_path / "empty.h5ad")
    with (
        open_cells(tmp_path / "empty.h5ad") as cells,
        pytest.raises(DataError, match="no cell has a gene"),
    ):
        embed_genes(cells, original(model="gene"), quiet=True)


def test_random_weights_give_a_vector_for_every_gene(cells: Cells) -> None:
    loaded = load_model(
        "scfoundation", settings={"variant": "tiny", "model": "gene"}, weights="random"
    )
    batch = loaded.model.collate(encode(loaded, cells).take(np.arange(1)))
    assert loaded.model.gene_module is not None
    values = loaded.model.gene_module(batch)
    assert values.shape == (1, len(loaded.model.gene_names), 24)
