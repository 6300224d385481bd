"""Ranking the genes of a cell."""

from __future__ import annotations

import numpy as np
import pytest

from scdrugmap.modelkit import Genes, NamedGenes, rank_tokens
from scdrugmap.modelkit.ranking import shown_names


def test_largest_values_come_first_and_equal_ones_by_id() -> None:
    values = np.array([1, 3, 1, 7, 3], np.float32)
    ids = np.array([50, 40, 10, 30, 20], np.int32)
    assert rank_tokens(values, ids, 9).tolist() == [3, 4, 1, 2, 0]


@pytest.mark.parametrize("most", [1, 2, 3, 17, 199, 200, 201, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cut_lists_are_the_start_of_the_sorted_list(most: int, dtype: type) -> None:
    random = np.random.default_rng(most)
    values: np.ndarray = random.poisson(1.5, 200).astype(dtype)
    ids = random.permutation(200)
    expected = sorted(range(200), key=lambda at: (-values[at], ids[at]))
    assert rank_tokens(values, ids, most).tolist() == expected[:most]


def test_order_of_the_columns_changes_nothing() -> None:
    random = np.random.default_rng(0)
    values, ids = random.poisson(1.5, 300).astype(np.float32), random.permutation(300)
    order = random.permutation(300)
    plain = ids[rank_tokens(values, ids, 60)]
    shuffled = ids[order][rank_tokens(values[order], ids[order], 60)]
    np.testing.assert_array_equal(plain, shuffled)


def test_cell_without_values_gives_an_empty_list() -> None:
    assert rank_tokens(np.empty(0, np.float32), np.empty(0, np.int64), 5).tolist() == []


def test_genes_are_shown_by_their_name_in_the_file_or_their_symbol() -> None:
    genes = Genes.from_names(["TP53", "ENSG00000141736", "SEPT7", "NO-GENE", "ENSG00000999999"])
    assert shown_names(genes).tolist() == ["TP53", "ERBB2", "SEPT7", "", ""]


def test_equal_counts_are_ordered_by_name_whatever_the_columns() -> None:
    names = ["TP53", "EGFR", "ACTB", "KRAS", "NO-GENE"]
    counts = np.array([2, 5, 2, 2, 9], np.float32)
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0]):
        named = NamedGenes(Genes.from_names([names[i] for i in order]))
        ranked = named.rank(np.arange(5), counts[order], 3)
        assert named.names[ranked].tolist() == ["EGFR", "ACTB", "KRAS"]
        assert named.column[ranked].tolist() == [order.index(i) for i in (1, 2, 3)]


def test_columns_shown_by_one_name_are_summed() -> None:
    genes = Genes.from_names(["TP53", "EGFR", "TP53"], kind="symbol")
    named = NamedGenes(genes)
    ranked = named.rank(np.array([0, 1, 2]), np.array([2, 3, 2], np.float32), 5)
    assert named.names[ranked].tolist() == ["TP53", "EGFR"]
    assert named.column[ranked].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("kind", "left"),
    [
        ("mitochondrial", ["MALAT1", "RPL3", "RPLP0", "RPS6KA1"]),
        ("ribosomal", ["MALAT1", "MT-CO1", "RPS6KA1"]),
        ("malat1", ["MT-CO1", "RPL3", "RPLP0", "RPS6KA1"]),
    ],
)
def test_kinds_of_genes_can_be_left_out(kind: str, left: list[str]) -> None:
    names = ["MALAT1", "MT-CO1", "RPL3", "RPLP0", "RPS6KA1"]
    assert NamedGenes(Genes.from_names(names), [kind]).names.tolist() == left
