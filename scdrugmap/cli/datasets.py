"""``scdrugmap datasets``: list, show, add, remove, fetch, prepare and simulate datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from scdrugmap.cli.options import (
    PATH,
    json_option,
    label_options,
    output_option,
    overwrite_option,
    print_json,
    quiet_option,
    seed_option,
    split_list,
)
from scdrugmap.cli.text import columns, show


@click.group(epilog="Example: scdrugmap datasets simulate -o cohort.h5ad --seed 0")
def command() -> None:
    """List, show, add, fetch, prepare and simulate datasets."""


@command.command(
    "list", epilog="Example: scdrugmap datasets list --cancer melanoma --drug-type imm"
)
@click.option("--tissue", default="", metavar="TEXT", help="Tissue, or a part of its name.")
@click.option("--cancer", default="", metavar="TEXT", help="Cancer, or a part of its name.")
@click.option("--drug", default="", metavar="NAME", help="A drug of the regimen.")
@click.option("--drug-type", default="", metavar="TEXT", help="As immunotherapy, or a part of it.")
@click.option("--platform", default="", metavar="TEXT", help="As 10x, or a part of it.")
@click.option("--collection", default="", metavar="TEXT", help="primary or external.")
@click.option("--accession", default="", metavar="TEXT", help="As GSE140440.")
@json_option
def list_datasets(drug: str, as_json: bool, **wanted: str) -> None:
    """List the paper's datasets, those that plugins offer and those you added.

    The paper's have no cells here: `scdrugmap datasets show NAME` says where they are published.
    """
    from scdrugmap.data.catalogue import all_datasets, select_datasets

    entries = select_datasets(all_datasets(), wanted, drug=drug)
    if as_json:
        print_json([entry.to_dict() for entry in entries.values()])
        return
    rows = [("DATASET", "CELLS", "FROM", "ACCESSION OR FILE", "WHAT")]
    for name, entry in entries.items():
        facts = entry.spec.facts
        rows.append(
            (
                name,
                _text(facts.get("n_cells")),
                entry.source,
                entry.spec.path or _text(facts.get("accession")),
                entry.spec.title,
            )
        )
    for line in columns(rows):
        click.echo(line)


@command.command("show", epilog="Example: scdrugmap datasets show mycohort")
@click.argument("name")
@json_option
def show_dataset(name: str, as_json: bool) -> None:
    """Show all that is known of one dataset."""
    from scdrugmap.data.catalogue import get_dataset

    entry = get_dataset(name)
    if as_json:
        print_json(entry.to_dict())
        return
    spec = entry.spec.model_dump(mode="json", exclude={"facts"})
    shown = {**spec, "from": entry.source, **entry.spec.facts}
    for line in columns([(key, _text(value)) for key, value in shown.items() if value]):
        click.echo(line)
    for correction in entry.corrections:
        show(
            f"corrected: {correction.column} was published as {correction.source!r} "
            f"({correction.reason})"
        )
    for note in entry.notes:
        show(f"note: {note}")


@command.command(
    "add", epilog="Example: scdrugmap datasets add my.h5ad --label response --group patient"
)
@click.argument("path", metavar="FILE", type=PATH)
@label_options
@click.option("--group", default="", metavar="COLUMN", help="Column of patients or cultures.")
@click.option("--name", default="", help="Name of the dataset [default: that of the file].")
@click.option("--title", default="", help="What it is, in a few words.")
@overwrite_option
@quiet_option
def add(
    path: Path,
    sensitive: str | None,
    resistant: str | None,
    drop: str | None,
    quiet: bool,
    **given: Any,
) -> None:
    """Register a cohort of your own under a name; the file stays where it is."""
    from scdrugmap.data.catalogue import add_dataset
    from scdrugmap.progress import say

    spec = add_dataset(
        path,
        sensitive=split_list(sensitive),
        resistant=split_list(resistant),
        drop=split_list(drop),
        **given,
    )
    facts = spec.facts
    say(
        f"{spec.name}: {facts['n_cells']:,} cells, {facts['n_sensitive']:,} sensitive, "
        f"{facts['n_resistant']:,} resistant",
        quiet=quiet,
    )


@command.command("remove", epilog="Example: scdrugmap datasets remove mycohort")
@click.argument("name")
def remove(name: str) -> None:
    """Forget a dataset you added; the file stays."""
    from scdrugmap.data.catalogue import remove_dataset

    remove_dataset(name)


@command.command(
    "fetch", epilog="Example: scdrugmap datasets fetch GSE149214 -o raw/GSE149214 --dry-run"
)
@click.argument("accession")
@click.option(
    "-o", "--output", type=PATH, required=True, help="Folder for the files; one per series."
)
@click.option(
    "--files", metavar="PATTERN[,PATTERN]", help="Only files of such names [default: all]."
)
@click.option("--mirror", metavar="URL", help="Another server with the folders of all series.")
@click.option("--dry-run", is_flag=True, help="List the files and their sizes only.")
@click.option("--overwrite", is_flag=True, help="Take files that differ from those fetched before.")
@quiet_option
def fetch(
    accession: str,
    output: Path,
    files: str | None,
    mirror: str | None,
    dry_run: bool,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Fetch the supplementary files of a GEO series over HTTPS.

    A broken transfer goes on where it broke when the command is run again. The hash of each file
    is noted at the first download; a file that differs later is an error.
    """
    from scdrugmap.data.geo import MIRROR, fetch_series

    chosen = fetch_series(
        accession,
        output,
        patterns=split_list(files),
        mirror=mirror or MIRROR,
        dry_run=dry_run,
        overwrite=overwrite,
        quiet=quiet,
    )
    if dry_run:
        rows = [("FILE", "BYTES")]
        rows += [
            (file.name, "" if file.n_bytes is None else f"{file.n_bytes:,}") for file in chosen
        ]
        for line in columns(rows):
            click.echo(line)


