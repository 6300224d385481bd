"""The page of what was tried is made from the records of the runs, and is current."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import make_reliability_page as page  # noqa: E402


def test_the_page_of_reliability_is_current() -> None:
    script = ROOT / "scripts" / "make_reliability_page.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_was_not_run_and_what_did_not_hold_stands_out() -> None:
    record = {"subject": "S", "unit": "kills", "outcomes": {"a|b": 9, "c": 0}, "command": "make x"}
    told = page.record_row({**record, "tried": 2_000, "held": 1_999, "seconds": 5400, "notes": "n"})
    assert told == "| S | 2,000 kills | **1,999** | 9 a\\|b | 1.5 h | `make x` | n |\n"
    assert "**not run**" in page.record_row({**record, "tried": 0, "held": 0, "seconds": 0})


def test_cases_are_counted_by_file_from_the_output_of_pytest(tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    junit.write_text(
        """<testsuites><testsuite>
        <testcase classname="tests.test_reliability_page" name="a" time="0.5"/>
        <testcase classname="tests.test_reliability_page.TestMore" name="b" time="1.0">
          <failure message="no"/></testcase>
        <testcase classname="tests.test_reliability_page" name="c" time="0">
          <skipped message="no"/></testcase>
        </testsuite></testsuites>"""
    )
    counts = page.count_tests(junit)
    assert counts == {
        "tests/test_reliability_page.py": {
            "subject": "The page of what was tried is made from the records of the runs, and is current",
            "tried": 2,
            "held": 1,
            "skipped": 1,
            "seconds": 1.5,
        }
    }
    shown = page.tests_section(counts)
    assert "2 cases in 1 files, 1 held, 1 were skipped" in shown
    assert "| 2 (1 skipped) | **1** |" in shown


@pytest.mark.parametrize("change", [{"held": 3}, {"subject": None}])
def test_a_record_that_is_none_stops_the_page(
    change: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = {"subject": "S", "tried": 2, "unit": "u", "held": 2, "outcomes": {}, "command": "c"}
    record |= {"seconds": 1, **change}
    kept = {key: value for key, value in record.items() if value is not None}
    (tmp_path / "x.json").write_text(json.dumps(kept))
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    monkeypatch.setattr(page, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match=r"x\.json is no record"):
        page.read_records()
