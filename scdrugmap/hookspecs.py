"""The hooks a plugin may implement: each returns a list of frozen specs, without side effects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from scdrugmap.specs import CommandSpec, DatasetSpec, EstimatorSpec, ModelSpec, TextModelSpec

PROJECT = "scdrugmap"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def scdrugmap_models() -> list[ModelSpec | TextModelSpec]:  # type: ignore[empty-body]
    """Models that embed cells or answer about them."""


@hookspec
def scdrugmap_estimators() -> list[EstimatorSpec]:  # type: ignore[empty-body]
    """Predictors trained from expression alone."""


@hookspec
def scdrugmap_datasets() -> list[DatasetSpec]:  # type: ignore[empty-body]
    """Labelled datasets."""


@hookspec
def scdrugmap_commands() -> list[CommandSpec]:  # type: ignore[empty-body]
    """Commands added to the command line."""
