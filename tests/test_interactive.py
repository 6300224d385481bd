"""The interactive page: self-contained, strict, and drawn in a real browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scdrugmap.report import figures
from scdrugmap.report.build import build_report
from scdrugmap.report.interactive import plot_of
from tests.test_report import HOSTILE, SOUND, Outline, make_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interactive")
    run = make_run(folder / "run", names=HOSTILE + "%d", protocols=(SOUND,), name=HOSTILE)
    build_report(run, folder / "r.html", interactive=True)
    return folder / "r.html"


def test_the_policy_allows_exactly_one_script_and_fetches_nothing(path: Path) -> None:
    page = path.read_text("utf-8")
    script = page.partition("<script>")[2].rpartition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert f"script-src 'sha256-{digest}';" in policy[1]
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]
    assert page.count("<script>") == 1
    assert "</script" not in script


def test_pictures_stay_in_the_page_for_print(path: Path) -> None:
    page = path.read_text("utf-8")
    outline = Outline(
        page.replace(page[page.index("<script>") : page.rindex("</script>")], "<script>")
    )
    plots = [figure for figure in outline.all("figure") if "data-plot" in figure]
    assert len(plots) >= 4
    assert len(outline.all("img")) > len(plots)
    for figure in plots:
        assert json.loads(str(figure["data-plot"]))["data"]


def test_numbers_that_do_not_exist_are_gaps_and_names_stay_text() -> None:
    cells = pd.DataFrame({"name": ["<b>m</b>"] * 2, "dataset": ["a", "b"], "value": [0.7, np.nan]})
    picture = figures.heatmap(cells, title="AUROC", reference=0.5, file="f")
    plot = plot_of(picture)
    assert plot is not None
    assert plot["data"][0]["z"] == [[0.7, None]]
    assert plot["data"][0]["y"] == ["&lt;b&gt;m&lt;/b&gt;"]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_draws_every_visible_plot_and_runs_no_foreign_script(path: Path) -> None:
    done = subprocess.run(
        [
            str(CHROMIUM),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--virtual-time-budget=8000",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    body = done.stdout.partition("<body>")[2]
    assert body.count('class="main-svg"') >= 4
    assert body.count('class="plotted"') == 3  # two overviews, and ROC of the model that is open
    assert "<script>alert" not in body
