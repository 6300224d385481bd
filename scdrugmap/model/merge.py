"""Join the shards of one embedding into the file that an undivided run would have written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scdrugmap.data.hdf5_writing import writing_hdf5
from scdrugmap.errors import DataError, UsageError
from scdrugmap.files import atomic_path, check_output
from scdrugmap.model.embedding_file import (
    EmbeddingWriter,
    cell_table,
    embedding,
    from_runs,
    open_embeddings,
    read_records,
)
from scdrugmap.model.parts import PART_CELLS, names_digest
from scdrugmap.run.provenance import provenance, without_times
from scdrugmap.run.store import differences

if TYPE_CHECKING:
    from scdrugmap.data.inspect import Scan

_SAME = ("what", "dim", "groups", "dataset", "coverage", "weights")
_OF_INPUT = ("n", "n_cells", "names")
_MOST_LISTED = 5


@dataclass(frozen=True)
class _Piece:
    """One shard: its records by model, its table of cells, and their rows in the input."""

    path: Path
    scan: Scan
    records: dict[str, dict[str, Any]]
    obs: pd.DataFrame
    rows: np.ndarray

    @property
    def shard(self) -> dict[str, Any]:
        shard: dict[str, Any] = next(iter(self.records.values()))["shard"]
        return shard


def merge_embeddings(shards: Sequence[Path], output: Path, *, overwrite: bool = False) -> Path:
    """Join shards, in any order, in the order of the cells that were embedded.

    Parameters
    ----------
    shards : sequence of Path
        Files of ``embed --shard 1/n`` to ``n/n``.
    output : Path
    overwrite : bool

    Returns
    -------
    Path
        `output`.

    Raises
    ------
    UsageError
        A file does not exist, or the output cannot be used.
    DataError
        A shard is missing or twice, or they differ in what decides the values.
    """
    shards = [Path(path) for path in shards]
    for path in shards:
        if not path.is_file():
            raise UsageError(f"{path} does not exist")
    check_output(output, overwrite=overwrite, inputs=shards)
    pieces = sorted((_read(path) for path in shards), key=lambda piece: int(piece.shard["i"]))
    _check_together(pieces)
    place, obs = _order(pieces)
    with atomic_path(output) as temporary:
        with writing_hdf5(temporary) as file:
            writer = EmbeddingWriter(file, len(place))
            for model, record in pieces[0].records.items():
                writer.add(model, int(record["dim"]))
            first = 0
            for piece in pieces:
                rows = place[first : first + len(piece.rows)]
                first += len(piece.rows)
                _copy(piece, writer, rows)
            writer.write_tables(obs)
            for model in pieces[0].records:
                writer.write_record(model, _merged(pieces, model))
        writer.verify(temporary)
    return output


def _read(path: Path) -> _Piece:
    from scdrugmap.data.inspect import scan

    found = scan(path)
    with open_embeddings(found) as file:
        obs = cell_table(file, path.name)
        records = read_records(file, path.name)
        for model in records:
            embedding(file, model, path.name, len(obs))
    if not records or any(not _is_shard(record) for record in records.values()):
        raise DataError(
            f"{path.name} is no shard of an embedding",
            hint="shards are made by `scdrugmap embed --shard I/N`",
        )
    rows = from_runs(next(iter(records.values()))["shard"]["rows"])
    if len(rows) != len(obs):
        raise DataError(
            f"{path.name} holds {len(obs):,} cells, its record says {len(rows):,}",
            hint="make this shard again",
        )
    return _Piece(path, found, records, obs, rows)


def _is_shard(record: dict[str, Any]) -> bool:
    shard = record.get("shard")
    if not isinstance(shard, dict) or not {"i", *_OF_INPUT, "rows"} <= set(shard):
        return False
    runs = shard["rows"]
    return (
        all(isinstance(shard[name], int) for name in ("i", "n", "n_cells"))
        and isinstance(record.get("dim"), int)
        and isinstance(runs, list)
        and all(_is_run(run, shard["n_cells"]) for run in runs)
    )


def _is_run(run: Any, n_cells: int) -> bool:
    return (
        isinstance(run, list)
        and len(run) == 2
        and all(isinstance(number, int) for number in run)
        and 0 <= run[0] < run[1] <= n_cells
    )


def _check_together(pieces: Sequence[_Piece]) -> None:
    first = pieces[0]
    for piece in pieces[1:]:
        if set(piece.records) != set(first.records):
            raise DataError(
                f"{piece.path.name} holds {', '.join(sorted(piece.records))}, {first.path.name} "
                f"{', '.join(sorted(first.records))}",
                hint="merge shards of the same models",
            )
        for model, record in first.records.items():
            _check_same(first, piece, model, record)
    n = int(first.shard["n"])
    numbers = [int(piece.shard["i"]) for piece in pieces]
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if twice:
        raise DataError(f"shard {twice[0]}/{n} is there twice", hint="name each shard once")
    missing = sorted(set(range(1, n + 1)) - set(numbers))
    if missing:
        listed = ", ".join(f"{number}/{n}" for number in missing[:_MOST_LISTED])
        raise DataError(
            f"{len(missing)} of {n} shards are missing: {listed}",
            hint="make them with `scdrugmap embed --shard I/N`",
        )


def _check_same(first: _Piece, piece: _Piece, model: str, record: dict[str, Any]) -> None:
    other = piece.records[model]
    left = {name: record.get(name) for name in _SAME}
    right = {name: other.get(name) for name in _SAME}
    left["shard"] = {name: record["shard"][name] for name in _OF_INPUT}
    right["shard"] = {name: other["shard"][name] for name in _OF_INPUT}
    found = differences(left, right)
    if found:
        name, (theirs, ours) = next(iter(found.items()))
        raise DataError(
            f"{piece.path.name} and {first.path.name} do not belong together: {model} differs in "
            f"{name} ({theirs} and {ours})",
            hint="make all shards from the same file with the same options and software",
        )


def _order(pieces: Sequence[_Piece]) -> tuple[np.ndarray, pd.DataFrame]:
    """Return the row of each cell (shard after shard) in the output, and the table of cells."""
    rows = np.concatenate([piece.rows for piece in pieces])
    order = np.argsort(rows, kind="stable")
    n_cells = int(pieces[0].shard["n_cells"])
    n_dropped = sum(int(next(iter(p.records.values())).get("n_dropped", 0)) for p in pieces)
    if (np.diff(rows[order]) == 0).any() or len(rows) + n_dropped != n_cells:
        raise DataError(
            f"the shards hold {len(np.unique(rows)):,} different cells of {n_cells:,}",
            hint="make all shards again with one version of scdrugmap",
        )
    obs = _joined_tables([piece.obs for piece in pieces]).iloc[order]
    if not n_dropped and names_digest(obs.index.to_numpy(object)) != pieces[0].shard["names"]:
        raise DataError(
            "the names of the cells are not those of the file that was embedded",
            hint="make the shards again",
        )
    place = np.empty(len(rows), np.int64)
    place[order] = np.arange(len(rows))
    return place, obs


def _joined_tables(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Put tables of cells one below the other; columns of categories stay so."""
    from pandas.api.types import union_categoricals

    joined = pd.concat(tables)
    for column in joined.columns:
        parts = [table[column] for table in tables if column in table]
        if all(isinstance(part.dtype, pd.CategoricalDtype) for part in parts) and len(parts) == len(
            tables
        ):
            joined[column] = union_categoricals(parts, ignore_order=True)
    return joined


def _copy(piece: _Piece, writer: EmbeddingWriter, rows: np.ndarray) -> None:
    with open_embeddings(piece.scan) as file:
        for model in piece.records:
            dataset = embedding(file, model, piece.path.name, len(rows))
            for start in range(0, len(rows), PART_CELLS):
                stop = min(len(rows), start + PART_CELLS)
                writer.write(model, rows[start:stop], dataset[start:stop])


def _merged(pieces: Sequence[_Piece], model: str) -> dict[str, Any]:
    """Return the record of the whole: that of an undivided run, but for how it was made."""
    records = [piece.records[model] for piece in pieces]
    whole = {name: value for name, value in records[0].items() if name not in ("shard", "made")}
    for name in ("n_cells", "n_dropped", "n_no_known_genes"):
        whole[name] = sum(int(record.get(name, 0)) for record in records)
    paths = [piece.path for piece in pieces]
    whole["made"] = {
        "shards": [record.get("made") for record in records],
        **without_times(provenance("merge", paths)),
    }
    return whole
