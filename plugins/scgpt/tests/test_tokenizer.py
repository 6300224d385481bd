"""Choosing and binning the genes of a cell."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scdrugmap.data.genes import Genes
from scdrugmap.modelkit import Tokens, synthetic_vocabulary
from scdrugmap_plugin_scgpt import Options
from scdrugmap_plugin_scgpt.tokenizer import SPECIALS, Tokenizer, bin_values

NAMES = synthetic_vocabulary("symbol")[:400]
VOCABULARY = {name: token for token, name in enumerate((*NAMES, *SPECIALS))}
CLS = VOCABULARY["<cls>"]


def random_cells(n_cells: int = 6, seed: int = 0) -> csr_matrix:
    random = np.random.default_rng(seed)
    counts = random.poisson(random.gamma(0.5, 4.0, (1, len(NAMES))), (n_cells, len(NAMES)))
    return csr_matrix(counts.astype(np.float32))


def names(n_cells: int) -> np.ndarray:
    return np.array([f"cell {number}" for number in range(n_cells)], object)


def tokenise(
    rows: csr_matrix,
    *,
    genes: tuple[str, ...] = NAMES,
    cells: np.ndarray | None = None,
    seed: int = 0,
    draw: int = 0,
    **options: object,
) -> Tokens:
    tokenizer = Tokenizer(VOCABULARY, -2.0, Options.model_validate(options), seed)
    tokenizer.bind(Genes.from_names(list(genes), kind="symbol"))
    return tokenizer.encode(rows, names(rows.shape[0]) if cells is None else cells, draw)


def as_dicts(tokens: Tokens) -> list[dict[int, float]]:
    """Token id to bin, per cell."""
    bounds = zip(tokens.start[:-1], tokens.start[1:], strict=True)
    return [
        dict(zip(tokens.flat["id"][a:b].tolist(), tokens.flat["value"][a:b].tolist(), strict=True))
        for a, b in bounds
    ]


def original_bins(values: np.ndarray, draw: float) -> np.ndarray:
    """The rule of the specification, with NumPy's own quantiles."""
    edges = np.quantile(values, np.linspace(0, 1, 50))
    below = np.digitize(values, edges, right=True)
    upto = np.digitize(values, edges)
    return np.ceil(draw * (below - upto) + upto)


KINDS = {
    "counts": lambda random, n: random.poisson(2, n) + 1,
    "large counts": lambda random, n: random.integers(1, 10**6, n),
    "values beyond integers": lambda random, n: random.integers(1, 9, n) * 1e30,
    "logarithms of counts": lambda random, n: np.log1p((random.poisson(2, n) + 1) / 3.7),
    "continuous": lambda random, n: random.gamma(1, 3, n) + 1e-3,
    "nearly equal": lambda random, n: 1 + random.integers(0, 3, n) * 1e-7,
    "all equal": lambda random, n: np.full(n, 3.0),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 3, 49, 50, 51, 500, 3001])
def test_bins_are_those_of_numpy_quantiles(kind: str, n: int) -> None:
    random = np.random.default_rng(n)
    values = KINDS[kind](random, n).astype(np.float32)
    np.testing.assert_array_equal(bin_values(values, values), original_bins(values, 0.5))


@pytest.mark.parametrize("draw", [0.0, 0.3, 0.999])
def test_drawn_bins_follow_the_rule(draw: float) -> None:
    values = (np.random.default_rng(0).poisson(1, 700) + 1).astype(np.float32)
    found = bin_values(values, values, np.full(len(values), draw))
    np.testing.assert_array_equal(found, original_bins(values, draw))
    assert found.min() >= 1
    assert found.max() <= 50


def test_counts_and_their_logarithms_give_the_same_bins() -> None:
    rows = random_cells()
    logarithms = rows.copy()
    logarithms.data = np.log1p(rows.data)
    assert as_dicts(tokenise(rows)) == as_dicts(tokenise(logarithms))


def test_a_cell_begins_with_cls_which_has_no_bin() -> None:
    tokens = tokenise(random_cells())
    assert set(tokens.flat["id"][tokens.start[:-1]]) == {CLS}
    assert set(tokens.flat["value"][tokens.start[:-1]]) == {-2.0}
    assert set(tokens.flat["column"][tokens.start[:-1]]) == {-1}


def test_columns_name_the_genes_of_the_tokens() -> None:
    tokens = tokenise(random_cells())
    gene = tokens.flat["column"] >= 0
    shown = np.array(NAMES, object)[tokens.flat["column"][gene]]
    assert [VOCABULARY[name] for name in shown] == tokens.flat["id"][gene].tolist()


