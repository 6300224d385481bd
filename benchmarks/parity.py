"""How close each model comes to the numbers of its original code.

Runs each plugin's golden tests and records the largest absolute difference that they accept: of all
their comparisons of float32 results with an absolute tolerance. A plugin whose tests fail is not
listed but stops the run.

    python benchmarks/parity.py [--only MODEL]... [-o benchmarks/results/parity.json]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "parity.json"
FLOAT32 = 1e-8
"""Tolerances below this belong to comparisons in float64."""


@contextlib.contextmanager
def recorded() -> Iterator[list[tuple[float, float]]]:
    """Note (difference, tolerance) of each comparison that is made inside the block."""
    compare = np.testing.assert_allclose
    seen: list[tuple[float, float]] = []

    def note(actual: Any, desired: Any, *args: Any, **kwargs: Any) -> None:
        compare(actual, desired, *args, **kwargs)
        tolerance = kwargs.get("atol", 0.0)
        if kwargs.get("rtol") == 0 and tolerance > FLOAT32:
            difference = np.abs(np.asarray(actual) - np.asarray(desired))
            seen.append((float(np.nanmax(difference, initial=0.0)), tolerance))

    np.testing.assert_allclose = note
    try:
        yield seen
    finally:
        np.testing.assert_allclose = compare


def main() -> None:
    """Write one record per model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", metavar="MODEL", help="default: all")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    records = json.loads(given.output.read_text()) if given.output.exists() else {}
    for tests in sorted(ROOT.glob("plugins/*/tests/test_golden.py")):
        name = tests.parents[1].name
        if given.only and name not in given.only:
            continue
        output = io.StringIO()
        with recorded() as seen, contextlib.redirect_stdout(output):
            code = pytest.main(["-q", "-p", "no:cacheprovider", str(tests)])
        if code != pytest.ExitCode.OK or not seen:
            raise SystemExit(f"{name}: its golden tests fail\n{output.getvalue()}")
        difference, tolerance = max(seen)
        records[name] = {"largest_difference": difference, "comparisons": len(seen)}
        print(f"{name:14} {difference:.1e} in {len(seen)} comparisons (allowed there: {tolerance})")
    given.output.parent.mkdir(exist_ok=True)
    given.output.write_text(json.dumps(records, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
