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
