"""The list of bad inputs is complete: 109 named cases and 33 that were observed, each once."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

CASES = {*range(1, 110), *(f"O{i}" for i in range(1, 34))}
"""The named cases by number; O1 to O33 were seen to be read in silence, or to end the process."""


def numbers_in(path: Path) -> dict[object, list[str]]:
    """Return the tests of a file that carry each number in a ``pytest.mark.case``."""
    found: dict[object, list[str]] = defaultdict(list)
    for test in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(test, ast.FunctionDef) or not test.name.startswith("test_"):
            continue
        for decorator in test.decorator_list:
            for node in ast.walk(decorator):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.case":
                    for number in node.args:
                        found[ast.literal_eval(number)].append(f"{path.name}::{test.name}")
    return found


def test_every_case_is_tried_in_exactly_one_test() -> None:
    found: dict[object, list[str]] = defaultdict(list)
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for number, tests in numbers_in(path).items():
            found[number] += tests
    twice = {number: tests for number, tests in found.items() if len(tests) > 1}
    assert twice == {}
    assert CASES - set(found) == set()
    assert set(found) == CASES
    assert len(CASES) == 109 + 33
