"""``scdrugmap train``: train a predictor on one fold."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from scdrugmap.cli.options import (
    PATH,
    cell_arguments,
    cell_options,
    model_options,
    output_option,
    overwrite_option,
    parse_settings,
    parse_weights,
    quiet_option,
    run_options,
)


@click.command(
    epilog="Example: scdrugmap train cohort.h5ad --splits splits.tsv --fold 0 "
    "--estimator pca-logreg -o predictor.zip"
)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=PATH)
@click.option("--splits", type=PATH, required=True, help="Table of `scdrugmap split`.")
@click.option("--fold", type=int, required=True, help="Fold whose training cells are used.")
@click.option("--estimator", metavar="NAME", help="Train this estimator on expression.")
@click.option("--model", metavar="NAME", help="Train a head on embeddings of this model.")
@click.option(
    "--strategy",
    type=click.Choice(["frozen"]),
    default="frozen",
    show_default=True,
    help="What becomes of the model: frozen leaves it as it is.",
)
@click.option(
    "--head",
    type=click.Choice(["logistic", "mlp"]),
    help="Classifier on embeddings [default: logistic; mlp for splits of the paper's family].",
)
@click.option(
    "--embeddings",
    multiple=True,
    metavar="H5AD",
    type=PATH,
    help="Embeddings made by `scdrugmap embed`, one file per input; repeatable.",
)
@click.option(
    "--max-cells",
    type=click.IntRange(min=2),
    default=50_000,
    show_default=True,
    help="Most training cells of estimators and of the logistic head, drawn evenly over groups.",
)
@click.option("--sample", metavar="COLUMN", help="Column of samples, as given to split.")
@click.option("--dataset", metavar="COLUMN", help="Column of datasets, if given to split.")
@model_options
@run_options
@cell_options
@output_option
@overwrite_option
@quiet_option
def command(
    inputs: tuple[Path, ...],
    splits: Path,
    fold: int,
    seed: int,
    estimator: str | None,
    model: str | None,
    strategy: str,
    head: Literal["logistic", "mlp"] | None,
    embeddings: tuple[Path, ...],
    max_cells: int,
    sample: str | None,
    dataset: str | None,
    weights: tuple[str, ...],
    randomize: int | None,
    settings: tuple[str, ...],
    min_genes: int | None,
    device: str,
    precision: Literal["float32", "bfloat16"],
    token_budget: int | None,
    output: Path,
    overwrite: bool,
    quiet: bool,
    **reading: Any,
) -> None:
    """Train a predictor on the training cells of one fold, and write it as one file.

    Give either --estimator (learns from expression; see `scdrugmap plugins list`) or --model (a
    head on the embeddings of an unchanged foundation model). Cells of the validation role choose
    the threshold. The file holds no cell and no weights of the model.
    """
    from scdrugmap.files import check_output
    from scdrugmap.train.train import train_files

    check_output(output, overwrite=overwrite, inputs=[*inputs, splits, *embeddings])
    name = model or estimator or ""
    predictor = train_files(
        inputs,
        splits,
        fold=fold,
        seed=seed,
        estimator=estimator,
        model=model,
        strategy=strategy,
        head=head,
        embeddings=embeddings,
        max_cells=max_cells,
        sample=sample,
        dataset=dataset,
        weights=parse_weights(weights, (name,)).get(name),
        randomize=randomize,
        settings=parse_settings(settings, (name,))[name],
        min_genes=min_genes,
        device=device,
        precision=precision,
        token_budget=token_budget,
        quiet=quiet,
        **cell_arguments(reading),
    )
    predictor.save(output, overwrite=overwrite)
