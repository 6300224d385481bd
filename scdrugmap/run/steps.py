"""A benchmark cut into steps that workflow engines run on any machine, by files alone.

::

    plan     configuration, cells      -> splits, lists of tasks
    embed    a network and a share     -> shard of its embeddings     one per network x share
    join     shards                    -> embeddings of a network     one per network
    train    a task                    -> predictions of its jobs     one per protocol x model x fold
    finish   predictions, embeddings   -> the folder of the run

Every step does what the local executor does, by the same code, so that the tables of the run are
the same byte for byte. A task is the seeds of one model, strategy, protocol and fold.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from scdrugmap.errors import DataError, UsageError
from scdrugmap.files import check_output
from scdrugmap.model.parts import Shard
from scdrugmap.progress import say
from scdrugmap.run.entries import Entry
from scdrugmap.run.journal import RunFolder
from scdrugmap.run.tasks import read_task, reads_embeddings

if TYPE_CHECKING:
    from scdrugmap.config import BenchmarkConfig


def embed_shard(
    config: BenchmarkConfig,
    splits: Path,
    output: Path,
    *,
    network: int,
    shard: Shard,
    quiet: bool = False,
) -> None:
    """Embed a share of the cells that take part with one network.

    Shares end where parts of the store end, so that every cell is computed in the company in which
    the local executor computes it.

    Parameters
    ----------
    config : BenchmarkConfig
        Resolved.
    splits : Path
        Folder of the plan's splits.
    output : Path
        NumPy archive to write: ``rows`` (n,) int64 and ``values`` (n, D) float32.
    network : int
        Its number in the plan.
    shard : Shard
    quiet : bool

    Raises
    ------
    UsageError
        The plan has no such network.
    """
    from scdrugmap.files import atomic_path
    from scdrugmap.run.embeddings import CELLS_FILE, CellRows
    from scdrugmap.run.entries import list_entries
    from scdrugmap.run.jobs import Bench
    from scdrugmap.run.models import embedding_jobs
    from scdrugmap.run.store import Store
    from scdrugmap.tables import read_table

    check_output(output, overwrite=False)
    entries: dict[tuple[str, int | None], Entry] = {}
    for entry in list_entries(config)[0]:
        if reads_embeddings(entry):
            entries.setdefault(entry.network, entry)
    if not 0 <= network < len(entries):
        raise UsageError(f"there is no network {network}: the plan has {len(entries)}")
    frame = read_table(splits / CELLS_FILE, ("dataset", "cell"), {})
    rows = CellRows(frame)
    bench = Bench(config, Store(quiet=True))
    try:
        jobs = embedding_jobs(config, frame, bench, list(entries.values())[network], quiet=quiet)
        planned = [(job, part) for job in jobs for part in job.plan()]
        borders = [round(end * len(planned) / shard.n) for end in (shard.i - 1, shard.i)]
        own = planned[slice(*borders)]
        dim = bench.model(list(entries.values())[network]).model.traits.dim
        places = [np.zeros(0, np.int64)]
        values = [np.zeros((0, dim), np.float32)]
        for job in jobs:
            for done in job.run([part for of, part in own if of is job]):
                places.append(rows.find(job.cells.name, job.cells.names[done.index]))
                values.append(np.asarray(done.values, np.float32))
    finally:
        bench.close()
    with atomic_path(output) as target, open(target, "wb") as handle:
        np.savez(handle, rows=np.concatenate(places), values=np.concatenate(values))


def join_shards(shards: Sequence[Path], splits: Path, output: Path) -> None:
    """Join the shards of one network's embeddings.

    Parameters
    ----------
    shards : sequence of Path
        Of :func:`embed_shard`, in any order.
    splits : Path
        Folder of the plan's splits.
    output : Path
        ``.npy`` file to write: (n, D) float32, in the order of the plan's cells.

    Raises
    ------
    DataError
        Cells are missing, there twice, or of another width.
    """
    from scdrugmap.files import atomic_path, reserve
    from scdrugmap.run.embeddings import CELLS_FILE
    from scdrugmap.tables import read_table

    check_output(output, overwrite=False, inputs=shards)
    n_cells = len(read_table(splits / CELLS_FILE, ("dataset", "cell"), {}))
    seen = np.zeros(n_cells, np.int64)
    dims = set()
    for path in shards:
        rows, values = _read_shard(path, n_cells)
        seen += np.bincount(rows, minlength=n_cells)
        dims.add(values.shape[1])
    if len(dims) != 1 or (seen != 1).any():
        raise DataError(
            f"the {len(shards)} shards do not make up one embedding: {int((seen == 0).sum()):,} of "
            f"{n_cells:,} cells are missing, {int((seen > 1).sum()):,} are there twice, widths "
            f"{', '.join(map(str, sorted(dims)))}",
            hint="give every shard of one network, each once",
        )
    with atomic_path(output) as target:
        joined = np.lib.format.open_memmap(
            target, mode="w+", dtype=np.float32, shape=(n_cells, dims.pop())
        )
        reserve(target)
        for path in shards:
            rows, values = _read_shard(path, n_cells)
            joined[rows] = values
        joined.flush()
        del joined


def _read_shard(path: Path, n_cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and the values of a shard.

    Raises
    ------
    DataError
        It is none, or one of other cells.
    """
    hint = "give what `scdrugmap step embed` wrote for this plan"
    try:
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as held:
            rows, values = held["rows"], held["values"]
    except (AttributeError, EOFError, KeyError, OSError, TypeError, ValueError) as err:
        raise DataError(f"{path} is no shard of embeddings: {err}", hint=hint) from err
    except (BadZipFile, NotImplementedError, zlib.error) as err:
        raise DataError(f"{path} is no shard of embeddings: it is damaged", hint=hint) from err
    if (rows.dtype, values.dtype, rows.ndim, values.ndim, len(values)) != (
        *(np.int64, np.float32, 1, 2),
        len(rows),
    ):
        raise DataError(
            f"{path} is no shard of embeddings: rows {rows.shape} {rows.dtype}, values "
            f"{values.shape} {values.dtype}, expected (n,) int64 and (n, D) float32",
            hint=hint,
        )
    if len(rows) and not 0 <= rows.min() <= rows.max() < n_cells:
        raise DataError(
            f"{path} has rows {rows.min():,} to {rows.max():,}, and the plan {n_cells:,} cells",
            hint=hint,
        )
    return rows, values


