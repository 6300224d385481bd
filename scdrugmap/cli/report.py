"""``scdrugmap report``: one HTML file of a finished run, or of several side by side."""

from __future__ import annotations

from pathlib import Path

import click

from scdrugmap.cli.options import PATH, overwrite_option


@click.command(
    epilog="Example: scdrugmap report runs/first -o report.html --figures figures "
    "--crate first.crate.zip"
)
@click.argument("runs", metavar="RUN...", type=PATH, nargs=-1, required=True)
@click.option("-o", "--output", type=PATH, help="HTML file to write, whole or not at all.")
@click.option(
    "--figures", type=PATH, help="Folder for every figure as SVG and PDF, with its table."
)
@click.option(
    "--crate", type=PATH, help="RO-Crate (zip) to publish: results, inputs, versions, licences."
)
@click.option(
    "--interactive",
    is_flag=True,
    help="Figures show their numbers under the pointer (larger file; extra `report`).",
)
@overwrite_option
def command(
    runs: tuple[Path, ...],
    output: Path | None,
    figures: Path | None,
    crate: Path | None,
    interactive: bool,
    overwrite: bool,
) -> None:
    """Make one HTML file of RUN, the folder of a finished benchmark.

    The file holds all figures and the tables behind them and needs no network. Several runs are
    put side by side; only what was tested on the same cells is ranked.
    """
    from scdrugmap.report.build import make_outputs

    make_outputs(
        runs,
        output=output,
        figures=figures,
        crate=crate,
        interactive=interactive,
        overwrite=overwrite,
    )
