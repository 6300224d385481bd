"""What ``run.json`` says of each protocol: splits, heads, settings of fine-tuning, deviations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from scdrugmap.run.record import ProtocolRecord

if TYPE_CHECKING:
    from scdrugmap.evaluation.splits import Split
    from scdrugmap.run.plan import Job, Plan


def record_protocols(plan: Plan) -> Iterator[ProtocolRecord]:
    """Describe every protocol of a plan, refused ones with their reason."""
    from scdrugmap.evaluation.protocols import get_protocol

    refused = {item.protocol: item.error for item in plan.refusals}
    for name in plan.config.protocols:
        protocol = get_protocol(name)
        about: dict[str, Any] = {
            "name": name,
            "family": protocol.family,
            "question": protocol.question,
        }
        if name in refused:
            error = refused[name]
            yield ProtocolRecord(**about, status="refused", reason=error.message, hint=error.hint)
            continue
        split = plan.splits[name]
        jobs = [job for job in plan.jobs if job.protocol == name]
        permuted = [made for (of, _), made in sorted(plan.permuted.items()) if of == name]
        yield ProtocolRecord(
            **about,
            status="evaluated",
            split_id=split.split_id,
            n_folds=int(split.table["fold"].nunique()),
            heads={job.model: job.head for job in jobs if job.head},
            permuted=tuple(made.split_id for made in permuted),
            tuning=_tuning(jobs),
            deviations=_deviations(plan, jobs) if protocol.family == "paper" else (),
            notices=own_notices(plan, split),
        )


def _tuning(jobs: Sequence[Job]) -> dict[str, tuple[dict[str, Any], ...]]:
    """Return the settings of fine-tuning by model and strategy, one per fold."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for job in jobs:
        if job.tuning is not None:
            of_folds = found.setdefault(f"{job.model} {job.strategy}", {})
            of_folds[job.fold] = job.tuning.model_dump(mode="json")
    return {name: tuple(folds[fold] for fold in sorted(folds)) for name, folds in found.items()}


def _deviations(plan: Plan, jobs: Sequence[Job]) -> tuple[str, ...]:
    """Say where the jobs of a protocol of the paper depart from what its authors did."""
    from scdrugmap.run import paper

    rows = {
        (job.entry.model, job.strategy): job.head
        for job in jobs
        if job.head and job.entry.name == job.entry.model
    }
    return paper.deviations(
        rows,
        folds=len({job.fold for job in jobs}),
        seeds=plan.config.seeds,
        head=next(iter(rows.values()), paper.HEAD),
    )


def own_notices(plan: Plan, split: Split) -> tuple[str, ...]:
    """Return what a split says beyond what was said of the cells already."""
    said = {*plan.cohort.design.notices, *(t for d in plan.cohort.datasets for t in d.notices)}
    return tuple(text for text in split.notices if text not in said)
