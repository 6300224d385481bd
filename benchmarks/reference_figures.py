"""Reference figures on two real datasets, through the project's own functions.

    python benchmarks/reference_figures.py melanoma.h5ad pc9.h5ad

The first file holds cells of many patients (``obs`` columns ``response`` and ``patient``), the
second one library per label (``response``, ``sample``). Printed are AUROCs over cells, pooled out of
fold: the mean over split seeds, its range, and for splits between patients the bootstrap interval.
Neither file is part of the project.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import pandas as pd

from scdrugmap.data.cells import Cells, open_cells
from scdrugmap.data.labels import LabelMap
from scdrugmap.errors import DataError
from scdrugmap.evaluation.design import Design, read_design
from scdrugmap.evaluation.evaluate import evaluate
from scdrugmap.evaluation.splits import make_split, permute_labels
from scdrugmap.evaluation.tables import headline
from scdrugmap.progress import Progress
from scdrugmap.run.jobs import cells_of, one_thread
from scdrugmap.train.predict import predict_cells
from scdrugmap.train.train import train_predictor

ESTIMATORS = ("hvg-logreg", "pca-logreg")
FOLDS = 5


def auroc(
    cells: Cells, design: Design, protocol: str, estimator: str, seed: int, draws: int = 0
) -> tuple[float, float, float]:
    """Return the pooled out-of-fold AUROC of one split, and its interval."""
    splits = make_split(design, protocol, folds=FOLDS, seed=seed).table
    parts = []
    for fold in sorted(splits["fold"].unique()):
        predictor = train_predictor(
            [cells], splits, fold=int(fold), estimator=estimator, quiet=True
        )
        test = splits[(splits["fold"] == fold) & (splits["role"] == "test")]
        parts.append(predict_cells(predictor, cells_of(cells, test), splits=splits, quiet=True))
    metrics = headline(evaluate(pd.concat(parts, ignore_index=True), splits, draws=draws))
    row = metrics[(metrics["metric"] == "auroc") & (metrics["level"] == "cell")].iloc[0]
    return float(row["value"]), float(row["ci_low"]), float(row["ci_high"])


def show(title: str, values: Sequence[tuple[float, float, float]]) -> None:
    """Print one line of the table."""
    table = np.array(values)
    line = (
        f"{title:<58} {table[:, 0].mean():.3f}  [{table[:, 0].min():.3f}, {table[:, 0].max():.3f}]"
    )
    if np.isfinite(table[:, 1]).all():
        line += f"  interval {table[:, 1].mean():.2f} to {table[:, 2].mean():.2f}"
    click.echo(f"{line}  n = {len(values)}")


@click.command()
@click.argument("melanoma", required=False, type=click.Path(path_type=Path))
@click.argument("pc9", required=False, type=click.Path(path_type=Path))
@click.option("--seeds", default=5, show_default=True, help="Split seeds of each figure.")
@click.option("--permutations", default=20, show_default=True, help="Of the labels over patients.")
def main(melanoma: Path | None, pc9: Path | None, seeds: int, permutations: int) -> None:
    """Print the figures."""
    if melanoma is None or pc9 is None:
        click.echo("skipped: name a melanoma file and a PC9 file", err=True)
        return
    labels = LabelMap.parse()
    click.echo(f"{'AUROC over cells, pooled out of fold':<58} mean   [range over splits]")
    with open_cells(melanoma) as cells:
        design = read_design([melanoma], label="response", labels=labels, group="patient")
        for estimator in ESTIMATORS:
            tasks = [("paper-pooled", s, 0) for s in range(seeds)]
            tasks += [("pooled-group", s, 2000) for s in range(seeds)]
            with Progress(f"{cells.name}, {estimator}", len(tasks), "splits") as progress:
                found: dict[str, list[tuple[float, float, float]]] = {}
                for protocol, seed, draws in tasks:
                    one = auroc(cells, design, protocol, estimator, seed, draws)
                    found.setdefault(protocol, []).append(one)
                    progress.advance(1)
            show(f"{cells.name}, {estimator}, random cells", found["paper-pooled"])
            show(f"{cells.name}, {estimator}, patients kept together", found["pooled-group"])
            gap = np.mean([v[0] for v in found["paper-pooled"]])
            gap -= np.mean([v[0] for v in found["pooled-group"]])
            click.echo(f"{'  difference':<58} {gap:.3f}")
        with Progress(f"{cells.name}, permuted", permutations, "permutations") as progress:
            permuted = []
            for number in range(permutations):
                dealt = permute_labels(design, number)
                permuted.append(auroc(cells, dealt, "paper-pooled", ESTIMATORS[0], number))
                progress.advance(1)
        show(f"{cells.name}, {ESTIMATORS[0]}, labels permuted, random cells", permuted)
    with open_cells(pc9) as cells:
        design = read_design([pc9], label="response", labels=labels, group="sample")
        try:
            make_split(design, "pooled-group", folds=FOLDS)
        except DataError as err:
            click.echo(f"{cells.name}: pooled-group is refused: {err.message}")
        else:
            click.echo(f"{cells.name}: pooled-group is NOT refused", err=True)
            sys.exit(1)
        for estimator in ESTIMATORS:
            values = [auroc(cells, design, "paper-pooled", estimator, s) for s in range(seeds)]
            show(f"{cells.name}, {estimator}, random cells", values)


if __name__ == "__main__":
    with one_thread():
        main()
