"""``scdrugmap convert``: turn 10x files or tables into h5ad."""

from __future__ import annotations

from pathlib import Path

import click

from scdrugmap.cli.options import (
    PATH,
    output_option,
    overwrite_option,
    quiet_option,
    split_list,
)


@click.command(epilog="Example: scdrugmap convert filtered_feature_bc_matrix.h5 -o cells.h5ad")
@click.argument("source", metavar="INPUT", type=PATH)
@output_option
@click.option(
    "--obs",
    "obs_columns",
    metavar="A[,B]",
    help="Columns of a table that are about cells although they hold numbers.",
)
@click.option(
    "--compress/--no-compress",
    default=True,
    show_default=True,
    help="Compressed files are smaller, plain ones read several times faster.",
)
@overwrite_option
@quiet_option
def command(
    source: Path,
    output: Path,
    obs_columns: str | None,
    compress: bool,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Turn a 10x file, a 10x folder or a table of text into h5ad.

    INPUT is a 10x HDF5 file, a folder with matrix.mtx, features.tsv and barcodes.tsv, or a table
    with one cell per row (columns Cell_barcode, Condition, then genes); compressed or not. Of 10x
    files only genes are kept; antibodies and the like are counted and named.
    """
    from scdrugmap.data.convert import convert
    from scdrugmap.progress import say

    made = convert(
        source,
        output,
        obs_columns=split_list(obs_columns),
        compress=compress,
        overwrite=overwrite,
        quiet=quiet,
    )
    for notice in made.notices:
        say(f"Note: {notice}", quiet=quiet)
    say(f"{output}: {made.n_cells:,} cells x {made.n_genes:,} genes", quiet=quiet)
