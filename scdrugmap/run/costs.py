"""What a benchmark may take on this machine: hours and gigabytes, estimated before it starts.

A few cells go through every network; training is extended from that, heads from the machine's
matrix-product rate. All figures are estimates, good to a factor of two or so.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.errors import ScDrugMapError

if TYPE_CHECKING:
    from scdrugmap.run.entries import Entry
    from scdrugmap.run.plan import Job, Plan

PROBE_CELLS = 8
"""Cells that a network embeds to find out how long the rest will take."""

TRAINING_FACTOR = 3
"""A training step costs a forward pass, and a backward pass of about twice that."""

_SECONDS_PER_HOUR = 3600
_HEAD_EPOCHS, _HEAD_WIDTH = 10, 512  # of the paper's network
_ITERATIONS = 100  # of a logistic regression, each two products with the matrix of embeddings
_HEAD_EFFICIENCY = 0.1  # share of the matrix-product rate that such small products reach
_MULTIPLY_ADD = 2
_ASKED = "at most so many questions; `scdrugmap predict --dry-run` shows one and its price"


@dataclass(frozen=True)
class Cost:
    """What one kind of work takes; None where it could not be estimated.

    Attributes
    ----------
    work : str
        ``embed``, ``heads``, ``train lora`` and the like, or ``ask``.
    model : str
        Name in the tables.
    n_cells : int
        Cells that go through the network, as often as they do; questions.
    hours, gigabytes : float or None
        Time, and disk that stays.
    note : str
    """

    work: str
    model: str
    n_cells: int
    hours: float | None
    gigabytes: float | None
    note: str = ""


@dataclass(frozen=True)
class _Probe:
    seconds_per_cell: float
    dim: int
    token_bytes: float


def estimate_costs(plan: Plan) -> tuple[Cost, ...]:
    """Measure every network on a few cells, and extend that to all jobs.

    A network that cannot be run here (weights missing, too few genes) is listed with the reason;
    of text models the questions are counted, and estimators are not estimated.
    """
    costs: list[Cost] = []
    probes: dict[tuple[str, int | None], _Probe | str] = {}
    for entry in plan.entries:
        jobs = [job for job in plan.jobs if job.entry == entry]
        if entry.kind == "text" and jobs:
            n_asked = sum(_sizes(plan, job)[1] for job in jobs)
            costs.append(Cost("ask", entry.name, n_asked, None, None, _ASKED))
        if entry.kind != "model" or not jobs:
            continue
        if entry.network not in probes:
            probes[entry.network] = _try(plan, entry)
            costs.append(_embedding(plan, entry, probes[entry.network]))
        found = probes[entry.network]
        if isinstance(found, _Probe):
            costs.append(_training(plan, entry, jobs, found))
    return tuple(cost for cost in costs if cost.n_cells)


def _try(plan: Plan, entry: Entry) -> _Probe | str:
    try:
        return _probe(plan, entry)
    except ScDrugMapError as err:
        return err.message


def _embedding(plan: Plan, entry: Entry, found: _Probe | str) -> Cost:
    frozen = any(
        job.strategy == "frozen" and job.entry.network == entry.network for job in plan.jobs
    )
    n_cells = len(plan.cohort.design.frame)
    if isinstance(found, str):
        return Cost("embed", entry.name, n_cells, None, None, found)
    return Cost(
        "embed",
        entry.name,
        n_cells if frozen else 0,
        hours=found.seconds_per_cell * n_cells / _SECONDS_PER_HOUR,
        gigabytes=4 * found.dim * n_cells / 1e9,
        note=f"measured on {PROBE_CELLS} cells; twice the disk while it runs",
    )


def _training(plan: Plan, entry: Entry, jobs: list[Job], found: _Probe) -> Cost:
    sizes = [_sizes(plan, job) for job in jobs]
    n_train, n_test = sum(train for train, _ in sizes), sum(test for _, test in sizes)
    if entry.strategy == "frozen":
        seconds = sum(
            _head_seconds(job, train, found.dim)
            for job, (train, _) in zip(jobs, sizes, strict=True)
        )
        note = "from the matrix-product rate of this machine"
        return Cost("heads", entry.name, n_train, seconds / _SECONDS_PER_HOUR, 0.0, note)
    seen = sum(_cells_seen(job, train) for job, (train, _) in zip(jobs, sizes, strict=True))
    passes = TRAINING_FACTOR * seen + n_test
    first = next(one for one in plan.entries if one.network == entry.network and _tunes(one))
    tokens = found.token_bytes * len(plan.cohort.design.frame) if entry == first else 0.0
    return Cost(
        f"train {entry.strategy}",
        entry.name,
        seen + n_test,
        hours=found.seconds_per_cell * passes / _SECONDS_PER_HOUR,
        gigabytes=tokens / 1e9,
        note="at most: training may stop early",
    )


def _tunes(entry: Entry) -> bool:
    """Whether an entry trains the network itself, on tokens that all such entries share."""
    from scdrugmap.train.settings import FINE_TUNING

    return entry.strategy in FINE_TUNING


def _sizes(plan: Plan, job: Job) -> tuple[int, int]:
    """Return the training and test cells of a job."""
    table = plan.split_of(job).table
    role = table.loc[table["fold"] == job.fold, "role"]
    return int((role == "train").sum()), int((role == "test").sum())


def _cells_seen(job: Job, n_train: int) -> int:
    """Return how many cells the steps of a job take together, at most."""
    from scdrugmap.train.steps import STEP_CELLS

    assert job.tuning is not None
    if job.tuning.max_steps is None:
        return job.tuning.epochs * n_train
    return job.tuning.max_steps * min(job.tuning.batch_size or STEP_CELLS, n_train)


def _head_seconds(job: Job, n_train: int, dim: int) -> float:
    from scdrugmap.train.train import MAX_CELLS

    if job.head == "mlp":
        weights = dim * _HEAD_WIDTH + _HEAD_WIDTH**2 + 2 * _HEAD_WIDTH
        operations = _MULTIPLY_ADD * TRAINING_FACTOR * _HEAD_EPOCHS * n_train * weights
    else:
        operations = _MULTIPLY_ADD * 2 * _ITERATIONS * min(n_train, MAX_CELLS) * dim
    return operations / (_HEAD_EFFICIENCY * _matmul_rate())


_rate: list[float] = []


def _matmul_rate() -> float:
    """Return the machine's matrix-product rate, measured once."""
    import torch

    from scdrugmap.model.device import matmul_rate

    if not _rate:
        _rate.append(matmul_rate(torch.device("cpu"), seconds=0.2))
    return _rate[0]


