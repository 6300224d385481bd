"""Reading the genes of a cell."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scdrugmap.data.genes import Genes
from scdrugmap.modelkit import synthetic_vocabulary
from scdrugmap_plugin_cellplm.tokenizer import Tokenizer, gumbel

NAMES = synthetic_vocabulary("ensembl")[:6]
VOCABULARY = {name: row for row, name in enumerate(NAMES[:4])}
ROWS = csr_matrix(
    np.array([[5, 0, 3, 0, 9, 1], [0, 0, 0, 0, 7, 2], [0, 1, 1, 1, 0, 0]], np.float32)
)
CELLS = np.array(["a", "b", "c"], object)


def tokenizer(
    names: tuple[str, ...] = NAMES, *, max_genes: int | None = None, n_draws: int = 0, seed: int = 0
) -> Tokenizer:
    made = Tokenizer(VOCABULARY, max_genes, n_draws, seed)
    made.bind(Genes.from_names(list(names), kind="ensembl"))
    return made


def test_tokens_are_known_genes_with_log_counts() -> None:
    tokens = tokenizer().encode(ROWS, CELLS)
    assert tokens.start.tolist() == [0, 2, 2, 5]
    assert tokens.flat["id"].tolist() == [0, 2, 1, 2, 3]
    assert tokens.flat["column"].tolist() == [0, 2, 1, 2, 3]
    np.testing.assert_allclose(tokens.flat["value"], np.log([6, 4, 2, 2, 2]), rtol=1e-6)
    assert tokens.usable.tolist() == [True, False, True]
    assert "noise" not in tokens.cell


def test_ids_follow_the_vocabulary_whatever_the_order_of_the_file() -> None:
    tokens = tokenizer(NAMES[::-1]).encode(ROWS, CELLS)
    assert tokens.flat["id"].tolist() == [3, 1, 0, 1, 0, 3, 2]


def test_versions_of_ids_and_symbols_are_understood() -> None:
    genes = Genes.from_names([f"{NAMES[0]}.7", *NAMES[1:]], kind="ensembl")
    assert Tokenizer(VOCABULARY, None, 0, 0).bind(genes).n_matched == 4
    symbols = Genes.from_names(list(synthetic_vocabulary("symbol")[:200]), kind="symbol")
    known = {name: row for row, name in enumerate(symbols.ensembl) if name}
    assert Tokenizer(known, None, 0, 0).bind(symbols).n_matched == len(known) > 100


def test_max_genes_keeps_the_first_known_columns_of_the_file() -> None:
    limited = tokenizer((*NAMES[4:], *NAMES[:4]), max_genes=2)
    tokens = limited.encode(ROWS, CELLS)
    assert tokens.flat["id"].tolist() == [0, 0, 1]
    assert tokens.flat["column"].tolist() == [2, 2, 3]
    assert tokens.usable.tolist() == [True, False, True]
    genes = Genes.from_names(list(NAMES), kind="ensembl")
    assert (
        limited.bind(genes).n_matched == 4
    )  # what the model knows is one thing, what it reads another


def test_noise_depends_on_seed_cell_and_draw_alone() -> None:
    made = tokenizer(n_draws=5)
    noise = made.encode(ROWS, CELLS).cell["noise"]
    assert noise.shape == (3, 5)
    assert noise.dtype == np.float32
    np.testing.assert_array_equal(
        made.encode(ROWS[[2, 0]], CELLS[[2, 0]]).cell["noise"], noise[[2, 0]]
    )
    for other in (
        made.encode(ROWS, CELLS, draw=1),
        tokenizer(n_draws=5, seed=1).encode(ROWS, CELLS),
    ):
        assert not np.isclose(other.cell["noise"], noise).any()


def test_largest_of_noisy_logits_is_a_draw_from_their_softmax() -> None:
    made = tokenizer(n_draws=3)
    cells = np.array([f"cell {number}" for number in range(20_000)], object)
    noise = made.encode(csr_matrix((len(cells), len(NAMES)), dtype=np.float32), cells).cell["noise"]
    probabilities = np.array([0.6, 0.3, 0.1])
    drawn = np.bincount((np.log(probabilities) + noise).argmax(1)) / len(cells)
    np.testing.assert_allclose(drawn, probabilities, atol=0.015)


@pytest.mark.parametrize("uniform", [0.0, 1.0])
def test_noise_of_the_ends_is_finite(uniform: float) -> None:
    assert np.isfinite(gumbel(np.array([uniform]))).all()
