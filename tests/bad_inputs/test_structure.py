"""Matrices and tables whose parts do not fit together: cases 29 to 46."""

from __future__ import annotations

import h5py
import numpy as np
import pandas as pd
import pytest
from h5py import h5a, h5s, h5t
from scipy import sparse

from scdrugmap.errors import DataError

DAMAGED = "the file is damaged: write it again from its source"
FORMATS = pytest.mark.parametrize("stored", ["csr", "csc"])


@pytest.fixture
def spoil(make, path):
    """Change one entry of one of the arrays of X, of a CSR or CSC matrix."""

    def run(stored: str, array: str, entry: int, value: int, dtype: str = "i8"):
        with make.edit(path) as file:
            make.matrix(file, "X", sparse.csr_matrix(make.counts()).asformat(stored))
            values = file["X"][array][:].astype(dtype)
            values[entry] = value
            del file["X"][array]
            file["X"][array] = values
        return path

    return run


@pytest.mark.parametrize("value", [30, 10_000_000, 1 << 40])
@pytest.mark.case(29, "O1")
def test_column_index_beyond_the_genes(refused, spoil, value):
    path = spoil("csr", "indices", 5, value)
    error = refused(path, DataError, "X, rows 0 to 20, hold the index", DAMAGED)
    assert "expected less than 30" in error.message


@pytest.mark.parametrize("value", [20, 10_000_000, 1 << 40])
def test_row_index_beyond_the_cells(refused, spoil, value):
    path = spoil("csc", "indices", 5, value)
    refused(path, DataError, "holds the row index", DAMAGED)


@pytest.mark.parametrize("value", [-1, -(1 << 40)])
@pytest.mark.case(30, "O2")
def test_negative_index(refused, spoil, value):
    refused(spoil("csr", "indices", 5, value), DataError, "hold the negative index -", DAMAGED)
    refused(spoil("csc", "indices", 5, value), DataError, "holds the row index -", DAMAGED)


def test_index_of_unsigned_kind_that_wraps_around(refused, spoil):
    path = spoil("csr", "indices", 5, (1 << 64) - 1, "u8")
    refused(path, DataError, "hold the index 2,147,483,647", DAMAGED)


@FORMATS
@pytest.mark.case(31, "O3")
def test_indptr_that_falls(refused, spoil, stored):
    refused(spoil(stored, "indptr", 3, 1), DataError, "X/indptr falls after row 2", DAMAGED)


@FORMATS
@pytest.mark.case("O4")
def test_indptr_that_jumps_beyond_the_values(refused, spoil, stored):
    refused(spoil(stored, "indptr", 3, 1 << 62), DataError, "X/indptr falls after row 3", DAMAGED)


@FORMATS
@pytest.mark.case(32)
def test_indptr_that_begins_late(refused, spoil, stored):
    refused(spoil(stored, "indptr", 0, 2), DataError, "begins with 2, expected 0", DAMAGED)


@FORMATS
@pytest.mark.case(33)
def test_indptr_that_ends_early(refused, spoil, stored):
    path = spoil(stored, "indptr", -1, 300)
    refused(path, DataError, "X/indptr ends with 300, expected the", DAMAGED)


@FORMATS
def test_indptr_of_another_length(refused, make, path, stored):
    with make.edit(path) as file:
        make.matrix(file, "X", sparse.csr_matrix(make.counts()).asformat(stored))
        values = file["X/indptr"][:-2]
        del file["X/indptr"]
        file["X/indptr"] = values
    refused(path, DataError, f"X/indptr has {len(values)} entries, expected", DAMAGED)


@FORMATS
@pytest.mark.case(34)
def test_fewer_values_than_indices(refused, make, path, stored):
    with make.edit(path) as file:
        make.matrix(file, "X", sparse.csr_matrix(make.counts()).asformat(stored))
        values = file["X/data"][:-3]
        del file["X/data"]
        file["X/data"] = values
    refused(path, DataError, f"X/data has {len(values)} entries but X/indices has", DAMAGED)


