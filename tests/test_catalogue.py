"""Datasets by name: registered ones stand in a file of the user's, cells stay where they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from anndata import read_h5ad

from scdrugmap.data.catalogue import (
    add_dataset,
    all_datasets,
    catalogue_path,
    get_dataset,
    remove_dataset,
)
from scdrugmap.errors import DataError, UsageError
from scdrugmap.testing import synthetic_adata


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    adata = synthetic_adata(12, 60, n_patients=4)
    adata.obs["outcome"] = ["PR" if word == "sensitive" else "PD" for word in adata.obs["response"]]
    adata.write_h5ad(tmp_path / "cohort.h5ad")
    return tmp_path / "cohort.h5ad"


def test_a_cohort_is_registered_with_its_columns_and_counts(cohort: Path) -> None:
    add_dataset(cohort, label="outcome", group="patient", sensitive=["PR"], resistant=["PD"])

    spec = get_dataset("cohort").spec

    assert spec.path == str(cohort.resolve())
    assert (spec.label, spec.group) == ("outcome", "patient")
    assert (spec.sensitive, spec.resistant) == (("PR",), ("PD",))
    assert spec.facts == {"n_cells": 12, "n_sensitive": 6, "n_resistant": 6, "n_groups": 4}
    assert get_dataset("cohort").source == "user"


def own() -> list[str]:
    return [name for name, entry in all_datasets().items() if entry.source == "user"]


def test_the_catalogue_is_a_json_file_in_the_folder_for_data(cohort: Path) -> None:
    assert own() == []

    add_dataset(cohort, label="response")
    listed = json.loads(catalogue_path().read_text())

    assert [item["name"] for item in listed] == ["cohort"]


def test_a_name_is_taken_once(cohort: Path) -> None:
    add_dataset(cohort, label="response")

    with pytest.raises(UsageError, match="there is a dataset 'cohort' already"):
        add_dataset(cohort, label="response")
    add_dataset(cohort, label="response", title="again", overwrite=True)

    assert get_dataset("cohort").spec.title == "again"


def test_a_removed_dataset_is_gone_and_its_file_stays(cohort: Path) -> None:
    add_dataset(cohort, label="response")

    remove_dataset("cohort")

    assert own() == []
    assert cohort.exists()


def test_an_unknown_dataset_is_answered_with_near_names(cohort: Path) -> None:
    add_dataset(cohort, label="response")

    with pytest.raises(UsageError) as error:
        get_dataset("cohrt")

    assert error.value.hint == "did you mean cohort?"


@pytest.mark.parametrize("name", ["../x", "a b", ".hidden", "=cmd()"])
def test_a_name_that_could_do_harm_is_refused(name: str, cohort: Path) -> None:
    with pytest.raises(UsageError, match="is no name of a dataset"):
        add_dataset(cohort, label="response", name=name)


def test_a_column_or_label_that_does_not_fit_is_refused_and_nothing_written(cohort: Path) -> None:
    with pytest.raises(UsageError, match="no column 'responce'"):
        add_dataset(cohort, label="responce")
    with pytest.raises(DataError, match="labels without a meaning: P"):
        add_dataset(cohort, label="outcome")

    assert not catalogue_path().exists()


def test_a_damaged_catalogue_is_named(cohort: Path) -> None:
    add_dataset(cohort, label="response")
    catalogue_path().write_text('[{"nam": 1}]')

    with pytest.raises(DataError, match="is no list of datasets"):
        all_datasets()


def test_commands_add_list_show_and_remove(cli: Callable, cohort: Path) -> None:
    added = cli("datasets", "add", cohort, "--label", "response", "--group", "patient")
    listed = cli("datasets", "list")
    shown = json.loads(cli("datasets", "show", "cohort", "--json").out)
    removed = cli("datasets", "remove", "cohort")

    assert (added.code, added.out) == (0, "")
    assert "cohort: 12 cells, 6 sensitive, 6 resistant" in added.err
    assert "cohort   12     user   " in listed.out
    assert shown["facts"]["n_groups"] == 4
    assert removed.code == 0
    assert "cohort" not in [
        item["name"] for item in json.loads(cli("datasets", "list", "--json").out)
    ]
    assert cli("datasets", "show", "cohort").code == 2


def test_the_simulate_command_writes_a_cohort(cli: Callable, tmp_path: Path) -> None:
    target = tmp_path / "cohort.h5ad"
    done = cli(
        *("datasets", "simulate", "-o", target, "--seed", 3, "--patients", 6),
        *("--cells-per-patient", 5, "--genes", 100),
    )

    assert done.code == 0
    assert "simulated 30 cells of 6 patients, 100 genes" in done.err
    adata = read_h5ad(target)
    assert adata.shape == (30, 100)
    assert json.loads(adata.uns["simulation"])["seed"] == 3
    assert cli("datasets", "simulate", "-o", target).code == 2
    bad = cli("datasets", "simulate", "-o", tmp_path / "x.h5ad", "--patients", 1)
    assert bad.code == 2
    assert "n_patients must be at least 4, not 1" in bad.err
