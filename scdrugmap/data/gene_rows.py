"""Read a table of text with genes in rows and cells in columns, as most GEO series have it."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import numpy as np

from scdrugmap.errors import DataError
from scdrugmap.system_errors import resource_error

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

_GENES_AT_ONCE = 500
_SEPARATORS = "\t,; "
_DAMAGED = "the file is damaged, or no table with genes in rows: fetch it again"


@dataclass(frozen=True)
class GeneRows:
    """What a table holds.

    Attributes
    ----------
    cells : (n,) object str
    genes : (G,) object str
    values : (n, G) CSR float32
    """

    cells: np.ndarray
    genes: np.ndarray
    values: csr_matrix


def read_gene_rows(path: Path, *, skip_after_header: int = 0) -> GeneRows:
    """Read a table; memory grows with the values that are not zero.

    The header has a name per cell, with or without one more over the column of genes.

    Parameters
    ----------
    path : Path
        Plain or ``.gz``; tabs, commas, semicolons or blanks between values.
    skip_after_header : int
        Lines between the header and the first gene.

    Raises
    ------
    DataError
        A value is missing or no number, a line has another length, or a cell's name repeats.
    """
    import pandas as pd
    from scipy.sparse import csr_matrix, vstack

    genes: list[str] = []
    blocks: list[csr_matrix] = []
    try:
        separator, cells = _header(path, skip_after_header)
        with _open(path) as handle:
            reader = pd.read_csv(
                handle,
                sep=separator,
                header=None,
                skiprows=1 + skip_after_header,
                index_col=0,
                usecols=range(len(cells) + 1),
                chunksize=_GENES_AT_ONCE,
                dtype=str,
                keep_default_na=False,
            )
            for chunk in reader:
                genes.extend(map(str, chunk.index))
                blocks.append(csr_matrix(_numbers(chunk, cells, path.name)))
    except (OSError, EOFError, UnicodeDecodeError, ValueError) as err:
        damaged = DataError(f"{path.name}: {' '.join(str(err).split())}", hint=_DAMAGED)
        raise (resource_error(err, path) or damaged) from err
    if not blocks:
        raise DataError(f"{path.name} has no genes below its header", hint=_DAMAGED)
    matrix = csr_matrix(vstack(blocks, format="csr").T)
    return GeneRows(np.array(cells, object), np.array(genes, object), matrix)


def _open(path: Path) -> IO[str]:
    if path.name.endswith(".gz"):
        return cast("IO[str]", gzip.open(path, "rt", encoding="utf-8", newline=""))
    return path.open(encoding="utf-8", newline="")


def _header(path: Path, skip_after_header: int) -> tuple[str, list[str]]:
    """Return the separator and the names of the cells."""
    with _open(path) as handle:
        first = handle.readline().rstrip("\r\n")
        row = next(islice(handle, skip_after_header, None), "").rstrip("\r\n")
    separator = max(_SEPARATORS, key=first.count)
    names, values = (next(csv.reader([line], delimiter=separator), []) for line in (first, row))
    if len(names) < 2 or len(values) < 2:
        raise DataError(f"{path.name} does not begin with names of cells", hint=_DAMAGED)
    # R leaves the place over the genes out: then a line has one field more than the header.
    cells = [name.strip() for name in (names if len(values) == len(names) + 1 else names[1:])]
    while cells and not cells[-1]:
        cells.pop()  # separators behind the last name
    if len(set(cells)) < len(cells):
        repeated = next(name for name in cells if cells.count(name) > 1)
        raise DataError(f"{path.name}: the cell {repeated!r} is there twice", hint=_DAMAGED)
    return separator, cells


def _numbers(chunk: pd.DataFrame, cells: list[str], where: str) -> np.ndarray:
    """Return (g, n) float32."""
    try:
        return chunk.to_numpy(dtype=np.float32)
    except ValueError:
        for gene, line in chunk.iterrows():
            for cell, text in zip(cells, line, strict=True):
                if not _is_number(str(text)):
                    raise DataError(
                        f"{where}: gene {gene}, cell {cell} is {str(text)[:30]!r}, not a number",
                        hint=_DAMAGED,
                    ) from None
        raise


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
