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

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scdrugmap.errors import DataError, UsageError
from scdrugmap.files import check_output, hash_json, write_json
from scdrugmap.model.parts import Shard
from scdrugmap.progress import say
from scdrugmap.run.entries import Entry
from scdrugmap.run.journal import CONFIG_FILE, RunFolder
from scdrugmap.run.plan import Job, Plan, make_plan
from scdrugmap.train.settings import FineTuning

if TYPE_CHECKING:
    from scdrugmap.config import BenchmarkConfig
    from scdrugmap.run.execute import Run

FORMAT = 1
PLAN_FILE, TASKS_FOLDER, SPLITS_FOLDER = "plan.json", "tasks", "splits"


@dataclass(frozen=True)
class StepTask:
    """The jobs of one step: one model, strategy, protocol and fold, and all its seeds.

    Attributes
    ----------
    number : int
        Its place in the plan.
    jobs : tuple of Job
    network : int or None
        Number of the network whose embeddings it reads.
    plan : str
        Hash of the configuration, the cells and the splits.
    """

    number: int
    jobs: tuple[Job, ...]
    network: int | None
    plan: str

    @property
    def name(self) -> str:
        """Name of its files: its place and the hash of what it is."""
        return f"{self.number:04d}-{hash_json(self.record())[:12]}"

    def record(self) -> dict[str, Any]:
        """Return it as JSON; :meth:`of` reads it back."""
        return {
            "format": FORMAT,
            "number": self.number,
            "network": self.network,
            "plan": self.plan,
            "jobs": [
                {
                    **asdict(replace(job, tuning=None)),
                    "tuning": None if job.tuning is None else job.tuning.model_dump(mode="json"),
                }
                for job in self.jobs
            ],
        }

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> StepTask:
        """Read what :meth:`record` gave."""
        jobs = tuple(
            Job(
                **{
                    **item,
                    "entry": Entry(**item["entry"]),
                    "tuning": None
                    if item["tuning"] is None
                    else FineTuning.model_validate(item["tuning"]),
                }
            )
            for item in record["jobs"]
        )
        return cls(record["number"], jobs, record["network"], record["plan"])


def read_located(
    path: Path, data: Sequence[Path] = (), weights: Sequence[Path] = ()
) -> BenchmarkConfig:
    """Read a configuration whose files lie elsewhere than it says, as engines stage them.

    Parameters
    ----------
    path : Path
        YAML file.
    data : sequence of Path
        Where its files of cells are, in its order; none: where it says.
    weights : sequence of Path
        Where its folders of weights are, in its order, without those that are ``random``.

    Raises
    ------
    UsageError
        As :func:`~scdrugmap.config.read_config`; another number of files or folders.
    """
    from scdrugmap.config import read_config

    config = read_config(path).resolved()
    named = weight_folders(config)
    for given, wanted, what in (
        (data, len(config.data), "files of cells (--data)"),
        (weights, len(named), "folders of weights (--weights)"),
    ):
        if given and len(given) != wanted:
            raise UsageError(
                f"{path} has {wanted} {what}, and {len(given)} are given",
                hint="give them in the order of the configuration, or none",
            )
    found = dict(zip(named, map(str, map(Path.absolute, weights)), strict=False))
    return config.model_copy(
        update={
            "data": tuple(
                item.model_copy(update={"name": item.dataset, "path": place.absolute()})
                for item, place in zip(config.data, data, strict=True)
            )
            if data
            else config.data,
            "weights": {**config.weights, **found},
        }
    )


def weight_folders(config: BenchmarkConfig) -> list[str]:
    """Return the models whose weights are a folder that the configuration names."""
    return [name for name, path in config.weights.items() if path != "random"]


def list_tasks(plan: Plan) -> list[StepTask]:
    """Put the jobs of a plan together into tasks, in the order of the plan."""
    networks = list_networks(plan)
    identity = hash_json(
        {
            "config": plan.config.identity(),
            "content": plan.cohort.content,
            "splits": [split.split_id for split in plan.splits.values()],
        }
    )
    joined: dict[tuple[Any, ...], list[Job]] = {}
    for job in plan.jobs:
        joined.setdefault((job.protocol, job.entry, job.fold), []).append(job)
    return [
        StepTask(
            number,
            tuple(jobs),
            networks.index(jobs[0].entry.network) if _reads_embeddings(jobs[0].entry) else None,
            identity,
        )
        for number, jobs in enumerate(joined.values())
    ]


