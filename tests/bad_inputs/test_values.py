"""Values that are not counts, or counts that are odd: cases 47 to 63."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scdrugmap.data.cells import open_cells
from scdrugmap.errors import DataError, UsageError

KINDS = pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])


def lognorm(counts: np.ndarray) -> np.ndarray:
    scaled = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * 1e4
    return np.log1p(scaled).astype(np.float32)


@KINDS
@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        pytest.param(
            np.nan,
            "X holds values that are not a number (NaN)",
            "replace or remove",
            marks=pytest.mark.case(47),
        ),
        pytest.param(
            np.inf,
            "X holds values that are infinite",
            "replace or remove",
            marks=pytest.mark.case(48),
        ),
        (-np.inf, "X holds values that are infinite", "replace or remove"),
        pytest.param(
            -3,
            "X holds negative values, as low as -3",
            "counts are never negative",
            marks=pytest.mark.case(49),
        ),
    ],
)
def test_value_that_no_matrix_may_hold(refused, make, kind, value, message, hint):
    counts = make.counts()
    counts[7, 4] = value
    refused(make.h5ad(counts=counts, X=kind(counts)), DataError, message, hint)


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        (np.nan, "X holds NaN (nan) in row 1,000, column 4", "give raw counts"),
        (np.inf, "X holds an infinite value (inf) in row 1,000, column 4", "give raw counts"),
        (-3, "X holds a negative value (-3) in row 1,000, column 4", "give raw counts"),
        (0.5, "X holds a fraction among counts (0.5) in row 1,000, column 4", "add --round"),
        (1e10, "X holds 1e+10, too large for a count", "raw counts"),
    ],
)
@pytest.mark.case("O22")
def test_value_beyond_the_cells_that_were_sampled(refused, make, value, message, hint):
    counts = np.tile(make.counts(), (100, 1))
    counts[1000, 4] = value
    refused(make.h5ad(counts=counts), DataError, message, hint)


@pytest.mark.case(50, "O24")
def test_lognormalised_values_where_counts_are_needed(refused, make):
    path = make.h5ad(X=lognorm(make.counts()))
    with make.edit(path) as file:
        file.create_group("layers")
        make.matrix(file, "layers/umi", sparse.csr_matrix(make.counts()))
    refused(
        path,
        DataError,
        "so log-normalised values (need counts)",
        "--layer umi seems to hold counts",
        accepts=("counts",),
    )


def test_lognormalised_values_are_taken_where_they_are_accepted(make, read):
    values = lognorm(make.counts())
    cells, found = read(make.h5ad(X=values))
    assert np.array_equal(found, values)
    assert cells.matrix.values == "lognorm"
    assert any("so log-normalised values" in notice for notice in cells.notices)


@pytest.mark.case(51)
def test_rsem_counts_are_refused_with_the_remedy(refused, make, child):
    path = make.h5ad(X=make.counts() * np.float32(17.3))
    refused(path, DataError, "fractions up to", "(RSEM, salmon), add --round")
    told = child.cli("check", path, "--round", "--no-models")
    assert told.code == 0
    assert "rounded" in told.out


def test_rsem_counts_are_rounded_if_so_wished(make, read):
    estimated = make.counts() * np.float32(17.3)
    cells, found = read(make.h5ad(X=estimated), round_counts=True)
    assert np.array_equal(found, np.rint(estimated))
    assert cells.matrix.values == "counts"
    assert any("rounded" in notice for notice in cells.notices)


@pytest.mark.case(52)
def test_counts_above_2_to_24_are_read_with_a_notice(make, read):
    counts = make.counts().astype(np.int64)
    counts[3, 4] = 2**24 + 1
    cells, found = read(make.h5ad(counts=make.counts(), X=sparse.csr_matrix(counts)))
    assert found[3, 4] == 2**24
    assert any("from 2^24 on they are rounded" in notice for notice in cells.notices)


@pytest.mark.parametrize("value", [2**31 + 2**9, 2**53 + 1, 2**62])
@pytest.mark.case(53, "O23")
def test_counts_above_2_to_31(refused, make, value):
    counts = make.counts().astype(np.int64)
    counts[3, 4] = value
    path = make.h5ad(counts=make.counts(), X=sparse.csr_matrix(counts))
    refused(path, DataError, "too large for counts", "raw counts")


@pytest.mark.case(54)
def test_sums_of_repeated_large_counts_stay_finite(make, read):
    counts = sparse.csr_matrix(np.full((20, 30), 2**30, dtype=np.int64))
    counts.data[0] = 1
    twice = sparse.csr_matrix(
        (np.repeat(counts.data, 2), np.repeat(counts.indices, 2), counts.indptr * 2), (20, 30)
    )
    with pytest.raises(DataError, match="too large for counts"):
        read(make.h5ad(X=twice * 2))
    _, found = read(make.h5ad(X=twice))
    assert np.isfinite(found).all()
    assert found[0, 0] == 2
    assert found[1:].min() == 2**31


@KINDS
def test_empty_cell_is_kept(make, read, kind):
    counts = make.counts()
    counts[5] = 0
    cells, found = read(make.h5ad(counts=counts, X=kind(counts)))
    assert np.array_equal(found, counts)
    assert cells.fingerprints[5] == "0" * 32


@KINDS
@pytest.mark.case(56)
def test_matrix_of_zeros(refused, make, kind):
    zeros = np.zeros((20, 30), np.float32)
    refused(make.h5ad(X=kind(zeros)), DataError, "no value but zero", "the right file?")


def test_stored_zeros_are_dropped(make, read):
    matrix = sparse.csr_matrix(make.counts())
    matrix.data[::3] = 0
    cells, found = read(make.h5ad(X=matrix))
    assert np.array_equal(found, matrix.toarray())
    assert cells.rows.nnz == np.count_nonzero(matrix.data)


def test_matrix_of_stored_zeros(refused, make):
    matrix = sparse.csr_matrix(make.counts())
    matrix.data[:] = 0
    refused(make.h5ad(X=matrix), DataError, "no value but zero", "the right file?")


def test_first_value_far_down_is_found(make, read):
    counts = np.zeros((3000, 30), np.float32)
    counts[2999, 3] = 2
    _, found = read(make.h5ad(counts=counts))
    assert np.array_equal(found, counts)


@pytest.mark.case(57)
def test_one_cell_is_enough(make, read):
    counts = make.counts(1)
    _, found = read(make.h5ad(counts=counts))
    assert np.array_equal(found, counts)


@KINDS
@pytest.mark.case(58, "O30")
def test_no_cells(refused, make, kind):
    counts = np.zeros((0, 30), np.float32)
    refused(make.h5ad(counts=counts, X=kind(counts)), DataError, "there are no cells", "filtered")


@KINDS
@pytest.mark.case(59)
def test_no_genes(refused, make, kind):
    counts = np.zeros((20, 0), np.float32)
    refused(make.h5ad(counts=counts, X=kind(counts)), DataError, "there are no genes", "filtered")


@pytest.mark.parametrize("value", [1, 5])
@pytest.mark.case(60)
def test_constant_matrix_is_read(make, read, value):
    constant = np.full((20, 30), value, np.float32)
    cells, found = read(make.h5ad(X=constant))
    assert np.array_equal(found, constant)
    assert len(set(cells.fingerprints)) == 1


@pytest.mark.case(61)
def test_denormal_numbers_are_read(make, read):
    values = lognorm(make.counts())
    values[2, 2] = 1e-42
    _, found = read(make.h5ad(X=values))
    assert np.array_equal(found, values)


@pytest.mark.case(62)
def test_scaled_and_centred_values(refused, make):
    counts = make.counts()
    scores = (counts - counts.mean(axis=0)) / np.maximum(counts.std(axis=0), 0.1)
    refused(make.h5ad(X=scores), DataError, "it was scaled or centred", "raw counts")


def test_counts_per_ten_thousand(refused, make):
    counts = make.counts()
    scaled = (counts / counts.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
    refused(make.h5ad(X=scaled), DataError, "add up to 10,000 in every cell", "raw counts")


@pytest.mark.case(63)
def test_counts_times_ten_thousand(refused, make):
    path = make.h5ad(X=make.counts() * np.float32(1e4))
    refused(path, DataError, "only multiples of 10,000: counts were scaled", "raw counts")


@pytest.mark.parametrize("dtype", ["i1", "u4", "i8", "u8", "f8"])
@KINDS
def test_every_numeric_type_gives_the_same_float32(make, read, kind, dtype):
    counts = make.counts()
    cells, found = read(make.h5ad(X=kind(counts).astype(dtype)))
    assert found.dtype == np.float32
    assert np.array_equal(found, counts)
    assert cells.matrix.dtype == np.dtype(dtype).name


def test_counts_are_found_in_the_layer_and_named(make, read):
    counts = make.counts()
    path = make.h5ad(X=lognorm(counts))
    with make.edit(path) as file:
        file.create_group("layers")
        make.matrix(file, "layers/counts", sparse.csr_matrix(counts))
    cells, found = read(path)
    assert np.array_equal(found, counts)
    assert cells.matrix.location == "layers/counts"
    assert any(
        "counts are read from layers/counts, because X holds fractions" in notice
        for notice in cells.notices
    )


def test_counts_are_found_in_raw_with_its_own_genes(make, read):
    counts = make.counts(20, 40)
    path = make.h5ad(counts=make.counts(), X=lognorm(make.counts()))
    with make.edit(path) as file:
        file.create_group("raw")
        make.matrix(file, "raw/X", sparse.csr_matrix(counts))
        make.frame(file, "raw/var", pd.DataFrame(index=make.genes(40)))
    cells, found = read(path)
    assert cells.matrix.location == "raw/X"
    assert np.array_equal(found, counts)
    assert list(cells.genes.published) == make.genes(40)


def test_damaged_first_choice_does_not_hide_good_counts(make, read):
    broken = make.counts()
    broken[0, 0] = np.nan
    path = make.h5ad(X=broken)
    with make.edit(path) as file:
        file.create_group("layers")
        make.matrix(file, "layers/counts", sparse.csr_matrix(make.counts()))
    cells, _ = read(path)
    assert cells.matrix.location == "layers/counts"
    assert any("because X holds values that are not a number" in n for n in cells.notices)


def test_named_layer_is_the_only_one_looked_at(make, read, refused):
    path = make.h5ad(X=lognorm(make.counts()))
    with make.edit(path) as file:
        file.create_group("layers")
        make.matrix(file, "layers/counts", sparse.csr_matrix(make.counts()))
        make.matrix(file, "layers/velocity", make.counts() - 3)
    cells, found = read(path, layer="X")
    assert cells.matrix.values == "lognorm"
    assert np.array_equal(found, lognorm(make.counts()))
    refused(path, DataError, "layers/velocity holds negative values", "counts", layer="velocity")
    refused(path, UsageError, "has no layer 'cuonts'", "layers: counts, velocity", layer="cuonts")
    refused(path, UsageError, "has no layer 'raw'", "layers: counts, velocity", layer="raw")


def test_what_the_values_are_can_be_told(make, read):
    fractions = make.counts() * np.float32(7.7)
    with open_cells(make.h5ad(X=fractions), values="counts") as cells:
        assert cells.matrix.values == "counts"
        assert np.array_equal(cells.rows(np.arange(20)).toarray(), fractions)
        assert any("as told" in notice for notice in cells.notices)
    cells, _ = read(make.h5ad(), values="lognorm")
    assert cells.matrix.values == "lognorm"
