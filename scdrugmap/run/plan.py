"""The jobs of a benchmark: protocol x model x strategy x fold x seed, and what they may cost."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from scdrugmap.errors import DataError, ScDrugMapError

if TYPE_CHECKING:
    from scdrugmap.config import BenchmarkConfig, Family, Head
    from scdrugmap.evaluation.splits import Split
    from scdrugmap.run.cohort import Cohort

PROBE_CELLS = 8
"""Cells that a model embeds to find out how long the rest will take."""

_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Job:
    """Train on one fold with one seed, and predict the test cells of that fold."""

    protocol: str
    family: Family
    model: str
    kind: Literal["estimator", "model"]
    strategy: str
    head: Head | None
    fold: int
    seed: int

    @property
    def title(self) -> str:
        """The job in words."""
        return f"{self.protocol}, {self.model}, fold {self.fold}, seed {self.seed}"


@dataclass(frozen=True)
class Refusal:
    """A protocol that cannot be evaluated on these cells."""

    protocol: str
    error: DataError


@dataclass(frozen=True)
class Cost:
    """What embedding with one model takes; None where it could not be measured."""

    model: str
    n_cells: int
    hours: float | None
    gigabytes: float | None
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """The cells, the splits and the jobs of a benchmark."""

    config: BenchmarkConfig
    cohort: Cohort
    splits: dict[str, Split]
    refusals: tuple[Refusal, ...]
    jobs: tuple[Job, ...]
    costs: tuple[Cost, ...] = ()


def make_plan(config: BenchmarkConfig) -> Plan:
    """Read the cells, make the splits and list the jobs; nothing is trained.

    Parameters
    ----------
    config : BenchmarkConfig

    Raises
    ------
    UsageError, PluginError
        A file, column, model or protocol does not exist.
    DataError
        The cells cannot be used, or every protocol refuses them.
    """
    from scdrugmap.run.cohort import read_cohort

    config = config.resolved()
    cohort = read_cohort(config)
    splits, refusals = make_splits(config, cohort)
    return Plan(config, cohort, splits, refusals, tuple(list_jobs(config, splits)))


def plan_with_costs(config: BenchmarkConfig) -> Plan:
    """Return the plan, with what embedding takes on this machine; arguments as `make_plan`."""
    plan = make_plan(config)
    return replace(plan, costs=measure_costs(plan))


def make_splits(
    config: BenchmarkConfig, cohort: Cohort
) -> tuple[dict[str, Split], tuple[Refusal, ...]]:
    """Divide the cells under every protocol; a protocol that refuses them stops no other.

    Raises
    ------
    DataError
        Every protocol refuses them; the reason of the first.
    """
    from scdrugmap.evaluation.splits import make_split

    splits: dict[str, Split] = {}
    refusals: list[Refusal] = []
    for protocol in config.protocols:
        try:
            splits[protocol] = make_split(
                cohort.design, protocol, folds=config.folds, seed=config.split_seed
            )
        except DataError as err:
            refusals.append(Refusal(protocol, err))
    if not splits:
        raise refusals[0].error
    return splits, tuple(refusals)


def list_jobs(config: BenchmarkConfig, splits: Mapping[str, Split]) -> list[Job]:
    """Return the jobs in the order in which they run: cheap answers first."""
    from scdrugmap.registry import get_registry

    estimators = get_registry().estimators
    jobs = []
    for model in sorted(config.models, key=lambda name: name not in estimators):
        is_estimator = model in estimators
        for protocol, split in splits.items():
            family = split.protocol.family
            folds = sorted(int(fold) for fold in split.table["fold"].unique())
            jobs += [
                Job(
                    protocol=protocol,
                    family=family,
                    model=model,
                    kind="estimator" if is_estimator else "model",
                    strategy=strategy,
                    head=None if is_estimator else config.heads[family],
                    fold=fold,
                    seed=seed,
                )
                for strategy in (("estimator",) if is_estimator else config.strategies)
                for seed in config.seeds
                for fold in folds
            ]
    return jobs


def measure_costs(plan: Plan) -> tuple[Cost, ...]:
    """Embed a few cells with each model and extend to all; estimators are not measured.

    A model that cannot be run here (weights missing, too few genes) is listed with the reason.
    """
    config = plan.config
    names = list(dict.fromkeys(job.model for job in plan.jobs if job.kind == "model"))
    n_cells = len(plan.cohort.design.frame)
    costs = []
    for name in names:
        try:
            seconds, dim = _probe(config, name, plan)
        except ScDrugMapError as err:
            costs.append(Cost(name, n_cells, None, None, err.message))
            continue
        costs.append(
            Cost(
                name,
                n_cells,
                hours=seconds * n_cells / _SECONDS_PER_HOUR,
                gigabytes=4 * dim * n_cells / 1e9,
                note=f"measured on {PROBE_CELLS} cells",
            )
        )
    return tuple(costs)


def _probe(config: BenchmarkConfig, name: str, plan: Plan) -> tuple[float, int]:
    """Return seconds per cell and width of the embedding."""
    from scdrugmap.model.embed import embed_rows
    from scdrugmap.model.load import bind
    from scdrugmap.run.cohort import open_sources
    from scdrugmap.run.models import load

    loaded = load(config, name)
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
        return (time.monotonic() - began) / len(index), loaded.model.traits.dim


def describe_plan(plan: Plan) -> list[str]:
    """Return the plan as lines of text: cells, protocols, jobs and what they may cost."""
    frame = plan.cohort.design.frame
    lines = [
        f"{len(frame):,} labelled cells, {len(plan.jobs)} jobs",
        *(f"note: {text}" for text in plan.cohort.notices),
    ]
    for name, split in plan.splits.items():
        n_folds = split.table["fold"].nunique()
        lines.append(f"{name} ({split.protocol.family}): {n_folds} folds, split {split.split_id}")
    lines += [f"{item.protocol}: refused, {item.error.message}" for item in plan.refusals]
    lines.append("")
    header = ("protocol", "model", "strategy", "head", "folds", "seeds", "jobs")
    lines += _table(header, _grouped(plan.jobs))
    if plan.costs:
        lines.append("")
        rows = [
            (
                cost.model,
                f"{cost.n_cells:,}",
                "unknown" if cost.hours is None else _figure(cost.hours),
                "unknown" if cost.gigabytes is None else _figure(cost.gigabytes),
                cost.note,
            )
            for cost in plan.costs
        ]
        lines += _table(("embedding", "cells", "hours", "gigabytes", ""), rows)
        lines.append("Training times of estimators and heads are not known before they run.")
    return [line.rstrip() for line in lines]


def plan_record(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON-able values."""
    return {
        "n_cells": len(plan.cohort.design.frame),
        "notices": list(plan.cohort.notices),
        "protocols": [
            {
                "name": name,
                "family": split.protocol.family,
                "split_id": split.split_id,
                "folds": int(split.table["fold"].nunique()),
                "notices": list(split.notices),
            }
            for name, split in plan.splits.items()
        ],
        "refused": [
            {"name": item.protocol, "reason": item.error.message, "hint": item.error.hint}
            for item in plan.refusals
        ],
        "jobs": [vars(job) for job in plan.jobs],
        "costs": [vars(cost) for cost in plan.costs],
    }


def _grouped(jobs: Sequence[Job]) -> list[tuple[str, ...]]:
    """Return one row per protocol, model and strategy."""
    groups: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        key = (job.protocol, job.model, job.strategy, job.head or "")
        groups.setdefault(key, []).append(job)
    return [
        (
            *key,
            str(len({job.fold for job in members})),
            ",".join(str(seed) for seed in sorted({job.seed for job in members})),
            str(len(members)),
        )
        for key, members in groups.items()
    ]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [
        "  ".join(field.ljust(width) for field, width in zip(row, widths, strict=True))
        for row in (header, *rows)
    ]


def _figure(value: float) -> str:
    """Return a number with two significant digits, never 0 for what is not 0."""
    return f"{value:.{max(0, 1 - math.floor(math.log10(value)))}f}" if value > 0 else "0"
