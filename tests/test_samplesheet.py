"""A cohort described by a table: each error names line and column."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from scdrugmap.data.samplesheet import read_samplesheet
from scdrugmap.errors import DataError, UsageError
from scdrugmap.evaluation.tables import read_splits
from scdrugmap.testing import synthetic_adata

OBS = pd.DataFrame(
    {"sample_id": ["s2", "s2", "s3", "other"]}, index=["c1", "c2", "c3", "c4"], dtype=object
)


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    for name in ("p1.h5ad", "pool.h5ad"):
        (tmp_path / name).touch()
    path = tmp_path / "cohort.csv"
    path.write_text(
        "file,sample,column,donor,label,drug\n"
        "p1.h5ad,,,P1,PR,paclitaxel\n"
        "\n"
        "pool.h5ad,s2,sample_id,P2,PD,paclitaxel\n"
        "pool.h5ad,s3,sample_id,,PR,\n"
    )
    return path


def test_a_sheet_describes_files_of_one_and_of_several_samples(sheet: Path) -> None:
    read = read_samplesheet(sheet)
    assert [path.name for path in read.files] == ["p1.h5ad", "pool.h5ad"]
    obs, notices = read.describe(sheet.parent / "pool.h5ad", OBS)
    assert obs["sample"].tolist() == ["s2", "s2", "s3", None]
    assert obs["donor"].tolist() == ["P2", "P2", "s3", None]
    assert obs["label"].tolist() == ["PD", "PD", "PR", None]
    assert obs["drug"].tolist() == ["paclitaxel", "paclitaxel", None, None]
    assert "sample_id" in obs
    assert notices == (
        "pool.h5ad: 1 cells are of samples that cohort.csv does not name; they take no part",
    )
    whole, notices = read.describe(sheet.parent / "p1.h5ad", OBS)
    assert set(whole["sample"]) == {"p1"}
    assert notices == ()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("label", "labell", "line 1: there is no column 'label'"),
        ("p1.h5ad", "p9.h5ad", r"line 2, file: .*p9\.h5ad does not exist"),
        ("P1,PR", "P1,", "line 2, label: the value is missing"),
        ("pool.h5ad,s3", "pool.h5ad,s2", "line 5, sample: 's2' of pool.h5ad is in line 4 already"),
        ("pool.h5ad,s3,sample_id", "pool.h5ad,s3,", "line 5, column: pool.h5ad has several lines"),
        ("p1.h5ad,,", "p1.h5ad,s2,sample_id", "line 4, donor: sample 's2' has 'P2' here and 'P1'"),
        ("s3,sample_id", ",sample_id", "line 5, sample: the value is missing"),
        ("P1,PR,paclitaxel", "P1,PR,a,b", "line 2 has more values than the header"),
        ("label,drug", "label,label", "line 1: the column 'label' is there twice"),
    ],
)
def test_an_error_names_line_and_column(sheet: Path, old: str, new: str, message: str) -> None:
    sheet.write_text(sheet.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        read_samplesheet(sheet)


def test_a_column_or_sample_that_the_file_lacks_is_named(sheet: Path) -> None:
    read = read_samplesheet(sheet)
    with pytest.raises(DataError, match=r"line 4, column: pool\.h5ad has no column 'sample_id'"):
        read.describe(sheet.parent / "pool.h5ad", OBS.rename(columns={"sample_id": "id"}))
    with pytest.raises(DataError, match=r"line 5, sample: pool\.h5ad has no cell with") as error:
        read.describe(sheet.parent / "pool.h5ad", OBS.replace("s3", "s4"))
    assert error.value.hint == "sample_id holds: other, s2, s4"


def test_semicolons_instead_of_commas_are_explained(sheet: Path) -> None:
    sheet.write_text(sheet.read_text().replace(",", ";"))
    with pytest.raises(DataError) as error:
        read_samplesheet(sheet)
    assert error.value.hint == "values are separated by commas in a .csv file"


def test_a_sheet_that_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_samplesheet(tmp_path / "no.csv")
    (tmp_path / "empty.csv").write_text("file,label\n")
    with pytest.raises(DataError, match="no sample"):
        read_samplesheet(tmp_path / "empty.csv")


def test_a_table_of_tabs_from_a_spreadsheet_is_read(sheet: Path, tmp_path: Path) -> None:
    (tmp_path / "cohort.tsv").write_bytes(
        b"\xef\xbb\xbf" + sheet.read_text().replace(",", "\t").replace("\n", "\r\n").encode()
    )
    assert len(read_samplesheet(tmp_path / "cohort.tsv").lines) == 3


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Four files with two samples each, told apart by a column; the sheet has all else."""
    lines = ["file,sample,column,donor,label,drug"]
    for number in range(4):
        adata = synthetic_adata(12, 300, n_patients=2, seed=number)
        adata.obs["pool"] = [f"s{number}{name}" for name in adata.obs["patient"]]
        name = f"pool{number}.h5ad"
        for word, sample in zip(("PR", "PD"), sorted(set(adata.obs["pool"])), strict=True):
            lines.append(f"{name},{sample},pool,d{sample},{word},paclitaxel")
        adata.obs = adata.obs[["pool"]]
        adata.write_h5ad(tmp_path / name)
    (tmp_path / "sheet.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "sheet.csv"


def test_a_benchmark_is_described_by_a_sheet_alone(cohort: Path, cli: Callable) -> None:
    run = cohort.parent / "run"
    done = cli(
        *("benchmark", "--samplesheet", cohort, "--sensitive", "PR", "--resistant", "PD"),
        *("--models", "constant", "--controls", "none", "--folds", 2, "--seeds", 0, "-o", run),
    )
    assert done.code == 0, done.err
    record = json.loads((run / "run.json").read_text())
    assert [item["n_samples"] for item in record["datasets"]] == [2, 2, 2, 2]
    assert record["datasets"][0]["facets"]["drug"] == ["paclitaxel"]
    again = cli("benchmark", run / "config.yaml", "-o", run)
    assert again.code == 0, again.err


def test_a_split_is_described_by_a_sheet_as_a_benchmark_is(cohort: Path, cli: Callable) -> None:
    words = ["--sensitive", "PR", "--resistant", "PD", "--folds", 2]
    splits, run = cohort.parent / "splits.tsv", cohort.parent / "run"
    done = cli("split", "--samplesheet", cohort, *words, "-o", splits)
    assert done.code == 0, done.err
    table = read_splits(splits)
    assert set(table["sample"]) == {f"s{number}P0{n}" for number in range(4) for n in (1, 2)}
    assert set(table["donor"]) == {f"d{name}" for name in table["sample"]}
    assert "drug" in table
    ran = cli(
        *("benchmark", "--samplesheet", cohort, *words, "--models", "constant", "--seeds", 0),
        *("--controls", "none", "-o", run),
    )
    assert ran.code == 0, ran.err
    assert (
        table["split_id"].iloc[0] == read_splits(run / "splits-pooled-group.tsv.gz")["split_id"][0]
    )


def test_what_the_command_line_says_wins_over_the_sheet(cohort: Path, cli: Callable) -> None:
    words = ["--sensitive", "PR", "--resistant", "PD", "--folds", 2]
    output = cohort.parent / "two.tsv"
    inputs = [cohort.parent / f"pool{number}.h5ad" for number in (0, 1)]
    done = cli("split", *inputs, "--samplesheet", cohort, *words, "--group", "pool", "-o", output)
    assert done.code == 0, done.err
    table = read_splits(output)
    assert set(table["dataset"]) == {"pool0", "pool1"}
    assert (table["donor"] == table["sample"]).all()


def test_a_split_without_files_or_without_label_says_what_is_missing(
    cohort: Path, cli: Callable
) -> None:
    output = cohort.parent / "none.tsv"
    for words in (["--label", "label"], [cohort.parent / "pool0.h5ad"]):
        done = cli("split", *words, "-o", output)
        assert done.code == 2
        assert "name the files and --label COLUMN, or a --samplesheet" in done.err
    missing = cli("split", "--samplesheet", cohort.parent / "no.csv", "-o", output)
    assert missing.code == 2
    assert "no.csv cannot be read" in missing.err


def test_a_file_that_the_sheet_does_not_name_is_refused(sheet: Path) -> None:
    with pytest.raises(UsageError, match="does not name"):
        read_samplesheet(sheet).describe(Path("other.h5ad"), OBS)
