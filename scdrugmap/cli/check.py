"""``scdrugmap check``: show what a file holds, what is wrong, and which models can use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from scdrugmap.cli.options import (
    PATH,
    cell_arguments,
    cell_options,
    json_option,
    print_json,
    quiet_option,
)
from scdrugmap.cli.text import show


@click.command(epilog="Example: scdrugmap check cohort.h5ad --quick")
@click.argument("source", metavar="INPUT", type=PATH)
@click.option("--quick", is_flag=True, help="Look at 2,000 cells instead of all.")
@click.option(
    "--models/--no-models", default=True, help="Ask the installed models about the genes, or not."
)
@cell_options
@json_option
@quiet_option
def command(
    source: Path, quick: bool, models: bool, as_json: bool, quiet: bool, **reading: Any
) -> None:
    """Show what a file holds, what is wrong with it, and which models can use it.

    Every block of the file is read and validated. The columns that could be the response and the
    patient are named, with the command to type next. A file that cannot be used ends with exit
    code 3; warnings and notes do not.
    """
    from scdrugmap.data.check import check_file

    found = check_file(source, quick=quick, models=models, quiet=quiet, **cell_arguments(reading))
    if as_json:
        print_json(found.to_dict())
    elif found.error is None:
        for line in found.lines():
            show(line)
    found.raise_for_error()
