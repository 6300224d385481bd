"""What a file holds, what is wrong with it, and what can use it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix, vstack

from scdrugmap.data.cells import open_cells
from scdrugmap.data.check import RULES, Check, check_file, quick_index
from scdrugmap.data.columns import group_columns, label_columns, mixed_cell_types
from scdrugmap.data.simulate import simulate_cohort
from scdrugmap.data.usable import ask_model
from scdrugmap.errors import DataError, UsageError
from scdrugmap.registry import get_registry
from scdrugmap.testing import synthetic_adata


def rules(check: Check) -> list[str]:
    return [finding.rule for finding in check.findings]


@pytest.fixture
def cohort() -> AnnData:
    return simulate_cohort(6, 10, 700, seed=1)


def test_a_sound_cohort_gives_facts_columns_and_no_finding(cohort: AnnData) -> None:
    check = check_file(cohort, models=False)

    assert check.findings == ()
    assert check.error is None
    assert (check.facts["n_cells"], check.facts["n_genes"]) == (60, 700)
    assert (check.facts["values"], check.facts["location"]) == ("counts", "X")
    assert check.facts["genes"]["exact"] == 700
    assert check.facts["median_counts"] == pytest.approx(np.median(cohort.X.sum(1).A1), rel=1e-6)
    share = cohort[:, cohort.var["mitochondrial"].to_numpy()].X.sum(1).A1 / cohort.X.sum(1).A1
    assert check.facts["median_mitochondrial_share"] == pytest.approx(np.median(share), rel=1e-5)
    assert [(item.name, item.ready) for item in check.labels] == [("response", True)]
    assert [item.name for item in check.groups] == ["patient", "sample", "batch"]


def test_every_finding_has_a_rule_with_a_severity(cohort: AnnData) -> None:
    cohort.X.data[: cohort.X.indptr[1]] = 0
    check = check_file(cohort, models=False)

    assert {severity for severity, _ in RULES.values()} == {"error", "warning", "note"}
    assert all(finding.severity == RULES[finding.rule][0] for finding in check.findings)
    assert "V2" in rules(check)


def test_the_report_is_json(cohort: AnnData) -> None:
    check = check_file(cohort)

    again = json.loads(json.dumps(check.to_dict(), allow_nan=False))

    assert again["ok"] is True
    assert again["facts"]["n_cells"] == 60
    assert {item["name"] for item in again["usable"]} >= {"randproj", "hvg-logreg", "constant"}


def test_copies_of_cells_are_found_by_their_content(cohort: AnnData) -> None:
    twice = AnnData(
        vstack([cohort.X, cohort.X[:5]]).tocsr(),
        obs=pd.concat([cohort.obs, cohort.obs[:5].rename(index=lambda name: f"copy_{name}")]),
        var=cohort.var,
    )

    (finding,) = check_file(twice, models=False).findings

    assert finding.rule == "C1"
    assert "5 cells are copies of others" in finding.message


def test_empty_cells_are_not_copies_of_each_other(cohort: AnnData) -> None:
    cohort.X.data[: cohort.X.indptr[3]] = 0

    check = check_file(cohort, models=False)

    assert rules(check) == ["V2"]
    assert "3 cells hold no value" in check.findings[0].message


def test_lognorm_values_are_named() -> None:
    check = check_file(synthetic_adata(20, 600, values="lognorm"), models=False)

    assert check.facts["values"] == "lognorm"
    assert check.facts["median_counts"] is None
    assert "V1" in rules(check)


def test_a_file_without_usable_values_is_an_error_and_not_an_exception() -> None:
    adata = synthetic_adata(10, 60)
    adata.X = csr_matrix(adata.X.toarray() - 1.5)

    check = check_file(adata)

    assert check.error is not None
    assert check.error.rule == "F1"
    assert "negative" in check.error.message
    assert check.to_dict()["ok"] is False
    with pytest.raises(DataError, match="negative"):
        check.raise_for_error()


def test_every_block_is_validated_but_a_quick_look_reads_a_sample(tmp_path: Path) -> None:
    adata = synthetic_adata(5000, 30, seed=2)
    adata.X.data[adata.X.indptr[3000]] = np.nan  # between the runs of a quick look
    adata.write_h5ad(tmp_path / "cells.h5ad")

    full = check_file(tmp_path / "cells.h5ad", models=False)
    quick = check_file(tmp_path / "cells.h5ad", models=False, quick=True)

    assert full.error is not None
    assert "NaN" in full.error.message
    assert "row 3,000" in full.error.message
    assert quick.error is None
    assert quick.facts["n_cells_read"] == 2000
    assert quick.quick


def test_a_quick_look_takes_cells_from_all_over() -> None:
    index = quick_index(1_000_000)

    assert len(index) == 2000
    assert (index[0], index[-1]) == (0, 999_999)
    assert len(quick_index(50)) == 50


def test_a_confounded_label_is_told() -> None:
    adata = synthetic_adata(40, 600, n_patients=2)

    check = check_file(adata, models=False)

    assert "L4" in rules(check)
    finding = next(item for item in check.findings if item.rule == "L4")
    assert "all sensitive cells come from one group (P01)" in finding.message


def test_labels_that_need_a_map_are_offered_with_the_options() -> None:
    obs = pd.DataFrame({"outcome": ["PR", "PD", "SD"], "age": [1, 2, 3], "x": ["a", "b", "c"]})

    (column,) = label_columns(obs)

    assert (column.name, column.ready) == ("outcome", False)
    assert column.counts == {"PR": 1, "PD": 1, "SD": 1}


def test_the_column_with_plain_words_comes_first() -> None:
    obs = pd.DataFrame(
        {"response": ["R", "NR"], "truth": ["sensitive", "resistant"], "status": ["a", "b"]}
    )

    assert [item.name for item in label_columns(obs)] == ["truth", "response", "status"]


def test_patient_columns_come_before_libraries() -> None:
    n = 20
    obs = pd.DataFrame(
        {
            "batch": ["b"] * n,
            "Donor_ID": [f"d{i % 4}" for i in range(n)],
            "sample": [f"s{i % 5}" for i in range(n)],
            "barcode": [f"c{i}" for i in range(n)],
        }
    )

    assert [(item.name, item.n_groups) for item in group_columns(obs)] == [
        ("Donor_ID", 4),
        ("sample", 5),
        ("batch", 1),
    ]


@pytest.mark.parametrize(
    ("values", "mixed"),
    [
        (["Malignant", "T cell"], True),
        (["Malignant cells", "Malignant cells"], False),
        (["T cell", "fibroblast"], False),
        (["non-malignant", "B cell"], False),
        (["tumor", "normal"], True),
    ],
)
def test_tumour_cells_among_others_are_noticed(values: list[str], mixed: bool) -> None:
    notice = mixed_cell_types(pd.DataFrame({"cell_type": values * 10}), "f.h5ad")

    assert bool(notice) == mixed
    if mixed:
        assert f"--where 'cell_type={values[0]}'" in notice


def test_each_model_says_how_many_genes_it_knows_and_what_it_lacks(cohort: AnnData) -> None:
    usable = {item.name: item for item in check_file(cohort).usable}

    assert (usable["randproj"].usable, usable["randproj"].n_known) == (True, 700)
    assert usable["randproj"].weights == "not needed"
    assert usable["scgpt"].weights == "missing"
    assert "weights missing: scdrugmap weights show scgpt" in usable["scgpt"].reason


def test_a_model_that_knows_too_few_genes_says_so(cohort: AnnData) -> None:
    few = cohort[:, :20].copy()
    usable = {item.name: item for item in check_file(few).usable}

    assert not usable["scgpt"].usable
    assert "20 of 20 genes match" in usable["scgpt"].reason


def test_a_model_that_cannot_be_loaded_says_why(cohort: AnnData) -> None:
    scgpt = get_registry().model("scgpt")
    with open_cells(cohort) as cells:
        missing = ask_model(scgpt.model_copy(update={"factory": "no_such_module:build"}), cells)
        faulty = ask_model(scgpt.model_copy(update={"factory": "operator:truediv"}), cells)

    assert not missing.usable
    assert "cannot be loaded: no_such_module:build" in missing.reason
    assert not faulty.usable
    assert "fault of the plugin: TypeError" in faulty.reason


def test_a_model_that_needs_counts_says_what_the_file_holds() -> None:
    scgpt = get_registry().model("scgpt")
    with open_cells(synthetic_adata(10, 600, values="lognorm")) as cells:
        asked = ask_model(scgpt.model_copy(update={"accepts": frozenset({"counts"})}), cells)

    assert not asked.usable
    assert asked.reason == "needs counts, the file holds lognorm"


def test_a_file_of_few_known_genes_is_warned_about(cohort: AnnData) -> None:
    cohort.var_names = [*cohort.var_names[:100], *(f"probe_{i}" for i in range(600))]
    cohort.var = cohort.var[[]]

    check = check_file(cohort, models=False)

    assert "G1" in rules(check)
    assert "only 100 of 700 genes" in check.findings[0].message


def test_a_missing_file_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        check_file(tmp_path / "none.h5ad")
