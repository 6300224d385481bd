"""The models and estimators of a benchmark: how they are loaded, and what is recorded of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scdrugmap.errors import DataError
from scdrugmap.progress import say
from scdrugmap.run.asking import check_askable, make_asking
from scdrugmap.run.record import CoverageRecord, ModelRecord

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from scdrugmap.config import BenchmarkConfig
    from scdrugmap.model.job import EmbeddingJob
    from scdrugmap.model.load import LoadedModel
    from scdrugmap.run.embeddings import CellRows, MappedEmbeddings
    from scdrugmap.run.entries import Entry
    from scdrugmap.run.jobs import Bench
    from scdrugmap.run.journal import RunFolder
    from scdrugmap.run.plan import Plan
    from scdrugmap.specs import EstimatorSpec, Options
    from scdrugmap.text.load import LoadedText


def load(config: BenchmarkConfig, name: str, randomize: int | None) -> LoadedModel:
    """Load a model with the weights and options of a benchmark.

    The seeds of a benchmark are seeds of training; a model that draws anything draws with seed 0.
    """
    from scdrugmap.model.load import load_model
    from scdrugmap.registry import get_registry

    spec = get_registry().model(name)
    return load_model(
        spec,
        settings=config.settings.get(name, {}),
        weights=config.weights.get(name) if spec.needs_weights else None,
        randomize=randomize if spec.needs_weights else None,
        seed=0,
    )


def load_text(bench: Bench, entry: Entry) -> LoadedText:
    """Load a text model; one that also embeds is loaded once for both."""
    from scdrugmap.registry import get_registry
    from scdrugmap.specs import ModelSpec
    from scdrugmap.text.load import LoadedText, load_text_model

    config = bench.config
    if isinstance(get_registry().provided("model", entry.model).spec, ModelSpec):
        return LoadedText.of(bench.model(entry))
    return load_text_model(entry.model, settings=config.settings.get(entry.model, {}))


def prepare_models(
    plan: Plan,
    bench: Bench,
    folder: RunFolder,
    *,
    made: Mapping[tuple[str, int | None], Path],
    quiet: bool,
) -> tuple[list[ModelRecord], dict[Entry, Path]]:
    """Check every estimator and model before anything is trained, and embed all cells once.

    Parameters
    ----------
    plan : Plan
    bench : Bench
    folder : RunFolder
    made : dict of (str, int or None) to Path
        Embeddings of networks that other machines made already.
    quiet : bool

    Returns
    -------
    records : list of ModelRecord
        One per entry.
    embeddings : dict of Entry to Path
        Where the embeddings of entries that read some are.
    """
    from scdrugmap.run.embeddings import CellRows

    told: set[tuple[str, int | None]] = set()
    texts: dict[Entry, ModelRecord] = {}
    for entry in plan.entries:
        if entry.kind == "estimator":
            estimator_options(plan.config, entry.model)
        elif entry.kind == "text":
            check_askable(bench.text(entry), make_asking(plan.config, bench.store, folder.jobs))
            texts[entry] = record_text(entry, bench.text(entry))
        elif entry.network not in told:
            told.add(entry.network)
            for text in bench.model(entry).weights.notices:
                say(f"Note: {entry.name}: {text}", quiet=quiet)
    rows = CellRows(plan.cohort.design.frame)
    CellRows.write(plan.cohort.design.frame, folder.jobs)
    records: list[ModelRecord] = []
    embeddings: dict[Entry, Path] = {}
    coverage: dict[tuple[str, int | None], list[CoverageRecord]] = {}
    for entry in plan.entries:
        if entry.kind == "estimator":
            records.append(record_estimator(entry, *estimator_options(plan.config, entry.model)))
            continue
        if entry.kind == "text":
            records.append(texts[entry])
            continue
        jobs = embedding_jobs(plan.config, plan.cohort.design.frame, bench, entry, quiet=quiet)
        if entry.strategy == "frozen":
            began = time.monotonic()
            embeddings[entry] = made.get(entry.network) or _embed(
                plan, bench, entry, jobs, folder, rows
            )
            seconds = round(time.monotonic() - began, 1)
            folder.note("embedded", model=entry.name, seconds=seconds)
        if entry.network not in coverage:
            held = bench.embeddings(embeddings[entry]) if entry in embeddings else None
            coverage[entry.network] = [_coverage(job, held) for job in jobs]
        records.append(record_model(entry, bench.model(entry), coverage[entry.network]))
    return records, embeddings


def embedding_jobs(
    config: BenchmarkConfig, frame: pd.DataFrame, bench: Bench, entry: Entry, *, quiet: bool
) -> list[EmbeddingJob]:
    """Bind a model to every file; its cells are those that take part (`frame`: dataset, cell).

    Raises
    ------
    DataError
        A file holds values that the model does not accept.
    """
    from scdrugmap.model.job import EmbeddingJob
    from scdrugmap.run.jobs import cells_of

    loaded = bench.model(entry)
    jobs = []
    for cells in bench.files:
        if cells.matrix.values not in loaded.spec.accepts:
            raise DataError(
                f"{cells.where} holds {cells.matrix.values} in {cells.matrix.location}; "
                f"{entry.model} accepts {' or '.join(sorted(loaded.spec.accepts))} only",
                hint=f"name the layer with raw counts with --layer, or leave {entry.model} out",
            )
        part = cells_of(cells, frame)
        if part.n_cells:
            jobs.append(
                EmbeddingJob(
                    part,
                    loaded,
                    store=bench.store,
                    device=config.device,
                    precision=config.precision,
                    token_budget=config.token_budget,
                    sample=config.sample or config.group,
                    min_genes=config.min_genes,
                    quiet=quiet,
                )
            )
    return jobs


def _embed(
    plan: Plan,
    bench: Bench,
    entry: Entry,
    jobs: list[EmbeddingJob],
    folder: RunFolder,
    rows: CellRows,
) -> Path:
    """Embed all cells into one file, unless a run that was stopped did so already."""
    from scdrugmap.files import hash_json
    from scdrugmap.run.embeddings import path_of, write_embeddings

    loaded, config = bench.model(entry), plan.config
    what = {
        "model": loaded.identity(),
        "precision": jobs[0].precision,
        "sample": config.sample or config.group,
        "content": plan.cohort.content,
    }
    path = path_of(folder.jobs, hash_json(what))
    if not path.is_file():
        write_embeddings(path, jobs, rows, loaded.model.traits.dim)
    return path


def _coverage(job: EmbeddingJob, held: MappedEmbeddings | None) -> CoverageRecord:
    unusable = 0
    if held is not None:
        _, status = held.of(job.cells, np.arange(job.cells.n_cells))
        unusable = int((status != "").sum())
    return CoverageRecord(
        dataset=job.cells.name,
        n_known=job.coverage.n_matched,
        n_genes=job.coverage.n_genes,
        n_unusable=unusable,
    )


def estimator_options(config: BenchmarkConfig, name: str) -> tuple[EstimatorSpec, Options]:
    """Return the spec and the options of an estimator.

    Raises
    ------
    UsageError
        An option does not exist or is out of range.
    """
    from scdrugmap.model.load import parse_options
    from scdrugmap.registry import get_registry

    spec = get_registry().estimator(name)
    return spec, parse_options(spec.options, config.settings.get(name, {}), name)


def estimator_identity(spec: EstimatorSpec, options: Options) -> dict[str, Any]:
    """Return everything of an estimator that decides its results, JSON-able."""
    from scdrugmap.model.load import code_digest

    return {
        "contract": spec.contract,
        "estimator": spec.name,
        "numerics": spec.numerics,
        "code": code_digest(spec.factory),
        "options": options.model_dump(mode="json"),
    }


def record_estimator(entry: Entry, spec: EstimatorSpec, options: Options) -> ModelRecord:
    """Describe an estimator for ``run.json``."""
    return ModelRecord(
        name=entry.name,
        model=entry.model,
        title=_title(entry, spec.title),
        kind="estimator",
        strategy="estimator",
        control=entry.control,
        level=spec.level,
        identity=estimator_identity(spec, options),
        plugin=_plugin("estimator", spec.name),
    )


def record_model(
    entry: Entry, loaded: LoadedModel, coverage: Sequence[CoverageRecord]
) -> ModelRecord:
    """Describe a model for ``run.json``."""
    spec, weights = loaded.spec, loaded.weights
    return ModelRecord(
        name=entry.name,
        model=entry.model,
        title=_title(entry, spec.title),
        kind="model",
        strategy=entry.strategy,
        control=entry.control,
        weights=weights.label,
        untrained=weights.source == "random" or weights.randomize is not None,
        identity=loaded.identity(),
        coverage=tuple(coverage),
        licence=weights.licence or spec.weights_licence or spec.code_licence,
        commercial_use=weights.commercial_use,
        citation=spec.citation,
        homepage=spec.homepage,
        plugin=_plugin("model", spec.name),
    )


def record_text(entry: Entry, loaded: LoadedText) -> ModelRecord:
    """Describe a text model for ``run.json``."""
    from scdrugmap.model.load import code_digest

    spec, base = loaded.spec, loaded.base
    weights = None if base is None else base.weights
    untrained = weights is not None and (
        weights.source == "random" or weights.randomize is not None
    )
    identity: dict[str, Any] = {
        "contract": spec.contract,
        "model": spec.name,
        "numerics": spec.numerics,
        "code": code_digest(spec.factory),
        "options": loaded.options.model_dump(mode="json"),
    }
    return ModelRecord(
        name=entry.name,
        model=entry.model,
        title=_title(entry, spec.title),
        kind="model",
        strategy=entry.strategy,
        control=entry.control,
        weights=weights.label if weights else "",
        untrained=untrained,
        identity={
            **(identity if base is None else base.identity()),
            "template": loaded.model.template.digest,
        },
        licence=(weights.licence if weights else "") or spec.code_licence,
        commercial_use=weights.commercial_use if weights else None,
        citation=spec.citation,
        homepage=spec.homepage,
        plugin=_plugin("model", spec.name),
    )


def _title(entry: Entry, title: str) -> str:
    if entry.permuted:
        return f"{title}, trained and tested on labels dealt out anew over groups (control)"
    if entry.control == "untrained":
        return f"{title}, untrained (control)"
    return title


def _plugin(kind: str, name: str) -> str:
    from scdrugmap.registry import get_registry

    plugin = get_registry().provided(kind, name).plugin
    return f"{plugin.distribution} {plugin.version}".strip()
