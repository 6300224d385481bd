"""``scdrugmap split``: divide labelled cells into folds that do not leak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from scdrugmap.cli.options import (
    PATH,
    cell_arguments,
    cell_options,
    json_option,
    label_words,
    output_option,
    overwrite_option,
    print_json,
    quiet_option,
    split_list,
)
from scdrugmap.errors import UsageError
from scdrugmap.evaluation.protocols import FEW_SHOT, PROTOCOLS, SHOTS

_NAMES = [name for name in PROTOCOLS if not name.startswith(FEW_SHOT)]


@click.command(
    epilog="Example: scdrugmap split cohort.h5ad --label response --group patient --folds 5 "
    "-o splits.tsv"
)
@click.argument("inputs", nargs=-1, metavar="[INPUT...]", type=PATH)
@click.option(
    "--samplesheet",
    type=PATH,
    metavar="CSV",
    help="Table with a line per sample: file, label, donor, ...; instead of INPUT and columns.",
)
@click.option(
    "--label", help="Column of obs with the response; needed unless a samplesheet has it."
)
@label_words
@click.option("--group", metavar="COLUMN", help="Column of donors: patients, animals, cultures.")
@click.option("--sample", metavar="COLUMN", help="Column of samples [default: the group].")
@click.option("--study", metavar="COLUMN", help="Column of studies [default: the file's name].")
@click.option("--dataset", metavar="COLUMN", help="Column of datasets [default: the file's name].")
@click.option("--cell-line", metavar="COLUMN", help="Cells of one line in a study stay together.")
@click.option("--control", metavar="COLUMN", help="Cells of one shared control stay together.")
@click.option("--tissue", metavar="COLUMN", help="Column of tissues, to group results by.")
@click.option("--cancer-type", metavar="COLUMN", help="Column of cancer types (loco).")
@click.option("--drug-type", metavar="COLUMN", help="Column of drug types, to group results by.")
@click.option("--drug", metavar="COLUMN", help="Column of drugs or regimens (lodrug).")
@click.option("--collection", metavar="COLUMN", help="Column of primary and external (external).")
@click.option(
    "--protocol",
    default=next(iter(PROTOCOLS)),
    show_default=True,
    metavar="NAME",
    help=f"How to divide: {', '.join(_NAMES)}; or {FEW_SHOT}, with --shots.",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="NAME",
    help="Hold out this dataset, study, cancer type or drug only; repeatable. For external: an "
    "external dataset.",
)
@click.option(
    "--shots",
    type=int,
    metavar="N",
    help=f"With --protocol few-shot: labelled samples per class, {', '.join(map(str, SHOTS))}.",
)
@click.option(
    "--shot-unit",
    type=click.Choice(["sample", "cell"]),
    help="What --shots counts: whole samples, or cells of as many samples [default: sample].",
)
@click.option(
    "--draws", type=int, default=10, show_default=True, help="Draws of labelled samples per target."
)
@click.option("--folds", type=int, default=5, show_default=True, help="Number of folds.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the split.")
@click.option("--validation", is_flag=True, help="Set a fifth of the training groups aside.")
@cell_options
@output_option
@overwrite_option
@json_option
@quiet_option
def command(
    inputs: tuple[Path, ...],
    samplesheet: Path | None,
    sensitive: str | None,
    resistant: str | None,
    drop: str | None,
    protocol: str,
    targets: tuple[str, ...],
    shots: int | None,
    shot_unit: str | None,
    draws: int,
    folds: int,
    seed: int,
    validation: bool,
    output: Path,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Divide labelled cells into folds, and write which cell is trained on and which is tested.

    Cells of one donor or sample, and copies of a cell, stay on one side of every fold. The
    protocol says what is held out; paper-pooled divides cells at random, as much of the literature
    does, and is no evidence.
    """
    from scdrugmap.data.labels import LabelMap
    from scdrugmap.evaluation.design import read_design
    from scdrugmap.evaluation.protocols import get_protocol
    from scdrugmap.evaluation.splits import make_split
    from scdrugmap.evaluation.tables import write_splits
    from scdrugmap.files import check_output
    from scdrugmap.progress import say

    arguments = cell_arguments(given)
    if samplesheet is not None:
        inputs, given = _described(samplesheet, inputs, given, arguments)
    if not inputs or given["label"] is None:
        raise UsageError(
            "name the files and --label COLUMN, or a --samplesheet",
            hint="as in: scdrugmap split cohort.h5ad --label response --group patient -o splits.tsv",
        )
    sheets = [] if samplesheet is None else [samplesheet]
    check_output(output, overwrite=overwrite, inputs=[*inputs, *sheets])
    protocol = _with_shots(protocol, shots, shot_unit)
    get_protocol(protocol)
    design = read_design(
        inputs,
        labels=LabelMap.parse(split_list(sensitive), split_list(resistant), split_list(drop)),
        where=arguments.pop("where"),
        cell_arguments=arguments,
        **given,
    )
    split = make_split(
        design,
        protocol,
        folds=folds,
        seed=seed,
        validation=validation,
        targets=targets,
        draws=draws,
    )
    write_splits(split.table, output)
    for notice in split.notices:
        say(f"Note: {notice}", quiet=quiet)
    for line in split.lines():
        say(line, quiet=quiet)
    if as_json:
        print_json(
            {
                "protocol": split.protocol.name,
                "family": split.protocol.family,
                "question": split.protocol.question,
                "split_id": split.split_id,
                "folds": split.summary(),
                "notices": split.notices,
            }
        )


def _described(
    samplesheet: Path, inputs: tuple[Path, ...], given: dict[str, Any], arguments: dict[str, Any]
) -> tuple[tuple[Path, ...], dict[str, Any]]:
    """Return files and columns as a samplesheet says them; what the user says himself wins."""
    from scdrugmap.data.samplesheet import read_samplesheet

    sheet = arguments["sheet"] = read_samplesheet(samplesheet)
    own = {name: column for name, column in given.items() if column is not None}
    return inputs or sheet.files, {**given, **sheet.columns(), **own}


def _with_shots(protocol: str, shots: int | None, unit: str | None) -> str:
    """Return the protocol that ``few-shot --shots N --shot-unit U`` means."""
    from scdrugmap.evaluation.protocols import few_shot_name

    if protocol == FEW_SHOT:
        return few_shot_name(SHOTS[0] if shots is None else shots, unit or "sample")
    if shots is not None or unit is not None:
        raise UsageError(
            f"--shots and --shot-unit have no meaning for protocol {protocol}",
            hint=f"use --protocol {FEW_SHOT}",
        )
    return protocol
