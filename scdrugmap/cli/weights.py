"""``scdrugmap weights``: list, show, import and verify the weights of models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from scdrugmap.cli.options import PATH, json_option, overwrite_option, print_json, quiet_option
from scdrugmap.cli.text import columns, show

variant_option = click.option(
    "--variant", default="", help="Published checkpoint it is (default: the model's first)."
)


@click.group()
def command() -> None:
    r"""List, show, import and verify weights. Nothing is ever downloaded.

    \b
    Example:
      scdrugmap weights list
      scdrugmap weights import scgpt Downloads/whole-human
    """


@command.command("list")
@click.argument("model", required=False)
@json_option
def list_weights(model: str | None, as_json: bool) -> None:
    r"""List published weights, of one MODEL or of all, and where they were found.

    \b
    Example:
      scdrugmap weights list scgpt --json
    """
    rows = _states([model] if model else None)
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo("No installed model needs weights.")
        return
    table: list[tuple[str, ...]] = [("MODEL", "WEIGHTS", "FOUND", "LICENCE")]
    table += [(row["model"], row["name"], _found(row), row["licence"]) for row in rows]
    for line in columns(table):
        click.echo(line)


@command.command("show")
@click.argument("model")
@variant_option
@json_option
def show_weights(model: str, variant: str, as_json: bool) -> None:
    r"""Show one set of weights: files, licence, where it was found or how to get it.

    \b
    Example:
      scdrugmap weights show scgpt --variant brain
    """
    from scdrugmap.registry import get_registry
    from scdrugmap.weights import weight_set

    spec = get_registry().model(model)
    chosen = weight_set(spec, variant)
    row = next(row for row in _states([model]) if row["name"] == chosen.name)
    if as_json:
        print_json(row)
        return
    click.echo(f"{row['model']}: {row['name']}")
    commercial = {True: "yes", False: "NO", None: "not stated"}[row["commercial_use"]]
    facts = [
        ("found", _found(row)),
        ("licence", row["licence"]),
        ("commercial use", commercial),
        ("homepage", row["homepage"]),
        ("files", ", ".join(file["path"] for file in row["files"])),
        ("how to get", row["how_to_get"]),
    ]
    for line in columns([(f"  {name}", value) for name, value in facts]):
        click.echo(line)


@command.command("import")
@click.argument("model")
@click.argument("folder", type=PATH)
@variant_option
@click.option("--name", default="", help="Name to keep it under, for weights of your own.")
@click.option("-o", "--output", type=PATH, help="Folder to write (default: where it is found).")
@overwrite_option
@quiet_option
def import_command(
    model: str,
    folder: Path,
    variant: str,
    name: str,
    output: Path | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    r"""Convert a published FOLDER once; afterwards MODEL finds it without --weights.

    The hashes of its files are kept: other files under the same name are an error later.

    \b
    Example:
      scdrugmap weights import scgpt Downloads/whole-human
    """
    from scdrugmap.progress import say
    from scdrugmap.registry import get_registry
    from scdrugmap.weights import import_weights

    spec = get_registry().model(model)
    target = import_weights(
        spec, folder, variant=variant, name=name, output=output, overwrite=overwrite
    )
    say(f"{model} finds its weights in:", quiet=quiet)
    click.echo(target)


@command.command("verify")
@click.argument("model")
@click.argument("folder", type=PATH)
@variant_option
@json_option
def verify_command(model: str, folder: Path, variant: str, as_json: bool) -> None:
    r"""Hash and read a FOLDER of MODEL's weights, and embed 16 synthetic cells with it.

    \b
    Example:
      scdrugmap weights verify scgpt Downloads/whole-human
    """
    from scdrugmap.model.verify import verify_weights
    from scdrugmap.registry import get_registry

    found = verify_weights(get_registry().model(model), folder, variant=variant)
    if as_json:
        print_json(found.to_dict())
        return
    show(f"{found.folder}: {found.layout} weights of {found.model}, as they should be")
    files = [
        (f"  {name}", f"{file['n_bytes']:,} bytes", file["sha256"], file["state"])
        for name, file in found.files.items()
    ]
    for line in columns(files):
        click.echo(line)
    config = ", ".join(f"{name} {value}" for name, value in found.config.items())
    cells = (
        f"{found.cells['n_genes']} genes each; distances at least "
        f"{found.cells['least_distance']:.3g}, on average {found.cells['mean_distance']:.3g}"
    )
    facts = [
        ("digest", found.digest),
        ("configuration", config),
        ("tensors", f"{len(found.tensors):,} with {found.n_parameters:,} numbers"),
        ("embedding", f"{found.dim} wide"),
        ("genes", f"{found.n_vocabulary:,}, {found.n_named:,} of them in the gene table"),
        ("16 synthetic cells", cells),
        ("tensor names", ""),
    ]
    for line in columns([(f"  {name}", value) for name, value in facts]):
        click.echo(line)
    for line in columns([(f"    {key}", str(shape)) for key, shape in found.tensors.items()]):
        click.echo(line)
    for notice in found.notices:
        show(f"Note: {notice}")


def _states(models: list[str] | None) -> list[dict[str, Any]]:
    from scdrugmap.registry import get_registry
    from scdrugmap.specs import ModelSpec
    from scdrugmap.weights import state_of_weights

    registry = get_registry()
    if models is None:
        specs = [spec for spec in registry.models.values() if isinstance(spec, ModelSpec)]
    else:
        specs = [registry.model(name) for name in models]
    return [row for spec in specs for row in state_of_weights(spec)]


def _found(row: dict[str, Any]) -> str:
    if row["found"] is None:
        return "no"
    return f"{row['found']} ({'imported' if row['imported'] else 'as published'})"
