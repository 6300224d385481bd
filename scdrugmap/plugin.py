"""Light surface for plugin authors: the hook marker and the specs. Imports no heavy package."""

from __future__ import annotations

from scdrugmap.hookspecs import hookimpl
from scdrugmap.specs import (
    CONTRACT,
    Capability,
    CommandSpec,
    DatasetSpec,
    EstimatorSpec,
    LoraDefaults,
    ModelOptions,
    ModelSpec,
    Options,
    TextModelSpec,
    Variant,
    WeightFile,
    WeightSet,
)

__all__ = [
    "CONTRACT",
    "Capability",
    "CommandSpec",
    "DatasetSpec",
    "EstimatorSpec",
    "LoraDefaults",
    "ModelOptions",
    "ModelSpec",
    "Options",
    "TextModelSpec",
    "Variant",
    "WeightFile",
    "WeightSet",
    "hookimpl",
]
