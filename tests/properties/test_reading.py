"""Reading does not depend on how cells are stored, cut into blocks or put in order."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st
from made_up import FILES, KNOWN_GENES, QUICK, SLOW, cell_names, cells, counts, orders, seeds
from scipy.sparse import csc_matrix, csr_matrix

from scdrugmap.data.cells import Cells, open_cells
from scdrugmap.data.check import check_file

# anndata says so when such cells are made; reading them is what is tried
pytestmark = [
    pytest.mark.filterwarnings("ignore:Variable names are not unique"),
    pytest.mark.filterwarnings("ignore:Writing zarr v2 data"),
]
N = 9


def dense(source: AnnData | Path, **how: object) -> np.ndarray:
    """Read everything."""
    with open_cells(source, **how) as opened:  # type: ignore[arg-type]
        return everything(opened)


def everything(opened: Cells) -> np.ndarray:
    return opened.rows(np.arange(opened.n_cells)).toarray()


@QUICK
@given(seeds, st.integers(1, 2 * N))
def test_blocks_of_any_size_hold_the_same_cells(seed: int, size: int) -> None:
    with open_cells(cells(N, seed=seed)) as opened:
        blocks = list(opened.blocks(size))
        np.testing.assert_array_equal(
            np.concatenate([block.rows.toarray() for block in blocks]), everything(opened)
        )
        assert np.concatenate([block.names for block in blocks]).tolist() == opened.names.tolist()


@QUICK
@given(seeds, orders(N))
def test_cells_in_another_order_are_the_same_cells(seed: int, order: np.ndarray) -> None:
    made = cells(N, seed=seed)
    with open_cells(made) as first, open_cells(made[order].copy()) as second:
        np.testing.assert_array_equal(everything(first)[order], everything(second))
        assert first.names[order].tolist() == second.names.tolist()
        assert first.fingerprints()[order].tolist() == second.fingerprints().tolist()


@QUICK
@given(seeds, st.lists(st.integers(0, N - 1), max_size=3 * N))
def test_any_positions_give_the_cells_at_them(seed: int, index: list[int]) -> None:
    with open_cells(cells(N, seed=seed)) as opened:
        at = np.array(index, np.int64)
        np.testing.assert_array_equal(opened.rows(at).toarray(), everything(opened)[at])


@FILES
@given(
    seeds,
    st.lists(st.integers(0, N - 1), min_size=1, max_size=2 * N),
    st.sampled_from(["csr", "csc", "dense"]),
)
def test_any_positions_of_a_file_give_the_cells_at_them(
    seed: int, index: list[int], form: str
) -> None:
    made, at = cells(N, seed=seed), np.array(index, np.int64)
    plain = made.X.toarray()
    made.X = FORMS[form](made.X)
    with tempfile.TemporaryDirectory() as folder:
        made.write_h5ad(Path(folder) / "cells.h5ad")
        with open_cells(Path(folder) / "cells.h5ad") as opened:
            np.testing.assert_array_equal(opened.rows(at).toarray(), plain[at])


FORMS: dict[str, Callable[[csr_matrix], object]] = {
    "csr": csr_matrix,
    "csc": csc_matrix,
    "dense": lambda matrix: matrix.toarray(),
}


@QUICK
@given(seeds, st.sampled_from(sorted(FORMS)))
def test_csr_csc_and_dense_matrices_are_read_alike(seed: int, form: str) -> None:
    made = cells(N, seed=seed)
    plain = made.X.toarray()
    made.X = FORMS[form](made.X)
    np.testing.assert_array_equal(dense(made), plain)


@FILES
@given(seeds, st.sampled_from(sorted(FORMS)), st.sampled_from(["h5ad", "zarr"]))
def test_files_of_any_form_are_read_like_the_matrix_in_memory(
    seed: int, form: str, ending: str
) -> None:
    made = cells(N, seed=seed)
    plain = made.X.toarray()
    made.X = FORMS[form](made.X)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"cells.{ending}"
        (made.write_h5ad if ending == "h5ad" else made.write_zarr)(path)
        np.testing.assert_array_equal(dense(path), plain)


@QUICK
@given(seeds, st.sampled_from(["float32", "float64", "int32", "int64", "uint16", "uint8"]))
def test_the_number_type_of_counts_changes_nothing(seed: int, dtype: str) -> None:
    made = cells(N, seed=seed)
    plain = made.X.toarray()
    made.X = csr_matrix(plain.astype(dtype))
    np.testing.assert_array_equal(dense(made), plain)


@QUICK
@given(seeds, st.sampled_from([np.int32, np.int64]), st.sampled_from([np.int32, np.int64]))
def test_the_number_type_of_indices_changes_nothing(
    seed: int, of_indices: type, of_indptr: type
) -> None:
    made = cells(N, seed=seed)
    plain = made.X.toarray()
    made.X.indices, made.X.indptr = (
        made.X.indices.astype(of_indices),
        made.X.indptr.astype(of_indptr),
    )
    np.testing.assert_array_equal(dense(made), plain)


@QUICK
@given(seeds, seeds)
def test_unsorted_repeated_and_zero_entries_are_the_sums_they_stand_for(
    seed: int, other: int
) -> None:
    plain = counts(N, 40, seed)
    random = np.random.default_rng(other)
    rows, columns = np.nonzero(plain + (random.random(plain.shape) < 0.1))  # some stay zero
    part = np.floor(plain[rows, columns] * random.random(len(rows)))
    twice = (np.tile(rows, 2), np.tile(columns, 2))
    values = np.concatenate([part, plain[rows, columns] - part]).astype(np.float32)
    mixed = random.permutation(len(values))
    order = mixed[np.argsort(twice[0][mixed], kind="stable")]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(twice[0], minlength=N))])
    made = cells(N, matrix=csr_matrix((values[order], twice[1][order], indptr), plain.shape))
    np.testing.assert_array_equal(dense(made), plain)


@QUICK
@given(seeds)
def test_a_file_on_its_side_is_read_like_the_upright_one(seed: int) -> None:
    made = cells(N, seed=seed)
    np.testing.assert_array_equal(dense(made.T.copy(), transpose=True), dense(made))


@QUICK
@given(seeds, orders(40))
def test_genes_in_another_order_have_the_same_values(seed: int, order: np.ndarray) -> None:
    made = cells(N, seed=seed)
    with open_cells(made) as first, open_cells(made[:, order].copy()) as second:
        np.testing.assert_array_equal(everything(first)[:, order], everything(second))
        assert first.fingerprints().tolist() == second.fingerprints().tolist()


@QUICK
@given(seeds, st.lists(st.integers(0, 39), min_size=1, max_size=12))
def test_counts_of_a_gene_that_stands_twice_are_summed(seed: int, again: list[int]) -> None:
    plain, more = counts(N, 40, seed), counts(N, len(again), seed + 1)
    names = [*KNOWN_GENES[:40], *(KNOWN_GENES[place] for place in again)]
    made = AnnData(
        csr_matrix(np.hstack([plain, more])),
        obs=pd.DataFrame(index=[f"c{number}" for number in range(N)]),
        var=pd.DataFrame(index=names),
    )
    expected = plain.copy()
    for column, place in enumerate(again):
        expected[:, place] += more[:, column]
    np.testing.assert_array_equal(dense(made), expected)


@QUICK
@given(seeds, st.integers(0, 39))
def test_of_lognormalised_columns_of_one_gene_the_largest_is_kept(seed: int, again: int) -> None:
    plain = np.log1p(counts(N, 41, seed) * 0.37).astype(np.float32)
    made = AnnData(
        csr_matrix(plain),
        obs=pd.DataFrame(index=[f"c{number}" for number in range(N)]),
        var=pd.DataFrame(index=[*KNOWN_GENES[:40], KNOWN_GENES[again]]),
    )
    first, second = plain[:, again], plain[:, 40]
    totals = first.sum(dtype=np.float64), second.sum(dtype=np.float64)
    expected = plain[:, :40].copy()
    expected[:, again] = first if totals[0] >= totals[1] else second
    np.testing.assert_array_equal(dense(made), expected)


@QUICK
@given(seeds, st.integers(0, N - 1), st.integers(0, 39))
def test_cells_share_a_fingerprint_only_if_they_hold_the_same(
    seed: int, cell: int, gene: int
) -> None:
    plain = counts(N, 40, seed)
    twin = plain[[cell]].copy()
    changed = twin.copy()
    changed[0, gene] += 1
    made = cells(N + 2, matrix=csr_matrix(np.vstack([plain, twin, changed])))
    with open_cells(made) as opened:
        prints = opened.fingerprints()
    assert prints[N] == prints[cell]
    assert prints[N + 1] != prints[cell]


@QUICK
@given(seeds, st.lists(st.sampled_from("abc"), min_size=N, max_size=N))
def test_selected_cells_are_those_of_the_whole_file(seed: int, letters: list[str]) -> None:
    made = cells(N, seed=seed, batch=pd.Categorical(letters))
    wanted = letters[0]
    at = np.flatnonzero(np.array(letters) == wanted)
    with open_cells(made) as whole, open_cells(made, where=[("batch", wanted)]) as chosen:
        assert chosen.names.tolist() == whole.names[at].tolist()
        np.testing.assert_array_equal(everything(chosen), everything(whole)[at])
        np.testing.assert_array_equal(everything(whole.subset(at)), everything(chosen))


@QUICK
@given(st.lists(cell_names, min_size=N, max_size=N), seeds)
def test_repeated_names_become_unique_by_the_sample_and_stay_so_in_a_selection(
    names: list[str], seed: int
) -> None:
    sample = [f"s{number}" for number in range(N)]
    made = cells(N, seed=seed, sample=sample)
    made.obs.index = pd.Index([*names[:-1], names[0]], dtype=object)  # one name twice
    with open_cells(made) as whole, open_cells(made, where=[("sample", "s3")]) as chosen:
        assert len(set(whole.names)) == N
        assert chosen.names.tolist() == [whole.names[3]]


@FILES
@given(st.lists(cell_names, min_size=N, max_size=N, unique=True), seeds)
def test_names_of_any_kind_come_back_from_a_file(names: list[str], seed: int) -> None:
    names = [name + str(place) for place, name in enumerate(names)]
    made = cells(N, seed=seed)
    made.obs.index = pd.Index(names, dtype=object)
    with tempfile.TemporaryDirectory() as folder:
        made.write_h5ad(Path(folder) / "cells.h5ad")
        with open_cells(Path(folder) / "cells.h5ad") as opened:
            assert opened.names.tolist() == names


@SLOW
@given(seeds, orders(N), orders(40), st.sampled_from(sorted(FORMS)))
def test_what_check_finds_depends_on_neither_order_nor_form(
    seed: int, of_cells: np.ndarray, of_genes: np.ndarray, form: str
) -> None:
    made = cells(N, seed=seed)
    other = made[of_cells][:, of_genes].copy()
    other.X = FORMS[form](other.X)
    first, second = (check_file(one, models=False).facts for one in (made, other))
    for name in set(first) - {"storage"}:
        expected = first[name]
        assert second[name] == (pytest.approx(expected) if type(expected) is float else expected)
