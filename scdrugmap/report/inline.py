"""Pictures and tables as data addresses, so that a page holds all it shows."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scdrugmap.tables import compress, table_bytes

if TYPE_CHECKING:
    from scdrugmap.report.style import Picture

_LONG_TABLE = 20_000  # bytes from which a table behind a figure is compressed


def web_picture(picture: Picture) -> dict[str, Any]:
    """Return a picture as the page embeds it: data addresses only."""
    suffix, data = _download(picture.table)
    return {
        "title": picture.title,
        "alt": picture.alt,
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
        "rows": [
            [f"{value:,}" if isinstance(value, int | np.integer) else value for value in row]
            for row in frame.itertuples(index=False)
        ],
        "data": data,
        "file": f"{file}{suffix}",
    }


def _download(frame: pd.DataFrame) -> tuple[str, str]:
    """Return the ending and the data address of a table that can be saved from the page."""
    raw = table_bytes(frame)
    if len(raw) > _LONG_TABLE:
        return ".tsv.gz", _data_address(compress(raw), "application/gzip")
    return ".tsv", _data_address(raw, "text/tab-separated-values")


def _data_address(raw: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(raw).decode()}"
