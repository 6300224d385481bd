"""Tab-separated tables that survive hostile names: the one reader and writer of all our TSV files.

Text is escaped so that a cell named with a tab, a line break or a spreadsheet formula stays one
harmless field and comes back unchanged.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING

from scdrugmap.errors import DataError, UsageError
from scdrugmap.files import atomic_path
from scdrugmap.plain import UNSEEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    import pandas as pd

_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\x00": "\\0"}
_UNESCAPES = {escaped[1]: plain for plain, escaped in _ESCAPES.items()}
_SPECIAL = re.compile(f"[\\\\\t\n{UNSEEN}]")
"""Separators, and what steers a terminal, turns a line round or cannot be seen."""

_ESCAPED = re.compile(r"\\(u[0-9a-f]{4}|.)")
_FORMULA = "=+-@'\uff1d\uff0b\uff0d\uff20"
"""First characters that a spreadsheet runs as a formula; a quote is put before them."""

_ROWS_AT_ONCE = 65_536
"""Rows that are turned into text together: a table of a million cells needs ten times less."""


def escape(text: str) -> str:
    """Return `text` as one field of a TSV file."""
    text = _SPECIAL.sub(_escaped, text)
    return f"'{text}" if text[:1] and text[0] in _FORMULA else text


def unescape(field: str) -> str:
    """Undo :func:`escape`."""
    if field[:1] == "'" and field[1:2] and field[1] in _FORMULA:
        field = field[1:]
    return _ESCAPED.sub(_unescaped, field)


def _escaped(match: re.Match[str]) -> str:
    return _ESCAPES.get(match[0]) or f"\\u{ord(match[0]):04x}"


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    return chr(int(code[1:], 16)) if len(code) == 5 else _UNESCAPES.get(code, match[0])


def write_table(frame: pd.DataFrame, target: Path) -> None:
    """Write a data frame as TSV (gzip for ``.gz``), whole or not at all.

    Text columns are escaped, floats written so that they read back exactly, missing values left
    empty. The same frame gives the same bytes.
    """
    target = Path(target)
    pieces = _pieces(frame)
    first = next(pieces)
    n_bytes = len(first) if len(frame) <= _ROWS_AT_ONCE else None
    is_packed = target.name.endswith(".gz")
    with (
        atomic_path(target, n_bytes=n_bytes) as temporary,
        temporary.open("wb") as plain,
        _packed(plain) if is_packed else nullcontext(plain) as handle,
    ):
        handle.write(first)
        for piece in pieces:
            handle.write(piece)


def table_bytes(frame: pd.DataFrame) -> bytes:
    """Return a data frame as :func:`write_table` writes it, uncompressed."""
    return b"".join(_pieces(frame))


def _pieces(frame: pd.DataFrame) -> Iterator[bytes]:
    """Give the bytes of a table, some rows at a time: what is held does not grow with it."""
    header = [escape(str(column)) for column in frame.columns]
    for start in range(0, max(1, len(frame)), _ROWS_AT_ONCE):
        part = frame.iloc[start : start + _ROWS_AT_ONCE].copy()
        for column in part.columns:
            if not _is_number(part[column]):
                text = [None if _missing(v) else str(v) for v in part[column].astype(object)]
                part[column] = _translate(text, escape)
        part.columns = header
        lines: str = part.to_csv(
            sep="\t",
            index=False,
            header=not start,
            lineterminator="\n",
            quoting=3,
            escapechar=None,
        )
        yield lines.encode("utf-8", "backslashreplace")


def compress(raw: bytes) -> bytes:
    """Return gzip bytes that depend on nothing but `raw`."""
    buffer = io.BytesIO()
    with _packed(buffer) as handle:
        handle.write(raw)
    return buffer.getvalue()


def _packed(target: IO[bytes]) -> gzip.GzipFile:
    return gzip.GzipFile(fileobj=target, mode="wb", filename="", mtime=0)


def read_table(
    source: Path, columns: Sequence[str] = (), numbers: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Read a table that :func:`write_table` (or a careful human) wrote.

    Parameters
    ----------
    source : Path
        TSV file, gzip-compressed or not.
    columns : sequence of str
        Columns that must be there.
    numbers : mapping of str to dtype name, optional
        Columns to read as numbers; all others are text with ``""`` for missing.

    Raises
    ------
    UsageError
        The file does not exist.
    DataError
        It is no such table, a column is missing, or a number is none (names row and column).
    """
    import pandas as pd

    source = Path(source)
    if not source.is_file():
        raise UsageError(f"{source} does not exist")
    try:
        raw = source.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
        frame = pd.read_csv(
            io.StringIO(raw.decode("utf-8")),
            sep="\t",
            dtype=str,
            keep_default_na=False,
            quoting=3,
            na_filter=False,
        )
    except (
        UnicodeDecodeError,
        gzip.BadGzipFile,
        zlib.error,
        EOFError,
        pd.errors.ParserError,
    ) as err:
        raise DataError(f"{source} cannot be read as a table: {err}") from err
    except pd.errors.EmptyDataError as err:
        raise DataError(f"{source} is empty") from err
    frame.columns = [unescape(column) for column in frame.columns]
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise DataError(
            f"{source}: the columns {', '.join(missing)} are missing",
            hint=f"it has: {', '.join(frame.columns[:20])}",
        )
    for column in frame.columns:
        if numbers and column in numbers:
            frame[column] = _numbers(frame[column], numbers[column], source)
        else:
            frame[column] = _translate(frame[column].tolist(), unescape)
    return frame


def _translate(fields: list[str | None], rule: Callable[[str], str]) -> np.ndarray:
    """Apply a rule to text, once per different text: most columns repeat few; None stays."""
    import numpy as np

    # Not by pandas.factorize, which takes two texts that differ behind a NUL for one.
    found = {text: None if text is None else rule(text) for text in dict.fromkeys(fields)}
    return np.array([found[text] for text in fields], object)


def _numbers(text: pd.Series, dtype: str, source: Path) -> pd.Series:
    import pandas as pd

    numbers = pd.to_numeric(text.replace("", None), errors="coerce")
    bad = numbers.isna() & ~text.str.lower().isin({"", "nan"})
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise DataError(
            f"{source}, line {row + 2}, column {text.name}: {text.iloc[row]!r} is no number"
        )
    if dtype.startswith("int"):
        if numbers.isna().any():
            row = int(numbers.isna().to_numpy().argmax())
            raise DataError(f"{source}, line {row + 2}, column {text.name}: a number is missing")
        broken = ~(numbers % 1 == 0)  # also of infinity
        if broken.any():
            row = int(broken.to_numpy().argmax())
            raise DataError(
                f"{source}, line {row + 2}, column {text.name}: {text.iloc[row]!r} is no whole "
                "number"
            )
    return numbers.astype(dtype)  # type: ignore[call-overload]


def _is_number(column: pd.Series) -> bool:
    return bool(getattr(column.dtype, "kind", "O") in "iuf")


def _missing(value: object) -> bool:
    return value is None or value != value
