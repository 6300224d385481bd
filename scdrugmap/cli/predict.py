"""``scdrugmap predict``: predict which cells are sensitive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from scdrugmap.cli.options import (
    PATH,
    cell_arguments,
    cell_options,
    device_option,
    mismatch_option,
    overwrite_option,
    parse_settings,
    parse_weights,
    quiet_option,
)
from scdrugmap.cli.text import show
from scdrugmap.cli.text_options import prompting, take_text_options, text_options
from scdrugmap.errors import UsageError


@click.command(
    epilog="Example: scdrugmap predict cohort.h5ad --predictor predictor.zip -o predictions.tsv"
)
@click.argument("source", metavar="INPUT", type=PATH)
@click.option("--predictor", type=PATH, help="File made by `scdrugmap train`.")
@click.option(
    "--model",
    metavar="NAME",
    help="Instead of a predictor: ask this text model, without any training.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="[MODEL.]KEY=VALUE",
    help="Option of --model; repeatable.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Text models: print a real prompt and what the run would cost; send nothing.",
)
@click.option("--splits", type=PATH, help="Split of the training: gives each cell its role.")
@click.option("--h5ad", type=PATH, metavar="OUT.h5ad", help="Write the answers as AnnData too.")
@click.option(
    "--key-added",
    default="scdrugmap",
    show_default=True,
    metavar="NAME",
    help="Prefix of the keys in --h5ad.",
)
@click.option("--samples-table", type=PATH, metavar="OUT.tsv", help="Write one row per sample too.")
@click.option(
    "--cells-table",
    type=PATH,
    metavar="OUT.tsv",
    help="Write what else is known of each cell: distance to the training cells, conformal set.",
)
@click.option(
    "--summary",
    type=PATH,
    metavar="OUT.json",
    help="Write genes read, cells far off, conformal sets and samples as JSON.",
)
@click.option(
    "--sample",
    metavar="COLUMN",
    help="Column of samples, for the table of samples and for models whose cells see each other "
    "[default: that of training].",
)
@click.option(
    "--min-cells",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="Fewest predicted cells of a sample that something is said about.",
)
@click.option(
    "--conformal-level",
    type=float,
    metavar="LEVEL",
    help="Level of the conformal sets, 0.5 to 0.99 [default: 0.9, if the predictor has any].",
)
@mismatch_option
@click.option("--dataset", metavar="COLUMN", help="Column of datasets, if given to split.")
@click.option(
    "--drug", metavar="NAME", help="Drug of interest; warns if it is not the trained one."
)
@click.option(
    "--weights",
    multiple=True,
    metavar="[MODEL=]DIR",
    help="Folder of the model's weights, if they are not where weights are kept.",
)
@click.option("--min-genes", type=int, help="Fewest known genes to go on with.")
@device_option
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    help="Arithmetic of the network [default: that of the training].",
)
@click.option("--token-budget", type=click.IntRange(min=1), help="Most tokens in a batch.")
@text_options
@cell_options
@click.option("-o", "--output", type=PATH, help="File to write, whole or not at all.")
@overwrite_option
@quiet_option
def command(
    source: Path,
    predictor: Path | None,
    model: str | None,
    settings: tuple[str, ...],
    dry_run: bool,
    splits: Path | None,
    h5ad: Path | None,
    key_added: str,
    samples_table: Path | None,
    cells_table: Path | None,
    summary: Path | None,
    min_cells: int,
    conformal_level: float | None,
    allow_mismatch: bool,
    sample: str | None,
    dataset: str | None,
    drug: str | None,
    weights: tuple[str, ...],
    min_genes: int | None,
    device: str,
    precision: str | None,
    token_budget: int | None,
    output: Path | None,
    overwrite: bool,
    quiet: bool,
    **reading: Any,
) -> None:
    """Predict every cell of a file; labels are never needed.

    The predictor first predicts its own synthetic cells again and stops if anything has changed.
    Cells that it was trained on are recognised by content and marked with the role train. How many
    cells lie further from the training cells than 99 % of those do is said at the end: do not
    trust predictions of samples that are mostly out there.

    With --model a text model is asked about each cell, without any training; what is sent, to whom
    and at what cost is shown by --dry-run.
    """
    from scdrugmap.files import check_different, check_output
    from scdrugmap.text.fit import ask_model
    from scdrugmap.text.preview import preview_file
    from scdrugmap.train.predict import predict_file
    from scdrugmap.train.predictor import Predictor

    if (predictor is None) == (model is None):
        raise UsageError(
            "give either --predictor or --model",
            hint="a predictor is made by `scdrugmap train`; a text model answers without one",
        )
    how_to_ask = prompting(
        take_text_options(reading),
        drug=drug,
        device=device,
        precision=precision,
        token_budget=token_budget,
        quiet=quiet,
    )
    if model is not None:
        bundle = ask_model(
            model,
            settings=parse_settings(settings, (model,))[model],
            weights=parse_weights(weights, (model,)).get(model),
            prompting=how_to_ask,
        )
    elif settings:
        raise UsageError(
            "--set is for --model: a predictor holds its options",
            hint="leave it out, or train again",
        )
    else:
        assert predictor is not None
        bundle = Predictor.load(predictor)
    if dry_run:
        shown = preview_file(
            source, bundle, prompting=how_to_ask, sample=sample, **cell_arguments(reading)
        )
        for line in shown.split("\n"):
            show(line)
        return
    if output is None:
        raise UsageError("nowhere to write", hint="name a file with -o")
    if bundle.info.strategy == "prompt" and cells_table is None:
        # Each answer is written as it came, so that a result can be traced to its prompt.
        cells_table = output.with_name(f"{output.name.partition('.')[0]}.answers.tsv")
    wanted = (output, h5ad, samples_table, cells_table, summary)
    outputs = [path for path in wanted if path is not None]
    inputs = [path for path in (source, predictor, splits) if path is not None]
    for path in outputs:
        check_output(path, overwrite=overwrite, inputs=inputs)
    check_different(outputs)
    name = bundle.info.name
    predict_file(
        source,
        bundle,
        output,
        splits=splits,
        h5ad=h5ad,
        samples_table=samples_table,
        cells_table=cells_table,
        summary=summary,
        min_cells=min_cells,
        conformal_level=conformal_level,
        allow_mismatch=allow_mismatch,
        key_added=key_added,
        sample=sample,
        dataset=dataset,
        drug=drug,
        weights=parse_weights(weights, (name,)).get(name),
        min_genes=min_genes,
        device=device,
        precision=precision,
        token_budget=token_budget,
        prompting=how_to_ask if bundle.info.strategy == "prompt" else None,
        quiet=quiet,
        **cell_arguments(reading),
    )
