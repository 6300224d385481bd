"""``scdrugmap merge``: join the shards of one embedding."""

from __future__ import annotations

from pathlib import Path

import click

from scdrugmap.cli.options import PATH, output_option, overwrite_option


@click.command(epilog="Example: scdrugmap merge part1.h5ad part2.h5ad -o embedded.h5ad")
@click.argument("shards", nargs=-1, required=True, metavar="SHARD...", type=PATH)
@output_option
@overwrite_option
def command(shards: tuple[Path, ...], output: Path, overwrite: bool) -> None:
    """Join the files of ``embed --shard 1/N`` to ``N/N``, given in any order.

    The cells come out in the order of the file that was embedded. Shards that are missing, or
    made with other options or weights, are refused.
    """
    from scdrugmap.model.merge import merge_embeddings

    merge_embeddings(shards, output, overwrite=overwrite)
