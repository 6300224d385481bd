"""Model cards: all that is known of a model without loading it, as plain JSON-able values.

Read by ``scdrugmap models``, by the documentation and by the web server; imports nothing heavy.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from typing import Any

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from scdrugmap.registry import PluginRecord, Registry
from scdrugmap.specs import ModelSpec, Options, TextModelSpec

Card = dict[str, Any]

_NON_COMMERCIAL = re.compile(r"non-?commercial|\bnc\b|-nc-|-nc\b", re.IGNORECASE)


def model_cards(registry: Registry) -> list[Card]:
    """Return the cards of all models, by name."""
    return [model_card(registry, name) for name in sorted(registry.models)]


def model_card(registry: Registry, name: str) -> Card:
    """Return the card of one model.

    Returns
    -------
    dict
        The fields of the spec, and: ``plugin`` (distribution and version), ``kind`` (``cell`` or
        ``text``), ``option_table`` (see :func:`option_table`), in each of ``weights`` also where
        they were ``found`` (None: nowhere) and ``how_to_get`` them, and ``commercial_use`` (False
        if any part of the model forbids it, None if nobody says).

    Raises
    ------
    PluginError
        There is no such model, or several.
    """
    provided = registry.provided("model", name)
    spec: ModelSpec | TextModelSpec = provided.spec
    card: Card = spec.model_dump(mode="json")
    card["plugin"] = _source(provided.plugin)
    card["kind"] = "cell" if isinstance(spec, ModelSpec) else "text"
    card["option_table"] = option_table(spec.options)
    if isinstance(spec, ModelSpec):
        from scdrugmap.weights import state_of_weights

        for weights, state in zip(card["weights"], state_of_weights(spec), strict=True):
            weights.update(found=state["found"], how_to_get=state["how_to_get"])
        card["commercial_use"] = commercial_use(spec)
    return card


def _source(plugin: PluginRecord) -> str:
    return f"{plugin.distribution} {plugin.version}".strip()


def commercial_use(spec: ModelSpec) -> bool | None:
    """Say whether a model may be used commercially: False, True, or None where nobody says."""
    texts = [spec.code_licence, spec.weights_licence, *(item.licence for item in spec.weights)]
    allowed = [item.commercial_use for item in spec.weights]
    if any(_NON_COMMERCIAL.search(text) for text in texts) or False in allowed:
        return False
    return None if None in allowed else True


def option_table(options: type[Options]) -> list[Card]:
    """Return one row per option: name, type, default, range and description.

    Parameters
    ----------
    options : type of Options
        Options class of a model or an estimator.
    """
    return [
        {
            "name": name,
            "type": _type(info.annotation),
            "default": _default(info),
            "range": ", ".join(_limits(info)),
            "description": info.description or "",
        }
        for name, info in options.model_fields.items()
    ]


def _default(info: FieldInfo) -> Any:
    if info.is_required():
        return None
    return to_jsonable_python(info.get_default(call_default_factory=True))


def _type(annotation: Any) -> str:
    """Return a type as users write its values: ``int``, ``a | b`` for choices."""
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return " | ".join(map(str, typing.get_args(annotation)))
    if origin in {typing.Union, types.UnionType}:
        return " | ".join(_type(part) for part in typing.get_args(annotation))
    if annotation is type(None):
        return "none"
    return annotation.__name__ if isinstance(annotation, type) and not origin else str(annotation)


def _limits(info: FieldInfo) -> Iterator[str]:
    for limit in info.metadata:
        if isinstance(limit, Ge):
            yield f">= {limit.ge}"
        elif isinstance(limit, Gt):
            yield f"> {limit.gt}"
        elif isinstance(limit, Le):
            yield f"<= {limit.le}"
        elif isinstance(limit, Lt):
            yield f"< {limit.lt}"
        elif isinstance(limit, MinLen):
            yield f"at least {limit.min_length} long"
        elif isinstance(limit, MaxLen):
            yield f"at most {limit.max_length} long"
