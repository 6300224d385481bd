"""Check the values and indices of a block, and tell what kind of values a matrix holds.

A bad column index makes compiled code downstream crash or give wrong numbers without a word, so
no block leaves the reader unchecked. The checks run over pieces that stay in the processor's
cache, which keeps them cheaper than the reading itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scdrugmap.errors import DataError

PIECE = 1 << 17
"""Entries looked at together: 512 kB of float32, so that all passes but the first hit the cache."""

LOGNORM_MAXIMUM = 20.0
"""Largest value that log-normalised data can have; log1p of a billion is 20.7."""

EXACT_FLOAT32 = 2.0**24
"""From here on float32 skips integers."""

LARGEST_COUNT = 2.0**31
"""No instrument counts further; larger values are sums or damage."""

SCALED_DIVISOR = 100
"""Counts that are all multiples of this or more were multiplied by a constant."""

DAMAGED = "the file is damaged: write it again from its source"


def order_of(indices: np.ndarray, indptr: np.ndarray) -> bool:
    """Tell whether the columns of every row rise strictly.

    Parameters
    ----------
    indices : (nnz,) int32
    indptr : (n + 1,) int
        Start of each row, from 0 to nnz.
    """
    nnz = len(indices)
    falls = 0
    for start in range(0, nnz - 1, PIECE):
        part = indices[start : start + PIECE + 1]
        falls += np.count_nonzero(part[1:] <= part[:-1])
    borders = indptr[1:-1]
    borders = borders[(borders > 0) & (borders < nnz)]
    if len(borders) > 1:
        borders = borders[np.r_[True, borders[1:] != borders[:-1]]]  # empty rows share a border
    return falls == np.count_nonzero(indices[borders] <= indices[borders - 1])


def check_bounds(
    indices: np.ndarray, indptr: np.ndarray, n_columns: int, *, rising: bool, what: str, where: str
) -> None:
    """Refuse indices outside of the matrix.

    Parameters
    ----------
    rising : bool
        Whether the columns of every row rise, so that looking at the ends of rows is enough.
    what : str
        Where the block comes from (``X, rows 0 to 4,096``), for the message.

    Raises
    ------
    DataError
        Names the smallest or largest index and the number of columns.
    """
    if not len(indices):
        return
    if rising:
        filled = np.flatnonzero(indptr[1:] > indptr[:-1])
        low, high = indices[indptr[filled]].min(), indices[indptr[filled + 1] - 1].max()
    else:
        low, high = indices.min(), indices.max()
    if low < 0:
        raise DataError(f"{where}: {what} hold the negative index {low}", hint=DAMAGED)
    if high >= n_columns:
        raise DataError(
            f"{where}: {what} hold the index {high:,}, expected less than {n_columns:,}",
            hint=DAMAGED,
        )


def check_indptr(indptr: np.ndarray, n_rows: int, nnz: int, *, part: str, where: str) -> None:
    """Refuse row borders that do not describe `n_rows` rows of `nnz` entries.

    Raises
    ------
    DataError
        Wrong length, start or end, or a border before the one of the row above.
    """
    if len(indptr) != n_rows + 1:
        raise DataError(
            f"{where}: {part}/indptr has {len(indptr):,} entries, expected {n_rows + 1:,}",
            hint=DAMAGED,
        )
    if indptr[0] != 0:
        raise DataError(f"{where}: {part}/indptr begins with {indptr[0]}, expected 0", hint=DAMAGED)
    if indptr[-1] != nnz:
        raise DataError(
            f"{where}: {part}/indptr ends with {indptr[-1]:,}, expected the {nnz:,} stored values",
            hint=DAMAGED,
        )
    falls = np.flatnonzero(indptr[1:] < indptr[:-1])
    if len(falls):
        raise DataError(
            f"{where}: {part}/indptr falls after row {falls[0]} "
            f"(from {indptr[falls[0]]:,} to {indptr[falls[0] + 1]:,})",
            hint=DAMAGED,
        )


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
