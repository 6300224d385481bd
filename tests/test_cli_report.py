"""``scdrugmap report`` from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scdrugmap.testing import synthetic_adata


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from scdrugmap.config import make_config
    from scdrugmap.run.execute import run_benchmark

    folder = tmp_path_factory.mktemp("report")
    synthetic_adata(160, 600, n_patients=8).write_h5ad(folder / "cohort.h5ad")
    config = make_config(
        {
            "data": str(folder / "cohort.h5ad"),
            "label": "response",
            "group": "patient",
            "models": ("constant", "technical"),
            "controls": False,
            "seeds": 0,
            "folds": 2,
            "draws": 10,
        }
    )
    return run_benchmark(config, folder / "run", quiet=True).folder


def test_the_report_is_written_again_with_the_same_bytes(
    cli: Callable[..., Any], run: Path, tmp_path: Path
) -> None:
    result = cli("report", run, "-o", tmp_path / "again.html")
    assert result.code == 0, result.err
    assert (tmp_path / "again.html").read_bytes() == (run / "report.html").read_bytes()


def test_an_existing_file_is_kept_without_overwrite(
    cli: Callable[..., Any], run: Path, tmp_path: Path
) -> None:
    (tmp_path / "old.html").write_text("old")
    assert cli("report", run, "-o", tmp_path / "old.html").code == 2
    assert (tmp_path / "old.html").read_text() == "old"
    assert cli("report", run, "-o", tmp_path / "old.html", "--overwrite").code == 0


def test_a_folder_without_a_finished_run_is_refused(
    cli: Callable[..., Any], tmp_path: Path
) -> None:
    result = cli("report", tmp_path, "-o", tmp_path / "r.html")
    assert result.code == 2
    assert "holds no finished run" in result.err
    assert not (tmp_path / "r.html").exists()


def test_nothing_asked_for_is_an_error_with_a_way_out(cli: Callable[..., Any], run: Path) -> None:
    result = cli("report", run)
    assert result.code == 2
    assert "nothing was asked for" in result.err
    assert "name a file with -o" in result.err


def test_a_page_figures_and_a_crate_are_written_together(
    cli: Callable[..., Any], run: Path, tmp_path: Path
) -> None:
    result = cli(
        *("report", run, "-o", tmp_path / "r.html", "--figures", tmp_path / "figures"),
        *("--crate", tmp_path / "r.zip"),
    )
    assert result.code == 0, result.err
    assert {path.name for path in tmp_path.iterdir()} == {"r.html", "r.zip", "figures"}
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"overview-auroc.svg", "overview-auroc.pdf", "overview-auroc.tsv"} <= names


def test_existing_figures_and_crates_are_kept_without_overwrite(
    cli: Callable[..., Any], run: Path, tmp_path: Path
) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "mine.svg").write_text("mine")
    (tmp_path / "r.zip").write_text("mine")
    result = cli("report", run, "--figures", tmp_path / "figures")
    assert (result.code, "is not empty" in result.err) == (2, True)
    assert cli("report", run, "--crate", tmp_path / "r.zip").code == 2
    assert (tmp_path / "r.zip").read_text() == "mine"
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["mine.svg"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--figures", "r.txt"], "is no folder"),
        (["--figures", "missing/figures"], "does not exist"),
        (["-o", "same.zip", "--crate", "same.zip"], "two outputs"),
        (["--figures", "figures", "--interactive"], "--interactive is about the HTML file"),
    ],
)
def test_outputs_that_cannot_be_are_refused_before_any_work(
    cli: Callable[..., Any],
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.txt").write_text("a file")
    result = cli("report", run, *arguments)
    assert result.code == 2
    assert message in result.err
    assert {path.name for path in tmp_path.iterdir()} == {"r.txt"}


def test_a_crate_of_two_runs_is_refused(cli: Callable[..., Any], run: Path, tmp_path: Path) -> None:
    result = cli("report", run, run, "--crate", tmp_path / "r.zip")
    assert (result.code, "a crate is of one run" in result.err) == (2, True)


def test_a_benchmark_leaves_its_comparisons_and_the_hashes_of_its_inputs(run: Path) -> None:
    from scdrugmap.evaluation.tables import read_comparisons
    from scdrugmap.files import hash_file
    from scdrugmap.run.record import read_run

    assert read_comparisons(run / "comparisons.tsv").empty  # only references and controls ran
    cohort = run.parent / "cohort.h5ad"
    assert read_run(run).provenance["inputs"] == [
        {
            "name": "cohort.h5ad",
            "n_bytes": cohort.stat().st_size,
            "sha256": hash_file(cohort),
        }
    ]
