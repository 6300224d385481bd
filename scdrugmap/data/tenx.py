"""Read what 10x Genomics writes: an HDF5 file, or a folder of matrix, features and barcodes."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scdrugmap.data.formats import Format, recognise
from scdrugmap.data.frames import is_group, read_strings
from scdrugmap.data.genes import EXPRESSION
from scdrugmap.data.inspect import open_scanned
from scdrugmap.data.sources import CompressedRows
from scdrugmap.errors import DataError, UsageError
from scdrugmap.system_errors import resource_error

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

_DAMAGED = "the file is damaged: fetch it again"
_HUMAN = ("GRCh38", "hg38", "GRCh37", "hg19")
_SHORTEST_ENTRY = 5  # bytes of "1 1 1" in a matrix of text
_MOST_PACKED = 1032  # times smaller; deflate packs no better


@dataclass(frozen=True)
class _Features:
    """Rows of a 10x matrix; text arrays of (n,)."""

    id: np.ndarray
    name: np.ndarray
    kind: np.ndarray
    genome: np.ndarray


def read_10x(path: str | Path) -> AnnData:
    """Read a 10x HDF5 file (Cell Ranger 2 or later) or a folder with ``matrix.mtx``.

    All features are kept, also antibodies and the like: ``var["feature_types"]`` says what each
    is, and :func:`scdrugmap.data.genes.read_genes` leaves out what is no gene.

    Parameters
    ----------
    path : path
        Compressed (``.gz``) members of a folder are fine.

    Returns
    -------
    AnnData
        ``X`` CSR float32; ``var`` index = symbols (made unique), with ``gene_ids``,
        ``feature_types`` and ``genome``.

    Raises
    ------
    UsageError
        There is no such path.
    DataError
        It is damaged, or no 10x matrix.
    """
    found = recognise(path)
    where = found.path.name
    if found.format == Format.TENX_FOLDER:
        return _assemble(*_read_folder(found.path), where)
    if found.format != Format.TENX_H5 or found.scan is None:
        raise DataError(
            f"{where} is no 10x file but a file of the kind {found.format.value}",
            hint="name a 10x HDF5 file, or the folder that holds matrix.mtx",
        )
    try:
        with open_scanned(found.scan) as file:
            return _assemble(*_read_hdf5(file, where), where)
    except (OSError, RuntimeError) as err:
        raise DataError(f"{where}: data cannot be read: {err}", hint=_DAMAGED) from err


def _read_hdf5(file: Any, where: str) -> tuple[csr_matrix, _Features, np.ndarray]:
    name = _group(file, where)
    group = file[name]
    missing = [key for key in ("data", "indices", "indptr", "shape") if key not in group]
    if missing:
        raise DataError(f"{where}: {name} has no {', '.join(missing)}", hint=_DAMAGED)
    shape = np.asarray(group["shape"][:]).astype(np.int64)
    if shape.shape != (2,) or (shape < 1).any():
        raise DataError(f"{where}: {name}/shape is {shape.tolist()}, expected genes and cells")
    n_features, n_cells = int(shape[0]), int(shape[1])
    if "features" in group:
        table = group["features"]
        columns = {"id": "id", "name": "name", "kind": "feature_type", "genome": "genome"}
    else:  # Cell Ranger 2: one group per genome
        table = group
        columns = {"id": "genes", "name": "gene_names"}
    text = {
        field: read_strings(table[key], f"{name}/{key}", where)
        for field, key in columns.items()
        if key in table and not is_group(table[key])
    }
    if "name" not in text and "id" not in text:
        raise DataError(f"{where}: {name} does not name its genes", hint=_DAMAGED)
    text.setdefault("id", text.get("name", np.zeros(0, object)))
    text.setdefault("name", text["id"])
    text.setdefault("kind", np.full(len(text["id"]), EXPRESSION, object))
    text.setdefault("genome", np.full(len(text["id"]), "" if name == "matrix" else name, object))
    barcodes = read_strings(group["barcodes"], f"{name}/barcodes", where)
    _check_lengths(text, n_features, barcodes, n_cells, where)
    # Genes x cells by columns is the same as cells x genes by rows.
    source = CompressedRows(
        group["data"],
        group["indices"],
        group["indptr"],
        (n_cells, n_features),
        part=name,
        where=where,
    )
    return source.read([(0, n_cells)]), _Features(**text), barcodes


def _group(file: Any, where: str) -> str:
    """Return the group to read; of several genomes the human one."""
    groups = [name for name in file if is_group(file[name]) and "barcodes" in file[name]]
    human = [name for name in groups if name.startswith(_HUMAN)]
    if len(groups) == 1 or len(human) == 1:
        return (human or groups)[0]
    if not groups:
        raise DataError(f"{where}: there is no matrix with barcodes", hint=_DAMAGED)
    raise DataError(
        f"{where} holds several matrices: {', '.join(groups)}",
        hint="write the one you need into a file of its own",
    )


def _read_folder(folder: Path) -> tuple[csr_matrix, _Features, np.ndarray]:
    from scipy.sparse import csr_matrix

    matrix_path = _member(folder, ("matrix.mtx",))
    prefix = matrix_path.name[: matrix_path.name.index("matrix.mtx")]
    rows = _table(_member(folder, (f"{prefix}features.tsv", f"{prefix}genes.tsv")))
    barcodes = _table(_member(folder, (f"{prefix}barcodes.tsv",)))
    where = f"{folder.name}/{matrix_path.name}"
    matrix = _read_mtx(matrix_path, where)
    n_features, n_cells = matrix.shape
    text = {
        "id": _field(rows, 0),
        "name": _field(rows, 1 if rows and len(rows[0]) > 1 else 0),
        "kind": _field(rows, 2, EXPRESSION),
        "genome": np.full(len(rows), "", object),
    }
    names = _field(barcodes, 0)
    _check_lengths(text, n_features, names, n_cells, where)
    counts = csr_matrix(matrix.T, dtype=np.float32)
    counts.sum_duplicates()
    return counts, _Features(**text), names


def _member(folder: Path, names: Sequence[str]) -> Path:
    """Return the one file of a folder with such a name, ``.gz`` or not, prefix or not."""
    endings = tuple(name + suffix for name in names for suffix in ("", ".gz"))
    exact = [folder / ending for ending in endings if (folder / ending).is_file()]
    found = exact or sorted(path for path in folder.iterdir() if path.name.endswith(endings))
    if not found:
        raise DataError(
            f"{folder.name} has no {' or '.join(names)} (.gz or not)",
            hint="a 10x folder holds matrix.mtx, features.tsv (or genes.tsv) and barcodes.tsv",
        )
    if len(found) > 1 and not exact:
        raise UsageError(
            f"{folder} holds several of {names[0]}: {', '.join(path.name for path in found[:4])}",
            hint="put each sample into a folder of its own",
        )
    return found[0]


def _unpacked(path: Path, where: str) -> bytes:
    data = path.read_bytes()
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as err:
        damaged = DataError(f"{where} is a damaged gzip file: {err}", hint="fetch the file again")
        raise (resource_error(err, path) or damaged) from err


def _table(path: Path) -> list[list[str]]:
    where = f"{path.parent.name}/{path.name}"
    try:
        text = _unpacked(path, where).decode("utf-8")
    except UnicodeDecodeError as err:
        raise DataError(f"{where} is not UTF-8 text: {err}", hint="save it as UTF-8") from err
    return [line.rstrip("\r").split("\t") for line in text.split("\n") if line.strip()]


def _field(rows: list[list[str]], place: int, default: str = "") -> np.ndarray:
    out = np.empty(len(rows), object)
    out[:] = [row[place] if len(row) > place else default for row in rows]
    return out


def _read_mtx(path: Path, where: str) -> Any:
    from scipy.io import mminfo, mmread

    packed = path.name.endswith(".gz")
    try:
        n_rows, n_columns, n_entries, layout, field, _ = mminfo(str(path))
        size = path.stat().st_size * (_MOST_PACKED if packed else 1)
        if n_entries * _SHORTEST_ENTRY > size:
            raise DataError(
                f"{where} declares {n_entries:,} entries, more than it can hold",
                hint="incomplete download? fetch the file again",
            )
        if layout != "coordinate" or field not in ("integer", "real"):
            raise DataError(
                f"{where} is a {layout} matrix of {field} values, expected a sparse one of numbers"
            )
        handle = io.BytesIO(_unpacked(path, where)) if packed else str(path)
        matrix = mmread(handle)
    except (ValueError, OverflowError, EOFError, zlib.error) as err:
        raise DataError(
            f"{where} cannot be read as a matrix: {err}", hint="fetch the file again"
        ) from err
    if matrix.shape != (n_rows, n_columns):
        raise DataError(f"{where} is {matrix.shape}, its header says {n_rows} x {n_columns}")
    return matrix


def _check_lengths(
    text: dict[str, np.ndarray], n_features: int, barcodes: np.ndarray, n_cells: int, where: str
) -> None:
    for what, found, expected in (
        *((f"features ({name})", len(values), n_features) for name, values in text.items()),
        ("barcodes", len(barcodes), n_cells),
    ):
        if found != expected:
            raise DataError(
                f"{where}: there are {found:,} {what}, but the matrix has {expected:,}",
                hint="features, barcodes and matrix must come from one run",
            )


def _assemble(rows: csr_matrix, features: _Features, barcodes: np.ndarray, where: str) -> AnnData:
    import pandas as pd
    from anndata import AnnData
    from anndata.utils import make_index_unique

    if len(set(barcodes)) != len(barcodes):
        raise DataError(f"{where}: barcodes repeat", hint="merge samples only under unique names")
    var = pd.DataFrame(
        {
            "gene_ids": features.id,
            "feature_types": features.kind,
            "genome": features.genome,
        },
        index=make_index_unique(pd.Index(features.name)),
    )
    obs = pd.DataFrame(index=pd.Index(barcodes))
    return AnnData(rows, obs=obs, var=var)