def list_networks(plan: Plan) -> list[tuple[str, int | None]]:
    """Return the networks whose embeddings jobs read, in the order of the plan."""
    return list(dict.fromkeys(entry.network for entry in plan.entries if _reads_embeddings(entry)))


def _reads_embeddings(entry: Entry) -> bool:
    return entry.kind == "model" and entry.strategy == "frozen"


def write_plan(
    config: BenchmarkConfig, output: Path, *, shards: int = 1, quiet: bool = False
) -> dict[str, Any]:
    """Divide the cells and list what there is to do.

    Parameters
    ----------
    config : BenchmarkConfig
        Resolved.
    output : Path
        Folder to make: ``splits/`` (manifests, and the order of cells) and ``tasks/``.
    shards : int
        Shares into which the cells of each network are divided.
    quiet : bool

    Returns
    -------
    dict
        What ``plan.json`` of the folder says too: ``splits``, a folder; ``networks``, the numbers
        of the networks; ``network_tasks``, for each of them the tasks that read its embeddings;
        ``tuning_tasks``, in which networks themselves are at work; ``other_tasks``; ``shard_names``.
        Paths are relative to `output`.
    """
    from scdrugmap.run.embeddings import CellRows
    from scdrugmap.run.execute import write_splits_of

    check_output(output, overwrite=False)
    plan = make_plan(config)
    folder = RunFolder(output / SPLITS_FOLDER)
    for path in (folder.controls, output / TASKS_FOLDER):
        path.mkdir(parents=True)
    write_splits_of(plan, folder)
    CellRows.write(plan.cohort.design.frame, folder.path)
    networks = list_networks(plan)
    listed: dict[str, Any] = {
        "splits": SPLITS_FOLDER,
        "shard_names": [str(Shard(number + 1, shards)) for number in range(shards)],
        "networks": list(range(len(networks))),
        "network_tasks": [[] for _ in networks],
        "tuning_tasks": [],
        "other_tasks": [],
    }
    tasks = list_tasks(plan)
    for task in tasks:
        path = output / TASKS_FOLDER / f"{task.name}.json"
        write_json(path, task.record())
        kind = "other_tasks" if task.jobs[0].kind == "estimator" else "tuning_tasks"
        into = listed[kind] if task.network is None else listed["network_tasks"][task.network]
        into.append(f"{TASKS_FOLDER}/{path.name}")
    write_json(output / PLAN_FILE, listed)
    say(
        f"{len(tasks)} tasks of {len(plan.jobs)} jobs, {len(networks)} networks in {shards} "
        "shards each",
        quiet=quiet,
    )
    return listed


