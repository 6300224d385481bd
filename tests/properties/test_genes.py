"""Each gene name is looked up by itself, whatever stands beside it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from made_up import QUICK, counts, hostile_names, orders, seeds
from scipy.sparse import csr_matrix

from scdrugmap.data.genes import GeneMapping, Genes, gene_table, read_genes
from scdrugmap.data.remap import Remapping

TABLE = gene_table()
SYMBOLS, IDS = TABLE.names("symbol"), TABLE.names("ensembl")
ALIASES = sorted(TABLE._by_alias)[::50]
# what a file may call a gene, known or not
names = st.sampled_from(SYMBOLS) | st.sampled_from(IDS) | st.sampled_from(ALIASES) | hostile_names


@QUICK
@given(
    st.lists(names, min_size=1, max_size=20).flatmap(
        lambda x: st.tuples(st.just(x), orders(len(x)))
    )
)
def test_names_mean_the_same_in_any_order(drawn: tuple[list[str], np.ndarray]) -> None:
    given_names, order = drawn
    first = TABLE.resolve(given_names)
    second = TABLE.resolve([given_names[place] for place in order])
    for one, other in zip(first, second, strict=True):
        assert one[order].tolist() == other.tolist()


@QUICK
@given(st.sampled_from(SYMBOLS) | st.sampled_from(ALIASES))
def test_a_current_symbol_means_itself(name: str) -> None:
    symbol, ensembl, how = TABLE.resolve([name])
    again, same, exact = TABLE.resolve([symbol[0]])
    assert how[0] != "unmapped"
    assert (again[0], same[0], exact[0]) == (symbol[0], ensembl[0], "exact")


@QUICK
@given(st.sampled_from(IDS), st.integers(1, 99))
def test_the_version_of_an_ensembl_id_changes_nothing(identifier: str, version: int) -> None:
    plain, versioned = TABLE.resolve([identifier]), TABLE.resolve([f"{identifier}.{version}"])
    assert [part[0] for part in plain] == [part[0] for part in versioned]


@QUICK
@given(st.sampled_from(SYMBOLS), st.sampled_from([str.lower, str.upper, str.title]))
def test_another_case_never_means_another_gene(name: str, change: object) -> None:
    changed = change(name)  # type: ignore[operator]
    symbol, _, how = TABLE.resolve([changed])
    if how[0] == "case":  # and not a symbol or an older name in its own right
        assert symbol[0] == name


@QUICK
@given(st.lists(st.sampled_from(ALIASES), min_size=1, max_size=20, unique=True), orders(20))
def test_an_older_name_and_the_current_one_are_one_gene(
    aliases: list[str], order: np.ndarray
) -> None:
    current = TABLE.resolve(aliases)[0].tolist()
    together = [*aliases, *current]
    mapping = read_genes(pd.DataFrame(index=together))
    assert mapping.column[: len(aliases)].tolist() == mapping.column[len(aliases) :].tolist()


@QUICK
@given(
    st.lists(st.sampled_from(SYMBOLS), min_size=5, max_size=20, unique=True),
    st.lists(st.integers(0, 10**6), max_size=10, unique=True),
)
def test_unknown_names_change_nothing_for_the_others(known: list[str], unknown: list[int]) -> None:
    plain = read_genes(pd.DataFrame(index=known))
    mixed = read_genes(pd.DataFrame(index=[*(f"UNKNOWN-{n}" for n in unknown), *known]))
    kept = mixed.column[len(unknown) :] - len(unknown)
    assert kept.tolist() == plain.column.tolist()
    assert mixed.genes.symbol[len(unknown) :].tolist() == plain.genes.symbol.tolist()


@QUICK
@given(st.lists(st.integers(-1, 6), min_size=1, max_size=30), seeds)
def test_joined_columns_are_the_product_with_the_matrix_that_joins_them(
    column: list[int], seed: int
) -> None:
    numbers = {old: new for new, old in enumerate(dict.fromkeys(c for c in column if c >= 0))}
    place = np.array([numbers.get(old, -1) for old in column], np.int64)
    n_genes = len(numbers)
    plain = counts(7, len(column), seed)
    joins = (place[:, None] == np.arange(n_genes)).astype(np.float32)
    genes = Genes(*(np.array([f"G{n}" for n in range(n_genes)], object) for _ in range(3)))
    mapping = GeneMapping(genes, place, "symbol", {}, ())
    joined = Remapping(mapping).apply(csr_matrix(plain))
    assert joined.has_sorted_indices
    np.testing.assert_array_equal(joined.toarray(), plain @ joins)


@QUICK
@given(st.sampled_from(IDS), st.sampled_from("٠०０𝟎"))
def test_digits_of_other_scripts_make_no_ensembl_id(identifier: str, zero: str) -> None:
    foreign = "".join(chr(ord(zero) + int(c)) if c.isdecimal() else c for c in identifier)
    assert [part[0] for part in TABLE.resolve([foreign])] == ["", "", "unmapped"]
