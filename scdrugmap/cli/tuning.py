"""The options of fine-tuning: one per field of its settings, with the same words."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from pydantic import ValidationError

from scdrugmap.errors import UsageError
from scdrugmap.train.settings import FineTuning

F = TypeVar("F", bound=Callable[..., Any])

_OF_ADAPTERS = ("targets", "r", "alpha", "dropout")


def tuning_options(function: F) -> F:
    """Add an option for each field of :class:`~scdrugmap.train.settings.FineTuning`."""
    for name in reversed(FineTuning.model_fields):
        function = _option(name)(function)
    return function


def tuning_arguments(given: dict[str, Any]) -> FineTuning | None:
    """Take the values of :func:`tuning_options` out of a command's arguments.

    Returns
    -------
    FineTuning or None
        None if no option was given.

    Raises
    ------
    UsageError
        A value is out of range; names the option.
    """
    values = {name: given.pop(_parameter(name)) for name in FineTuning.model_fields}
    chosen = {name: value for name, value in values.items() if value is not None}
    if not chosen:
        return None
    try:
        return FineTuning.model_validate(chosen)
    except ValidationError as err:
        first = err.errors()[0]
        name = str(first["loc"][0])
        raise UsageError(f"{_spelt(name)} {chosen[name]}: {first['msg']}") from err


def _option(name: str) -> Callable[[F], F]:
    field = FineTuning.model_fields[name]
    text = str(field.description)
    text = f"Fine-tuning: {text}"
    if field.default is not None and field.default is not False:
        text += f"  [default: {field.default}]"
    kinds = [kind for kind in get_args(field.annotation) if kind is not types.NoneType]
    if get_origin(field.annotation) is Literal:
        return click.option(_spelt(name), _parameter(name), type=click.Choice(kinds), help=text)
    kind = kinds[0] if kinds else field.annotation
    if kind is bool:
        return click.option(_spelt(name), _parameter(name), is_flag=True, default=None, help=text)
    return click.option(_spelt(name), _parameter(name), type=kind, help=text)


def _parameter(name: str) -> str:
    return f"lora_{name}" if name in _OF_ADAPTERS else name


def _spelt(name: str) -> str:
    return f"--{_parameter(name).replace('_', '-')}"
