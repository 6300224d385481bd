"""Reading labels and origins of cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix, vstack

from scdrugmap.data.labels import LabelMap
from scdrugmap.errors import DataError, UsageError
from scdrugmap.evaluation.design import DESIGN_COLUMNS, as_text, read_design
from scdrugmap.testing import synthetic_adata

LABELS = LabelMap.parse()


def save(adata: AnnData, path: Path) -> Path:
    adata.write_h5ad(path)
    return path


def cohort(**options: int) -> AnnData:
    return synthetic_adata(24, 600, n_patients=4, **options)  # type: ignore[arg-type]


def read(*sources: object, **options: object):
    options = {"label": "response", "labels": LABELS, "group": "patient", **options}
    return read_design(list(sources), **options)  # type: ignore[arg-type]


def test_design_has_one_row_per_labelled_cell(tmp_path: Path) -> None:
    adata = cohort()
    frame = read(save(adata, tmp_path / "one.h5ad")).frame
    assert list(frame.columns) == list(DESIGN_COLUMNS)
    assert list(frame["cell"]) == sorted(adata.obs_names)
    assert set(frame["dataset"]) == set(frame["study"]) == {"one"}
    by_cell = adata.obs.loc[frame["cell"]]
    assert list(frame["donor"]) == list(by_cell["patient"])
    assert list(frame["label"]) == list(by_cell["response"])


def test_sample_is_the_donor_unless_named() -> None:
    adata = cohort()
    adata.obs["library"] = [f"L{i % 8}" for i in range(24)]
    frame = read(adata).frame
    assert list(frame["sample"]) == list(frame["donor"])
    assert set(read(adata, sample="library").frame["sample"]) == {f"L{i}" for i in range(8)}


def test_study_dataset_and_further_ties_come_from_columns() -> None:
    adata = cohort()
    adata.obs["arm"] = ["a", "b"] * 12
    columns = ("study", "dataset", "cell_line", "control")
    frame = read(adata, **dict.fromkeys(columns, "arm")).frame
    for column in columns:
        assert set(frame[column]) == {"a", "b"}


def test_cells_without_a_label_are_set_aside_and_counted() -> None:
    adata = cohort()
    adata.obs["response"] = adata.obs["response"].astype(object)
    adata.obs.loc[adata.obs_names[:3], "response"] = np.nan
    design = read(adata)
    assert len(design.frame) == 21
    assert any("3 cells without response are set aside" in notice for notice in design.notices)


def test_missing_donors_stay_empty() -> None:
    adata = cohort()
    adata.obs["patient"] = adata.obs["patient"].astype(object)
    adata.obs.loc[adata.obs_names[0], "patient"] = np.nan
    frame = read(adata).frame
    assert list(frame.loc[frame["donor"] == "", "cell"]) == [adata.obs_names[0]]


def test_copies_in_two_files_share_a_fingerprint(tmp_path: Path) -> None:
    one, other = cohort(seed=0), cohort(seed=1)
    other.X = vstack([one.X[:5], other.X[5:]]).tocsr()
    files = [save(a, tmp_path / name) for a, name in ((one, "a.h5ad"), (other, "b.h5ad"))]
    frame = read(*files).frame
    shared = frame.groupby("fingerprint")["dataset"].nunique()
    assert (shared == 2).sum() == 5
    assert frame["fingerprint"].nunique() == 43


def test_cells_without_any_value_are_no_copies() -> None:
    adata = cohort()
    values = adata.X.toarray()
    values[:2] = 0
    adata.X = csr_matrix(values)
    assert (read(adata).frame["fingerprint"] == "").sum() == 2


def test_fingerprints_can_be_left_out(tmp_path: Path) -> None:
    frame = read(save(cohort(), tmp_path / "a.h5ad"), fingerprints=False).frame
    assert set(frame["fingerprint"]) == {""}
    assert len(frame) == 24


def test_where_selects_cells() -> None:
    frame = read(cohort(), where=[("batch", "B1")]).frame
    assert len(frame) == 12


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    files = [save(cohort(), tmp_path / name) for name in ("a.h5ad", "x/a.h5ad")]
    with pytest.raises(UsageError, match="two inputs are called 'a'") as stop:
        read(*files)
    assert "rename" in stop.value.hint


def test_missing_group_column_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no column 'pateint' in obs \(--group\)") as stop:
        read(cohort(), group="pateint")
    assert "did you mean patient" in stop.value.hint


def test_no_input_is_an_error() -> None:
    with pytest.raises((DataError, UsageError), match="no input"):
        read()


def test_design_of_no_group_has_empty_donors() -> None:
    frame = read(cohort(), group=None).frame
    assert set(frame["donor"]) == set(frame["sample"]) == {""}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2], ["1", "2"]),
        ([1.0, np.nan], ["1", ""]),
        ([1.5, 2.0], ["1.5", "2.0"]),
        ([" a ", None], ["a", ""]),
        ([True, False], ["True", "False"]),
        (pd.Categorical(["x", None]), ["x", ""]),
        (pd.Categorical([1.0, 2.0]), ["1", "2"]),
        (pd.Categorical([1, None, 3]), ["1", "", "3"]),
        (pd.Categorical([1.0, np.nan], categories=[1.0, 0.5]), ["1", ""]),
        (pd.array(["x", pd.NA], dtype="string"), ["x", ""]),
    ],
)
def test_names_become_trimmed_text(values: object, expected: list[str]) -> None:
    assert list(as_text(pd.Series(values))) == expected


def test_repeated_names_are_told_apart_by_the_sample_not_by_the_donor() -> None:
    adata = cohort()
    adata.obs["sample"] = [f"S{i % 2}" for i in range(24)]
    adata.obs["library"] = [f"L{i % 2}" for i in range(24)]
    adata.obs_names = [f"AAC-{i // 2}" for i in range(24)]  # unique within a sample only
    for options, name in (
        ({}, "S0:AAC-0"),
        ({"group": "batch"}, "S0:AAC-0"),
        ({"sample": "library"}, "L0:AAC-0"),
    ):
        assert name in set(read(adata, **options).frame["cell"])


@pytest.mark.parametrize("kind", ["object", "category"])
def test_a_group_with_a_nul_is_refused_since_two_could_be_taken_for_one(kind: str) -> None:
    adata = cohort()
    names = [f"{name}\x00{place % 2}" for place, name in enumerate(adata.obs["patient"])]
    adata.obs["patient"] = pd.Series(names, adata.obs_names, kind)
    with pytest.raises(DataError, match="column 'patient' holds names with a NUL character"):
        read(adata)