def run_task(
    config: BenchmarkConfig,
    task_file: Path,
    splits: Path,
    output: Path,
    *,
    embeddings: Path | None = None,
    quiet: bool = False,
) -> bool:
    """Train and predict the jobs of a task.

    Parameters
    ----------
    config : BenchmarkConfig
        Resolved.
    task_file : Path
        One of the plan's ``tasks/``.
    splits : Path
        Folder of the plan's splits.
    output : Path
        Predictions to write, of all jobs that can be done on these cells.
    embeddings : Path, optional
        Those of the task's network.
    quiet : bool

    Returns
    -------
    bool
        Whether there are any predictions; what could not be done is told.

    Raises
    ------
    UsageError
        The task reads embeddings, and none are given.
    DataError
        The task's file or the embeddings are damaged, or of other cells.
    """
    import pandas as pd

    from scdrugmap.evaluation.tables import read_predictions, write_predictions
    from scdrugmap.run.jobs import Bench, Task
    from scdrugmap.run.store import Store

    check_output(output, overwrite=False, inputs=[task_file])
    task = read_task(task_file)
    if task.network is not None and embeddings is None:
        raise UsageError(f"{task_file} reads embeddings", hint="give --embeddings")
    folder = RunFolder(splits)
    store = Store(quiet=True)
    bench = Bench(config, store, rows=splits)
    tables = []
    try:
        if task.network is not None and embeddings is not None:
            bench.embeddings(embeddings)  # damage ends the task: it is no job that cannot be done
        with tempfile.TemporaryDirectory() as place:
            for number, job in enumerate(task.jobs):
                part = Path(place) / f"{number}.tsv.gz"
                manifest = folder.table("splits", job.protocol, job.permutation)
                outcome = bench.run(Task(job, config, manifest, part, embeddings, store.root))
                if outcome.failure:
                    say(f"Note: not evaluable: {job.title}: {outcome.failure}", quiet=quiet)
                else:
                    tables.append(read_predictions(part))
                    say(f"{job.title}: done", quiet=quiet)
    finally:
        bench.close()
    if tables:
        write_predictions(pd.concat(tables, ignore_index=True), output)
    return bool(tables)