@FORMATS
@pytest.mark.case(35, "O6")
def test_repeated_entries_are_summed_with_a_notice(make, path, read, stored):
    counts = make.counts()
    once = sparse.csr_matrix(counts).asformat(stored)
    twice = once.copy()
    twice.data = np.repeat(once.data, 2)
    twice.indices = np.repeat(once.indices, 2)
    twice.indptr = once.indptr * 2
    with make.edit(path) as file:
        make.matrix(file, "X", twice)
    cells, values = read(path)
    assert np.array_equal(values, 2 * counts)
    assert "cells.h5ad: repeated entries of X were summed" in cells.notices


@pytest.mark.case(36)
def test_unsorted_indices_are_read(make, path, read):
    matrix = sparse.csr_matrix(make.counts())
    for start, stop in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        matrix.indices[start:stop] = matrix.indices[start:stop][::-1].copy()
        matrix.data[start:stop] = matrix.data[start:stop][::-1].copy()
    with make.edit(path) as file:
        make.matrix(file, "X", matrix)
    cells, values = read(path)
    assert np.array_equal(values, make.counts())
    assert cells.sorted_rows
    assert not any("summed" in notice for notice in cells.notices)


@pytest.mark.parametrize(("true", "label"), [("csr", "csc"), ("csc", "csr")])
@pytest.mark.case(37)
def test_label_of_the_other_kind(refused, make, path, true, label):
    with make.edit(path) as file:
        make.matrix(file, "X", sparse.csr_matrix(make.counts()).asformat(true))
        file["X"].attrs["encoding-type"] = f"{label}_matrix"
    refused(
        path,
        DataError,
        f"X is labelled {label}_matrix but its indptr has",
        f"set its encoding-type to {true}_matrix",
    )


@pytest.mark.parametrize(("true", "label"), [("csr", "csc"), ("csc", "csr")])
@pytest.mark.parametrize("table", ["obs", "var"])
@pytest.mark.case("O5")
def test_label_of_the_other_kind_on_a_square_matrix(refused, make, true, label, table):
    counts = make.counts(30, 30)
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(30)])
    var = pd.DataFrame(index=make.genes(30))
    if table == "obs":
        obs["total_counts"] = counts.sum(axis=1)
    else:
        var["n_cells"] = (counts > 0).sum(axis=0)
    path = make.h5ad(counts=counts, obs=obs, var=var)
    with make.edit(path) as file:
        make.matrix(file, "X", sparse.csr_matrix(counts).asformat(true))
        file["X"].attrs["encoding-type"] = f"{label}_matrix"
    refused(path, DataError, "X lies on its side", "encoding-type")


@FORMATS
def test_right_label_on_a_square_matrix_is_confirmed_by_totals(make, read, stored):
    counts = make.counts(30, 30)
    obs = pd.DataFrame({"total": counts.sum(axis=1)}, index=[f"cell{i}" for i in range(30)])
    path = make.h5ad(counts=counts, obs=obs, X=sparse.csr_matrix(counts).asformat(stored))
    cells, values = read(path)
    assert np.array_equal(values, counts)
    assert cells.notices == ()


def test_square_matrix_without_totals_is_pointed_out(make, read):
    counts = make.counts(30, 30)
    cells, values = read(make.h5ad(counts=counts))
    assert np.array_equal(values, counts)
    assert any("X is square (30 x 30)" in notice for notice in cells.notices)


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
@pytest.mark.case(38)
def test_matrix_with_more_rows_than_obs(refused, make, kind):
    path = make.h5ad(X=kind(make.counts(21)))
    refused(path, DataError, "X is 21 x 30, but there are 20 rows in obs and 30 in var", DAMAGED)


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
@pytest.mark.case(39)
def test_matrix_with_fewer_columns_than_var(refused, make, kind):
    path = make.h5ad(X=kind(make.counts(20, 29)))
    refused(path, DataError, "X is 20 x 29, but there are 20 rows in obs and 30 in var", DAMAGED)