@command.command(
    "prepare",
    epilog="Example: scdrugmap datasets prepare GSE149214 --from raw/GSE149214 -o pc9.h5ad",
)
@click.argument("accession", required=False)
@click.option("--recipe", type=PATH, help="A recipe of your own (YAML) instead of a shipped one.")
@click.option(
    "--from", "folder", type=PATH, required=True, help="Folder that `datasets fetch` has filled."
)
@click.option(
    "--accept-draft",
    is_flag=True,
    help="Take a recipe whose labels nobody has checked against a public text.",
)
@output_option
@overwrite_option
@quiet_option
def prepare(
    accession: str | None,
    recipe: Path | None,
    folder: Path,
    accept_draft: bool,
    output: Path,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Make one h5ad file with labels of the files of a GEO series.

    A recipe says which file holds which sample and what its cells responded; `datasets recipe`
    shows it. Only genes that all files have are kept.
    """
    from scdrugmap.data.prepare import prepare_series
    from scdrugmap.errors import UsageError
    from scdrugmap.progress import say

    if (accession is None) == (recipe is None):
        raise UsageError("name an accession or a --recipe, not both")
    done = prepare_series(
        accession or str(recipe),
        folder,
        output,
        accept_draft=accept_draft,
        overwrite=overwrite,
        quiet=quiet,
    )
    labels = ", ".join(f"{n:,} {word or 'without label'}" for word, n in done.labels.items())
    say(f"{output}: {done.n_cells:,} cells, {done.n_genes:,} genes; {labels}", quiet=quiet)


@command.command("recipe", epilog="Example: scdrugmap datasets recipe GSE149214")
@click.argument("accession", required=False)
@json_option
def recipe_of(accession: str | None, as_json: bool) -> None:
    """Show how the files of a series are read and labelled; without a name, list the recipes."""
    from scdrugmap.data.recipe import read_recipe, recipe_names

    recipes = [read_recipe(name) for name in ([accession] if accession else recipe_names())]
    if as_json:
        print_json([recipe.model_dump(mode="json") for recipe in recipes])
        return
    if accession is None:
        rows = [("SERIES", "STATE", "WHAT")]
        rows += [(r.accession, "draft" if r.draft else "verified", r.title) for r in recipes]
        for line in columns(rows):
            click.echo(line)
        return
    import json

    click.echo(json.dumps(recipes[0].model_dump(mode="json"), indent=2, ensure_ascii=False))


@command.command("simulate", epilog="Example: scdrugmap datasets simulate -o cohort.h5ad --seed 0")
@output_option
@seed_option
@click.option("--patients", "n_patients", type=int, help="Number of patients.")
@click.option("--cells-per-patient", type=int, help="Mean number of cells of a patient.")
@click.option(
    "--genes", "n_genes", type=click.IntRange(1, 15_000), help="Number of genes, protein coding."
)
@click.option("--programme-genes", type=int, help="Number of genes that respond.")
@click.option("--signal", type=float, help="Log fold change of the response; about 1 is strong.")
@click.option("--patient-effect", type=float, help="How much patients differ in a gene (log).")
@overwrite_option
@quiet_option
def simulate(output: Path, overwrite: bool, quiet: bool, **given: Any) -> None:
    """Simulate a cohort with known truth, on which a random split of cells looks excellent.

    Patients differ strongly, responders from non-responders only weakly, and all cells of a
    patient share one response: the demonstration of why cells of one patient must stay together.
    """
    from scdrugmap.data.simulate import simulation, write_cohort
    from scdrugmap.progress import say

    settings = simulation(**{key: value for key, value in given.items() if value is not None})
    write_cohort(settings, output, overwrite=overwrite)
    say(
        f"{output}: simulated {settings.n_patients * settings.cells_per_patient:,} cells of "
        f"{settings.n_patients} patients, {settings.n_genes:,} genes",
        quiet=quiet,
    )


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
