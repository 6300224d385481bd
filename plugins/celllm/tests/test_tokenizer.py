"""Levels of expression, the order of genes, and the token of padding."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scdrugmap.data.genes import Genes
from scdrugmap.errors import DataError
from scdrugmap.modelkit import Tokens, synthetic_vocabulary
from scdrugmap_plugin_celllm.tokenizer import Tokenizer

NAMES = synthetic_vocabulary("symbol")[:6]
CLS, PAD = 6, 7
"""Both as levels and as positions: there are 6 genes, and 6 levels of expression."""


def tokenise(
    rows: list[list[float]],
    genes: tuple[str, ...] = NAMES,
    values: Literal["counts", "lognorm"] = "counts",
    max_seq_len: int = 10,
) -> Tokens:
    places = {name: place for place, name in enumerate(NAMES)}
    tokenizer = Tokenizer(places, 8, max_seq_len, values)
    tokenizer.bind(Genes.from_names(list(genes), kind="symbol"))
    matrix = csr_matrix(np.array(rows, np.float32).reshape(-1, len(genes)))
    return tokenizer.encode(matrix, np.array([f"cell {n}" for n in range(len(rows))], object))


def as_lists(tokens: Tokens) -> dict[str, list[int]]:
    return {name: values.tolist() for name, values in tokens.flat.items()}


def test_a_cell_is_cls_its_genes_in_the_order_of_the_list_and_its_padding() -> None:
    assert as_lists(tokenise([[5, 0, 2, 3, 0, 0]], NAMES[::-1])) == {
        "level": [CLS, 3, 2, 5, PAD],
        "gene": [CLS, 2, 3, 5, PAD],
        "count": [1, 1, 1, 1, 6],
        "column": [-1, 3, 2, 0, -1],
    }


def test_counts_above_the_highest_level_are_cut_to_it() -> None:
    assert tokenise([[1, 2, 4, 5, 6, 900]]).flat["level"][1:-1].tolist() == [1, 2, 4, 5, 5, 5]


def test_logarithms_are_cut_to_whole_levels_and_small_ones_are_level_0() -> None:
    tokens = tokenise([[0.4, 0.99, 1, 2.99, 4.7, 6.3]], values="lognorm")
    assert tokens.flat["level"][1:-1].tolist() == [0, 0, 1, 2, 4, 5]


def test_counts_are_scaled_to_ten_thousand_and_logged() -> None:
    # log(1 + 10,000 / 10,000 x) of 1, 2, 6, 7, 19 and 20 are 0.69, 1.1, 1.9, 2.1, 2.996 and 3.04.
    row = [1, 2, 6, 7, 19, 20]
    tokens = tokenise([[*row[:5], 10_000 - sum(row[:5])]], values="lognorm")
    assert tokens.flat["level"][1:-1].tolist() == [0, 1, 1, 2, 2, 5]


def test_each_cell_tells_whether_it_is_log_normalised() -> None:
    both = tokenise([[0.5, 0, 2, 1.5, 0, 0], [5, 0, 2, 3, 0, 0]], values="lognorm")
    assert both.flat["level"].tolist() == [CLS, 0, 2, 1, PAD, CLS, 5, 5, 5, PAD]


def test_fractions_where_counts_are_to_be_levels_are_an_error_that_names_the_cell() -> None:
    with pytest.raises(DataError, match="cell 1 holds fractional values") as caught:
        tokenise([[5, 0, 2, 3, 0, 0], [0.5, 0, 0, 0, 0, 0]])
    assert "input=lognorm" in str(caught.value.hint)


@pytest.mark.parametrize("values", ["counts", "lognorm"])
def test_genes_outside_the_list_do_not_count(values: Literal["counts", "lognorm"]) -> None:
    row: list[float] = [5, 0, 2, 3, 0, 9000]
    with_unknown = tokenise([[*row, 10**6]], (*NAMES, "NO-GENE"), values)
    assert as_lists(with_unknown) == as_lists(tokenise([row], values=values))


def test_a_long_cell_is_cut_behind_the_first_genes_and_has_no_padding() -> None:
    tokens = tokenise([[1, 1, 0, 2, 1, 0]], max_seq_len=4)
    assert tokens.flat["gene"].tolist() == [CLS, 0, 1, 3]
    assert tokens.flat["count"].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(("max_seq_len", "padding"), [(5, []), (6, [1]), (7, [2])])
def test_padding_is_counted(max_seq_len: int, padding: list[int]) -> None:
    tokens = tokenise([[1, 1, 0, 2, 1, 0]], max_seq_len=max_seq_len)
    assert tokens.flat["count"][tokens.flat["level"] == PAD].tolist() == padding


def test_the_scale_counts_genes_that_are_cut() -> None:
    row: list[float] = [10, 0, 0, 0, 0, 90_000]
    cut = tokenise([row], values="lognorm", max_seq_len=2)
    assert cut.flat["level"].tolist() == [CLS, 0]  # log(1 + 1.1)
    assert tokenise([row], values="lognorm").flat["level"].tolist() == [CLS, 0, 5, PAD]


def test_cell_without_known_genes_is_marked_unusable() -> None:
    tokens = tokenise([[0] * 6, [1] * 6, [0] * 6])
    assert tokens.usable.tolist() == [False, True, False]


def test_no_cells_give_no_tokens() -> None:
    assert tokenise([], values="lognorm").start.tolist() == [0]
