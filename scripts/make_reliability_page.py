"""Make ``docs/reliability.md``: what was tried to break this project, how often, and what held.

    python scripts/make_reliability_page.py --tests FILE.xml   # first keep what a run of tests said
    python scripts/make_reliability_page.py                    # writes docs/reliability.md
    python scripts/make_reliability_page.py --check            # fails if it is not current

Long runs leave records in ``tests/faults/results``; ``tests.json`` there is made from the JUnit file
that pytest writes. What was found and mended is kept by hand in ``docs/reliability_mended.yaml``.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reliability.md"
MENDED = ROOT / "docs" / "reliability_mended.yaml"
RESULTS = ROOT / "tests" / "faults" / "results"
TESTS = "tests.json"

NEEDED = {"subject", "tried", "unit", "held", "outcomes", "command", "seconds"}
"""Keys of a record."""

HEAD = """# Reliability

<!-- made by scripts/make_reliability_page.py from tests/faults/results and docs/reliability_mended.yaml; do not edit -->

What was done to break scDrugMap, how often, and what held. Users hand us files from strangers,
run for days on shared clusters, and decide about patients: nothing may be lost, leaked, or become a
plausible wrong number. [The security policy](security.md) says what follows for users.

Every line can be repeated with its command. Figures are those of the last run on record, on one
machine; a line that says *not run* was not seen by anybody.

## Long runs

| what was tried | how many | held | what came out | time | repeat with | notes |
|---|---|---|---|---|---|---|
"""

OF_TESTS = """
## Tests

The short forms, which run with every change, and the cases that are tried one by one:
{tried:,} cases in {files} files, {held:,} held{skipped}. `make reliability` runs them again and
makes this page; the files lie in the source.

| what is tried | cases | held | time | file |
|---|---|---|---|---|
"""

OF_MENDED = """
## Found and mended

What these runs and tests found in scDrugMap itself, and what happens now. Each has a test.

| found by | fault | now |
|---|---|---|
"""

FOOT = """
## What is not shown here

- Power loss is tried on a model, not on a real disk: the calls of every command that writes are
  replayed on a disk that loses all that was not flushed, and no name then stands for half a file.
  Writes through memory maps are seen when they begin, not one by one; the cache may lose whole
  entries; that a real disk keeps what it acknowledged is taken on trust.
- Network file systems, Windows and macOS: the runs are on Linux with a local disk.
- The libraries below (HDF5, PyTorch, zarr, pandas) are tried through our readers only.
- A file that is well formed and says something wrong about its cells cannot be told from a true one.
"""


def read_records() -> list[dict[str, Any]]:
    """Return the records of long runs, sorted by subject."""
    records = []
    for path in sorted(RESULTS.glob("*.json")):
        if path.name == TESTS:
            continue
        record = json.loads(path.read_text("utf-8"))
        missing = NEEDED - record.keys()
        if missing or not 0 <= record["held"] <= record["tried"]:
            sys.exit(f"{path.relative_to(ROOT)} is no record: {sorted(missing) or 'held > tried'}")
        records.append(record)
    return sorted(records, key=lambda record: record["subject"])


def time_taken(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3600:.1f} h"


def line(cells: Iterable[str]) -> str:
    """Return a row of a Markdown table."""
    plain = (" ".join(cell.replace("|", "\\|").split()) for cell in cells)
    return "| " + " | ".join(plain) + " |\n"


def record_row(record: dict[str, Any]) -> str:
    """Return the row of a long run."""
    tried, held, unit = record["tried"], record["held"], record["unit"]
    outcomes = [f"{count:,} {what}" for what, count in record["outcomes"].items() if count]
    shown = "all" if held == tried else f"**{held:,}**"
    return line(
        [
            record["subject"],
            f"{tried:,} {unit}" if tried else "**not run**",
            shown if tried else "",
            "; ".join(outcomes),
            time_taken(record["seconds"]),
            f"`{record['command']}`",
            record.get("notes", ""),
        ]
    )


def count_tests(junit: Path) -> dict[str, dict[str, Any]]:
    """Return, for each file of tests, what it tries and how many cases held."""
    counts: dict[str, dict[str, Any]] = {}
    for case in ElementTree.parse(junit).iter("testcase"):
        file = test_file(case.get("classname", ""))
        row = counts.setdefault(
            file,
            {"subject": subject(ROOT / file), "tried": 0, "held": 0, "skipped": 0, "seconds": 0.0},
        )
        outcome = {child.tag for child in case}
        if "skipped" in outcome:
            row["skipped"] += 1
        else:
            row["tried"] += 1
            row["held"] += outcome.isdisjoint({"failure", "error"})
        row["seconds"] += float(case.get("time", 0))
    for row in counts.values():
        row["seconds"] = round(row["seconds"], 1)
    if not counts:
        sys.exit(f"{junit} holds no tests")
    return counts


def test_file(dotted: str) -> str:
    """Return the file of a test from its dotted name, in which a class may follow."""
    parts = dotted.split(".")
    for n in range(len(parts), 0, -1):
        path = Path(*parts[:n]).with_suffix(".py")
        if (ROOT / path).is_file():
            return path.as_posix()
    sys.exit(f"{dotted}: there is no such file of tests")


def subject(path: Path) -> str:
    """Return the first sentence of a module's docstring."""
    said = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or path.name
    return said.split("\n\n")[0].removesuffix(".")


def tests_section(counts: dict[str, dict[str, Any]]) -> str:
    """Return the section about tests."""
    total = {key: sum(row[key] for row in counts.values()) for key in ("tried", "held", "skipped")}
    skipped = f", {total['skipped']:,} were skipped" if total["skipped"] else ""
    text = OF_TESTS.format(
        tried=total["tried"], held=total["held"], files=len(counts), skipped=skipped
    )
    for file, row in sorted(counts.items()):
        held = "all" if row["held"] == row["tried"] else f"**{row['held']:,}**"
        skip = f" ({row['skipped']:,} skipped)" if row["skipped"] else ""
        cells = [row["subject"], f"{row['tried']:,}{skip}", held, time_taken(row["seconds"])]
        text += line([*cells, f"`{file}`"])
    return text


def page() -> str:
    """Return the page."""
    text = HEAD + "".join(map(record_row, read_records()))
    if (RESULTS / TESTS).exists():
        text += tests_section(json.loads((RESULTS / TESTS).read_text("utf-8")))
    text += OF_MENDED
    for item in YAML(typ="safe").load(MENDED.read_text("utf-8")):
        text += line([item["found by"], item["fault"], item["now"]])
    return text + FOOT


def main() -> None:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the page is not current")
    parser.add_argument("--tests", type=Path, help="JUnit file of a run of the tests to keep")
    given = parser.parse_args()
    if given.tests:
        counts = json.dumps(count_tests(given.tests), indent=2, sort_keys=True, ensure_ascii=False)
        (RESULTS / TESTS).write_text(f"{counts}\n", "utf-8")
    text = page()
    if not given.check:
        PAGE.write_text(text, "utf-8")
    elif not PAGE.exists() or PAGE.read_text("utf-8") != text:
        sys.exit(f"{PAGE.relative_to(ROOT)} is not current: run scripts/make_reliability_page.py")


if __name__ == "__main__":
    main()
