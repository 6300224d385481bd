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
from scdrugmap.cli.tuning import tuning_arguments, tuning_options


@click.command(
    epilog="Example: scdrugmap train cohort.h5ad --splits splits.tsv --fold 0 "
    "--model scgpt --strategy lora -o predictor.zip"
)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=PATH)
@click.option("--splits", type=PATH, required=True, help="Table of `scdrugmap split`.")
@click.option("--fold", type=int, required=True, help="Fold whose training cells are used.")
@click.option("--estimator", metavar="NAME", help="Train this estimator on expression.")
@click.option("--model", metavar="NAME", help="Train a head on this model, or with it.")
@click.option(
    "--strategy",
    type=click.Choice(["frozen", "lora", "full", "prompt"]),
    default="frozen",
    show_default=True,
    help="What becomes of the model: frozen leaves it as it is, lora trains adapters in it, full "
    "all of it; prompt asks a text model and fits nothing.",
)
@click.option(
    "--shots",
    type=click.IntRange(0, 50),
    default=0,
    show_default=True,
    help="With --strategy prompt: training cells of each label shown before each question.",
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
@click.option("--resume", is_flag=True, help="Go on with fine-tuning that was not finished.")
@tuning_options
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
    shots: int,
    head: Literal["logistic", "mlp"] | None,
    embeddings: tuple[Path, ...],
    max_cells: int,
    sample: str | None,
    dataset: str | None,
    resume: bool,
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
    **others: Any,
) -> None:
    """Train a predictor on the training cells of one fold, and write it as one file.

    Give either --estimator (learns from expression; see `scdrugmap plugins list`) or --model: a
    head on the embeddings of a foundation model, which --strategy lora or full trains too. Cells of
    the validation role tell when to stop, and decide temperature, threshold and conformal sets. The
    file holds no cell and no published weights of the model. Several processes, each on its GPU, train together under
    `accelerate launch -m scdrugmap train ...`.
    """
    from scdrugmap.errors import UsageError
    from scdrugmap.files import check_output
    from scdrugmap.train.checkpoint import SUFFIX, Checkpoint
    from scdrugmap.train.from_files import train_files
    from scdrugmap.train.processes import is_main_process
    from scdrugmap.train.settings import FINE_TUNING

    check_output(output, overwrite=overwrite, inputs=[*inputs, splits, *embeddings])
    checkpoint = None
    if strategy in FINE_TUNING:
        unfinished = output.with_name(output.name + SUFFIX)
        checkpoint = Checkpoint(unfinished, resume=resume, overwrite=overwrite)
    elif resume:
        raise UsageError(f"--resume does nothing with --strategy {strategy}")
    name = model or estimator or ""
    predictor = train_files(
        inputs,
        splits,
        fold=fold,
        seed=seed,
        estimator=estimator,
        model=model,
        strategy=strategy,
        shots=shots,
        tuning=tuning_arguments(others),
        checkpoint=checkpoint,
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
        quiet=quiet or not is_main_process(),
        **cell_arguments(others),
    )
    if is_main_process():
        predictor.save(output, overwrite=overwrite)
        if checkpoint is not None:
            checkpoint.remove()
