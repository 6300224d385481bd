"""Strategies for our records: any value that a record's own rules allow."""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from hypothesis import strategies as st
from made_up import texts
from pydantic import BaseModel

R = TypeVar("R", bound=BaseModel)

_MOST = 2**53 - 1  # JSON readers of other languages know no larger whole numbers
jsonable = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-_MOST, _MOST)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def records(kind: type[R], **fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[R]:
    """Return a strategy for a pydantic record, by its annotations; `fixed` replaces fields."""
    fields = {
        name: fixed.get(name, _of(info.annotation, info.metadata))
        for name, info in kind.model_fields.items()
    }
    return st.fixed_dictionaries(fields).map(kind.model_validate)


def _of(annotation: Any, limits: list[Any]) -> st.SearchStrategy[Any]:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _of(inner[0], [*inner[1:], *limits])
    if origin is typing.Literal:
        return st.sampled_from(inner)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(_of(part, limits) for part in inner))
    if origin is tuple and inner[-1] is Ellipsis:
        least, most = (
            _limit(limits, MinLen, "min_length", 0),
            _limit(limits, MaxLen, "max_length", 3),
        )
        return st.lists(_of(inner[0], []), min_size=least, max_size=max(least, most)).map(tuple)
    if origin is dict:
        return st.dictionaries(texts, _of(inner[1], []), max_size=3)
    if annotation is Any:
        return jsonable
    if annotation is type(None):
        return st.none()
    if annotation is bool:
        return st.booleans()
    if annotation is int:
        return st.integers(*_range(limits, -_MOST, _MOST, 1))
    if annotation is float:
        low, high = _range(limits, None, None, 0)
        return st.floats(
            low,
            high,
            allow_nan=False,
            allow_infinity=False,
            exclude_min=any(isinstance(limit, Gt) for limit in limits),
            exclude_max=any(isinstance(limit, Lt) for limit in limits),
        )
    if annotation is str:
        least = _limit(limits, MinLen, "min_length", 0)
        pattern = next((m.pattern for m in limits if getattr(m, "pattern", None)), None)
        if pattern:
            return st.from_regex(pattern, fullmatch=True)
        return st.text(
            st.characters(exclude_categories=["Cs"]), min_size=least, max_size=least + 12
        )
    if annotation is Path:
        return st.just(Path("x"))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return records(annotation)
    raise TypeError(f"no strategy for {annotation}")


def _limit(limits: list[Any], kind: type, name: str, default: int) -> int:
    return next((int(getattr(m, name)) for m in limits if isinstance(m, kind)), default)


def _range(limits: list[Any], low: Any, high: Any, step: int) -> tuple[Any, Any]:
    for limit in limits:
        if isinstance(limit, Ge):
            low = limit.ge
        elif isinstance(limit, Gt):
            low = limit.gt + step  # type: ignore[operator]
        elif isinstance(limit, Le):
            high = limit.le
        elif isinstance(limit, Lt):
            high = limit.lt - step  # type: ignore[operator]
    return low, high
