"""Options that several verbs share, so that they are spelt and explained once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from scdrugmap.errors import UsageError
from scdrugmap.plain import ascii_escapes

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path, readable=False)  # the readers say it, with exit code 5


def compose(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Return one decorator that applies several, the first on top of the help."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


output_option = click.option(
    "-o", "--output", type=PATH, required=True, help="File to write, whole or not at all."
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an existing output.")
quiet_option = click.option("--quiet", is_flag=True, help="No progress and no notices.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
seed_option = click.option("--seed", type=int, default=0, show_default=True, help="Random seed.")
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps."
)

mismatch_option = click.option(
    "--allow-mismatch",
    is_flag=True,
    help="Go on with another version of the model, or other weights, than in training.",
)

cell_options = compose(
    click.option("--layer", help="Where the values are: X, raw, or the name of a layer."),
    click.option(
        "--values",
        type=click.Choice(["counts", "lognorm"]),
        help="What the values are, if the file does not show it.",
    ),
    click.option("--gene-id", type=click.Choice(["symbol", "ensembl"]), help="Kind of gene names."),
    click.option(
        "--where",
        multiple=True,
        metavar="COLUMN=VALUE",
        help="Take only cells with this value in obs; repeatable.",
    ),
    click.option("--round", "round_counts", is_flag=True, help="Round fractional counts (RSEM)."),
    click.option("--transpose", is_flag=True, help="The file holds genes in rows."),
)
"""How to read cells: become keyword arguments of ``open_cells`` through :func:`cell_arguments`."""

label_words = compose(
    click.option("--sensitive", metavar="A[,B]", help="Labels that mean sensitive."),
    click.option("--resistant", metavar="C[,D]", help="Labels that mean resistant."),
    click.option("--drop", metavar="E[,F]", help="Labels of cells to set aside."),
)
label_options = compose(
    click.option("--label", required=True, help="Column of obs with the response."), label_words
)

model_options = compose(
    click.option(
        "--weights",
        multiple=True,
        metavar="[MODEL=]DIR|random",
        help="Folder of the weights, or random (untrained control); repeatable.",
    ),
    click.option(
        "--randomize",
        type=int,
        metavar="SEED",
        help="Keep vocabulary and sizes of the weights, replace all tensors by random ones.",
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="[MODEL.]KEY=VALUE",
        help="Option of a model (see `scdrugmap models show NAME`); repeatable.",
    ),
    click.option("--min-genes", type=int, help="Fewest known genes to go on with."),
)

run_options = compose(
    device_option,
    click.option(
        "--precision",
        type=click.Choice(["float32", "bfloat16"]),
        default="float32",
        show_default=True,
        help="Arithmetic of the network.",
    ),
    click.option("--token-budget", type=click.IntRange(min=1), help="Most tokens in a batch."),
    seed_option,
)


def cell_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """Take the values of :data:`cell_options` out of a command's arguments."""
    keys = ("layer", "values", "gene_id", "round_counts", "transpose")
    taken = {key: given.pop(key) for key in keys}
    taken["where"] = tuple(parse_pair(item, "--where") for item in given.pop("where"))
    return taken


def parse_pair(item: str, option: str) -> tuple[str, str]:
    """Split ``KEY=VALUE``.

    Raises
    ------
    UsageError
        There is no equals sign or no key.
    """
    key, equals, value = item.partition("=")
    if not equals or not key:
        raise UsageError(f"{option} {item!r} is not of the form KEY=VALUE")
    return key, value


def split_list(text: str | None) -> tuple[str, ...]:
    """Split a comma-separated option; None and ``""`` give nothing."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def parse_settings(settings: tuple[str, ...], models: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Sort ``--set [MODEL.]KEY=VALUE`` by model; without a model it holds for all.

    Raises
    ------
    UsageError
        Wrong form, or a model that is not part of the command.
    """
    chosen: dict[str, dict[str, str]] = {model: {} for model in models}
    for item in settings:
        key, value = parse_pair(item, "--set")
        model, dot, option = key.partition(".")
        if dot and model not in chosen:
            raise UsageError(f"--set {item}: {model} is not one of {', '.join(models)}")
        for name in [model] if dot else models:
            chosen[name][option if dot else key] = value
    return chosen


def parse_weights(weights: tuple[str, ...], models: tuple[str, ...]) -> dict[str, str]:
    """Sort ``--weights [MODEL=]PATH`` by model; without a model it holds for all.

    Raises
    ------
    UsageError
        A model is named twice.
    """
    chosen: dict[str, str] = {}
    for item in weights:
        model, equals, path = item.partition("=")
        named = bool(equals) and model in models
        for name in [model] if named else models:
            if name in chosen:
                raise UsageError(f"--weights names {name} twice")
            chosen[name] = path if named else item
    return chosen


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=str)
    click.echo(ascii_escapes(text))
