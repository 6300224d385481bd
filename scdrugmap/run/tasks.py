"""The tasks into which a benchmark is cut for workflow engines, and the plan that lists them.

A task is the seeds of one model, strategy, protocol and fold; see :mod:`scdrugmap.run.steps`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scdrugmap.errors import DataError, UsageError
from scdrugmap.evaluation.protocols import get_protocol
from scdrugmap.files import check_output, hash_json, make_folder, write_json
from scdrugmap.model.parts import Shard
from scdrugmap.progress import say
from scdrugmap.run.entries import Entry
from scdrugmap.run.journal import RunFolder
from scdrugmap.run.plan import Job, Plan, make_plan
from scdrugmap.train.settings import FineTuning

if TYPE_CHECKING:
    from scdrugmap.config import BenchmarkConfig

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
        """Read what :meth:`record` gave.

        Raises
        ------
        ValueError
            A field is missing, unknown, or of another type.
        """
        held = _TaskRecord.model_validate_json(json.dumps(record))
        jobs = tuple(Job(**{name: getattr(job, name) for name in _JOB_FIELDS}) for job in held.jobs)
        task = cls(held.number, jobs, held.network, held.plan)
        if task.record() != record:
            raise ValueError("a field is missing or unknown")
        return task


class _JobRecord(BaseModel):
    """The fields of a :class:`Job` in a file."""

    model_config = ConfigDict(strict=True, extra="forbid")

    protocol: str
    family: Literal["sound", "paper"]
    entry: Entry
    head: Literal["logistic", "mlp"] | None
    tuning: FineTuning | None
    shots: int = Field(ge=0)
    fold: int = Field(ge=0)
    seed: int = Field(ge=0)


class _TaskRecord(BaseModel):
    """The fields of a file of ``tasks/``."""

    model_config = ConfigDict(strict=True, extra="forbid")

    format: int
    number: int = Field(ge=0)
    network: int | None = Field(ge=0)
    plan: str
    jobs: tuple[_JobRecord, ...] = Field(min_length=1)


_JOB_FIELDS = tuple(_JobRecord.model_fields)


def read_task(path: Path) -> StepTask:
    """Read one of a plan's ``tasks/``.

    Raises
    ------
    UsageError
        It cannot be read, or names a protocol that does not exist.
    DataError
        It is no task: one of another format, a field of another type, jobs of several steps, or
        no word on the embeddings that it needs.
    """
    hint = "give a file of the plan's tasks"
    try:
        record = json.loads(path.read_text("utf-8"))
        if record["format"] != FORMAT:
            raise DataError(
                f"{path} is a task of format {str(record['format'])[:40]}, not {FORMAT}", hint=hint
            )
        task = StepTask.of(record)
    except OSError as err:
        raise UsageError(f"{path} cannot be read: {err.strerror}") from err
    except ValidationError as err:
        first = err.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{path} is no task of a benchmark: {where[:80]}: {first['msg']}", hint=hint
        ) from err
    except (ValueError, KeyError, TypeError, RecursionError) as err:
        raise DataError(f"{path} is no task of a benchmark", hint=hint) from err
    first_job = task.jobs[0]
    get_protocol(first_job.protocol)
    if len({(job.protocol, job.entry, job.fold) for job in task.jobs}) > 1:
        raise DataError(
            f"{path} is no task of a benchmark: its jobs are of several steps", hint=hint
        )
    if (task.network is not None) != reads_embeddings(first_job.entry):
        reads = "no network" if task.network is None else f"network {task.network}"
        raise DataError(
            f"{path} is no task of a benchmark: {reads} for {first_job.title}", hint=hint
        )
    return task


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
            networks.index(jobs[0].entry.network) if reads_embeddings(jobs[0].entry) else None,
            identity,
        )
        for number, jobs in enumerate(joined.values())
    ]


def list_networks(plan: Plan) -> list[tuple[str, int | None]]:
    """Return the networks whose embeddings jobs read, in the order of the plan."""
    return list(dict.fromkeys(entry.network for entry in plan.entries if reads_embeddings(entry)))


def reads_embeddings(entry: Entry) -> bool:
    """Whether an entry is a head on embeddings, which one step makes for all its tasks."""
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

    Raises
    ------
    UsageError
        A text model may ask a server; and as :func:`~scdrugmap.run.plan.make_plan`.
    """
    from scdrugmap.run.asking import require_no_network
    from scdrugmap.run.embeddings import CellRows
    from scdrugmap.run.execute import write_splits_of

    check_output(output, overwrite=False)
    require_no_network(config)
    plan = make_plan(config)
    folder = RunFolder(output / SPLITS_FOLDER)
    for path in (folder.controls, output / TASKS_FOLDER):
        make_folder(path)
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
