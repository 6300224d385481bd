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
    label_options,
    output_option,
    overwrite_option,
    print_json,
    quiet_option,
    split_list,
)
from scdrugmap.evaluation.protocols import PROTOCOLS


@click.command(
    epilog="Example: scdrugmap split cohort.h5ad --label response --group patient --folds 5 "
    "-o splits.tsv"
)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=PATH)
@label_options
@click.option("--group", metavar="COLUMN", help="Column of donors: patients, animals, cultures.")
@click.option("--sample", metavar="COLUMN", help="Column of samples [default: the group].")
@click.option("--study", metavar="COLUMN", help="Column of studies [default: the file's name].")
@click.option("--dataset", metavar="COLUMN", help="Column of datasets [default: the file's name].")
@click.option("--cell-line", metavar="COLUMN", help="Cells of one line in a study stay together.")
@click.option("--control", metavar="COLUMN", help="Cells of one shared control stay together.")
@click.option(
    "--protocol",
    default=next(iter(PROTOCOLS)),
    show_default=True,
    metavar="NAME",
    help=f"How to divide: {', '.join(PROTOCOLS)}.",
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
    label: str,
    sensitive: str | None,
    resistant: str | None,
    drop: str | None,
    group: str | None,
    sample: str | None,
    study: str | None,
    dataset: str | None,
    cell_line: str | None,
    control: str | None,
    protocol: str,
    folds: int,
    seed: int,
    validation: bool,
    output: Path,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    **reading: Any,
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

    check_output(output, overwrite=overwrite, inputs=inputs)
    get_protocol(protocol)
    arguments = cell_arguments(reading)
    design = read_design(
        inputs,
        label=label,
        labels=LabelMap.parse(split_list(sensitive), split_list(resistant), split_list(drop)),
        group=group,
        sample=sample,
        study=study,
        dataset=dataset,
        cell_line=cell_line,
        control=control,
        where=arguments.pop("where"),
        cell_arguments=arguments,
    )
    split = make_split(design, protocol, folds=folds, seed=seed, validation=validation)
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
