"""What is wrong with a configuration, in one line: place, key, value and remedy."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from scdrugmap.errors import UsageError

YAML_DAMAGE = (
    *(ArithmeticError, AssertionError, AttributeError),
    *(LookupError, RecursionError, TypeError, ValueError),
)
"""What the reader of YAML lets out beside its own errors: of dates that are none, of odd tags."""

_LONGEST_VALUE = 80  # characters of a value that an error shows
_MOST_NODES = 20_000  # values of a file, aliases counted as often as they are used


def explain(err: ValidationError, root: type[BaseModel], raw: Any, where: str) -> UsageError:
    """Turn the first complaint about a configuration into one line with its place and a remedy.

    Parameters
    ----------
    err : ValidationError
    root : type of BaseModel
        The record that was to be made.
    raw : mapping or None
        What the YAML file holds, with line numbers; None: there is no file.
    where : str
        The file.
    """
    first = min(err.errors(), key=lambda item: item["type"] != "extra_forbidden")
    location = [part for part in first["loc"] if not _is_tag(part)]
    key = ".".join(str(part) for part in location)
    line = _line(raw, location)
    place = f"{where}, line {line}: " if line else (f"{where}: " if where else "")
    more = f" (and {err.error_count() - 1} more)" if err.error_count() > 1 else ""
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if first["type"] == "extra_forbidden":
        known = _fields(root, location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        return UsageError(
            f"{place}there is no key {key!r}{more}", hint=f"{hint}there are: {', '.join(known)}"
        )
    field = _field(root, location)
    described = field.description if field and field.description else ""
    if first["type"] == "missing":
        return UsageError(f"{place}the key {key!r} is missing{more}", hint=f"{key}: {described}")
    value = repr(first["input"])
    value = f" = {value}" if len(value) <= _LONGEST_VALUE else ""
    subject = f"{key}{value}: " if key else ""
    name = next((str(part) for part in reversed(location) if isinstance(part, str)), "")
    hint = f"{name}: {described}" if described else ""
    return UsageError(f"{place}{subject}{message}{more}", hint=hint)


def plain(node: Any, seen: list[int]) -> Any:
    """Return a tree of plain values; aliases that grow without bound are refused."""
    seen[0] += 1
    if seen[0] > _MOST_NODES:
        raise UsageError(f"the configuration holds more than {_MOST_NODES:,} values")
    if isinstance(node, Mapping):
        if any(isinstance(key, Mapping | list) for key in node):
            raise UsageError("the configuration has a list or a table where a key should be")
        return {plain(key, seen): plain(value, seen) for key, value in node.items()}
    if isinstance(node, list):
        return [plain(item, seen) for item in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _is_tag(part: int | str) -> bool:
    """Whether a part of a location is pydantic's own: that of a mapping's key."""
    return part == "[key]"


def _field(root: type[BaseModel], location: list[int | str]) -> FieldInfo | None:
    """Return the deepest described field of a location."""
    found: FieldInfo | None = None
    record: type[BaseModel] | None = root
    for part in location:
        if record is None or isinstance(part, int) or part not in record.model_fields:
            continue
        found = record.model_fields[part]
        record = _record(found.annotation)
    return found


def _fields(root: type[BaseModel], location: list[int | str]) -> list[str]:
    """Return the keys that exist at a location."""
    found = _field(root, location)
    record = None if found is None else _record(found.annotation)
    return list((record or root).model_fields)


def _record(annotation: Any) -> type[BaseModel] | None:
    """Return the record inside an annotation such as ``tuple[DataFile, ...]``, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (tuple, list, dict, Union, types.UnionType) or hasattr(
        annotation, "__metadata__"
    ):
        return next((kind for part in get_args(annotation) if (kind := _record(part))), None)
    return None


def _line(raw: Any, location: list[int | str]) -> int | None:
    """Return the line (from 1) of the deepest part of a location that the file has."""
    line, node = None, raw
    for part in location:
        try:
            if isinstance(node, Mapping) and part in node:
                line = node.lc.key(part)[0] + 1  # type: ignore[attr-defined]
            elif isinstance(node, list) and isinstance(part, int):
                line = node.lc.item(part)[0] + 1  # type: ignore[attr-defined]
            else:
                break
            node = node[part]
        except (AttributeError, KeyError, IndexError):
            break
    return line
