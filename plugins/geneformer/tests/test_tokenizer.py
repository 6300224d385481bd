"""Which genes become tokens, and in which order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix, hstack

from scdrugmap.data.genes import Genes
from scdrugmap.modelkit import Tokens, synthetic_vocabulary
from scdrugmap_plugin_geneformer.tokenizer import SPECIALS, Tokenizer

NAMES = synthetic_vocabulary("ensembl")[:300]
CLS, EOS = 2, 3


def make_vocabulary(generation: int = 2, **changes: Any) -> dict[str, Any]:
    medians = np.random.default_rng(7).gamma(2.0, 1.0, len(NAMES)) + 0.1
    return {
        "tokens": {name: token for token, name in enumerate((*SPECIALS[generation], *NAMES))},
        "medians": dict(zip(NAMES, medians.tolist(), strict=True)),
        "mapping": {},
        "symbols": {},
        **changes,
    }


def random_cells(n_cells: int = 6) -> csr_matrix:
    random = np.random.default_rng(0)
    counts = random.poisson(random.gamma(0.5, 2.0, (1, len(NAMES))), (n_cells, len(NAMES)))
    return csr_matrix(counts.astype(np.float32))


def tokenise(
    rows: csr_matrix,
    names: tuple[str, ...] = NAMES,
    *,
    generation: int = 2,
    max_tokens: int = 4096,
    **changes: Any,
) -> list[list[int]]:
    """Token ids of each cell."""
    tokenizer = Tokenizer(make_vocabulary(generation, **changes), max_tokens)
    tokenizer.bind(Genes.from_names(list(names)))
    return as_lists(tokenizer.encode(rows, np.arange(rows.shape[0]).astype(str)))


def as_lists(tokens: Tokens) -> list[list[int]]:
    bounds = zip(tokens.start[:-1], tokens.start[1:], strict=True)
    return [tokens.flat["id"][start:stop].tolist() for start, stop in bounds]


def original_rule(counts: np.ndarray, generation: int = 2) -> list[int]:
    """The rule of the specification for one cell, one gene after the other."""
    vocabulary = make_vocabulary(generation)
    total = float(counts.sum())
    values = [
        (-float(count) / total * 10_000 / vocabulary["medians"][name], vocabulary["tokens"][name])
        for name, count in zip(NAMES, counts, strict=True)
        if count
    ]
    return [token for _, token in sorted(values)]


@pytest.mark.parametrize("generation", [1, 2])
def test_genes_stand_in_the_order_of_count_over_median(generation: int) -> None:
    rows = random_cells()
    for cell, found in enumerate(tokenise(rows, generation=generation)):
        expected = original_rule(rows[cell].toarray()[0], generation)
        assert found == (expected if generation == 1 else [CLS, *expected, EOS])


@pytest.mark.parametrize("generation", [1, 2])
def test_long_cells_keep_the_strongest_genes_and_the_special_tokens(generation: int) -> None:
    whole = tokenise(random_cells(), generation=generation)
    cut = tokenise(random_cells(), generation=generation, max_tokens=20)
    for short, long in zip(cut, whole, strict=True):
        assert short == (long[:20] if generation == 1 else [*long[:19], EOS])


def test_equal_values_stand_in_the_order_of_token_ids() -> None:
    ones = csr_matrix(np.ones((2, len(NAMES)), np.float32))
    found = tokenise(ones, NAMES[::-1], medians=dict.fromkeys(NAMES, 2.0))
    assert found == [[CLS, *range(4, 4 + len(NAMES)), EOS]] * 2


def test_values_are_compared_in_double_precision() -> None:
    # 1 / medians of neighbours differ by less than float32 can tell.
    medians = {name: 1.0 + place * 1e-9 for place, name in enumerate(NAMES)}
    ones = csr_matrix(np.ones((1, len(NAMES)), np.float32))
    assert tokenise(ones, medians=medians)[0][1:-1] == list(range(4, 4 + len(NAMES)))
    medians = {name: 1.0 - place * 1e-9 for place, name in enumerate(NAMES)}
    assert tokenise(ones, medians=medians)[0][1:-1] == list(range(4, 4 + len(NAMES)))[::-1]


def test_scale_of_a_cell_changes_nothing() -> None:
    rows = random_cells()
    assert tokenise(rows * np.float32(4)) == tokenise(rows)


def test_columns_of_retired_ids_are_summed_with_their_gene() -> None:
    retired = ("ENSG00000999001", "ENSG00000999002")
    mapping = {retired[0]: NAMES[3], retired[1]: NAMES[3]}
    rows = random_cells()
    extra = csr_matrix(np.full((6, 2), 5, np.float32))
    summed = rows.toarray()
    summed[:, 3] += 10
    found = tokenise(hstack([extra, rows]).tocsr(), (*retired, *NAMES), mapping=mapping)
    assert found == tokenise(csr_matrix(summed))


def test_the_first_of_several_columns_stands_for_the_gene() -> None:
    tokenizer = Tokenizer(make_vocabulary(mapping={"ENSG00000999001": NAMES[3]}), 100)
    coverage = tokenizer.bind(Genes.from_names(["ENSG00000999001", "nothing", NAMES[3]]))
    assert coverage.matched.tolist() == [True, False, True]
    tokens = tokenizer.encode(csr_matrix(np.ones((1, 3), np.float32)), np.array(["a"]))
    assert tokens.flat["column"].tolist() == [-1, 0, -1]


@pytest.mark.parametrize(
    "name", [NAMES[5], NAMES[5] + ".12", NAMES[5].lower(), "ENSG00000999001", "OldName", "oldname"]
)
def test_genes_are_found_by_id_version_capitals_mapping_and_symbol(name: str) -> None:
    found = tokenise(
        csr_matrix(np.ones((1, 1), np.float32)),
        (name,),
        mapping={"ENSG00000999001": NAMES[5]},
        symbols={"OldName": NAMES[5]},
    )
    assert found == [[CLS, 9, EOS]]


def test_current_symbols_are_found_without_a_dictionary_of_names() -> None:
    symbols = Genes.from_names(list(NAMES)).symbol
    unique = Genes.from_names(symbols, kind="symbol").ensembl == np.array(NAMES, object)
    column = int(np.flatnonzero(unique)[0])
    found = tokenise(csr_matrix(np.ones((1, 1), np.float32)), (symbols[column],))
    assert found == [[CLS, 4 + column, EOS]]


def test_genes_without_a_median_are_unknown() -> None:
    medians = make_vocabulary()["medians"]
    del medians[NAMES[0]]
    tokenizer = Tokenizer(make_vocabulary(medians=medians), 100)
    coverage = tokenizer.bind(Genes.from_names(list(NAMES[:3])))
    assert coverage.matched.tolist() == [False, True, True]
    assert coverage.n_vocabulary == len(NAMES) - 1


@pytest.mark.parametrize(("generation", "length"), [(1, 0), (2, 2)])
def test_cell_without_known_genes_is_marked_unusable(generation: int, length: int) -> None:
    dense = random_cells().toarray()
    dense[2] = 0
    tokenizer = Tokenizer(make_vocabulary(generation), 100)
    tokenizer.bind(Genes.from_names(list(NAMES)))
    tokens = tokenizer.encode(csr_matrix(dense), np.arange(6).astype(str))
    assert tokens.usable.tolist() == [True, True, False, True, True, True]
    assert tokens.lengths[2] == length


def test_no_cells_give_no_tokens() -> None:
    assert tokenise(random_cells()[:0]) == []
