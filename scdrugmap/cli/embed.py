"""``scdrugmap embed``: cells in, one vector per cell out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from scdrugmap.cli.options import (
    PATH,
    cell_arguments,
    cell_options,
    model_options,
    overwrite_option,
    parse_settings,
    parse_weights,
    quiet_option,
    run_options,
    split_list,
)


@click.command(epilog="Example: scdrugmap embed cells.h5ad --model randproj -o embedded.h5ad")
@click.argument("source", metavar="INPUT", type=PATH)
@click.option("--model", required=True, metavar="NAME[,NAME]", help="Models to embed with.")
@click.option("-o", "--output", type=PATH, help="h5ad file to write, whole or not at all.")
@click.option(
    "--into", type=PATH, help="h5ad file of the same cells that gets the embeddings [no -o needed]."
)
@click.option("--shard", metavar="I/N", help="Embed only this share; join all with `merge`.")
@click.option(
    "--empty",
    type=click.Choice(["nan", "error", "drop"]),
    default="nan",
    show_default=True,
    help="Cells without a gene that the model knows: NaN rows, an error, or left out.",
)
@click.option(
    "--sample",
    metavar="COLUMN",
    help="Column of samples: embeds their cells together in models that need it.",
)
@click.option(
    "--genes",
    type=PATH,
    metavar="H5AD",
    help="Also write the mean vector of each gene, for models that give them.",
)
@click.option("--genes-by", metavar="COLUMN", help="One such mean per value of this column.")
@cell_options
@model_options
@run_options
@click.option("--no-cache", is_flag=True, help="Neither use nor keep finished parts.")
@overwrite_option
@quiet_option
def command(
    source: Path,
    model: str,
    output: Path | None,
    into: Path | None,
    shard: str | None,
    empty: str,
    sample: str | None,
    genes: Path | None,
    genes_by: str | None,
    weights: tuple[str, ...],
    randomize: int | None,
    settings: tuple[str, ...],
    min_genes: int | None,
    device: str,
    precision: str,
    token_budget: int | None,
    seed: int,
    no_cache: bool,
    overwrite: bool,
    quiet: bool,
    **reading: Any,
) -> None:
    """Embed the cells of INPUT and write them as obsm["X_<model>"] of an h5ad file.

    Finished parts are kept in the cache: an interrupted run goes on where it stopped, and the
    same cells are never embedded twice.
    """
    from scdrugmap.model.embed_file import embed_file, model_requests
    from scdrugmap.model.parts import Shard
    from scdrugmap.run.store import Store

    names = split_list(model)
    embed_file(
        source,
        model_requests(
            names,
            settings=parse_settings(settings, names),
            weights=parse_weights(weights, names),
            randomize=randomize,
            seed=seed,
        ),
        output,
        into=into,
        shard=None if shard is None else Shard.parse(shard),
        empty=empty,
        overwrite=overwrite,
        store=Store.disabled() if no_cache else Store(quiet=quiet),
        device=device,
        precision=precision,
        token_budget=token_budget,
        sample=sample,
        min_genes=min_genes,
        genes=genes,
        genes_by=genes_by,
        cell_arguments=cell_arguments(reading),
        quiet=quiet,
    )
