"""``scdrugmap check`` from the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scdrugmap.data.simulate import simulate_cohort
from scdrugmap.testing import synthetic_adata


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    path = tmp_path / "my cohort.h5ad"
    simulate_cohort(6, 10, 700).write_h5ad(path)
    return path


def test_check_prints_what_the_file_holds_and_what_to_type_next(
    cli: Callable, cohort: Path
) -> None:
    done = cli("check", cohort)

    assert done.code == 0
    assert "60 cells x 700 genes" in done.out
    assert "counts in X (csr float32)" in done.out
    assert "label   response: " in done.out
    assert re.search(r"randproj +knows 700 of 700 genes", done.out)
    assert f"next: scdrugmap benchmark --data '{cohort}' --label response" in done.out


def test_check_as_json_is_machine_readable(cli: Callable, cohort: Path) -> None:
    found = json.loads(cli("check", cohort, "--json", "--quick").out)

    assert found["ok"] is True
    assert found["quick"] is True
    assert found["findings"] == []


def test_a_file_that_cannot_be_used_ends_with_code_3_and_one_line(
    cli: Callable, tmp_path: Path
) -> None:
    adata = synthetic_adata(10, 60)
    adata.X.data[0] = np.nan
    adata.write_h5ad(tmp_path / "bad.h5ad")

    text = cli("check", tmp_path / "bad.h5ad")
    as_json = cli("check", tmp_path / "bad.h5ad", "--json")

    assert text.code == as_json.code == 3
    assert text.out == ""
    assert text.err.startswith("Error: bad.h5ad: ")
    assert "Traceback" not in text.err
    found = json.loads(as_json.out)
    assert found["ok"] is False
    assert found["findings"][0]["rule"] == "F1"
    assert found["findings"][0]["severity"] == "error"


def test_hostile_names_do_not_reach_the_terminal_raw(cli: Callable, tmp_path: Path) -> None:
    adata = synthetic_adata(12, 60)
    adata.obs["response"] = ["a\x1b[31m\n", "b"] * 6
    adata.write_h5ad(tmp_path / "cells.h5ad")

    done = cli("check", tmp_path / "cells.h5ad", "--no-models")

    assert done.code == 0
    assert "\x1b" not in done.out
    assert "\\x1b[31m\\n" in done.out


def test_check_refuses_a_path_that_is_not_there(cli: Callable, tmp_path: Path) -> None:
    done = cli("check", tmp_path / "none.h5ad")

    assert done.code == 2
    assert "does not exist" in done.err
