"""h5ad files of embeddings: written part by part in anndata's layout, verified, read back.

The memory needed does not grow with the number of cells times the width: values go to the file as
parts are finished, only names and the table of cells are held.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scdrugmap.data.hdf5_writing import check_written, path_of
from scdrugmap.errors import DataError, ResourceError, UsageError
from scdrugmap.files import canonical_json, check_room
from scdrugmap.model.batching import NO_KNOWN_GENES
from scdrugmap.model.embed import Embeddings
from scdrugmap.model.parts import PART_CELLS

if TYPE_CHECKING:
    import h5py

    from scdrugmap.data.inspect import Scan

UNS = "scdrugmap"
_GROUPS = ("layers", "obsm", "obsp", "uns", "varm", "varp")
_ROWS_OF_CHUNK = 1024
_ENCODING, _VERSION = "encoding-type", "encoding-version"


def obsm_key(model: str) -> str:
    """Return the key of a model's embedding in ``obsm``."""
    return f"X_{model}"


def record_key(model: str) -> str:
    """Return the key of a model's record in ``uns["scdrugmap"]``."""
    return f"embed_{model}"


class EmbeddingWriter:
    """Embeddings of one h5ad file under construction.

    Parameters
    ----------
    file : h5py.File
        New and empty, or a copy of a file that gets more embeddings.
    n_rows : int
        Cells of the file.
    droppable : bool
        Whether :meth:`drop` may be called.
    """

    def __init__(self, file: h5py.File, n_rows: int, *, droppable: bool = False) -> None:
        self._file, self.n_rows, self._droppable = file, n_rows, droppable
        self._datasets: dict[str, h5py.Dataset] = {}
        self._sums: list[tuple[str, np.ndarray, int]] = []
        if _ENCODING not in file.attrs:
            file.attrs.update({_ENCODING: "anndata", _VERSION: "0.1.0"})
        for name in _GROUPS:
            _group(file, name)
        _group(file["uns"], UNS)

    def add(self, model: str, dim: int) -> None:
        """Make room for the embedding of a model, replacing one that is there."""
        key, obsm = obsm_key(model), self._file["obsm"]
        if key in obsm:
            del obsm[key]
        check_room(path_of(self._file), 4 * dim * self.n_rows)
        layout: dict[str, Any] = {"fill_time": "never"}  # every row is written
        if self._droppable:
            layout["maxshape"] = (None, dim)
            layout["chunks"] = (max(1, min(_ROWS_OF_CHUNK, self.n_rows)), dim)
        dataset = obsm.create_dataset(key, (self.n_rows, dim), "<f4", **layout)
        dataset.attrs.update({_ENCODING: "array", _VERSION: "0.2.0"})
        self._datasets[model] = dataset

    def write(self, model: str, rows: np.ndarray, values: np.ndarray) -> None:
        """Write the values ((n, D) float32) of the cells in some rows ((n,) int) of the file."""
        order = np.argsort(rows, kind="stable")
        rows, values = rows[order], np.ascontiguousarray(values[order], "<f4")
        write_runs(self._datasets[model], rows, values)
        check_written(self._file)
        self._sums.append((model, rows, _checksum(values)))

    def drop(self, kept: np.ndarray) -> None:
        """Keep only some rows ((m,) int, increasing) of all embeddings."""
        self._sums = []
        for model, dataset in self._datasets.items():
            for start in range(0, len(kept), PART_CELLS):
                rows = kept[start : start + PART_CELLS]
                self.write(model, np.arange(start, start + len(rows)), read_runs(dataset, rows))
            dataset.resize(len(kept), axis=0)
        self.n_rows = len(kept)

    def verify(self, path: Path) -> None:
        """Open the finished file again and compare it with what was written.

        Raises
        ------
        ResourceError
            A part reads back differently.
        """
        import h5py

        with h5py.File(path, "r") as file:
            for model, rows, expected in self._sums:
                key = obsm_key(model)
                if _checksum(read_runs(file["obsm"][key], rows)) != expected:
                    raise ResourceError(
                        f"{path.parent}: {key} reads back differently from what was written",
                        hint="the disk may be failing: choose another place",
                    )

    def write_tables(self, obs: pd.DataFrame) -> tuple[str, ...]:
        """Write the table of cells, and an empty one of genes; return notices."""
        frame, notices = storable(obs)
        _write_element(self._file, "obs", frame)
        _write_element(self._file, "var", pd.DataFrame(index=pd.Index([], dtype=object)))
        return notices

    def write_record(self, model: str, record: Mapping[str, Any]) -> None:
        """Write a model's record, one JSON string."""
        group, key = self._file["uns"][UNS], record_key(model)
        if key in group:
            del group[key]
        _write_element(group, key, canonical_json(record))


