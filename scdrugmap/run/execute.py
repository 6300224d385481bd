"""Run a benchmark: embed once, train and predict job by job, evaluate, report.

Every finished step is a file named by the hash of all that decides it: a run that was stopped goes
on where it was, and the tables of a resumed run are those of an undisturbed one, byte for byte.
"""

from __future__ import annotations

import multiprocessing
import re
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from scdrugmap.errors import DataError, ResourceError, UsageError
from scdrugmap.files import hash_json
from scdrugmap.progress import Progress, say
from scdrugmap.run.asking import LEDGER_FILE
from scdrugmap.run.embeddings import remove_embeddings
from scdrugmap.run.jobs import Bench, Outcome, Task, run_in_process, start_worker
from scdrugmap.run.journal import STORE_FOLDER, RunFolder, open_folder
from scdrugmap.run.models import prepare_models
from scdrugmap.run.plan import Job, Plan, make_plan
from scdrugmap.run.protocol_records import own_notices, record_protocols
from scdrugmap.run.record import (
    CELL_MAP_FILE,
    COMPARISONS_FILE,
    ModelRecord,
    RunRecord,
    write_run,
)
from scdrugmap.run.score import score_jobs
from scdrugmap.text.ledger import Ledger

if TYPE_CHECKING:
    from scdrugmap.config import BenchmarkConfig
    from scdrugmap.run.entries import Entry
    from scdrugmap.run.finish import Finished
    from scdrugmap.run.store import Store

METRICS_FILE, REPORT_FILE = "metrics.tsv", "report.html"
_EXECUTOR = re.compile(r"local|processes:([1-9][0-9]{0,3})")


@dataclass(frozen=True)
class Run:
    """A finished benchmark."""

    folder: Path
    record: RunRecord
    metrics: pd.DataFrame

    @property
    def report(self) -> Path:
        """The HTML file."""
        return self.folder / REPORT_FILE


def parse_executor(text: str) -> int:
    """Return the number of worker processes; 0 for ``local``.

    Raises
    ------
    UsageError
        It is neither ``local`` nor ``processes:N``.
    """
    found = _EXECUTOR.fullmatch(text)
    if not found:
        raise UsageError(f"there is no executor {text!r}", hint="use local, processes:N or cwl")
    return int(found[1] or 0)


def run_benchmark(
    config: BenchmarkConfig,
    output: Path,
    *,
    executor: str = "local",
    overwrite: bool = False,
    quiet: bool = False,
    finished: Finished | None = None,
) -> Run:
    """Run a benchmark, or go on with one that was stopped.

    Parameters
    ----------
    config : BenchmarkConfig
    output : Path
        Folder of the run: new, or of the same configuration.
    executor : str
        ``local``, or ``processes:N`` for N jobs at a time; the tables are the same.
    overwrite : bool
        Begin anew, whatever the folder holds.
    quiet : bool
        No progress and no notices.
    finished : Finished, optional
        What other machines did already.

    Returns
    -------
    Run

    Raises
    ------
    UsageError
        The folder holds other things, or something in the configuration does not exist.
    DataError
        The cells cannot be used, or every protocol refuses them.
    WeightsError, PluginError
        A model cannot be run.
    ResourceError
        Another process works in the folder; disk or memory is missing.
    """
    n_workers = parse_executor(executor)
    config = config.resolved()
    began = datetime.now(UTC)
    with open_folder(Path(output), config, overwrite=overwrite) as folder:
        folder.note("started", executor=executor)
        plan = make_plan(config)
        _tell(plan, quiet=quiet)
        write_splits_of(plan, folder)
        store = _store(folder, quiet=quiet)
        bench = Bench(config, store, rows=folder.jobs)
        try:
            made = finished.networks(plan) if finished else {}
            models, embeddings = prepare_models(plan, bench, folder, made=made, quiet=quiet)
            keys = job_keys(plan, models)
            if finished:
                finished.place(plan, keys, folder)
            tasks = _tasks(plan, keys, embeddings, bench, folder)
            notices = _run_jobs(plan, keys, tasks, bench, folder, n_workers, quiet=quiet)
            _tell_spent(folder, quiet=quiet)
            from scdrugmap.run.cellmap import cell_map, map_method

            mapped = cell_map(plan.cohort, bench.files, folder.jobs)
            method = map_method(len(plan.cohort.design.frame))
        finally:
            bench.close()
        metrics, said = score_jobs(plan, keys, folder, quiet=quiet)
        record = RunRecord(
            name=folder.path.resolve().name,
            config=config.plain(folder.path),
            config_id=config.identity(),
            datasets=plan.cohort.datasets,
            models=tuple(models),
            protocols=tuple(record_protocols(plan)),
            notices=(*plan.cohort.notices, *plan.notices, *notices, *said),
            cell_map=method,
            **_provenance(config, began),
        )
        _write_results(folder, metrics, mapped, record)
        remove_embeddings(folder.jobs)
        folder.note("finished")
    say(f"Results and report: {folder.path / REPORT_FILE}", quiet=quiet)
    return Run(folder.path, record, metrics)


