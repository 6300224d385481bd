"""Tests of what estimators read: normalised values, the shared gene list, variable genes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scdrugmap.baselines.expression import GeneSpace, highly_variable
from scdrugmap.data.genes import Genes

NAMES = ["TP53", "EGFR", "KRAS", "MYC"]


def genes(names: list[str]) -> Genes:
    return Genes.from_names(names)


def counts(values: list[list[float]]) -> csr_matrix:
    return csr_matrix(np.array(values, np.float32))


def everything(space: GeneSpace) -> np.ndarray:
    return np.arange(len(space.names))


def test_counts_are_scaled_to_ten_thousand_and_logged() -> None:
    rows = counts([[1, 3, 0, 0], [0, 0, 5, 5]])
    space = GeneSpace.learn(rows, genes(NAMES), "counts")
    got, present, usable = space.lognorm(rows, genes(NAMES), "counts", everything(space))
    expected = np.log1p(np.array([[2500, 7500, 0, 0], [0, 0, 5000, 5000]]))
    np.testing.assert_allclose(got.toarray(), expected, rtol=1e-6)
    assert present.all()
    assert usable.all()


def test_lognormalised_values_are_taken_as_they_are() -> None:
    rows = counts([[1.5, 0, 2.5, 0]])
    space = GeneSpace.learn(rows, genes(NAMES), "lognorm")
    got, _, _ = space.lognorm(rows, genes(NAMES), "lognorm", everything(space))
    np.testing.assert_array_equal(got.toarray(), rows.toarray())


def test_order_of_genes_and_unrelated_genes_change_nothing() -> None:
    rows = counts([[1, 3, 0, 2], [4, 0, 5, 5]])
    space = GeneSpace.learn(rows, genes(NAMES), "counts")
    other = counts([[90, 2, 0, 3, 1], [80, 5, 5, 0, 4]])
    shuffled = genes(["BRAF", "MYC", "KRAS", "EGFR", "TP53"])
    first, _, _ = space.lognorm(rows, genes(NAMES), "counts", everything(space))
    second, _, _ = space.lognorm(other, shuffled, "counts", everything(space))
    np.testing.assert_array_equal(first.toarray(), second.toarray())


def test_genes_are_found_under_ensembl_ids_too() -> None:
    rows = counts([[1, 3, 0, 2]])
    space = GeneSpace.learn(rows, genes(NAMES), "counts")
    by_id = Genes.from_names(list(genes(NAMES).ensembl), kind="ensembl")
    assert (space.columns(by_id) == np.arange(4)).all()


def test_total_of_a_file_that_lacks_genes_is_scaled_up() -> None:
    rows = counts([[10, 30, 30, 30]])
    space = GeneSpace.learn(rows, genes(NAMES), "counts")
    short = counts([[10, 30, 30]])
    got, present, _ = space.lognorm(short, genes(NAMES[:3]), "counts", everything(space))
    np.testing.assert_allclose(got.toarray()[0, :3], np.log1p([1000, 3000, 3000]), rtol=1e-5)
    assert present.tolist() == [True, True, True, False]


def test_cell_without_any_gene_of_the_list_is_not_usable() -> None:
    space = GeneSpace.learn(counts([[1, 3, 0, 2]]), genes(NAMES), "counts")
    rows = counts([[7, 0], [0, 2]])
    _, _, usable = space.lognorm(rows, genes(["BRAF", "TP53"]), "counts", everything(space))
    assert usable.tolist() == [False, True]


def test_gene_space_comes_back_from_its_state() -> None:
    space = GeneSpace.learn(counts([[1, 3, 0, 2]]), genes(NAMES), "counts")
    again = GeneSpace.restored(space.state())
    assert again.names.tolist() == space.names.tolist()
    np.testing.assert_allclose(again.share, space.share, rtol=1e-6)


def test_damaged_gene_space_is_refused() -> None:
    with pytest.raises(ValueError, match="4 genes but 3 shares"):
        GeneSpace.restored({"space_names": np.array(NAMES), "space_share": np.ones(3)})


def lognorm_cells(seed: int = 0, n_genes: int = 300, n_variable: int = 5) -> csr_matrix:
    random = np.random.default_rng(seed)
    rate = np.tile(random.uniform(1.0, 4.0, n_genes), (300, 1))
    high = np.linspace(2.5, 7.5, n_variable)  # means apart, so that bins hold few of them
    rate[:, :n_variable] = np.where(random.random((300, n_variable)) < 0.5, 0.2, high)
    return csr_matrix(np.log1p(random.poisson(rate)).astype(np.float32))


def test_genes_that_vary_more_than_others_of_their_mean_are_chosen() -> None:
    chosen = highly_variable([lognorm_cells()], 10)
    assert set(range(5)) <= set(chosen.tolist())


def test_choice_does_not_depend_on_the_borders_of_blocks() -> None:
    rows = lognorm_cells()
    parts = [rows[:7], rows[7:150], rows[150:]]
    assert highly_variable(parts, 12).tolist() == highly_variable([rows], 12).tolist()


def test_constant_genes_are_never_chosen() -> None:
    rows = np.tile(np.array([1.0, 2.0, 0.0], np.float32), (20, 1))
    assert len(highly_variable([csr_matrix(rows)], 3)) == 0
    rows[3, 1] = 0.5
    assert highly_variable([csr_matrix(rows)], 3).tolist() == [1]


def test_gene_of_a_few_cells_is_chosen_after_the_others() -> None:
    rows = lognorm_cells().toarray()
    rows[:, 0] = 0
    rows[0, 0] = 8.0  # enormous variance, one cell
    chosen = highly_variable([csr_matrix(rows)], 299)
    assert 0 not in chosen
    assert 0 in highly_variable([csr_matrix(rows)], 300)
