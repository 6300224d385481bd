"""Compare tokens and embeddings, and say where they differ."""

from __future__ import annotations

import numpy as np

from scdrugmap.modelkit.tokens import Tokens
from scdrugmap.testing.checks import CheckFailed

TOLERANCE = 1e-5
"""Largest difference that rounding may make, relative to the largest value where that is over 1."""


def require_close(
    expected: np.ndarray, seen: np.ndarray, what: str, tolerance: float = TOLERANCE
) -> None:
    """Raise CheckFailed, naming cell and difference, unless two (n, D) arrays are equal.

    NaN is equal to NaN: rows of unusable cells.
    """
    if expected.shape != seen.shape:
        raise CheckFailed(f"{what} is {seen.shape}, not {expected.shape}")
    if not np.array_equal(np.isnan(expected), np.isnan(seen)):
        raise CheckFailed(f"{what} is NaN for other cells")
    difference = np.abs(np.nan_to_num(expected) - np.nan_to_num(seen))  # (n, D)
    allowed = tolerance * max(1.0, float(np.abs(np.nan_to_num(expected)).max(initial=0)))
    if difference.max(initial=0) > allowed:
        cell = int(difference.max(1).argmax())
        raise CheckFailed(
            f"{what} of cell {cell} changes by {difference.max():.3g} (at most {allowed:.3g})"
        )


def in_one_order(tokens: Tokens) -> Tokens:
    """Sort each cell's tokens by their values, so that two orders of one set are equal."""
    keys = [
        np.ascontiguousarray(values.reshape(len(values), -1)[:, 0])
        for _, values in sorted(tokens.flat.items())
    ]
    cell = np.repeat(np.arange(tokens.n_cells), tokens.lengths)
    order = np.lexsort([*keys, tokens.flat["column"], cell])
    return Tokens(
        tokens.start, {name: values[order] for name, values in tokens.flat.items()}, tokens.cell
    )


def require_equal(expected: Tokens, seen: Tokens, when: str) -> None:
    """Raise CheckFailed, naming field, cell and values, unless two sets of tokens are equal."""
    if set(expected.flat) != set(seen.flat) or set(expected.cell) != set(seen.cell):
        raise CheckFailed(f"{when}, encode() returns other fields")
    if not np.array_equal(expected.start, seen.start):
        cell = int(np.flatnonzero(expected.lengths != seen.lengths)[0])
        raise CheckFailed(
            f"{when}, cell {cell} has {seen.lengths[cell]} tokens instead of "
            f"{expected.lengths[cell]}"
        )
    for kind, left, right in [
        ("flat", expected.flat, seen.flat),
        ("cell", expected.cell, seen.cell),
    ]:
        for name, values in left.items():
            wrong = values != right[name]
            if values.dtype.kind == "f":
                wrong &= ~(np.isnan(values) & np.isnan(right[name]))
            if np.any(wrong):
                place = int(np.argwhere(wrong)[0][0])
                raise CheckFailed(
                    f"{when}, {kind}[{name!r}][{place}] is {right[name][place]} instead of "
                    f"{values[place]} ({np.count_nonzero(wrong)} values differ)"
                )