def _probe(plan: Plan, entry: Entry) -> _Probe:
    """Embed a few cells of the first file."""
    from scdrugmap.model.embed import embed_rows
    from scdrugmap.model.load import bind
    from scdrugmap.run.cohort import open_sources
    from scdrugmap.run.models import load

    config = plan.config
    loaded = load(config, entry.model, entry.randomize)
    with open_sources(config) as sources:
        cells = sources[0]
        bind(loaded, cells.genes, min_genes=config.min_genes, where=cells.where)
        frame = plan.cohort.design.frame
        own = frame.loc[frame["dataset"] == cells.name, "cell"].to_numpy(object)
        index = np.flatnonzero(np.isin(cells.names, own))
        index = index[np.linspace(0, len(index) - 1, PROBE_CELLS).astype(int)]
        rows, names = cells.rows(index), cells.names[index]
        began = time.monotonic()
        embed_rows(
            loaded.model,
            cells.genes,
            rows,
            names,
            device=config.device,
            precision=config.precision,
            token_budget=config.token_budget,
        )
        seconds = (time.monotonic() - began) / len(index)
        tokens = loaded.model.tokenizer.encode(rows, names)
        n_bytes = sum(values.nbytes for values in tokens.flat.values())
    return _Probe(seconds, loaded.model.traits.dim, n_bytes / len(index))