def test_matrix_on_its_side_says_so(refused, make):
    path = make.h5ad(X=make.counts().T.copy())
    refused(path, DataError, "X is 30 x 20, but there are 20 rows in obs", "write it transposed")


@pytest.mark.case(40, "O28")
def test_column_of_obs_of_another_length(refused, make, path):
    with make.edit(path) as file:
        file["obs/depth"] = np.ones(19)
        file["obs"].attrs["column-order"] = ["depth"]
    refused(path, DataError, "column 'depth' of obs has 19 rows, expected 20", "damaged")


def test_column_that_is_listed_but_absent(refused, make, path):
    with make.edit(path) as file:
        file["obs"].attrs["column-order"] = ["depth"]
    refused(path, DataError, "obs lists a column 'depth' that is not there", "damaged")


@pytest.mark.parametrize("part", ["X", "obs", "obs/state"])
@pytest.mark.case(41)
def test_unknown_encoding(refused, make, path, part):
    with make.edit(path) as file:
        if part == "obs/state":
            file["obs"].create_group("state")
            file["obs"].attrs["column-order"] = ["state"]
        file[part].attrs["encoding-type"] = "hologram"
    refused(path, DataError, "'hologram'", "write the file again with a current anndata")


@pytest.mark.parametrize("part", ["obs", "var"])
@pytest.mark.case(42, "O29")
def test_table_without_the_name_of_its_index(refused, make, path, part):
    with make.edit(path) as file:
        del file[part].attrs["_index"]
    refused(path, DataError, f"{part} has no attribute _index", "write the file again")


@pytest.mark.parametrize("part", ["obs", "var"])
def test_table_whose_index_is_not_there(refused, make, path, part):
    with make.edit(path) as file:
        file[part].attrs["_index"] = "barcode"
    refused(path, DataError, f"{part} names 'barcode' as its index but has no", "damaged")


@pytest.mark.parametrize("part", ["obs", "var"])
def test_table_whose_index_has_a_name_that_is_no_utf8(refused, make, path, part):
    kind = h5t.C_S1.copy()
    kind.set_size(h5t.VARIABLE)
    kind.set_cset(h5t.CSET_UTF8)
    with make.edit(path) as file:
        del file[part].attrs["_index"]
        made = h5a.create(file[part].id, b"_index", kind, h5s.create(h5s.SCALAR))
        made.write(np.array(b"ce\xabll", object))
    refused(path, DataError, f"{part} names 'ce\ufffdll' as its index but has no", "damaged")


def _categorical(file: h5py.File, codes: list[int], categories: list[str]) -> None:
    group = file["obs"].create_group("response")
    group.attrs["encoding-type"], group.attrs["encoding-version"] = "categorical", "0.2.0"
    group.attrs["ordered"] = False
    group["codes"] = np.array(codes, dtype="i1")
    group.create_dataset("categories", data=categories, dtype=h5py.string_dtype())
    file["obs"].attrs["column-order"] = ["response"]


@pytest.mark.parametrize("code", [2, 100, -7])
@pytest.mark.case(43, "O27")
def test_code_beyond_the_categories(refused, make, path, code):
    with make.edit(path) as file:
        _categorical(file, [0] * 11 + [code] + [1] * 8, ["resistant", "sensitive"])
    refused(path, DataError, f"obs/response has the code {code} in row 11, but only 2", "damaged")


def test_category_listed_twice(refused, make, path):
    with make.edit(path) as file:
        _categorical(file, [0, 1] * 10, ["sensitive", "sensitive"])
    refused(path, DataError, "obs/response lists a category twice", "damaged")


def test_categorical_without_codes(refused, make, path):
    with make.edit(path) as file:
        _categorical(file, [0, 1] * 10, ["resistant", "sensitive"])
        del file["obs/response/codes"]
    refused(path, DataError, "obs/response has no codes", "damaged")


