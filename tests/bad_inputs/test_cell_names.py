"""Names of cells that repeat, and the choice of cells: case 78."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scdrugmap.data.obs import read_obs
from scdrugmap.errors import DataError, UsageError


def frame(names: list[str], **columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame({k: np.array(v, dtype=object) for k, v in columns.items()}, index=names)


def test_repeated_names_are_told_apart_by_the_sample(make, read):
    names = [f"AC{i % 10}" for i in range(20)]
    samples = ["s1"] * 10 + ["s2"] * 10
    cells, found = read(make.h5ad(obs=frame(names, sample=samples)))
    assert cells.names[0] == "s1:AC0"
    assert cells.names[19] == "s2:AC9"
    assert list(cells.obs.index) == list(cells.names)
    assert np.array_equal(found, make.counts())
    assert any("10 cell names repeat ('AC0', ...)" in notice for notice in cells.notices)


def test_column_of_samples_can_be_named(make, read):
    names = [f"AC{i % 10}" for i in range(20)]
    lanes = ["l1"] * 10 + ["l2"] * 10
    cells, _ = read(make.h5ad(obs=frame(names, lane=lanes)), sample="lane")
    assert cells.names[10] == "l2:AC0"


def test_names_repeated_within_a_sample(refused, make):
    path = make.h5ad(obs=frame(["AC1"] * 20, sample=["s1"] * 20))
    refused(path, DataError, "19 cell names repeat ('AC1', ...)", "make the names unique")


def test_empty_name(refused, make):
    names = [f"AC{i}" if i % 10 else "" for i in range(5, 25)]
    path = make.h5ad(obs=frame(names, sample=[f"s{i}" for i in range(20)]))
    refused(path, DataError, "2 of 20 cell names are empty (the first in row 5)", "every cell")


@pytest.mark.case(78)
def test_names_repeated_without_samples(refused, make):
    path = make.h5ad(obs=frame([f"AC{i % 10}" for i in range(20)]))
    refused(path, DataError, "no column of samples tells these cells apart", "`sample`")


def test_column_of_samples_that_is_missing(refused, make):
    path = make.h5ad(obs=frame([f"AC{i % 10}" for i in range(20)], lane=["l"] * 20))
    refused(path, UsageError, "no column 'lanes' in obs", "did you mean lane?", sample="lanes")


def test_names_do_not_depend_on_the_cells_selected(make, read):
    names = [f"AC{i % 10}" for i in range(20)]
    samples = ["s1"] * 10 + ["s2"] * 10
    path = make.h5ad(obs=frame(names, sample=samples))
    cells, found = read(path, where=[("sample", "s2")])
    assert list(cells.names) == [f"s2:AC{i}" for i in range(10)]
    assert np.array_equal(found, make.counts()[10:])
    assert list(read_obs(path, where=[("sample", "s2")])[1].index) == list(cells.names)


@pytest.mark.parametrize("where", [[("sample", "s3")], [("sample", "s1"), ("drug", "none")]])
def test_selection_of_no_cell(refused, make, where):
    obs = frame([f"c{i}" for i in range(20)], sample=["s1"] * 20, drug=["erlotinib"] * 20)
    refused(make.h5ad(obs=obs), UsageError, "no cell has sample=", "sample holds: s1", where=where)


def test_selection_by_a_column_that_is_missing(refused, path):
    refused(path, UsageError, "no column 'sampel' in obs", "column", where=[("sampel", "s1")])
