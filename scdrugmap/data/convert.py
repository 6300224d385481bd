"""Turn 10x files and tables of text into h5ad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scdrugmap.data.formats import Format, recognise
from scdrugmap.data.genes import EXPRESSION
from scdrugmap.data.hdf5_writing import write_h5ad, writing_hdf5
from scdrugmap.data.tenx import read_10x
from scdrugmap.data.text_table import Layout, read_layout, read_pieces
from scdrugmap.errors import DataError, UsageError
from scdrugmap.files import atomic_path, check_output
from scdrugmap.progress import say

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

__all__ = ["Converted", "convert", "read_10x"]

_CHUNK = 1 << 18  # entries of an HDF5 chunk: 1 MB of float32
_MOST_LISTED = 8


@dataclass(frozen=True)
class Converted:
    """What was written.

    Parameters
    ----------
    n_cells, n_genes : int
    notices : tuple of str
        What the user should know, one line each.
    """

    n_cells: int
    n_genes: int
    notices: tuple[str, ...]


def convert(
    source: str | Path,
    output: str | Path,
    *,
    obs_columns: Sequence[str] = (),
    compress: bool = True,
    overwrite: bool = False,
    quiet: bool = False,
) -> Converted:
    """Write the cells of a 10x file, a 10x folder or a table as h5ad, whole or not at all.

    A table holds one cell per row: a column of cell names (``Cell_barcode``), columns about cells
    (``Condition`` and others of text), and one column per gene. It is read piece by piece, so
    that memory does not grow with it.

    Parameters
    ----------
    source : path
    output : path
    obs_columns : sequence of str
        Columns of a table that are about cells although they hold numbers.
    compress : bool
        Compress with gzip: smaller, slower to read again.
    overwrite : bool
    quiet : bool

    Raises
    ------
    UsageError
        The source needs no conversion, or the output exists.
    DataError
        The source is damaged or of a kind that is not read.
    """
    source, output = Path(source), Path(output)
    check_output(output, overwrite=overwrite, inputs=[source])
    found = recognise(source)
    if found.format in (Format.H5AD, Format.ZARR):
        raise UsageError(
            f"{source.name} is a file of the kind {found.format.value}, which every command reads",
            hint=f"type: scdrugmap check {source}",
        )
    compression = "gzip" if compress else None
    if found.format == Format.TABLE:
        return _convert_table(source, output, obs_columns, compression, quiet)
    if obs_columns:
        raise UsageError("--obs is for tables of text", hint="leave it out")
    return _convert_10x(source, output, compression)


def _convert_10x(source: Path, output: Path, compression: str | None) -> Converted:
    adata = read_10x(source)
    kinds = adata.var["feature_types"].to_numpy(object)
    is_gene = kinds == EXPRESSION
    if not is_gene.any():
        raise DataError(
            f"{source.name}: no feature is a gene ({', '.join(sorted(set(kinds))[:4])})",
            hint="give the matrix of gene expression",
        )
    notices = []
    if not is_gene.all():
        names = adata.var_names.to_numpy(object)
        for kind in sorted(set(kinds[~is_gene])):
            members = names[kinds == kind]
            listed = ", ".join(members[:_MOST_LISTED])
            more = ", ..." if len(members) > _MOST_LISTED else ""
            notices.append(
                f"{source.name}: {len(members):,} features of the kind {kind} are left out "
                f"({listed}{more})"
            )
        adata = adata[:, is_gene].copy()
    with atomic_path(output) as temporary:
        write_h5ad(adata, temporary, compression=compression)
    return Converted(adata.n_obs, adata.n_vars, tuple(notices))


def _convert_table(
    source: Path,
    output: Path,
    obs_columns: Sequence[str],
    compression: str | None,
    quiet: bool,
) -> Converted:
    layout = read_layout(source, obs_columns)
    facts = [layout.columns[i] for i in layout.facts]
    notices = [f"{source.name}: columns about cells: {', '.join(facts) or 'none'}"]
    with atomic_path(output) as temporary:
        n_cells = _write_table(source, layout, temporary, compression, quiet)
    return Converted(n_cells, len(layout.genes), tuple(notices))


def _write_table(
    source: Path, layout: Layout, target: Path, compression: str | None, quiet: bool
) -> int:
    """Write the h5ad file of a table and return the number of cells."""
    names: list[np.ndarray] = []
    facts: list[pd.DataFrame] = []
    with writing_hdf5(target) as file:
        writer = _RowWriter(file.create_group("X"), len(layout.genes), compression)
        for piece in read_pieces(source, layout):
            writer.append(piece.values)
            names.append(piece.names)
            facts.append(piece.facts)
            if writer.n_rows > len(piece.names):
                say(f"{source.name}: {writer.n_rows:,} cells", quiet=quiet)
        writer.finish()
        _write_frames(file, source, layout, names, facts)
    return writer.n_rows


class _RowWriter:
    """Append rows to a CSR matrix in an HDF5 group, as AnnData stores it."""

    def __init__(self, group: Any, n_columns: int, compression: str | None) -> None:
        self.group, self.n_columns, self.n_rows = group, n_columns, 0
        self._ends = [np.zeros(1, np.int64)]
        self._n_entries = 0
        for name, dtype in (("data", np.float32), ("indices", np.int32)):
            group.create_dataset(
                name, (0,), dtype, maxshape=(None,), chunks=(_CHUNK,), compression=compression
            )

    def append(self, rows: csr_matrix) -> None:
        """Add rows ((n, n_columns) float32, columns sorted)."""
        start, stop = self._n_entries, self._n_entries + rows.nnz
        for name, values in (("data", rows.data), ("indices", rows.indices)):
            self.group[name].resize((stop,))
            self.group[name][start:stop] = values
        self._ends.append(rows.indptr[1:].astype(np.int64) + start)
        self._n_entries, self.n_rows = stop, self.n_rows + rows.shape[0]

    def finish(self) -> None:
        """Write what makes the group a matrix."""
        self.group.create_dataset("indptr", data=np.concatenate(self._ends))
        self.group.attrs["encoding-type"] = "csr_matrix"
        self.group.attrs["encoding-version"] = "0.1.0"
        self.group.attrs["shape"] = np.array([self.n_rows, self.n_columns], np.int64)


def _write_frames(
    file: Any,
    source: Path,
    layout: Layout,
    names: list[np.ndarray],
    facts: list[pd.DataFrame],
) -> None:
    import pandas as pd

    try:
        from anndata.io import write_elem
    except ImportError:  # anndata before 0.11
        from anndata.experimental import write_elem

    cells = np.concatenate(names)
    if len(set(cells)) != len(cells):
        repeated = pd.Series(cells)[pd.Series(cells).duplicated()].iloc[0]
        raise DataError(
            f"{source.name}: cell names repeat ({repeated!r}, ...)",
            hint="give each cell a name of its own, for example sample:barcode",
        )
    obs = pd.concat(facts, ignore_index=True)
    for column in obs:
        obs[column] = _as_number_or_category(obs[column])
    genes = [layout.columns[i] for i in layout.genes]
    file.attrs["encoding-type"], file.attrs["encoding-version"] = "anndata", "0.1.0"
    write_elem(file, "obs", obs.set_axis(pd.Index(cells.astype(str), dtype=object)))
    write_elem(file, "var", pd.DataFrame(index=pd.Index(genes, dtype=object)))
    for part in ("layers", "obsm", "varm", "obsp", "varp", "uns"):
        write_elem(file, part, {})


def _as_number_or_category(column: pd.Series) -> pd.Series:
    """Return a column of text as numbers if all are, else as categories; "" is missing."""
    import pandas as pd

    filled = column.where(column != "")
    numbers = pd.to_numeric(filled, errors="coerce")
    if numbers.notna().sum() == filled.notna().sum():
        return numbers
    return filled.astype("category")