def job_keys(plan: Plan, models: list[ModelRecord]) -> dict[Job, str]:
    """Return the hash of all that decides the predictions of each job."""
    from scdrugmap import __version__
    from scdrugmap.run.provenance import versions

    identities = {entry: model.identity for entry, model in zip(plan.entries, models, strict=True)}
    config = plan.config
    shared = {
        "format": 2,
        "scdrugmap": __version__,
        "versions": dict(versions()),
        "content": plan.cohort.content,
        "precision": config.precision,
        "min_genes": config.min_genes,
    }
    return {
        job: hash_json(
            {
                **shared,
                "split": plan.split_of(job).split_id,
                "name": job.model,
                "model": identities[job.entry],
                "strategy": job.strategy,
                "head": job.head,
                "tuning": None if job.tuning is None else job.tuning.model_dump(mode="json"),
                "shots": job.shots,
                "sample": config.sample or config.group,
                "fold": job.fold,
                "seed": job.seed,
            }
        )
        for job in plan.jobs
    }


def _tell(plan: Plan, *, quiet: bool) -> None:
    n_cells = len(plan.cohort.design.frame)
    say(f"{n_cells:,} labelled cells, {len(plan.jobs)} jobs", quiet=quiet)
    of_files = [text for dataset in plan.cohort.datasets for text in dataset.notices]
    for text in (*of_files, *plan.cohort.notices, *plan.notices):
        say(f"Note: {text}", quiet=quiet)
    for refusal in plan.refusals:
        say(f"REFUSED {refusal.protocol}: {refusal.error.message}", quiet=quiet)
        if refusal.error.hint:
            say(f"        {refusal.error.hint}", quiet=quiet)
    for name, split in plan.splits.items():
        for text in own_notices(plan, split):
            named = text if text.startswith(name) else f"{name}: {text}"
            say(f"Note: {named}", quiet=quiet)


def write_splits_of(plan: Plan, folder: RunFolder) -> None:
    """Write the manifests of all protocols, and of permuted labels, into a folder."""
    from scdrugmap.evaluation.tables import write_splits

    for name, split in plan.splits.items():
        write_splits(split.table, folder.table("splits", name))
    for (name, number), split in plan.permuted.items():
        write_splits(split.table, folder.table("splits", name, number))


def _store(folder: RunFolder, *, quiet: bool) -> Store:
    """Return the user's cache; where that cannot be written to, one inside the run folder."""
    from scdrugmap.run.store import Store

    store = Store(quiet=quiet)
    return store if store.writable else Store(folder.path / STORE_FOLDER, quiet=quiet)


def _tasks(
    plan: Plan,
    keys: dict[Job, str],
    embeddings: dict[Entry, Path],
    bench: Bench,
    folder: RunFolder,
) -> list[Task]:
    """Return the jobs that are not finished, and where everything is."""
    return [
        Task(
            job=job,
            config=plan.config,
            splits=folder.table("splits", job.protocol, job.permutation),
            part=folder.part(keys[job]),
            embeddings=embeddings.get(job.entry),
            store=bench.store.root,
        )
        for job in plan.jobs
        if folder.finished(keys[job]) is None
    ]