def as_output_object(listed: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a plan as the output object of a CWL tool (``cwl.output.json``).

    Parameters
    ----------
    listed : dict
        From :func:`write_plan`.
    folder : Path
        Its folder, relative to that of the output object.
    """

    def file(name: str) -> dict[str, str]:
        return {"class": "File", "path": f"{folder}/{name}"}

    return {
        **listed,
        "splits": {"class": "Directory", "path": f"{folder}/{listed['splits']}"},
        "network_tasks": [[file(name) for name in names] for names in listed["network_tasks"]],
        "tuning_tasks": [file(name) for name in listed["tuning_tasks"]],
        "other_tasks": [file(name) for name in listed["other_tasks"]],
    }


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
        if _reads_embeddings(entry):
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
    from scdrugmap.files import atomic_path
    from scdrugmap.run.embeddings import CELLS_FILE
    from scdrugmap.tables import read_table

    check_output(output, overwrite=False, inputs=shards)
    n_cells = len(read_table(splits / CELLS_FILE, ("dataset", "cell"), {}))
    seen = np.zeros(n_cells, np.int64)
    dims = set()
    for path in shards:
        with _archive(path) as held:
            seen += np.bincount(held["rows"], minlength=n_cells)
            dims.add(int(held["values"].shape[1]))
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
        for path in shards:
            with _archive(path) as held:
                joined[held["rows"]] = held["values"]
        joined.flush()
        del joined


def _archive(path: Path) -> np.lib.npyio.NpzFile:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as err:
        raise DataError(f"{path} is no shard of embeddings: {err}") from err


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
        The task's file is damaged.
    """
    import pandas as pd

    from scdrugmap.evaluation.tables import read_predictions, write_predictions
    from scdrugmap.run.jobs import Bench, Task
    from scdrugmap.run.store import Store

    check_output(output, overwrite=False, inputs=[task_file])
    task = _read_task(task_file)
    if task.network is not None and embeddings is None:
        raise UsageError(f"{task_file} reads embeddings", hint="give --embeddings")
    folder = RunFolder(splits)
    store = Store(quiet=True)
    bench = Bench(config, store, rows=splits)
    tables = []
    try:
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


def _read_task(path: Path) -> StepTask:
    try:
        record = json.loads(path.read_text("utf-8"))
        if record["format"] != FORMAT:
            raise DataError(f"{path} is a task of format {record['format']}, not {FORMAT}")
        return StepTask.of(record)
    except OSError as err:
        raise UsageError(f"{path} cannot be read: {err.strerror}") from err
    except (ValueError, KeyError, TypeError) as err:
        raise DataError(
            f"{path} is no task of a benchmark", hint="give a file of the plan's tasks"
        ) from err


@dataclass(frozen=True)
class Finished:
    """What other machines did of a benchmark.

    Attributes
    ----------
    parts : tuple of Path
        Predictions of :func:`run_task`, under the names of their tasks.
    embeddings : tuple of Path
        Of :func:`join_shards`, one per network, in the order of the plan.
    """

    parts: tuple[Path, ...]
    embeddings: tuple[Path, ...]

    def networks(self, plan: Plan) -> dict[tuple[str, int | None], Path]:
        """Return the embeddings of each network; they need the order of cells beside them."""
        return dict(zip(list_networks(plan), self.embeddings, strict=True))

    def place(self, plan: Plan, keys: Mapping[Job, str], folder: RunFolder) -> None:
        """Put predictions where a run keeps those of finished jobs.

        Raises
        ------
        DataError
            Predictions of another plan.
        """
        from scdrugmap.evaluation.tables import read_predictions, write_predictions

        tasks = {task.name: task for task in list_tasks(plan)}
        for path in self.parts:
            task = tasks.get(path.name.partition(".")[0])
            if task is None:
                raise DataError(
                    f"{path} is of another plan than this configuration and these cells make",
                    hint="run the workflow again from its plan",
                )
            table = read_predictions(path)
            for job in task.jobs:
                rows = table[table["seed"] == job.seed]
                if len(rows):
                    write_predictions(rows.reset_index(drop=True), folder.part(keys[job]))


def finish_run(
    config: BenchmarkConfig,
    output: Path,
    *,
    parts: Sequence[Path],
    embeddings: Sequence[Path] = (),
    quiet: bool = False,
) -> Run:
    """Evaluate and report what the tasks of a plan predicted.

    Parameters
    ----------
    config : BenchmarkConfig
        Resolved.
    output : Path
        New folder of the run.
    parts : sequence of Path
        Predictions of the tasks. What is missing is done here.
    embeddings : sequence of Path
        One per network, in the order of the plan.
    quiet : bool

    Returns
    -------
    Run
    """
    from scdrugmap.run.execute import run_benchmark

    check_output(output, overwrite=False, inputs=[*parts, *embeddings])
    finished = Finished(tuple(parts), tuple(embeddings))
    run = run_benchmark(config, output, finished=finished, quiet=quiet)
    return relocate(run, config_beside(config, output))


def config_beside(config: BenchmarkConfig, folder: Path) -> BenchmarkConfig:
    """Return a configuration whose files lie in `folder`: where an engine had them tells nobody."""
    return config.model_copy(
        update={
            "data": tuple(
                item.model_copy(update={"path": folder.resolve() / item.path.name})
                for item in config.data
            ),
            "weights": {
                name: path if path == "random" else str(folder.resolve() / Path(path).name)
                for name, path in config.weights.items()
            },
        }
    )


def relocate(run: Run, config: BenchmarkConfig) -> Run:
    """Write down where the files of a finished run are now, in its records and its report."""
    from scdrugmap.config import write_config
    from scdrugmap.report.build import build_report
    from scdrugmap.run.record import write_run

    record = run.record.model_copy(
        update={"name": run.folder.resolve().name, "config": config.plain(run.folder)}
    )
    write_config(config, run.folder / CONFIG_FILE)
    write_run(run.folder, record)
    build_report(run.folder, run.report)
    return replace(run, record=record)
