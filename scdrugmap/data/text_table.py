"""Read a table of text (cells in rows, genes in columns) piece by piece."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from scdrugmap.data.gene_names import looks_transposed
from scdrugmap.errors import DataError, ScDrugMapError, UsageError
from scdrugmap.system_errors import resource_error

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

NAME_COLUMNS = ("cell_barcode", "barcode", "cell", "cell_id", "cell_name", "cellid", "index", "")
"""What a column of cell names is called, in lower case."""

FACT_COLUMNS = frozenset(
    {
        *("condition", "label", "response", "sample", "sample_id", "patient", "patient_id"),
        *("donor", "donor_id", "batch", "cluster", "cell_type", "celltype", "drug", "dose"),
        *("time", "timepoint", "tissue", "study", "dataset", "ncount_rna", "nfeature_rna"),
        *("percent.mt", "n_counts", "n_genes", "total_counts", "n_genes_by_counts"),
        "pct_counts_mt",
    }
)
"""Columns about cells that may hold numbers, in lower case; columns of text always are."""

_LOOK_ROWS = 200
_PIECE_BYTES = 64 << 20  # of parsed float64 values
_MOST_LISTED = 8


@dataclass(frozen=True)
class Layout:
    """What the columns of a table are.

    Parameters
    ----------
    separator : str
    columns : tuple of str
        All names, as in the header.
    name : int
        Column of cell names.
    facts : tuple of int
        Columns about cells.
    genes : tuple of int
        Columns of values.
    """

    separator: str
    columns: tuple[str, ...]
    name: int
    facts: tuple[int, ...]
    genes: tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """Some cells of a table: names ((n,) str), facts (n rows) and values ((n, n_genes) CSR)."""

    names: np.ndarray
    facts: pd.DataFrame
    values: csr_matrix


def read_layout(path: Path, facts: Sequence[str] = ()) -> Layout:
    """Look at the header and the first rows of a table.

    Parameters
    ----------
    path : Path
        Text, gzip-compressed or not, separated by tab, comma or semicolon.
    facts : sequence of str
        Columns that are about cells although they hold numbers.

    Raises
    ------
    UsageError
        A column of `facts` does not exist.
    DataError
        It is no such table, or lies on its side.
    """
    import pandas as pd

    with _opened(path) as handle:
        try:
            header = handle.readline()
        except (UnicodeDecodeError, OSError, EOFError) as err:
            raise _unreadable(path, err) from err
    separator = max("\t,;", key=header.count)
    columns = tuple(next(csv.reader([header.rstrip("\r\n")], delimiter=separator), []))
    if len(columns) < 2:
        raise DataError(
            f"{path.name}: the first line has no columns separated by tab, comma or semicolon",
            hint="a table holds one cell per row and one gene per column",
        )
    try:
        with _opened(path) as handle:
            first = pd.read_csv(
                handle, sep=separator, nrows=_LOOK_ROWS, header=None, skiprows=1, dtype=str,
                keep_default_na=False,
            )  # fmt: skip
    except pd.errors.EmptyDataError as err:
        raise DataError(f"{path.name}: there are no cells below the header") from err
    except (ValueError, OSError, EOFError) as err:
        raise _unreadable(path, err) from err
    if first.shape[1] == len(columns) + 1:  # R writes no name above row names
        columns = ("", *columns)
    if first.shape[1] != len(columns):
        raise DataError(
            f"{path.name}: the header has {len(columns):,} columns, the rows {first.shape[1]:,}"
        )
    _check_repeats(columns, path)
    return _sort_columns(path, separator, columns, first, facts)


def read_pieces(path: Path, layout: Layout) -> Iterator[Piece]:
    """Read a table in bounded memory.

    Raises
    ------
    DataError
        A value is missing or no number; names its line and column.
    """
    import pandas as pd
    from scipy.sparse import csr_matrix

    rows = max(1, _PIECE_BYTES // (8 * len(layout.columns)))
    text = [layout.name, *layout.facts]
    line = 2
    try:
        with _opened(path) as handle:
            parts = pd.read_csv(
                handle, sep=layout.separator, header=None, skiprows=1, chunksize=rows,
                dtype=dict.fromkeys(text, str), keep_default_na=False, na_filter=False,
                low_memory=False,
            )  # fmt: skip
            for part in parts:
                values = part[list(layout.genes)]
                if any(kind.kind not in "iuf" for kind in values.dtypes):
                    _refuse_value(path, layout, values, line)
                numbers = values.to_numpy(np.float32)
                if not np.isfinite(numbers).all():
                    _refuse_value(path, layout, values, line)
                facts = part[list(layout.facts)].set_axis(
                    [layout.columns[i] for i in layout.facts], axis=1
                )
                yield Piece(part[layout.name].to_numpy(object), facts, csr_matrix(numbers))
                line += len(part)
    except (ValueError, OSError, EOFError) as err:
        raise _unreadable(path, err) from err


def _opened(path: Path) -> io.TextIOBase:
    try:
        with open(path, "rb") as handle:
            packed = handle.read(2) == b"\x1f\x8b"
    except OSError as err:
        raise _unreadable(path, err) from err
    if packed:
        return io.TextIOWrapper(gzip.open(path, "rb"), encoding="utf-8-sig", newline="")
    return open(path, encoding="utf-8-sig", newline="")


def _unreadable(path: Path, err: Exception) -> ScDrugMapError:
    if (short := resource_error(err, path)) is not None:
        return short
    if isinstance(err, UnicodeDecodeError):
        return DataError(f"{path.name} is not UTF-8 text: {err}", hint="save it as UTF-8")
    words = " ".join(str(err).split()).removeprefix("Error tokenizing data. C error: ")
    return DataError(f"{path.name} cannot be read as a table: {words}", hint="fetch it again")


def _check_repeats(columns: tuple[str, ...], path: Path) -> None:
    missing = [i for i, name in enumerate(columns) if not name.strip() and i > 0]
    if missing:
        raise DataError(f"{path.name}: column {missing[0] + 1} has no name")


def _sort_columns(
    path: Path,
    separator: str,
    columns: tuple[str, ...],
    first: pd.DataFrame,
    wanted: Sequence[str],
) -> Layout:
    unknown = [name for name in wanted if name not in columns]
    if unknown:
        raise UsageError(
            f"{path.name} has no column {unknown[0]!r} (--obs)",
            hint=f"it begins with: {', '.join(columns[:_MOST_LISTED])}",
        )
    lower = [name.strip().lower() for name in columns]
    # A column with a few odd values is one of values that is damaged, not one of text.
    textual = [sum(map(_is_number, first[i])) < len(first) / 2 for i in range(len(columns))]
    named = [lower.index(name) for name in NAME_COLUMNS if name in lower]
    if not named and not textual[0]:
        raise DataError(
            f"{path.name}: no column names the cells (the first is {columns[0]!r})",
            hint=f"call it Cell_barcode; the columns are {', '.join(columns[:_MOST_LISTED])}",
        )
    name = named[0] if named else 0
    is_fact = [
        textual[i] or lower[i] in FACT_COLUMNS or columns[i] in wanted for i in range(len(columns))
    ]
    facts = tuple(i for i, fact in enumerate(is_fact) if fact and i != name)
    genes = tuple(i for i, fact in enumerate(is_fact) if not fact and i != name)
    if looks_transposed(first[name].tolist(), [columns[i] for i in genes]):
        raise DataError(
            f"{path.name}: the rows ({first[name][0]}, ...) are called like genes, so the table "
            "lies on its side",
            hint="transpose it first: pandas.read_csv(FILE, index_col=0).T.to_csv(OTHER)",
        )
    if not genes:
        raise DataError(
            f"{path.name}: no column holds numbers", hint="a table holds one gene per column"
        )
    return Layout(separator, columns, name, facts, genes)


def _refuse_value(path: Path, layout: Layout, values: Any, line: int) -> NoReturn:
    """Raise for the first value that is missing, no number, or infinite."""
    for column in layout.genes:
        for row, value in enumerate(values[column]):
            if not _is_number(str(value)):
                shown = repr(str(value)) if str(value).strip() else "missing"
                raise DataError(
                    f"{path.name}, line {line + row}, column {layout.columns[column]}: "
                    f"the value is {shown}, expected a number",
                    hint="if the column is about cells and no gene, name it with --obs",
                )
    raise DataError(f"{path.name}: a value is too large for float32")


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
