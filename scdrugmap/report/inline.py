"""Pictures and tables as data addresses, so that a page holds all it shows."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scdrugmap.report.summary import number
from scdrugmap.tables import compress, table_bytes

if TYPE_CHECKING:
    from scdrugmap.report.style import Picture

_LONG_TABLE = 20_000  # bytes from which a table behind a figure is compressed


def web_picture(picture: Picture, *, interactive: bool = False) -> dict[str, Any]:
    """Return a picture as the page embeds it: data addresses only."""
    from scdrugmap.report.interactive import plot_of

    plot = plot_of(picture) if interactive else None
    suffix, data = _download(picture.table)
    return {
        "title": picture.title,
        "alt": picture.alt,
        "plot": json.dumps(plot, separators=(",", ":")) if plot else "",
        "caption": picture.caption,
        "width": picture.width,
        "height": picture.height,
        "src": _data_address(picture.image, picture.mime),
        "data": data,
        "file": f"{picture.file}{suffix}",
    }


def web_table(frame: pd.DataFrame, file: str) -> dict[str, Any]:
    """Return a table as the page shows it, with its data address."""
    suffix, data = _download(frame)
    return {
        "columns": [str(name).replace("_", " ") for name in frame.columns],
        "rows": [[_shown(value) for value in row] for row in frame.itertuples(index=False)],
        "data": data,
        "file": f"{file}{suffix}",
    }


def _shown(value: object) -> str:
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    return number(float(value)) if isinstance(value, float | np.floating) else str(value)


def web_file(name: str, raw: bytes, title: str) -> dict[str, Any]:
    """Return a file as the page offers it; a long one is compressed."""
    mime, ending = "text/plain", ""
    if len(raw) > _LONG_TABLE:
        raw, mime, ending = compress(raw), "application/gzip", ".gz"
    return {"title": title, "file": name + ending, "data": _data_address(raw, mime)}


def _download(frame: pd.DataFrame) -> tuple[str, str]:
    """Return the ending and the data address of a table that can be saved from the page."""
    raw = table_bytes(frame)
    if len(raw) > _LONG_TABLE:
        return ".tsv.gz", _data_address(compress(raw), "application/gzip")
    return ".tsv", _data_address(raw, "text/tab-separated-values")


def _data_address(raw: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(raw).decode()}"
