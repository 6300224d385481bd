"""Whether workflow engines have to run again: by the content that passed, not by commits."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "workflow_changes.py"


def load() -> Any:
    spec = importlib.util.spec_from_file_location("workflow_changes", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["workflow_changes"] = module
    spec.loader.exec_module(module)
    return module


CHANGES = load()


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=n", "-c", "user.email=e@example.invalid"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with the watched folders, whose state is recorded as passed."""
    root = tmp_path / "checkout"
    for name in ("cwl/tools/embed.cwl", "scdrugmap/cli/embed.py", "scdrugmap/run/steps.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "cwl" / "tests").mkdir()
    (root / ".gitignore").write_text("made/\n")
    git(root, "init", "-q")
    assert CHANGES.main(["record", "cwl", "--root", str(root)]) == 0
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    return root


def check(root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    return CHANGES.main(["check", "cwl", "--root", str(root)]), capsys.readouterr().out


def test_a_fresh_clone_of_what_passed_has_no_change(
    checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git(tmp_path, "clone", "-q", str(checkout), "clone")
    code, said = check(tmp_path / "clone", capsys)
    assert (code, said) == (0, "cwl: nothing has changed since the last run that passed\n")


def test_a_change_is_seen_however_many_commits_lie_between(
    checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "scdrugmap" / "cli" / "embed.py").write_text("other")
    git(checkout, "commit", "-qam", "the change")
    for number in range(3):
        git(checkout, "commit", "-q", "--allow-empty", "-m", str(number))
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{checkout}", "clone")
    code, said = check(tmp_path / "clone", capsys)
    assert code == 1
    assert said == "cwl: changed since the last run that passed: scdrugmap/cli\n"


def test_new_renamed_and_removed_files_are_changes_and_ignored_ones_are_not(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "cwl" / "made").mkdir()
    (checkout / "cwl" / "made" / "cohort.h5ad").touch()
    (checkout / "scdrugmap" / "run" / "plan.py").touch()
    assert check(checkout, capsys)[0] == 0
    new = checkout / "cwl" / "tools" / "new.cwl"
    new.touch()
    assert check(checkout, capsys)[0] == 1
    new.unlink()
    assert check(checkout, capsys)[0] == 0
    (checkout / "cwl" / "tools" / "embed.cwl").rename(new)
    assert "cwl" in check(checkout, capsys)[1].rpartition(": ")[2]
    (checkout / "scdrugmap" / "run" / "steps.py").unlink()
    assert "scdrugmap/run/steps.py" in check(checkout, capsys)[1]


def test_what_cannot_be_told_counts_as_a_change(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert CHANGES.main(["check", "galaxy", "--root", str(checkout)]) == 1
    record = checkout / "cwl" / "tests" / "passed.json"
    for text in ("", "[]", '{"passed": []}', "{}"):
        record.write_text(text)
        code, said = check(checkout, capsys)
        assert code == 1
        assert "cannot be compared" in said
    record.unlink()
    assert "no record" in check(checkout, capsys)[1]
    assert CHANGES.main(["record", "cwl", "--root", str(checkout)]) == 0
    assert check(checkout, capsys)[0] == 0
    shutil.rmtree(checkout / ".git")
    assert "git cannot list the files" in check(checkout, capsys)[1]


@pytest.mark.parametrize(
    ("case", "recorded"),
    [
        ('<testcase name="a"/>', True),
        (
            '<testcase name="a"><skipped message="a measurement: make test-scaling"/></testcase>',
            True,
        ),
        ('<testcase name="a"><skipped message="NOT RUN: Slurm: no root"/></testcase>', False),
        ('<testcase name="a"><failure message="x"/></testcase>', False),
        ('<testcase name="a"><error message="x"/></testcase>', False),
        ("", False),
    ],
)
def test_only_a_run_in_which_nothing_failed_or_was_left_out_is_recorded(
    checkout: Path, tmp_path: Path, case: str, recorded: bool
) -> None:
    (checkout / "cwl" / "tests" / "passed.json").unlink()
    result = tmp_path / "result.xml"
    result.write_text(f"<testsuites><testsuite>{case}</testsuite></testsuites>")
    CHANGES.main(["record", "cwl", "--root", str(checkout), "--junit", str(result)])
    assert (checkout / "cwl" / "tests" / "passed.json").is_file() == recorded


def test_everything_that_is_watched_is_there() -> None:
    for paths in CHANGES.WATCHED.values():
        for path in paths:
            assert (SCRIPT.parent.parent / path).exists(), path
