"""Options of verbs that may ask a text model."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from scdrugmap.cli.options import compose

if TYPE_CHECKING:
    from scdrugmap.text.scorer import Prompting

_NAMES = (
    "allow_network",
    "yes",
    "max_cost",
    "price",
    "api_key_env",
    "concurrency",
    "requests_per_minute",
    "tokens_per_minute",
    "timeout",
    "retry_invalid",
)


class PriceType(click.ParamType):
    """``READ/WRITTEN`` in USD per million tokens."""

    name = "price"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        """Return both numbers."""
        from scdrugmap.text.budget import read_price

        if isinstance(value, tuple):
            return value
        try:
            return read_price(str(value))
        except ValueError as err:
            self.fail(str(err), param, ctx)


class FiniteRange(click.FloatRange):
    """A range that ``nan`` and ``inf`` are outside of: click compares, and nan is never less."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number", param, ctx)
        return number


text_options = compose(
    click.option(
        "--allow-network",
        is_flag=True,
        help="Text models: send the genes of cells to hosts other than this machine.",
    ),
    click.option("--yes", is_flag=True, help="Text models: agree to requests and costs."),
    click.option(
        "--max-cost",
        type=FiniteRange(min=0),
        metavar="USD",
        help="Text models: stop before this much is spent; answers are kept.",
    ),
    click.option(
        "--price",
        type=PriceType(),
        metavar="READ/WRITTEN",
        help="Text models: USD per million tokens, if the built-in table is wrong.",
    ),
    click.option(
        "--api-key-env",
        metavar="NAME",
        help="Text models: environment variable with the key [default: OPENAI_API_KEY for "
        "OpenAI, none for other hosts].",
    ),
    click.option(
        "--concurrency",
        type=click.IntRange(1, 64),
        default=4,
        show_default=True,
        help="Text models: requests at a time.",
    ),
    click.option(
        "--requests-per-minute",
        type=FiniteRange(min=0, min_open=True),
        help="Text models: most requests per minute.",
    ),
    click.option(
        "--tokens-per-minute",
        type=FiniteRange(min=0, min_open=True),
        help="Text models: most tokens per minute.",
    ),
    click.option(
        "--timeout",
        type=FiniteRange(min=0, min_open=True),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="Text models: longest wait for one reply.",
    ),
    click.option(
        "--retry-invalid",
        is_flag=True,
        help="Text models: ask again where the kept answer was invalid.",
    ),
)
"""Options of text models; :func:`prompting` turns them into one object."""


def take_text_options(arguments: dict[str, Any]) -> dict[str, Any]:
    """Take the values of :func:`text_options` out of a command's arguments."""
    return {name: arguments.pop(name) for name in _NAMES}


def prompting(
    given: Mapping[str, Any],
    *,
    drug: str | None,
    device: str,
    precision: str | None,
    token_budget: int | None,
    quiet: bool,
) -> Prompting:
    """Turn the options into how cells are asked about."""
    from scdrugmap.run.store import Store
    from scdrugmap.text.contract import Asking
    from scdrugmap.text.scorer import Prompting

    asking = Asking(
        device=device,
        precision=precision or "float32",
        token_budget=token_budget,
        store=Store(quiet=quiet),
        allow_network=given["allow_network"],
        yes=given["yes"],
        confirm=_confirm if sys.stdin.isatty() else None,
        max_cost=given["max_cost"],
        price=given["price"],
        key_variable=given["api_key_env"] or "",
        concurrency=given["concurrency"],
        requests_per_minute=given["requests_per_minute"],
        tokens_per_minute=given["tokens_per_minute"],
        timeout_s=given["timeout"],
        retry_invalid=given["retry_invalid"],
        quiet=quiet,
    )
    return Prompting(asking, {"drug": drug} if drug else {})


def _confirm(question: str) -> bool:
    return click.confirm(question, err=True)
