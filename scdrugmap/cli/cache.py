"""``scdrugmap cache``: what is cached, and why something is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from scdrugmap.cli.options import (
    PATH,
    cell_arguments,
    cell_options,
    json_option,
    model_options,
    parse_settings,
    parse_weights,
    print_json,
    run_options,
)
from scdrugmap.cli.text import show


@click.group(epilog="Example: scdrugmap cache why cells.h5ad --model scgpt --weights random")
def command() -> None:
    """Show, clear and explain the cache of finished work.

    It is the folder that the environment variable SCDRUGMAP_CACHE names, else ~/.cache/scdrugmap.
    """


@command.command("list", epilog="Example: scdrugmap cache list --json")
@json_option
def list_entries(as_json: bool) -> None:
    """List what is cached, summed by kind and model."""
    from scdrugmap.run.store import Store, summary

    store = Store()
    rows = summary(store.entries())
    if as_json:
        print_json({"root": None if store.root is None else str(store.root), "entries": rows})
        return
    click.echo(f"cache folder: {store.root}")
    for row in rows:
        click.echo(
            f"{row['kind']:<12} {row['model']:<16} {row['n_entries']:>7,} entries "
            f"{row['n_bytes'] / 1e6:>12,.1f} MB"
        )


@command.command("clear", epilog="Example: scdrugmap cache clear --model scgpt --yes")
@click.option("--model", help="Only entries of this model.")
@click.option(
    "--answers", is_flag=True, help="Also replies of language models, which cost money again."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def clear(model: str | None, answers: bool, yes: bool) -> None:
    """Remove cached work; weights and, unless asked for, replies of language models are kept."""
    from scdrugmap.run.store import Store, entry_model
    from scdrugmap.text.kept import KIND

    store = Store()
    entries = [
        entry
        for entry in store.entries()
        if (model is None or entry_model(entry) == model) and (answers or entry.kind != KIND)
    ]
    n_bytes = sum(entry.n_bytes for entry in entries)
    if not yes:
        click.confirm(
            f"Remove {len(entries):,} entries ({n_bytes / 1e6:,.1f} MB) from {store.root}?",
            abort=True,
            err=True,
        )
    for entry in entries:
        store.delete(entry)
    store.sweep()
    click.echo(f"removed {len(entries):,} entries ({n_bytes / 1e6:,.1f} MB)", err=True)


@command.command("why", epilog="Example: scdrugmap cache why cells.h5ad --model randproj")
@click.argument("source", metavar="INPUT", type=PATH)
@click.option("--model", required=True, metavar="NAME", help="One model.")
@click.option("--sample", metavar="COLUMN", help="Column of samples, as given to embed.")
@cell_options
@model_options
@run_options
@json_option
def why(
    source: Path,
    model: str,
    sample: str | None,
    weights: tuple[str, ...],
    randomize: int | None,
    settings: tuple[str, ...],
    min_genes: int | None,
    device: str,
    precision: str,
    token_budget: int | None,
    seed: int,
    as_json: bool,
    **reading: Any,
) -> None:
    """Say which parts of an embedding are cached, and what the missing ones differ in.

    Takes the arguments of ``embed``. The token budget and the device change no result, so they
    are never a reason.
    """
    from scdrugmap.model.embed_file import model_requests
    from scdrugmap.model.explain_cache import why_not_cached
    from scdrugmap.run.store import Store

    names = (model,)
    requests = model_requests(
        names,
        settings=parse_settings(settings, names),
        weights=parse_weights(weights, names),
        randomize=randomize,
        seed=seed,
    )
    answer = why_not_cached(
        source,
        requests[0],
        store=Store(),
        device=device,
        precision=precision,
        sample=sample,
        min_genes=min_genes,
        cell_arguments=cell_arguments(reading),
    )
    if as_json:
        print_json(answer.to_dict())
    else:
        for line in answer.lines():
            show(line)
