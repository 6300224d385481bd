"""``scdrugmap explain``: show which genes drive a predictor's answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from scdrugmap.cli.options import (
    PATH,
    cell_arguments,
    cell_options,
    device_option,
    json_option,
    label_words,
    mismatch_option,
    output_option,
    overwrite_option,
    parse_weights,
    print_json,
    quiet_option,
    seed_option,
    split_list,
)
from scdrugmap.errors import UsageError


@click.command(
    epilog="Example: scdrugmap explain cohort.h5ad --predictor predictor.zip --label response "
    "--sample patient -o genes.tsv --figures figures/"
)
@click.argument("source", metavar="INPUT", type=PATH)
@click.option(
    "--predictor",
    "predictors",
    type=PATH,
    multiple=True,
    required=True,
    help="File made by `scdrugmap train`; repeatable: several (seeds, folds) are compared.",
)
@click.option(
    "--method",
    type=click.Choice(["auto", "gradients", "coefficients", "permutation"]),
    default="auto",
    show_default=True,
    help="auto: gradients of models, coefficients of linear estimators, else permutation.",
)
@click.option(
    "--baseline",
    type=click.Choice(["zero", "mean"]),
    default="zero",
    show_default=True,
    help="What gradients compare with: no vector, or the mean vector of the cell's genes.",
)
@click.option(
    "--steps",
    type=click.IntRange(2, 5000),
    default=50,
    show_default=True,
    help="Points between baseline and cell at which a gradient is taken.",
)
@click.option(
    "--max-cells",
    type=click.IntRange(min=10),
    default=500,
    show_default=True,
    help="Most cells, drawn evenly over samples.",
)
@click.option(
    "--max-genes",
    type=click.IntRange(min=2),
    default=200,
    show_default=True,
    help="Most genes that --method permutation looks at, by variance.",
)
@click.option(
    "--check-genes",
    type=click.IntRange(min=0),
    default=24,
    show_default=True,
    help="Genes that are permuted to check another method; 0: none.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="Genes of the table of each sample.",
)
@click.option("--sample", metavar="COLUMN", help="Column of samples [default: that of training].")
@click.option("--label", metavar="COLUMN", help="Column of obs with the response.")
@label_words
@click.option(
    "--de-unit",
    "unit",
    type=click.Choice(["auto", "sample", "cell"]),
    default="auto",
    show_default=True,
    help="What differential expression is tested over; auto: samples if there are enough.",
)
@click.option("--figures", type=PATH, metavar="FOLDER", help="Draw the figures into this folder.")
@click.option(
    "--image",
    type=click.Choice(["svg", "png"]),
    default="svg",
    show_default=True,
    help="Format of the figures.",
)
@click.option("--summary", type=PATH, metavar="OUT.json", help="Write all but the table as JSON.")
@click.option(
    "--weights",
    multiple=True,
    metavar="[MODEL=]DIR",
    help="Folder of a model's weights, if they are not where weights are kept.",
)
@mismatch_option
@click.option("--min-genes", type=int, help="Fewest known genes to go on with.")
@device_option
@click.option("--token-budget", type=click.IntRange(min=1), help="Most tokens in a batch.")
@seed_option
@cell_options
@output_option
@overwrite_option
@json_option
@quiet_option
def command(
    source: Path,
    predictors: tuple[Path, ...],
    sample: str | None,
    label: str | None,
    sensitive: str | None,
    resistant: str | None,
    drop: str | None,
    unit: Literal["auto", "sample", "cell"],
    figures: Path | None,
    image: Literal["svg", "png"],
    summary: Path | None,
    weights: tuple[str, ...],
    allow_mismatch: bool,
    min_genes: int | None,
    device: str,
    token_budget: int | None,
    output: Path,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Explain which genes drive the answers of a predictor, and how sure that is.

    Writes one row per gene for all cells, each class and each sample: its mean attribution, its
    share in all attributions, its rank and how much the rank moves, whether more of it speaks for
    sensitive, and, with --label, its differential expression. A gene that drives a prediction is
    not for that reason a cause of the response.

    Models are explained by integrated gradients (needs the extra `explain`), and every method is
    checked by permuting some genes. With several predictors their rankings are compared.
    """
    from scdrugmap.data.labels import LabelMap
    from scdrugmap.explanation.explain import FIGURES, explain_file, name_predictors
    from scdrugmap.explanation.settings import read_settings
    from scdrugmap.files import check_different, check_output
    from scdrugmap.train.predictor import Predictor

    reading = cell_arguments(given)
    settings = read_settings(given)
    words = [split_list(text) for text in (sensitive, resistant, drop)]
    if any(words) and label is None:
        raise UsageError(
            "--sensitive, --resistant and --drop need the column they are of",
            hint="name it: --label COLUMN",
        )
    if figures is not None and figures.exists() and not figures.is_dir():
        raise UsageError(f"{figures} is no folder", hint="name a folder for --figures")
    inputs = [source, *predictors]
    outputs = [path for path in (output, summary) if path is not None]
    for path in outputs:
        check_output(path, overwrite=overwrite, inputs=inputs)
    drawn = [] if figures is None else [figures / f"{name}.{image}" for name in FIGURES]
    for path in drawn:
        if path.exists():
            check_output(path, overwrite=overwrite, inputs=inputs)
    check_different([*outputs, *drawn])
    bundles = {name: Predictor.load(path) for name, path in name_predictors(predictors).items()}
    models = tuple({bundle.info.name for bundle in bundles.values()})
    found = explain_file(
        source,
        bundles,
        output,
        figures=figures,
        image=image,
        summary=summary,
        settings=settings,
        sample=sample,
        label=label,
        labels=LabelMap.parse(*words) if label is not None else None,
        unit=unit,
        weights=parse_weights(weights, models),
        device=device,
        token_budget=token_budget,
        min_genes=min_genes,
        allow_mismatch=allow_mismatch,
        reading=reading,
        quiet=quiet,
    )
    if as_json:
        print_json(found.record())
