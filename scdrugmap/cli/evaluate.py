"""``scdrugmap evaluate``: score predictions, with intervals."""

from __future__ import annotations

from pathlib import Path

import click

from scdrugmap.cli.options import PATH, output_option, overwrite_option, quiet_option, seed_option


@click.command(
    epilog="Example: scdrugmap evaluate predictions.tsv --splits splits.tsv -o metrics.tsv"
)
@click.argument("predictions", nargs=-1, required=True, metavar="PREDICTIONS...", type=PATH)
@click.option("--splits", type=PATH, required=True, help="Split that the predictions were made on.")
@click.option("--in-sample", is_flag=True, help="Score training cells too, and say so.")
@click.option(
    "--exclude-invalid",
    is_flag=True,
    help="Leave cells without an answer out instead of counting them as wrong.",
)
@click.option(
    "--draws",
    type=click.IntRange(min=0),
    default=2000,
    show_default=True,
    help="Draws of the bootstrap; 0: no intervals.",
)
@click.option(
    "--comparisons", type=PATH, help="Also compare the models pair by pair, into this table."
)
@click.option(
    "--reference",
    metavar="MODEL[:STRATEGY]",
    help="Compare all others with this one [default: all pairs].",
)
@seed_option
@output_option
@overwrite_option
@quiet_option
def command(
    predictions: tuple[Path, ...],
    splits: Path,
    in_sample: bool,
    exclude_invalid: bool,
    draws: int,
    comparisons: Path | None,
    reference: str | None,
    seed: int,
    output: Path,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Score predictions on test cells: per fold, pooled, per sample and per dataset.

    Several files may hold several models, seeds and folds. Cells without an answer count as wrong;
    predictions of training cells are left out.
    """
    from scdrugmap.errors import UsageError
    from scdrugmap.evaluation.compare import compare_files
    from scdrugmap.evaluation.evaluate import describe_metrics, evaluate_files
    from scdrugmap.evaluation.tables import write_comparisons, write_metrics
    from scdrugmap.files import check_output, together
    from scdrugmap.progress import say

    check_output(output, overwrite=overwrite, inputs=[*predictions, splits])
    if comparisons is not None:
        check_output(comparisons, overwrite=overwrite, inputs=[*predictions, splits, output])
    elif reference is not None:
        raise UsageError(
            "--reference has no meaning without --comparisons", hint="name a table to write"
        )
    metrics = evaluate_files(
        predictions,
        splits,
        in_sample=in_sample,
        exclude_invalid=exclude_invalid,
        draws=draws,
        seed=seed,
    )
    with together(output, comparisons):
        write_metrics(metrics, output)
        for notice in metrics.attrs["notices"]:
            say(f"Note: {notice}", quiet=quiet)
        for line in describe_metrics(metrics):
            say(line, quiet=quiet)
        if comparisons is None:
            return
        compared = compare_files(predictions, splits, reference=reference, draws=draws, seed=seed)
        write_comparisons(compared, comparisons)
        for notice in compared.attrs["notices"]:
            say(f"Note: {notice}", quiet=quiet)
        say(f"{len(compared):,} comparisons: {comparisons}", quiet=quiet)
