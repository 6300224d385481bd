"""The models and estimators of a benchmark: how they are loaded, and what is recorded of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from scdrugmap.run.record import CoverageRecord, ModelRecord

if TYPE_CHECKING:
    from scdrugmap.config import BenchmarkConfig
    from scdrugmap.model.load import LoadedModel
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
