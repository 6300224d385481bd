"""``scdrugmap split`` on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from scdrugmap.data.labels import LabelMap
from scdrugmap.evaluation.design import read_design
from scdrugmap.evaluation.protocols import FEW_SHOT, PROTOCOLS
from scdrugmap.evaluation.splits import make_split
from scdrugmap.evaluation.tables import read_splits
from scdrugmap.testing import synthetic_adata

ROLE = ["--label", "response", "--group", "patient"]


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    path = tmp_path / "cohort.h5ad"
    synthetic_adata(80, 600, n_patients=10).write_h5ad(path)
    return path


def test_command_writes_what_the_library_makes(cli: Any, cells: Path, tmp_path: Path) -> None:
    output = tmp_path / "splits.tsv.gz"
    result = cli("split", cells, *ROLE, "--folds", 4, "--seed", 7, "--validation", "-o", output)
    assert result.code == 0, result.err
    design = read_design([cells], label="response", labels=LabelMap.parse(), group="patient")
    expected = make_split(design, folds=4, seed=7, validation=True)
    pd.testing.assert_frame_equal(read_splits(output), expected.table)
    assert result.out == ""


def test_folds_are_shown(cli: Any, cells: Path, tmp_path: Path) -> None:
    err = cli("split", cells, *ROLE, "-o", tmp_path / "s.tsv").err
    assert "80 cells in 10 groups, 5 folds" in err
    assert [line.split()[:2] for line in err.splitlines()[-2:]] == [["4", "test"], ["4", "train"]]


def test_quiet_says_nothing(cli: Any, cells: Path, tmp_path: Path) -> None:
    result = cli("split", cells, *ROLE, "--quiet", "-o", tmp_path / "s.tsv")
    assert (result.code, result.out, result.err) == (0, "", "")


def test_json_holds_the_summary(cli: Any, cells: Path, tmp_path: Path) -> None:
    result = cli("split", cells, *ROLE, "--json", "-o", tmp_path / "s.tsv")
    summary = json.loads(result.out)
    assert summary["protocol"] == "pooled-group"
    assert summary["split_id"] == read_splits(tmp_path / "s.tsv")["split_id"].iloc[0]
    assert sum(row["cells"] for row in summary["folds"] if row["role"] == "test") == 80


def test_cells_can_be_selected(cli: Any, cells: Path, tmp_path: Path) -> None:
    result = cli("split", cells, *ROLE, "--where", "batch=B1", "-o", tmp_path / "s.tsv")
    assert result.code == 0, result.err
    assert read_splits(tmp_path / "s.tsv")["cell"].nunique() < 80


def test_several_files_are_one_pool(cli: Any, cells: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.h5ad"
    synthetic_adata(80, 600, n_patients=10, seed=1).write_h5ad(other)
    result = cli("split", cells, other, *ROLE, "-o", tmp_path / "s.tsv")
    assert result.code == 0, result.err
    assert set(read_splits(tmp_path / "s.tsv")["dataset"]) == {"cohort", "other"}


def test_existing_output_is_kept(cli: Any, cells: Path, tmp_path: Path) -> None:
    output = tmp_path / "s.tsv"
    output.write_text("mine")
    result = cli("split", cells, *ROLE, "-o", output)
    assert (result.code, output.read_text()) == (2, "mine")
    assert "add --overwrite" in result.err
    assert cli("split", cells, *ROLE, "-o", output, "--overwrite").code == 0


def test_input_cannot_be_the_output(cli: Any, cells: Path) -> None:
    result = cli("split", cells, *ROLE, "-o", cells, "--overwrite")
    assert result.code == 2
    assert "both input and output" in result.err


def test_unknown_protocol_is_refused_before_anything_is_read(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.h5ad").write_text("")
    result = cli(
        "split", tmp_path / "broken.h5ad", *ROLE, "--protocol", "lodoo", "-o", tmp_path / "s.tsv"
    )
    assert result.code == 2
    assert "there is no protocol 'lodoo'" in result.err


def test_missing_input_is_a_usage_error(cli: Any, tmp_path: Path) -> None:
    result = cli("split", tmp_path / "none.h5ad", *ROLE, "-o", tmp_path / "s.tsv")
    assert result.code == 2


def test_help_names_the_protocols_and_has_an_example(cli: Any) -> None:
    result = cli("split", "--help")
    assert "Example: scdrugmap split" in result.out
    shown = "".join(result.out.split())
    assert all(name in shown for name in PROTOCOLS if not name.startswith(FEW_SHOT))
    assert "few-shot,with--shots" in shown


@pytest.mark.parametrize("verb", ["split", "evaluate"])
def test_help_imports_nothing_heavy(verb: str) -> None:
    code = (
        "import sys\nfrom scdrugmap.cli import main\n"
        f"try: main(['{verb}', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'anndata', 'scipy', 'sklearn', 'pandas', 'h5py'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_shots_and_their_unit_name_the_protocol(cli: Any, cells: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.h5ad"
    synthetic_adata(80, 600, n_patients=10, seed=1).write_h5ad(other)
    shots = ["--protocol", "few-shot", "--shots", 2, "--shot-unit", "cell", "--target", "other"]
    result = cli("split", cells, other, *ROLE, *shots, "--json", "-o", tmp_path / "s.tsv")
    assert result.code == 0, result.err
    assert json.loads(result.out)["protocol"] == "few-shot-2-cells"
    table = read_splits(tmp_path / "s.tsv")
    assert set(table["target"]) == {"other"}
    assert table["draw"].nunique() == 10


def test_shots_without_few_shot_are_refused(cli: Any, cells: Path, tmp_path: Path) -> None:
    result = cli("split", cells, *ROLE, "--shots", 2, "-o", tmp_path / "s.tsv")
    assert result.code == 2
    assert "have no meaning for protocol pooled-group" in result.err


def test_number_of_shots_that_nobody_compares_is_refused(
    cli: Any, cells: Path, tmp_path: Path
) -> None:
    arguments = ["--protocol", "few-shot", "--shots", 3, "-o", tmp_path / "s.tsv"]
    result = cli("split", cells, *ROLE, *arguments)
    assert result.code == 2
    assert "there are: 1, 2, 4, 8" in result.err


def test_columns_to_hold_out_and_to_group_by_are_taken_over(
    cli: Any, cells: Path, tmp_path: Path
) -> None:
    columns = ["--cancer-type", "batch", "--drug", "batch", "--tissue", "batch"]
    result = cli("split", cells, *ROLE, *columns, "--protocol", "loco", "-o", tmp_path / "s.tsv")
    assert result.code == 0, result.err
    table = read_splits(tmp_path / "s.tsv")
    assert set(table["target"]) == set(table["cancer_type"]) == set(table["drug"])
