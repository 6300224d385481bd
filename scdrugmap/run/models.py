"""The models and estimators of a benchmark: how they are loaded, and what is recorded of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from scdrugmap.errors import DataError
from scdrugmap.progress import say
from scdrugmap.run.record import CoverageRecord, ModelRecord

if TYPE_CHECKING:
    from scdrugmap.config import BenchmarkConfig
    from scdrugmap.model.load import LoadedModel
    from scdrugmap.run.jobs import Bench
    from scdrugmap.run.journal import RunFolder
    from scdrugmap.run.plan import Plan
    from scdrugmap.specs import EstimatorSpec, Options


def load(config: BenchmarkConfig, name: str) -> LoadedModel:
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
        randomize=config.randomize if spec.needs_weights else None,
        seed=0,
    )


def prepare_models(
    plan: Plan, bench: Bench, folder: RunFolder, *, quiet: bool
) -> list[ModelRecord]:
    """Check every estimator and model before anything is trained, and embed all cells once."""
    from scdrugmap.registry import get_registry

    estimators = get_registry().estimators
    records: dict[str, ModelRecord] = {}
    config = plan.config
    for name in config.models:
        if name in estimators:
            records[name] = record_estimator(*estimator_options(config, name))
        else:
            for text in bench.model(name).weights.notices:
                say(f"Note: {name}: {text}", quiet=quiet)
    for name in config.models:
        if name not in records:
            began = time.monotonic()
            coverage = _embed(plan, bench, name, quiet=quiet)
            records[name] = record_model(bench.model(name), config.strategies[0], coverage)
            folder.note("embedded", model=name, seconds=round(time.monotonic() - began, 1))
    return [records[name] for name in config.models]


def _embed(plan: Plan, bench: Bench, name: str, *, quiet: bool) -> list[CoverageRecord]:
    """Embed the cells of every manifest; those that several share are found in the store."""
    from scdrugmap.model.embed import embed_cells
    from scdrugmap.run.jobs import cells_of

    config, loaded = plan.config, bench.model(name)
    coverage = []
    for cells in bench.files:
        if cells.matrix.values not in loaded.spec.accepts:
            raise DataError(
                f"{cells.where} holds {cells.matrix.values} in {cells.matrix.location}; {name} "
                f"accepts {' or '.join(sorted(loaded.spec.accepts))} only",
                hint=f"name the layer with raw counts with --layer, or leave {name} out",
            )
        made = embed_cells(
            cells_of(cells, plan.cohort.design.frame),
            loaded,
            store=bench.store,
            device=config.device,
            precision=config.precision,
            token_budget=config.token_budget,
            sample=config.sample or config.group,
            min_genes=config.min_genes,
            quiet=quiet,
        )
        assert made.coverage is not None
        coverage.append(
            CoverageRecord(
                dataset=cells.name,
                n_known=made.coverage.n_matched,
                n_genes=made.coverage.n_genes,
                n_unusable=int((made.status != "").sum()),
            )
        )
    return coverage


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


def record_estimator(spec: EstimatorSpec, options: Options) -> ModelRecord:
    """Describe an estimator for ``run.json``."""
    return ModelRecord(
        name=spec.name,
        title=spec.title,
        kind="estimator",
        strategy="estimator",
        level=spec.level,
        identity=estimator_identity(spec, options),
        plugin=_plugin("estimator", spec.name),
    )


def record_model(
    loaded: LoadedModel, strategy: str, coverage: Sequence[CoverageRecord]
) -> ModelRecord:
    """Describe a model for ``run.json``."""
    spec, weights = loaded.spec, loaded.weights
    return ModelRecord(
        name=spec.name,
        title=spec.title,
        kind="model",
        strategy=strategy,
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


def _plugin(kind: str, name: str) -> str:
    from scdrugmap.registry import get_registry

    plugin = get_registry().provided(kind, name).plugin
    return f"{plugin.distribution} {plugin.version}".strip()