def test_cell_without_known_genes_is_marked_unusable() -> None:
    rows = random_cells()
    rows = csr_matrix(np.where(np.arange(6)[:, None] == 2, 0, rows.toarray()).astype(np.float32))
    tokens = tokenise(rows)
    assert tokens.usable.tolist() == [True, True, False, True, True, True]
    assert tokens.lengths[2] == 1


def test_no_cells_give_no_tokens() -> None:
    assert tokenise(random_cells()[:0]).n_cells == 0


def test_unknown_genes_are_left_out() -> None:
    rows = random_cells()
    genes = tuple(name if place % 3 else f"unknown{place}" for place, name in enumerate(NAMES))
    tokens = tokenise(rows, genes=genes)
    for cell, found in enumerate(as_dicts(tokens)):
        columns = rows[cell].indices
        expected = {VOCABULARY[NAMES[column]] for column in columns if column % 3}
        assert set(found) == expected | {CLS}


def test_two_columns_of_one_gene_bind_once() -> None:
    tokenizer = Tokenizer(VOCABULARY, -2.0, Options(), 0)
    coverage = tokenizer.bind(Genes.from_names(["nothing", NAMES[5], NAMES[5].lower()]))
    assert coverage.matched.tolist() == [False, True, False]
    assert coverage.n_vocabulary == len(NAMES)


@pytest.mark.parametrize("bins", ["middle", "legacy"])
def test_nothing_drawn_depends_on_the_order_of_the_columns(bins: str) -> None:
    rows = random_cells()
    order = np.random.default_rng(5).permutation(len(NAMES))
    turned = rows[:, order].tocsr()
    turned.sort_indices()
    there = tuple(NAMES[column] for column in order)
    found = as_dicts(tokenise(turned, genes=there, max_length=40, bins=bins))
    assert found == as_dicts(tokenise(rows, max_length=40, bins=bins))
    assert {len(cell) for cell in found} == {40}


@pytest.mark.parametrize("change", [{"seed": 1}, {"draw": 1}, {"cells": names(12)[6:]}])
def test_sample_depends_on_seed_draw_and_cell_name(change: dict[str, object]) -> None:
    rows = random_cells()
    assert as_dicts(tokenise(rows, max_length=40)) != as_dicts(
        tokenise(rows, max_length=40, **change)
    )


def test_sample_takes_every_gene_equally_often() -> None:
    n_cells, room = 4000, 20
    rows = csr_matrix(np.ones((n_cells, 100), np.float32))
    tokens = tokenise(rows, genes=NAMES[:100], max_length=room + 1)
    taken = np.bincount(tokens.flat["column"][tokens.flat["column"] >= 0], minlength=100)
    expected = n_cells * room / 100
    # Six standard deviations of a binomial count.
    assert abs(taken - expected).max() < 6 * np.sqrt(expected * (1 - room / 100))


def test_first_keeps_the_first_genes_of_the_file() -> None:
    rows = random_cells()
    tokens = tokenise(rows, max_length=40, overlong="first")
    for cell in range(6):
        kept = tokens.flat["column"][tokens.start[cell] + 1 : tokens.start[cell + 1]]
        np.testing.assert_array_equal(kept, rows[cell].indices[:39])


def test_cutting_does_not_change_the_bins_unless_asked() -> None:
    rows = random_cells()
    whole = as_dicts(tokenise(rows))
    for cell, found in enumerate(as_dicts(tokenise(rows, max_length=40))):
        assert found.items() <= whole[cell].items()
    before = as_dicts(tokenise(rows, max_length=40, cut="before_binning"))
    assert not all(found.items() <= whole[cell].items() for cell, found in enumerate(before))


def test_legacy_draws_are_repeatable_and_depend_on_the_seed() -> None:
    rows = random_cells()
    once, again = (as_dicts(tokenise(rows, bins="legacy")) for _ in range(2))
    assert once == again
    assert once != as_dicts(tokenise(rows, bins="legacy", seed=1))
    alone = as_dicts(tokenise(rows[3], bins="legacy", cells=names(6)[3:4]))
    assert alone[0] == once[3]


def test_legacy_draws_are_uniform() -> None:
    tokenizer = Tokenizer(VOCABULARY, -2.0, Options(), 0)
    drawn = tokenizer.draws(np.arange(100_000), np.uint64(2**63 + 5))
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts = np.bincount((drawn * 20).astype(int), minlength=20)
    assert abs(counts - 5000).max() < 5 * np.sqrt(5000)
