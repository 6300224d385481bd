"""Cells and labels that no split can be made of (cases 80-87): one line, a remedy, no output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anndata import AnnData

from scdrugmap.evaluation.tables import read_splits
from scdrugmap.testing import synthetic_adata

SOUND = ("pooled-group", "within")


def cohort(n_patients: int = 6) -> AnnData:
    adata = synthetic_adata(60, 600, n_patients=n_patients)
    for column in ("patient", "response", "batch"):
        adata.obs[column] = adata.obs[column].astype(object)
    return adata


@pytest.fixture
def split(child: Any, tmp_path: Path) -> Callable[..., Any]:
    """Write the cells, split them, and check what every failure must keep to."""

    def run(adata: AnnData, *options: object) -> Any:
        adata.write_h5ad(tmp_path / "cells.h5ad")
        output = tmp_path / "splits.tsv"
        given = {"--label": "response", "--group": "patient", "--folds": 3}
        given.update(zip(options[::2], options[1::2], strict=True))  # type: ignore[call-overload]
        flat = [part for key, value in given.items() if value for part in (key, value)]
        result = child.cli("split", tmp_path / "cells.h5ad", *flat, "-o", output)
        assert output.exists() == (result.code == 0)
        assert [
            p.name for p in tmp_path.iterdir() if p.name not in ("cells.h5ad", "splits.tsv")
        ] == []
        assert "Traceback" not in result.err
        if result.code:
            lines = result.err.splitlines()
            assert lines[0].startswith("Error: ")
            assert len(lines) == 2, "one line for the error, one for the remedy"
        return result

    return run


@pytest.mark.case(80)
def test_label_column_that_is_missing_names_the_nearest(split: Any) -> None:
    result = split(cohort(), "--label", "respons")
    assert result.code == 2
    assert "no column 'respons' in obs (--label)" in result.err
    assert "did you mean response" in result.err


@pytest.mark.parametrize("protocol", [*SOUND, "paper-pooled"])
@pytest.mark.case("O31")
def test_one_class_cannot_be_split(split: Any, protocol: str) -> None:
    adata = cohort()
    adata.obs["response"] = "resistant"
    result = split(adata, "--protocol", protocol)
    assert result.code == 3
    assert "all 60 labelled cells are resistant; a split needs both labels" in result.err
    assert "--sensitive" in result.err


@pytest.mark.case(82)
def test_third_label_must_be_given_a_meaning(split: Any) -> None:
    adata = cohort()
    adata.obs.loc[adata.obs_names[:7], "response"] = "persistant"
    result = split(adata)
    assert result.code == 3
    assert "persistant (7 cells)" in result.err
    assert "--drop 'persistant'" in result.err
    assert split(adata, "--drop", "persistant").code == 0


@pytest.mark.case(83)
def test_missing_labels_are_set_aside_and_counted(split: Any, tmp_path: Path) -> None:
    adata = cohort()
    adata.obs.loc[adata.obs_names[:6], "response"] = np.nan
    result = split(adata)
    assert result.code == 0
    assert "6 cells without response are set aside" in result.err
    assert read_splits(tmp_path / "splits.tsv")["cell"].nunique() == 54


@pytest.mark.case(84)
def test_zero_and_one_ask_which_is_sensitive(split: Any) -> None:
    adata = cohort()
    adata.obs["response"] = (adata.obs["response"] == "sensitive").astype(int)
    result = split(adata)
    assert result.code == 3
    assert "holds 0 and 1: which one is sensitive?" in result.err
    assert "--sensitive 1 --resistant 0" in result.err
    assert split(adata, "--sensitive", "1", "--resistant", "0").code == 0


@pytest.mark.parametrize("protocol", SOUND)
@pytest.mark.case(85)
def test_single_group_is_refused(split: Any, protocol: str) -> None:
    adata = cohort()
    adata.obs["patient"] = "P1"
    result = split(adata, "--protocol", protocol)
    assert result.code == 3
    assert "all 60 cells belong to one group, 'P1'" in result.err
    assert "--group must name the column" in result.err


@pytest.mark.parametrize("protocol", SOUND)
def test_library_per_label_is_refused_as_confounded(split: Any, protocol: str) -> None:
    result = split(cohort(), "--group", "response", "--protocol", protocol)
    assert result.code == 3
    assert "confounded design: all sensitive cells come from one group" in result.err
    assert "add a second sensitive sample; --protocol paper-pooled gives a number" in result.err


@pytest.mark.case(86)
def test_class_whose_groups_are_tied_by_copies_is_confounded(split: Any) -> None:
    adata = cohort()
    values = adata.X.toarray()
    sensitive = np.flatnonzero(adata.obs["response"] == "sensitive")
    values[sensitive] = values[sensitive[0]]  # every patient holds the same cell
    adata.X = values
    result = split(adata)
    assert result.code == 3
    assert "confounded design: all sensitive cells come from one group, 'P01'" in result.err


def test_confounded_design_may_be_split_as_in_the_paper_with_a_warning(split: Any) -> None:
    result = split(cohort(), "--group", "response", "--protocol", "paper-pooled")
    assert result.code == 0
    assert "confounded design" in result.err
    assert "no evidence" in result.err


@pytest.mark.case(87)
def test_one_cell_per_patient_is_fine(split: Any, tmp_path: Path) -> None:
    result = split(cohort(60))
    assert result.code == 0
    table = read_splits(tmp_path / "splits.tsv")
    assert table["group"].nunique() == 60
    assert table["fold"].nunique() == 3


def test_missing_donors_are_an_error_not_a_warning(split: Any) -> None:
    adata = cohort()
    adata.obs.loc[adata.obs_names[:2], "patient"] = np.nan
    result = split(adata)
    assert result.code == 3
    assert "2 of 60 cells have no donor, 'cell_00000' among them" in result.err
    assert "--where" in result.err


@pytest.mark.parametrize("protocol", SOUND)
def test_sound_protocol_without_a_group_asks_for_it(split: Any, protocol: str) -> None:
    result = split(cohort(), "--group", None, "--protocol", protocol)
    assert result.code == 2
    assert "needs to know which cells belong together" in result.err
    assert "--group" in result.err
