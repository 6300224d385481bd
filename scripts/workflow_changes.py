"""Say whether what the workflow engines run has changed since they last passed.

::

    python scripts/workflow_changes.py check cwl        exit code 0: nothing has changed, 1: something
    python scripts/workflow_changes.py record cwl --junit result.xml

A record beside the tests holds one hash per folder or file of the state that passed; ``record`` writes
it after a run in which nothing failed and nothing was left out. So what counts is the content that
was tested, whatever commits lie between, and a fresh clone answers as the checkout of its author.
Whatever cannot be told counts as a change.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from scdrugmap.files import write_json

ROOT = Path(__file__).resolve().parent.parent

WATCHED: dict[str, tuple[str, ...]] = {
    "cwl": (
        "cwl",
        "scdrugmap/cli",
        "scdrugmap/run/cwl.py",
        "scdrugmap/run/cwl_document.py",
        "scdrugmap/run/cwl_tools.py",
        "scdrugmap/run/finish.py",
        "scdrugmap/run/steps.py",
        "scdrugmap/run/tasks.py",
        "tests/workflows",
    ),
    "galaxy": (
        *("galaxy_tools", "scdrugmap/cli"),
        *("scripts/galaxy_server.py", "scripts/galaxy_checks.py"),
    ),
}
"""What the tests of each engine run, beside the library, which the ordinary tests look after."""

RECORDS = {"cwl": "cwl/tests/passed.json", "galaxy": "galaxy_tools/passed.json"}
NOT_RUN = "NOT RUN"
"""Beginning of the reason of a test that the machine could not run."""


def digests(root: Path, suite: str) -> dict[str, str]:
    """Return the hash of each watched folder or file as it lies there, ignored files left out.

    Raises
    ------
    subprocess.CalledProcessError, OSError
        It cannot be told: no git, or no repository.
    """
    return {path: _digest(root, path, RECORDS[suite]) for path in WATCHED[suite]}


def _digest(root: Path, path: str, record: str) -> str:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", path],
        cwd=root,
        capture_output=True,
        check=True,
    ).stdout.decode("utf-8")
    whole = hashlib.sha256()
    for name in sorted(set(listed.split("\0")) - {"", record}):
        if (root / name).is_file():  # a removed file is listed until that is committed
            content = hashlib.sha256((root / name).read_bytes()).hexdigest()
            whole.update(f"{name}\0{content}\n".encode())
    return whole.hexdigest()


def changes(root: Path, suite: str) -> list[str]:
    """Return what differs from the state that passed, in words; empty: nothing."""
    path = root / RECORDS[suite]
    try:
        passed = json.loads(path.read_text("utf-8"))["passed"]
        now = digests(root, suite)
        return [name for name in {**passed, **now} if passed.get(name) != now.get(name)]
    except FileNotFoundError:
        return [f"no record {RECORDS[suite]}"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        return [f"{RECORDS[suite]} cannot be compared ({err})"]
    except subprocess.CalledProcessError as err:
        return [f"git cannot list the files ({err.stderr.decode('utf-8', 'replace').strip()})"]


def left_out(junit: Path) -> list[str]:
    """Return why a run of pytest, as JUnit XML, does not count as passed; empty: it does."""
    reasons = []
    n_tests = 0
    for case in ElementTree.parse(junit).getroot().iter("testcase"):
        n_tests += 1
        reasons += [
            f"{case.get('name')} failed"
            for kind in ("failure", "error")
            if case.find(kind) is not None
        ]
        skipped = case.find("skipped")
        if skipped is not None and NOT_RUN in f"{skipped.get('message')} {skipped.text}":
            reasons.append(f"{case.get('name')}: {skipped.get('message')}")
    return reasons if n_tests else ["no test ran"]


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("action", choices=["check", "record"])
    parser.add_argument("suite", choices=list(WATCHED))
    parser.add_argument("--junit", type=Path, help="JUnit XML of the run that is to be recorded")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout")
    given = parser.parse_args(arguments)
    if given.action == "check":
        found = changes(given.root, given.suite)
        told = (
            f"changed since the last run that passed: {', '.join(found)}"
            if found
            else ("nothing has changed since the last run that passed")
        )
        sys.stdout.write(f"{given.suite}: {told}\n")
        return 1 if found else 0
    reasons = left_out(given.junit) if given.junit else []
    if reasons:
        sys.stdout.write(f"{given.suite}: not recorded: {'; '.join(reasons)}\n")
        return 0
    write_json(given.root / RECORDS[given.suite], {"passed": digests(given.root, given.suite)})
    sys.stdout.write(f"{given.suite}: recorded in {RECORDS[given.suite]}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
