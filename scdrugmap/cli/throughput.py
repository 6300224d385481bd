"""``scdrugmap throughput``: how fast a model is here."""

from __future__ import annotations

import click

from scdrugmap.cli.options import (
    json_option,
    model_options,
    parse_settings,
    parse_weights,
    print_json,
    run_options,
)


@click.command(
    epilog="Example: scdrugmap throughput --model scgpt --weights random --cells 8 --length 1200"
)
@click.option("--model", required=True, metavar="NAME", help="One model.")
@click.option("--cells", "n_cells", type=click.IntRange(min=1), help="Made-up cells [default: 32].")
@click.option(
    "--length",
    type=click.IntRange(min=1),
    help="Expressed genes of each cell, all known to the model [default: 1500].",
)
@model_options
@run_options
@json_option
def command(
    model: str,
    n_cells: int | None,
    length: int | None,
    weights: tuple[str, ...],
    randomize: int | None,
    settings: tuple[str, ...],
    min_genes: int | None,
    device: str,
    precision: str,
    token_budget: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Measure cells/s, tokens/s, memory, and the share of this machine's matrix-product rate.

    The cells are made up; the figures depend on their number of expressed genes and on nothing
    else about them.
    """
    from scdrugmap.model.load import load_model
    from scdrugmap.model.throughput import DEFAULT_CELLS, DEFAULT_LENGTH, measure_throughput

    names = (model,)
    loaded = load_model(
        model,
        settings=parse_settings(settings, names)[model],
        weights=parse_weights(weights, names).get(model),
        randomize=randomize,
        seed=seed,
    )
    measured = measure_throughput(
        loaded,
        n_cells=n_cells or DEFAULT_CELLS,
        length=length or DEFAULT_LENGTH,
        device=device,
        precision=precision,
        token_budget=token_budget,
        seed=seed,
    )
    if as_json:
        print_json(measured.to_dict())
    else:
        click.echo("\n".join(measured.lines()))
