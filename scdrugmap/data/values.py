"""Tell what kind of values a matrix holds, and check that every block holds the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from scdrugmap.data.validate import PIECE
from scdrugmap.errors import DataError

LOGNORM_MAXIMUM = 20.0
"""Largest value that log-normalised data can have; log1p of a billion is 20.7."""

EXACT_FLOAT32 = 2.0**24
"""From here on float32 skips integers."""

LARGEST_COUNT = 2.0**31
"""No instrument counts further; larger values are sums or damage."""

SCALED_DIVISOR = 100
"""Counts that are all multiples of this or more were multiplied by a constant."""


@dataclass
class ValueFacts:
    """What was seen of the values of a matrix, zeros apart.

    Parameters
    ----------
    n : int
        Values seen, explicit zeros included.
    """

    n: int = 0
    smallest: float = np.inf
    largest: float = -np.inf
    whole: bool = True
    zeros: bool = False

    def add(self, data: np.ndarray) -> None:
        """Look at values, float32; NaN turns `smallest` and `largest` into NaN."""
        for start in range(0, len(data), PIECE):
            part = data[start : start + PIECE]
            low, high = float(part.min()), float(part.max())
            self.smallest = min(self.smallest, low) if low == low else low
            self.largest = max(self.largest, high) if high == high else high
            self.zeros = self.zeros or low <= 0
            if self.whole and np.isfinite(high):
                self.whole = bool((np.rint(part) == part).all())
        self.n += len(data)


def find_bad(rows: Any, kind: str) -> tuple[int, int, float] | None:
    """Return row, column and value of the first value that is ``nan``, ``inf``, ``negative``
    or a ``fraction``; None if there is none.

    Parameters
    ----------
    rows : csr_matrix, (n, n_columns)
    """
    data = rows.data
    with np.errstate(invalid="ignore"):
        bad = {
            "nan": np.isnan(data),
            "inf": np.isinf(data),
            "negative": data < 0,
            "fraction": np.rint(data) != data,
        }[kind]
    at = np.flatnonzero(bad)
    if not len(at):
        return None
    row = int(np.searchsorted(rows.indptr, at[0], side="right")) - 1
    return row, int(rows.indices[at[0]]), float(data[at[0]])


@dataclass(frozen=True)
class Diagnosis:
    """What the values of a matrix are.

    Parameters
    ----------
    values : str
        ``counts``, ``lognorm``, ``rsem`` (fractional counts), or empty: unusable.
    reason : str
        Why, in words that follow "X holds ...".
    hint : str
        What to do about unusable values.
    """

    values: str
    reason: str
    hint: str = ""


def diagnose(sample: Any) -> Diagnosis:
    """Tell what kind of values a sample of cells holds.

    The rule: whole numbers are counts; fractional, not negative and at most 20 is log-normalised;
    fractional with a larger maximum is RSEM-like, unless all cells have the same total.

    Parameters
    ----------
    sample : csr_matrix float32, (n, n_columns)
        No explicit zeros needed; structure already checked.
    """
    facts = ValueFacts()
    facts.add(sample.data)
    if not facts.n:
        return Diagnosis("counts", "no values but zero")
    for kind, name in (("nan", "not a number (NaN)"), ("inf", "infinite")):
        if not np.isfinite(facts.smallest) or not np.isfinite(facts.largest):
            bad = find_bad(sample, kind)
            if bad:
                return Diagnosis("", f"values that are {name}", "replace or remove these values")
    if facts.smallest < 0:
        if facts.whole:
            return Diagnosis("", f"negative values, as low as {facts.smallest:g}", _NEGATIVE)
        return Diagnosis(
            "",
            f"negative fractions, as low as {facts.smallest:.3g}: it was scaled or centred",
            _RAW,
        )
    if facts.whole:
        divisor = _common_divisor(sample.data)
        if divisor >= SCALED_DIVISOR and facts.largest > 0:
            return Diagnosis("", f"only multiples of {divisor:,}: counts were scaled", _RAW)
        if facts.largest > LARGEST_COUNT:
            return Diagnosis("", f"values up to {facts.largest:.3g}, too large for counts", _RAW)
        return Diagnosis("counts", f"whole numbers up to {facts.largest:,.0f}")
    if facts.largest <= LOGNORM_MAXIMUM:
        return Diagnosis(
            "lognorm", f"fractions up to {facts.largest:.3g}, so log-normalised values"
        )
    total = _equal_total(sample)
    if total:
        return Diagnosis(
            "", f"values that add up to {total:,.0f} in every cell: counts were scaled", _RAW
        )
    return Diagnosis(
        "rsem", f"fractions up to {facts.largest:,.6g}, neither counts nor log-normalised", _RSEM
    )


_RAW = "give the file with raw counts, or name the layer that holds them with --layer"
_NEGATIVE = "give the file with raw counts; counts are never negative"
_RSEM = "if these are estimated counts (RSEM, salmon), add --round; else give raw counts"


def _common_divisor(data: np.ndarray) -> int:
    values = np.unique(data[data > 0])
    if not len(values) or values[-1] > LARGEST_COUNT:
        return 1
    return int(np.gcd.reduce(values.astype(np.int64)))


def _equal_total(sample: Any) -> float:
    totals = np.asarray(sample.sum(axis=1, dtype=np.float64)).ravel()
    totals = totals[totals > 0]
    if len(totals) < 2 or totals.std() > 1e-3 * totals.mean():
        return 0.0
    return float(totals.mean())


class ValueChecks:
    """Checks of every block's values against what the matrix is said to hold.

    Parameters
    ----------
    values : str
        ``counts`` or ``lognorm``.
    strict : bool
        Whether counts must be whole numbers; not when the user said what the values are.
    round_counts : bool
        Round them.
    """

    def __init__(
        self, values: str, location: str, where: str, *, strict: bool, round_counts: bool
    ) -> None:
        self.values, self.location, self.where = values, location, where
        self.strict, self.round_counts = strict, round_counts
        self.facts = ValueFacts()

    def apply(self, rows: csr_matrix, positions: np.ndarray) -> None:
        """Check a block, round it if so wished, and drop explicit zeros, all in place.

        Raises
        ------
        DataError
            Names the row, the column and the value.
        """
        if not rows.nnz:
            return
        facts = ValueFacts(whole=self.strict)
        facts.add(rows.data)
        if not facts.smallest >= 0 or not facts.largest < np.inf:
            self._refuse(rows, positions, ("nan", "inf", "negative"))
        if self.values == "counts":
            if self.round_counts:
                np.rint(rows.data, out=rows.data)
                facts.zeros = True
            elif self.strict and not facts.whole:
                self._refuse(rows, positions, ("fraction",))
            if facts.largest > LARGEST_COUNT:
                raise DataError(
                    f"{self.where}: {self.location} holds {facts.largest:.4g}, "
                    "too large for a count",
                    hint="give the file with raw counts",
                )
        if facts.zeros:
            rows.eliminate_zeros()
        self.facts.largest = max(self.facts.largest, facts.largest)

    def _refuse(self, rows: csr_matrix, positions: np.ndarray, kinds: tuple[str, ...]) -> None:
        words = {"nan": "NaN", "inf": "an infinite value", "negative": "a negative value"}
        for kind in kinds:
            bad = find_bad(rows, kind)
            if bad:
                row, column, value = bad
                what = words.get(kind, "a fraction among counts")
                raise DataError(
                    f"{self.where}: {self.location} holds {what} ({value:g}) in row "
                    f"{positions[row]:,}, column {column:,}",
                    hint="give raw counts"
                    + (
                        ", or add --round if they are estimated counts"
                        if kind == "fraction"
                        else ""
                    )
                    if self.values == "counts"
                    else "replace or remove these values",
                )
