"""A plan for people, as lines of text, and for programs, as JSON-able values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scdrugmap.run.costs import Cost
    from scdrugmap.run.plan import Job, Plan


def describe_plan(plan: Plan) -> list[str]:
    """Return the plan as lines of text: cells, protocols, jobs and what they may take."""
    frame = plan.cohort.design.frame
    lines = [
        f"{len(frame):,} labelled cells, {len(plan.jobs)} jobs",
        *(f"note: {text}" for text in (*plan.cohort.notices, *plan.notices)),
    ]
    for name, split in plan.splits.items():
        n_folds = split.table["fold"].nunique()
        lines.append(f"{name} ({split.protocol.family}): {n_folds} folds, split {split.split_id}")
    lines += [f"{item.protocol}: refused, {item.error.message}" for item in plan.refusals]
    lines.append("")
    header = ("protocol", "model", "strategy", "head", "control", "folds", "seeds", "jobs")
    lines += _table(header, _grouped(plan.jobs))
    if plan.costs:
        lines += ["", *_cost_lines(plan.costs)]
    return [line.rstrip() for line in lines]


def _cost_lines(costs: Sequence[Cost]) -> list[str]:
    rows = [
        (
            cost.work,
            cost.model,
            f"{cost.n_cells:,}",
            "unknown" if cost.hours is None else figure(cost.hours),
            "unknown" if cost.gigabytes is None else figure(cost.gigabytes),
            cost.note,
        )
        for cost in costs
    ]
    hours = sum(cost.hours or 0 for cost in costs)
    gigabytes = sum(cost.gigabytes or 0 for cost in costs)
    unknown = any(cost.hours is None for cost in costs)
    least = "at least " if unknown else ""
    return [
        *_table(("estimate", "model", "cells", "hours", "gigabytes", ""), rows),
        (
            f"Estimate: {least}{figure(hours)} hours and {figure(gigabytes)} gigabytes of disk on this "
            "machine, without estimators and text models, whose times are not known before they run."
        ),
    ]


def plan_record(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON-able values."""
    return {
        "n_cells": len(plan.cohort.design.frame),
        "notices": [*plan.cohort.notices, *plan.notices],
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
        "jobs": [job_record(job) for job in plan.jobs],
        "estimates": [vars(cost) for cost in plan.costs],
    }


def job_record(job: Job) -> dict[str, Any]:
    """Return a job as JSON-able values."""
    return {
        "protocol": job.protocol,
        "family": job.family,
        "model": job.model,
        "kind": job.kind,
        "strategy": job.strategy,
        "control": job.entry.control,
        "head": job.head,
        "tuning": None if job.tuning is None else job.tuning.model_dump(mode="json"),
        "shots": job.shots,
        "fold": job.fold,
        "seed": job.seed,
        "permutation": job.permutation,
    }


def _grouped(jobs: Sequence[Job]) -> list[tuple[str, ...]]:
    """Return one row per protocol, model and strategy."""
    groups: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        key = (job.protocol, job.model, job.strategy, job.head or "", job.entry.control)
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


def figure(value: float) -> str:
    """Return a number with two significant digits, never 0 for what is not 0."""
    return f"{value:.{max(0, 1 - math.floor(math.log10(value)))}f}" if value > 0 else "0"