def _run_jobs(
    plan: Plan,
    keys: dict[Job, str],
    tasks: list[Task],
    bench: Bench,
    folder: RunFolder,
    n_workers: int,
    *,
    quiet: bool,
) -> list[str]:
    """Do what is not finished; return what to say about it.

    Raises
    ------
    DataError
        No job could be done.
    """
    n_done = len(plan.jobs) - len(tasks)
    if n_done:
        say(f"{n_done} of {len(plan.jobs)} jobs are finished already", quiet=quiet)
    failures: dict[str, list[Job]] = {}
    notices: list[str] = []
    done = 0
    try:
        with Progress("benchmark", len(tasks), "jobs", quiet=quiet) as progress:
            for task, outcome, seconds in _outcomes(tasks, bench, n_workers):
                done += 1
                progress.advance(1)
                folder.note(
                    "failed" if outcome.failure else "job",
                    job=task.job.title,
                    key=task.part.name.partition(".")[0],
                    seconds=round(seconds, 3),
                    **({"reason": outcome.failure} if outcome.failure else {}),
                )
                if outcome.failure:
                    failures.setdefault(outcome.failure, []).append(task.job)
    except KeyboardInterrupt:
        folder.note("interrupted")
        say(
            f"Stopped: {n_done + done} of {len(plan.jobs)} jobs are finished and kept in "
            f"{folder.path}."
        )
        raise
    for reason, jobs in failures.items():
        notice = f"not evaluable: {len(jobs)} jobs of {jobs[0].model} ({jobs[0].title}): {reason}"
        notices.append(notice)
        say(f"Note: {notice}", quiet=quiet)
    if failures and n_done + done == sum(len(jobs) for jobs in failures.values()):
        raise DataError(
            f"no job could be done: {next(iter(failures))}",
            hint="look at the files with `scdrugmap check`",
        )
    return notices


def _tell_spent(folder: RunFolder, *, quiet: bool) -> None:
    """Say what text models cost the run, if they cost anything."""
    spent = Ledger(folder.jobs / LEDGER_FILE).spent
    if spent:
        folder.note("spent", usd=spent)
        say(f"Text models cost {spent:.4f} USD in all", quiet=quiet)


def _outcomes(
    tasks: list[Task], bench: Bench, n_workers: int
) -> Iterator[tuple[Task, Outcome, float]]:
    """Do the tasks here or in worker processes; give each when it is done."""
    if not n_workers:
        for task in tasks:
            began = time.monotonic()
            outcome = bench.run(task)
            yield task, outcome, time.monotonic() - began
        return
    if not tasks:
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        min(n_workers, len(tasks)), mp_context=context, initializer=start_worker
    )
    try:
        began = time.monotonic()
        futures: dict[Future[Outcome], Task] = {
            pool.submit(run_in_process, task): task for task in tasks
        }
        for future in as_completed(futures):
            yield futures[future], future.result(), time.monotonic() - began
        pool.shutdown()
    except BrokenProcessPool as err:
        raise ResourceError(
            "a worker process ended without a word (out of memory?)",
            hint="run the same command again to go on, with fewer processes",
        ) from err
    finally:
        for process in multiprocessing.active_children():
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)


def _provenance(config: BenchmarkConfig, began: datetime) -> dict[str, Any]:
    from scdrugmap.run.provenance import provenance

    files = [item.path for item in config.data]
    record = provenance("benchmark", files, hash_inputs=True, began=began)
    times = record.pop("times")
    record.pop("config")
    return {"provenance": record, "times": times}


def _write_results(
    folder: RunFolder, metrics: pd.DataFrame, mapped: pd.DataFrame, record: RunRecord
) -> None:
    from scdrugmap.evaluation.tables import write_comparisons, write_metrics
    from scdrugmap.report.build import build_report
    from scdrugmap.report.compared import compare_folder
    from scdrugmap.tables import write_table

    write_metrics(metrics, folder.path / METRICS_FILE)
    write_table(mapped, folder.path / CELL_MAP_FILE)
    compared = compare_folder(folder.path, record, metrics)
    write_comparisons(compared, folder.path / COMPARISONS_FILE)
    write_run(folder.path, record)
    build_report(folder.path, folder.path / REPORT_FILE)
