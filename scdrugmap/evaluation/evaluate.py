"""Score predictions on the cells that a split keeps for testing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scdrugmap.errors import DataError, UsageError
from scdrugmap.evaluation.answers import (
    RUN,
    THRESHOLD,
    as_test_cells,
    beside_truth,
    join_answers,
)
from scdrugmap.evaluation.label_sets import COVERAGE, SIZE, score_sets
from scdrugmap.evaluation.levels import score_levels
from scdrugmap.evaluation.metrics import best_constant
from scdrugmap.evaluation.scores import join_notes
from scdrugmap.evaluation.tables import (
    FACET,
    FACETS,
    METRIC_COLUMNS,
    TARGET,
    headline,
    protocol_of,
    read_predictions,
    read_splits,
)

DRAWS = 2000
"""Draws of the bootstrap."""


def evaluate(
    predictions: pd.DataFrame,
    splits: pd.DataFrame,
    *,
    in_sample: bool = False,
    exclude_invalid: bool = False,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Score predictions per fold and pooled over folds, at the level of cells, samples, datasets.

    Test cells without an answer (abstained, invalid, or no prediction at all) count as wrong calls
    and as probability 0.5. Predictions of training and validation cells are left out and counted.
    The order of rows changes nothing, and equal input gives equal bytes.

    Parameters
    ----------
    predictions : DataFrame
        Columns of ``predictions.tsv``; any number of models, strategies and seeds, all made on
        `splits`.
    splits : DataFrame
        Columns of ``splits.tsv``; the truth and the test cells come from here.
    in_sample : bool
        Score training and validation cells too, and say so in every row.
    exclude_invalid : bool
        Leave cells without an answer out instead, for a secondary figure.
    draws : int
        Draws of the bootstrap; 0 for no intervals.
    seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        Columns of ``metrics.tsv``. Where the split knows tissues, cancer types, drugs or targets,
        there are rows for each of them, named in the column ``facet``. Where predictions have
        conformal sets, there are rows for their coverage and size
        (:mod:`~scdrugmap.evaluation.label_sets`).
        ``attrs["notices"]`` (tuple of str) says what was left out.

    Raises
    ------
    UsageError
        A negative number of draws or seed.
    DataError
        A table breaks its rules, the predictions were made on another split, or no row is left
        to score.
    """
    if draws < 0 or seed < 0:
        raise UsageError(f"draws ({draws}) and seed ({seed}) must not be negative")
    scored, splits, left_out = join_answers(predictions, splits, in_sample=in_sample)
    protocol = protocol_of(splits)
    rows: list[dict[str, Any]] = []
    for run, part in scored.groupby(RUN, sort=True):
        cells, note = beside_truth(part, splits)
        if cells.empty:
            left_out.append(f"{run[0]} ({run[1]}): trained on all of its test cells, not scored")
            continue
        if in_sample:
            note = join_notes("in-sample: the model was trained on some of these cells", note)
        if exclude_invalid:
            note = join_notes(
                f"{int((~cells['answered']).sum()):,} cells without answer left out", note
            )
        named = {"protocol": protocol, **dict(zip(RUN, run, strict=True))}
        for scope, chosen in _scopes(cells):
            kept = chosen[chosen["answered"]] if exclude_invalid else chosen
            if kept.empty:
                continue
            whole = scope["fold"] == "all"
            for row in _score(kept, draws=draws, seed=seed, macro=whole):
                n_invalid = int((~chosen["answered"]).sum())
                row["note"] = join_notes(row["note"], note)
                rows.append({**named, **scope, **row, "n_invalid": n_invalid})
    if not rows:
        raise DataError(
            "no cell with an answer is left to evaluate",
            hint="see the columns state and reason of the predictions",
        )
    metrics = pd.DataFrame(rows, columns=[*METRIC_COLUMNS, FACET])
    metrics.attrs["notices"] = tuple(left_out)
    return metrics


