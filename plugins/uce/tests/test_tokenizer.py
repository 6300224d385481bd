"""Sentences: what is drawn, in which order it stands, and what that depends on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scdrugmap.errors import DataError
from scdrugmap.modelkit import Genes, Tokens
from scdrugmap_plugin_uce import Options
from scdrugmap_plugin_uce.tokenizer import (
    CHROMOSOME_END,
    CLS,
    Genome,
    Tokenizer,
    draw_genes,
    sampling_weights,
)

N = 200
NAMES = tuple(f"G{number}" for number in range(N))
FIRST = 4  # token of the first gene; of the first chromosome: FIRST + N
CHROMOSOMES = np.arange(N) % 7
STARTS = np.random.default_rng(9).permutation(N)
GENOME = Genome(NAMES, CHROMOSOMES, STARTS)


def random_cells(n_cells: int = 6, mean: float = 1.0) -> csr_matrix:
    counts = np.random.default_rng(0).poisson(mean, (n_cells, N))
    return csr_matrix(counts.astype(np.float32))


def names(n_cells: int) -> np.ndarray:
    return np.array([f"cell {number}" for number in range(n_cells)], object)


def tokenise(
    rows: csr_matrix,
    *,
    genome: Genome = GENOME,
    genes: tuple[str, ...] = NAMES,
    cells: np.ndarray | None = None,
    seed: int = 0,
    draw: int = 0,
    **options: object,
) -> Tokens:
    chosen = Options.model_validate({"sample_size": 50, **options})
    tokenizer = Tokenizer(genome, chosen, seed)
    tokenizer.bind(Genes.from_names(list(genes), kind="symbol"))
    return tokenizer.encode(rows, names(rows.shape[0]) if cells is None else cells, draw)


def sentences(tokens: Tokens) -> list[list[int]]:
    ids = tokens.flat["id"]
    return [part.tolist() for part in np.split(ids, np.flatnonzero(ids == CLS))[1:]]


def drawn(sentence: list[int]) -> list[int]:
    return [token - FIRST for token in sentence if FIRST <= token < FIRST + N]


SAMPLERS = pytest.mark.parametrize("sampler", ["per_cell", "legacy"])


@SAMPLERS
def test_a_sentence_is_cls_then_chromosomes_whose_genes_stand_by_position(sampler: str) -> None:
    for sentence in sentences(tokenise(random_cells(), sampler=sampler)):
        assert sentence[0] == CLS
        assert len(drawn(sentence)) == 50
        seen = []
        rest = sentence[1:]
        while rest:
            end = rest.index(CHROMOSOME_END)
            chromosome, genes = rest[0] - FIRST - N, [token - FIRST for token in rest[1:end]]
            assert genes
            assert {CHROMOSOMES[gene] for gene in genes} == {chromosome}
            assert [STARTS[gene] for gene in genes] == sorted(STARTS[gene] for gene in genes)
            seen.append(chromosome)
            rest = rest[end + 1 :]
        assert len(set(seen)) == len(seen)


@SAMPLERS
def test_only_expressed_genes_are_drawn(sampler: str) -> None:
    rows = random_cells(mean=0.3)
    for cell, sentence in enumerate(sentences(tokenise(rows, sampler=sampler))):
        assert set(drawn(sentence)) <= set(rows[cell].indices)


@SAMPLERS
def test_genes_are_drawn_in_proportion_to_the_logarithm_of_their_counts(sampler: str) -> None:
    counts = np.zeros((300, N), np.float32)
    counts[:, :8] = np.arange(1, 9) ** 3
    tokens = tokenise(csr_matrix(counts), sampler=sampler, sample_size=200)
    column = tokens.flat["column"]
    found = np.bincount(column[column >= 0], minlength=8) / (300 * 200)
    expected = np.log1p(counts[0, :8]) / np.log1p(counts[0, :8]).sum()
    # Six standard deviations of the mean of 60,000 draws.
    assert abs(found - expected).max() < 6 * np.sqrt(0.25 / 60_000)


def test_chromosomes_stand_in_every_order_equally_often() -> None:
    counts = np.zeros((3000, N), np.float32)
    counts[:, :7] = 1
    first = [s[1] - FIRST - N for s in sentences(tokenise(csr_matrix(counts), sample_size=60))]
    found = np.bincount(first, minlength=7) / 3000
    # Six standard deviations of the mean of 3,000 draws; a missing chromosome is rarer than that.
    assert abs(found - 1 / 7).max() < 6 * np.sqrt(1 / 7 * 6 / 7 / 3000)


def test_genes_at_one_position_stand_by_token() -> None:
    genome = Genome(NAMES, np.zeros(N, np.int64), np.zeros(N, np.int64))
    for sentence in sentences(tokenise(random_cells(), genome=genome)):
        assert drawn(sentence) == sorted(drawn(sentence))


def test_genes_without_a_chromosome_are_never_read() -> None:
    genome = Genome(NAMES, np.where(np.arange(N) < 150, CHROMOSOMES, -1), STARTS)
    for sentence in sentences(tokenise(random_cells(), genome=genome)):
        assert max(drawn(sentence)) < 150


def test_sentences_do_not_depend_on_the_order_of_the_columns() -> None:
    rows = random_cells()
    order = np.random.default_rng(5).permutation(N)
    turned = rows[:, order].tocsr()
    turned.sort_indices()
    genes = tuple(NAMES[column] for column in order)
    np.testing.assert_array_equal(
        tokenise(turned, genes=genes).flat["id"], tokenise(rows).flat["id"]
    )


@SAMPLERS
@pytest.mark.parametrize("change", [{"seed": 1}, {"draw": 1}, {"cells": names(12)[6:]}])
def test_sentences_depend_on_seed_draw_and_cell_name(
    sampler: str, change: dict[str, object]
) -> None:
    rows = random_cells()
    assert sentences(tokenise(rows, sampler=sampler)) != sentences(
        tokenise(rows, sampler=sampler, **change)
    )


@SAMPLERS
def test_sentences_of_a_cell_do_not_depend_on_the_others(sampler: str) -> None:
    rows = random_cells(600)
    together = sentences(tokenise(rows, sampler=sampler))
    alone = sentences(tokenise(rows[599], sampler=sampler, cells=names(600)[599:]))
    assert alone == together[599:]


@SAMPLERS
def test_several_sentences_of_a_cell_differ_and_begin_as_one(sampler: str) -> None:
    rows = random_cells()
    tokens = tokenise(rows, sampler=sampler, n_samples=3)
    found = sentences(tokens)
    assert len(found) == 18
    assert found[0] != found[1] != found[2]
    np.testing.assert_array_equal(
        tokens.lengths, np.array([len(sentence) for sentence in found]).reshape(6, 3).sum(1)
    )
    single = tokenise(rows, sampler=sampler)
    assert [sorted(drawn(s)) for s in found[::3]] == [sorted(drawn(s)) for s in sentences(single)]


def test_names_are_compared_without_case() -> None:
    lower = tuple(name.lower() for name in NAMES)
    rows = random_cells()
    np.testing.assert_array_equal(tokenise(rows, genes=lower).flat["id"], tokenise(rows).flat["id"])


def test_columns_name_the_genes_of_the_tokens() -> None:
    tokens = tokenise(random_cells())
    is_gene = tokens.flat["column"] >= 0
    np.testing.assert_array_equal(
        tokens.flat["id"][is_gene] - FIRST, tokens.flat["column"][is_gene]
    )
    assert is_gene.sum() == 6 * 50


@SAMPLERS
def test_cell_without_known_genes_is_marked_unusable(sampler: str) -> None:
    dense = random_cells().toarray()
    dense[2] = 0
    tokens = tokenise(csr_matrix(dense), sampler=sampler, n_samples=2)
    assert tokens.usable.tolist() == [True, True, False, True, True, True]
    assert tokens.lengths[2] == 0


def test_cell_of_one_gene_repeats_it() -> None:
    dense = np.zeros((1, N), np.float32)
    dense[0, 9] = 3
    (sentence,) = sentences(tokenise(csr_matrix(dense)))
    assert sentence == [CLS, FIRST + N + CHROMOSOMES[9], *[FIRST + 9] * 50, CHROMOSOME_END]


def test_no_cells_give_no_tokens() -> None:
    assert tokenise(random_cells()[:0]).n_cells == 0


def test_a_sentence_that_is_too_long_is_an_error_naming_the_cell() -> None:
    dense = random_cells().toarray()
    dense[:5, CHROMOSOMES > 0] = 0
    with pytest.raises(DataError, match=r"cell cell 5: its sentence has 65 tokens.* allows 60"):
        tokenise(csr_matrix(dense), pad_length=60)


def test_largest_uniform_draws_the_last_expressed_gene() -> None:
    weights = sampling_weights(np.array([0, 1, 0, 5, 0], np.float32))
    uniforms = np.array([0.0, np.nextafter(1, 0)])
    np.testing.assert_array_equal(draw_genes(weights, uniforms), [1, 3])


def test_legacy_draws_are_those_of_numpy_choice() -> None:
    weights = sampling_weights(random_cells().toarray()[0])
    # As the original: probabilities are made to sum to one in float64 by `choice` itself.
    probabilities = weights.astype(np.float64) / weights.astype(np.float64).sum()
    expected = np.random.RandomState(3).choice(N, 1024, p=probabilities)
    found = draw_genes(weights, np.random.RandomState(3).random_sample(1024))
    np.testing.assert_array_equal(found, expected)
