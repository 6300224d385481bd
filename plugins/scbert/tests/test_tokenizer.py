"""Levels of expression, and which genes count."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scdrugmap.data.genes import Genes
from scdrugmap.modelkit import Tokens, synthetic_vocabulary
from scdrugmap_plugin_scbert.tokenizer import Tokenizer

NAMES = synthetic_vocabulary("symbol")[:6]


def tokenise(rows: list[list[float]], genes: tuple[str, ...] = NAMES) -> Tokens:
    tokenizer = Tokenizer({name: place for place, name in enumerate(NAMES)})
    tokenizer.bind(Genes.from_names(list(genes), kind="symbol"))
    matrix = csr_matrix(np.array(rows, np.float32).reshape(-1, len(genes)))
    return tokenizer.encode(matrix, np.array([f"cell {n}" for n in range(len(rows))], object))


@pytest.mark.parametrize(
    ("count", "level"),
    [(0, 0), (0.99, 0), (1, 1), (2.99, 1), (3, 2), (6.99, 2), (7, 3), (15, 4), (31, 5), (900, 5)],
)
def test_levels_begin_at_powers_of_two_of_the_scaled_counts(count: float, level: int) -> None:
    tokens = tokenise([[count, 10_000 - count, 0, 0, 0, 0]])
    assert tokens.flat["level"].tolist() == [level, 5, 0, 0, 0, 0, 0]


def test_genes_come_in_the_order_of_the_list_and_a_closing_token_behind() -> None:
    tokens = tokenise([[9000, 1, 2, 3, 7, 15]], NAMES[::-1])
    assert tokens.flat["level"].tolist() == [4, 3, 2, 1, 1, 5, 0]
    assert tokens.flat["column"].tolist() == [5, 4, 3, 2, 1, 0, -1]


def test_a_gene_that_the_file_lacks_is_not_expressed() -> None:
    tokens = tokenise([[5, 5]], (NAMES[3], NAMES[1]))
    assert tokens.flat["level"].tolist() == [0, 5, 0, 5, 0, 0, 0]
    assert tokens.flat["column"].tolist() == [-1, 1, -1, 0, -1, -1, -1]


def test_genes_outside_the_list_do_not_count() -> None:
    row = [9000, 1, 2, 3, 7, 15]
    with_unknown = tokenise([[*row, 10**6]], (*NAMES, "NO-GENE"))
    assert with_unknown.flat["level"].tolist() == tokenise([row]).flat["level"].tolist()


def test_cell_without_known_genes_is_marked_unusable() -> None:
    tokens = tokenise([[0] * 6, [1] * 6, [0] * 6])
    assert tokens.usable.tolist() == [False, True, False]
    assert tokens.lengths.tolist() == [7, 7, 7]


def test_no_cells_give_no_tokens() -> None:
    assert tokenise([]).start.tolist() == [0]
