"""Kinds of values in a configuration, and how what a user writes becomes one of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

Family = Literal["sound", "paper"]
Head = Literal["logistic", "mlp"]
Strategy = Literal["frozen", "lora", "full", "prompt"]
Control = Literal["constant", "technical", "pseudobulk", "untrained", "permuted"]

CONTROLS: dict[str, tuple[str, ...]] = {
    "constant": ("constant", "stratified"),
    "technical": ("technical",),
    "pseudobulk": ("pseudobulk-logreg",),
    "untrained": (),
    "permuted": (),
}
"""The controls of a benchmark, and the estimators that some of them are."""

FOLDS: dict[Family, int] = {"sound": 5, "paper": 10}
"""Folds of a protocol by default; ten are those of the paper's second figure."""

PAPER, PAPER_PROTOCOL = "paper", "paper-pooled"

FACET_COLUMNS = ("tissue", "cancer_type", "drug_type", "drug", "collection")
"""What results are grouped by, and cells are held out by."""


def text_of(value: Any) -> Any:
    """Turn a plain value into the text that ``--set key=value`` would have; text stays."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "none"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return ",".join(str(text_of(item)) for item in value)
    return value


def as_tuple(value: Any) -> Any:
    """Take one word as a list of one."""
    return (value,) if isinstance(value, str | int) and not isinstance(value, bool) else value


def pair(text: str) -> str:
    """Take only text of the form COLUMN=VALUE."""
    column, equals, _ = text.partition("=")
    if not equals or not column:
        raise ValueError("write COLUMN=VALUE")
    return text


def unique(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Take only values that are all different."""
    twice = sorted({str(value) for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} is there twice")
    return values


def as_controls(value: Any) -> Any:
    """Take yes as all controls, no as none, one word as a list of one."""
    if isinstance(value, bool):
        return tuple(CONTROLS) if value else ()
    return as_tuple(value)


def _paper_is_a_protocol(names: tuple[str, ...]) -> tuple[str, ...]:
    """Read ``paper``, the settings of the authors, as the protocol that has them."""
    return tuple(PAPER_PROTOCOL if name == PAPER else name for name in names)


def _price(text: str) -> str:
    """Take only what :func:`scdrugmap.text.budget.read_price` reads."""
    from scdrugmap.text.budget import read_price

    read_price(text)
    return text


Words = Annotated[tuple[str, ...], BeforeValidator(as_tuple)]
Names = Annotated[tuple[str, ...], BeforeValidator(as_tuple), AfterValidator(unique)]
Protocols = Annotated[
    tuple[str, ...],
    BeforeValidator(as_tuple),
    AfterValidator(_paper_is_a_protocol),
    AfterValidator(unique),
]
Strategies = Annotated[
    tuple[Strategy, ...],
    BeforeValidator(as_tuple),
    AfterValidator(unique),
    Field(min_length=1),
]
Text = Annotated[str, BeforeValidator(text_of)]
Price = Annotated[str, AfterValidator(_price)]
