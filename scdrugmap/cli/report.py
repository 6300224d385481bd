"""``scdrugmap report``: one HTML file of a finished run."""

from __future__ import annotations

from pathlib import Path

import click

from scdrugmap.cli.options import PATH, output_option, overwrite_option


@click.command(epilog="Example: scdrugmap report runs/first -o report.html")
@click.argument("run", metavar="RUN", type=PATH)
@output_option
@overwrite_option
def command(run: Path, output: Path, overwrite: bool) -> None:
    """Make one HTML file of RUN, the folder of a finished benchmark.

    The file holds all figures and the tables behind them, needs no network and runs no script.
    """
    from scdrugmap.files import check_output
    from scdrugmap.report.build import build_report

    check_output(output, overwrite=overwrite)
    build_report(run, output)