@pytest.mark.parametrize("part", ["obs/_index", "var/_index", "obs/state"])
@pytest.mark.parametrize("fixed", [True, False], ids=["fixed length", "variable length"])
@pytest.mark.case(72, "O26")
def test_text_that_is_not_utf8_names_its_row(refused, make, path, part, fixed):
    n = 30 if part.startswith("var") else 20
    values = np.array([b"a%d" % i for i in range(n)], dtype="S4" if fixed else object)
    values[13] = b"\xff\xfe"
    with make.edit(path) as file:
        if part in file:
            del file[part]
        else:
            file["obs"].attrs["column-order"] = ["state"]
        kind = None if fixed else h5py.string_dtype()
        file.create_dataset(part, data=values, dtype=kind)
    refused(path, DataError, f"{part} holds text that is not UTF-8 in row 13", "in UTF-8")


@pytest.mark.case(44, "O21")
def test_matrix_missing(refused, make, path):
    with make.edit(path) as file:
        del file["X"]
    refused(path, DataError, "there is no matrix (X, layers['counts'] or raw)", "--layer")


def test_matrix_missing_but_other_layers_named(refused, make, path):
    with make.edit(path) as file:
        file.create_group("layers")
        file.move("X", "layers/umi")
    refused(path, DataError, "there is no matrix", "umi")


@pytest.mark.parametrize("name", ["data", "indices", "indptr"])
def test_sparse_matrix_without_one_of_its_arrays(refused, make, path, name):
    with make.edit(path) as file:
        del file["X"][name]
    refused(path, DataError, f"X has no {name}", "damaged")


@pytest.mark.parametrize("shape", [(600,), (2, 20, 15), ()])
@pytest.mark.case(45)
def test_matrix_of_other_than_two_dimensions(refused, make, shape):
    path = make.h5ad(X=np.ones(shape, "f4"))
    refused(path, DataError, f"X has {len(shape)} dimensions, expected 2", "damaged")


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.full((20, 30), b"TP53"), "X holds text"),
        (np.ones((20, 30), "c8"), "X holds complex numbers"),
        (np.zeros((20, 30), [("a", "f4"), ("b", "i4")]), "X holds structures"),
    ],
)
@pytest.mark.case(46, "O20")
def test_matrix_of_something_else_than_numbers(refused, make, matrix, message):
    refused(make.h5ad(X=matrix), DataError, message, "file")


def test_sparse_matrix_of_text(refused, make, path):
    with make.edit(path) as file:
        n = len(file["X/data"])
        del file["X/data"]
        file.create_dataset("X/data", data=["a"] * n, dtype=h5py.string_dtype())
    refused(path, DataError, "X/data holds text, expected numbers", "real numbers")


def test_matrix_of_python_objects_in_memory(refused, make):
    from anndata import AnnData

    adata = AnnData(obs=pd.DataFrame(index=["a", "b"]), var=pd.DataFrame(index=make.genes(3)))
    adata.layers["counts"] = np.array([[1, 2, "x"]] * 2, dtype=object)
    refused(adata, DataError, "layers/counts holds objects", "real numbers")


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_matrix_of_true_and_false_is_read(make, read, kind):
    seen = make.counts() > 1
    _, values = read(make.h5ad(X=kind(seen)))
    assert np.array_equal(values, seen)


@pytest.mark.case("O18")
def test_chunk_that_cannot_be_unpacked(refused, make, path):
    with make.edit(path) as file:
        del file["X"]
        file.create_dataset("X", data=make.counts(), chunks=(20, 30), compression="gzip")
        place = file["X"].id.get_chunk_info(0)
    with open(path, "r+b") as handle:
        handle.seek(place.byte_offset)
        handle.write(b"\x13" * place.size)
    refused(path, DataError, "data cannot be read", "the file is damaged")