def _checksum(values: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(values, "<f4").tobytes())


def write_runs(dataset: h5py.Dataset, rows: np.ndarray, values: np.ndarray) -> None:
    """Write rows (increasing) of a dataset, neighbours together."""
    for start, stop in _runs(rows):
        dataset[rows[start] : rows[stop - 1] + 1] = values[start:stop]


def read_runs(dataset: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    """Read rows (increasing) of a dataset, neighbours together."""
    out = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
    for start, stop in _runs(rows):
        out[start:stop] = dataset[rows[start] : rows[stop - 1] + 1]
    return out


def _runs(rows: np.ndarray) -> list[tuple[int, int]]:
    """Return (start, stop) of the longest stretches of consecutive numbers."""
    if not len(rows):
        return []
    borders = (np.flatnonzero(np.diff(rows) != 1) + 1).tolist()
    return list(zip([0, *borders], [*borders, len(rows)], strict=True))


def to_runs(rows: np.ndarray) -> list[list[int]]:
    """Write increasing positions ((n,) int) as [start, stop) pairs."""
    return [[int(rows[start]), int(rows[stop - 1]) + 1] for start, stop in _runs(rows)]


def from_runs(runs: Sequence[Sequence[int]]) -> np.ndarray:
    """Undo :func:`to_runs`: (n,) int64."""
    ranges = (np.arange(start, stop, dtype=np.int64) for start, stop in runs)
    return np.concatenate([np.empty(0, np.int64), *ranges])


def storable(obs: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return a table of cells that every reader of h5ad understands.

    Text with gaps becomes categories; names that HDF5 or anndata reserve are changed.

    Returns
    -------
    frame : pandas.DataFrame
    notices : tuple of str
        Which columns were renamed.
    """
    names: dict[Any, str] = {}
    for column in obs.columns:
        name = str(column).replace("/", "_")
        name = f"{name}_" if name == "_index" else name
        while name in names.values():
            name += "_"
        names[column] = name
    columns = {}
    for column, name in names.items():
        series = obs[column]
        if not isinstance(series.dtype, pd.CategoricalDtype) and (
            series.dtype == object or isinstance(series.dtype, pd.StringDtype)
        ):
            series = series.where(series.isna(), series.astype(str)).astype("category")
        columns[name] = series
    frame = pd.DataFrame(columns, index=obs.index.astype(object))
    renamed = [f"{old} is written as {new}" for old, new in names.items() if str(old) != new]
    return frame, tuple(f"column of obs {text}" for text in renamed)


def read_embeddings(source: Path, model: str) -> Embeddings:
    """Read the embedding of a model from an h5ad file.

    Returns
    -------
    Embeddings
        ``status`` is ``no_known_genes`` where the row is NaN.

    Raises
    ------
    UsageError
        No such file.
    DataError
        It holds no such embedding, or a damaged one.
    """
    source = Path(source)
    with open_embeddings(source) as file:
        obs = cell_table(file, source.name)
        dataset = embedding(file, model, source.name, len(obs))
        values = np.asarray(dataset[:], np.float32)
        record = read_records(file, source.name).get(model, {})
    missing = np.isnan(values)
    if np.isinf(values).any() or (missing.any(axis=1) != missing.all(axis=1)).any():
        raise DataError(
            f"{source.name}: {obsm_key(model)} holds rows that are partly NaN, or infinite values",
            hint="embed the cells again",
        )
    status = np.where(missing.all(axis=1), NO_KNOWN_GENES, "").astype(object)
    return Embeddings(obs.index.to_numpy(object), values, status, record)


@contextmanager
def open_embeddings(source: Path | Scan) -> Iterator[h5py.File]:
    """Open a file of embeddings for reading, after its metadata was looked at.

    Parameters
    ----------
    source : Path or Scan
        A Scan spares a second look, if the file is still the same.
    """
    from scdrugmap.data.containers import reading
    from scdrugmap.data.inspect import Scan, open_scanned, scan

    found = source if isinstance(source, Scan) else scan(source)
    with open_scanned(found) as file, reading(found.path.name):
        yield file


def cell_table(file: h5py.File, where: str) -> pd.DataFrame:
    """Return the table of cells of a file.

    Raises
    ------
    DataError
        There is none, or it is damaged.
    """
    from scdrugmap.data.frames import read_frame

    if "obs" not in file:
        raise DataError(f"{where} holds no table of cells (obs)", hint="is it an h5ad file?")
    return read_frame(file["obs"], "obs", where)


def embedding(file: h5py.File, model: str, where: str, n_cells: int) -> h5py.Dataset:
    """Return the dataset of a model's embedding.

    Raises
    ------
    DataError
        It is not there, or not a float matrix with a row per cell.
    """
    key = f"obsm/{obsm_key(model)}"
    if key not in file:
        have = sorted(file["obsm"].keys()) if "obsm" in file else []
        raise DataError(
            f"{where} holds no embedding of {model} (obsm has: {', '.join(have) or 'nothing'})",
            hint=f"make one: scdrugmap embed INPUT --model {model} -o {where}",
        )
    dataset = file[key]
    shape = getattr(dataset, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != n_cells or dataset.dtype.kind != "f":
        raise DataError(
            f"{where}: {key} is no float matrix of {n_cells:,} rows (shape {shape})",
            hint="embed the cells again",
        )
    return dataset


def read_records(file: h5py.File, where: str) -> dict[str, dict[str, Any]]:
    """Return the records of the embeddings in a file, by model.

    Raises
    ------
    DataError
        A record is no JSON object.
    """
    import h5py

    group = file.get(f"uns/{UNS}")
    prefix = record_key("")
    records: dict[str, dict[str, Any]] = {}
    for key in group if isinstance(group, h5py.Group) else ():
        if not key.startswith(prefix):
            continue
        try:
            record = json.loads(group[key].asstr()[()])
        except (ValueError, AttributeError, TypeError, RecursionError) as err:
            raise DataError(
                f"{where}: uns/{UNS}/{key} is no record", hint="embed the cells again"
            ) from err
        if not isinstance(record, dict):
            raise DataError(f"{where}: uns/{UNS}/{key} is no record", hint="embed the cells again")
        records[key.removeprefix(prefix)] = record
    return records


def check_target(
    source: Path, models: list[str], *, sample: str | None = None, overwrite: bool = False
) -> np.ndarray:
    """Look at a file that is to get embeddings; return its cell names ((n,) object str).

    `sample` makes repeated names unique, as it does for the cells that are embedded.

    Raises
    ------
    UsageError
        It does not exist, is no h5ad, or has one of the embeddings (without `overwrite`).
    DataError
        It is damaged or dangerous.
    """
    import h5py

    from scdrugmap.data.obs import read_obs

    if not source.is_file():
        raise UsageError(f"{source} does not exist", hint="--into needs an h5ad file; else use -o")
    if not h5py.is_hdf5(source):
        raise UsageError(f"{source} is no h5ad file", hint="--into adds to an h5ad file")
    _, obs = read_obs(source, sample=sample)
    with open_embeddings(source) as file:
        present = [model for model in models if f"obsm/{obsm_key(model)}" in file]
        for name in ("obsm", "uns", f"uns/{UNS}"):
            if name in file and not isinstance(file[name], h5py.Group):
                raise DataError(f"{source.name}: {name} is no group", hint="write the file again")
    if present and not overwrite:
        raise UsageError(
            f"{source} holds obsm[{obsm_key(present[0])!r}] already", hint="add --overwrite"
        )
    return obs.index.to_numpy(object)


def _group(parent: Any, name: str) -> None:
    if name not in parent:
        parent.create_group(name).attrs.update({_ENCODING: "dict", _VERSION: "0.1.0"})


def _write_element(parent: Any, name: str, value: Any) -> None:
    try:
        from anndata.io import write_elem
    except ImportError:  # anndata 0.10
        from anndata.experimental import write_elem
    write_elem(parent, name, value)
