"""Aligned text for lists on stdout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from scdrugmap.plain import printable


def show(text: str) -> None:
    """Print one line of results to stdout; names in it may be hostile."""
    click.echo(printable(text))


def columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Give the rows of a table as lines; every column but the last is as wide as needed."""
    if not rows:
        return
    rows = [[printable(text) for text in row] for row in rows]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
