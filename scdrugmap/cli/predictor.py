"""``scdrugmap predictor``: list and show trained predictors."""

from __future__ import annotations

from pathlib import Path

import click

from scdrugmap.cli.options import PATH, json_option, print_json


@click.group(epilog="Example: scdrugmap predictor show predictor.zip")
def command() -> None:
    """List and show trained predictors."""


@command.command("list", epilog="Example: scdrugmap predictor list predictors/")
@click.argument("folder", metavar="DIR", type=PATH)
@json_option
def list_predictors(folder: Path, as_json: bool) -> None:
    """List the predictors in a folder."""
    from scdrugmap.cli.text import columns
    from scdrugmap.train.listing import list_predictors as found_in

    found = found_in(folder)
    if as_json:
        print_json(found)
        return
    header = ("file", "name", "strategy", "fold", "seed", "cells", "values", "weights")
    rows = [tuple(str(item[name]) for name in header) for item in found]
    for line in columns([header, *rows]):
        click.echo(line)


@command.command("show", epilog="Example: scdrugmap predictor show predictor.zip --json")
@click.argument("source", metavar="FILE", type=PATH)
@json_option
def show(source: Path, as_json: bool) -> None:
    """Print the model card of a predictor; with --json everything it says about itself."""
    from scdrugmap.cli.text import show as show_text
    from scdrugmap.train.card import model_card
    from scdrugmap.train.predictor import Predictor

    info = Predictor.load(source).info
    if as_json:
        print_json(info.model_dump(mode="json"))
    else:
        for line in model_card(info).split("\n"):
            show_text(line)
