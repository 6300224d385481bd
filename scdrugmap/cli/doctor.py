"""``scdrugmap doctor``: what this machine can do, and how long it takes."""

from __future__ import annotations

import click

from scdrugmap.cli.options import (
    device_option,
    json_option,
    model_options,
    parse_settings,
    parse_weights,
    print_json,
    seed_option,
    split_list,
)


@click.command(epilog="Example: scdrugmap doctor --model scgpt --weights random")
@click.option(
    "--model", metavar="NAME[,NAME]", help="Measure how long these take for 10,000 cells, too."
)
@model_options
@device_option
@seed_option
@json_option
def command(
    model: str | None,
    weights: tuple[str, ...],
    randomize: int | None,
    settings: tuple[str, ...],
    min_genes: int | None,
    device: str,
    seed: int,
    as_json: bool,
) -> None:
    """Show devices, speed, disk, plugins and weights, and what could be slow."""
    from scdrugmap.model.embed_file import model_requests
    from scdrugmap.run.doctor import diagnose

    names = split_list(model)
    requests = (
        model_requests(
            names,
            settings=parse_settings(settings, names),
            weights=parse_weights(weights, names),
            randomize=randomize,
            seed=seed,
        )
        if names
        else []
    )
    found = diagnose(requests, device=device)
    if as_json:
        print_json(found.to_dict())
    else:
        click.echo("\n".join(found.lines()))