def evaluate_files(
    predictions: Sequence[Path],
    splits: Path,
    *,
    in_sample: bool = False,
    exclude_invalid: bool = False,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Score the predictions of one or more files; see :func:`evaluate`.

    Raises
    ------
    UsageError
        A file does not exist.
    DataError
        As :func:`evaluate`; one prediction stands in two files.
    """
    manifest = read_splits(splits)
    tables = [read_predictions(path) for path in predictions]
    return evaluate(
        pd.concat(tables, ignore_index=True),
        manifest,
        in_sample=in_sample,
        exclude_invalid=exclude_invalid,
        draws=draws,
        seed=seed,
    )


def describe_metrics(metrics: pd.DataFrame) -> list[str]:
    """Return the pooled figures of each model as a table of text, the best constant beside them."""
    shown = headline(metrics)
    shown = shown[shown["level"] == "cell"]
    text = [f"{'model':<28}  {'macro F1':<22}  {'constant':>8}  {'AUROC':<22}"]
    for run, part in shown.groupby(["model", "strategy", "seed"], sort=False):
        fixed = part[(part["metric"] == "macro_f1") & (part["threshold"] == THRESHOLD)]
        f1, auroc = fixed.iloc[0], part[part["metric"] == "auroc"].iloc[0]
        constant = best_constant("macro_f1", f1["n_sensitive"], f1["n"] - f1["n_sensitive"])
        name = f"{run[0]} ({run[1]}, seed {run[2]})"
        text.append(f"{name:<28}  {_figure(f1):<22}  {float(constant):>8.3f}  {_figure(auroc):<22}")
        text += [f"  {note}" for note in [f1["note"]] if note]
        for _, sets in part[part["metric"].isin((COVERAGE, SIZE))].groupby("threshold"):
            coverage, size = (sets[sets["metric"] == metric].iloc[0] for metric in (COVERAGE, SIZE))
            text.append(
                f"  sets at level {coverage['threshold']:g} hold the label of "
                f"{_figure(coverage)} of the cells; mean size {float(size['value']):.2f}"
            )
    return text


def _figure(row: pd.Series) -> str:
    if pd.isna(row["value"]):
        return "not evaluable"
    if pd.isna(row["ci_low"]):
        return f"{row['value']:.3f}"
    return f"{row['value']:.3f} ({row['ci_low']:.3f} to {row['ci_high']:.3f})"


def _scopes(cells: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """Give the test sets to score: each fold, all folds, and in all folds each dataset and facet.

    A facet with one value is no part of the test cells, and a target that is one dataset has the
    rows of that dataset already.
    """
    for fold, part in cells.groupby("fold", sort=True):
        yield {"fold": str(fold), "dataset": _dataset(part), FACET: ""}, part
    yield {"fold": "all", "dataset": _dataset(cells), FACET: ""}, cells
    if cells["dataset"].nunique() > 1:
        for dataset, part in cells.groupby("dataset", sort=True, observed=True):
            yield {"fold": "all", "dataset": str(dataset), FACET: ""}, part
    for column in (TARGET, *FACETS):
        if column not in cells or cells[column].nunique() < 2:
            continue
        if column == TARGET and (cells[TARGET] == cells["dataset"].astype(object)).all():
            continue
        for value, part in cells[cells[column] != ""].groupby(column, sort=True):
            yield {"fold": "all", "dataset": "all", FACET: f"{column}={value}"}, part


def _dataset(cells: pd.DataFrame) -> str:
    names = cells["dataset"].unique()
    return str(names[0]) if len(names) == 1 else "all"


def _score(cells: pd.DataFrame, *, draws: int, seed: int, macro: bool) -> Iterator[dict[str, Any]]:
    test, thresholds = as_test_cells(cells)
    values, spread = {"": np.nan}, ""
    for name, at in thresholds.items():
        one = bool(at.min() == at.max())
        values[name] = float(at[0]) if one else np.nan
        spread = "" if one else f"threshold tuned per fold, {at.min():.3g} to {at.max():.3g}"
    for score in score_levels(test, draws=draws, seed=seed, macro=macro):
        yield {
            "level": score.level,
            "metric": score.metric,
            "threshold": values[score.threshold],
            "value": score.value,
            "ci_low": score.ci_low,
            "ci_high": score.ci_high,
            "n": score.n,
            "n_sensitive": score.n_sensitive,
            "n_groups": score.n_groups,
            "note": join_notes(score.note, spread if score.threshold == "tuned" else ""),
        }
    yield from score_sets(cells, test, draws=draws, seed=seed, macro=macro)
