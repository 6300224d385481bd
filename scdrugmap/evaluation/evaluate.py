"""Score predictions on the cells that a split keeps for testing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scdrugmap.data.labels import target
from scdrugmap.errors import DataError, UsageError
from scdrugmap.evaluation.levels import TestCells, score_levels
from scdrugmap.evaluation.metrics import best_constant
from scdrugmap.evaluation.tables import (
    DRAW,
    FACET,
    FACETS,
    METRIC_COLUMNS,
    TARGET,
    check_predictions,
    check_splits,
    headline,
    protocol_of,
    read_predictions,
    read_splits,
)

DRAWS = 2000
"""Draws of the bootstrap."""
THRESHOLD = 0.5
"""At or above it a call is sensitive, where no other threshold was tuned."""

_RUN = ["model", "strategy", "seed"]
_ORIGIN = ["dataset", "sample", "group", "study"]


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
        there are rows for each of them, named in the column ``facet``.
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
    check_splits(splits)
    check_predictions(predictions)
    splits = splits.sort_values(["dataset", "cell", "fold"], kind="stable", ignore_index=True)
    scored, left_out = _join(predictions.reset_index(drop=True), splits, in_sample=in_sample)
    protocol = protocol_of(splits)
    rows: list[dict[str, Any]] = []
    for run, part in scored.groupby(_RUN, sort=True):
        cells, note = _with_missing(part, splits)
        if cells.empty:
            left_out.append(f"{run[0]} ({run[1]}): trained on all of its test cells, not scored")
            continue
        if in_sample:
            note = _notes("in-sample: the model was trained on some of these cells", note)
        if exclude_invalid:
            note = _notes(
                f"{int((~cells['answered']).sum()):,} cells without answer left out", note
            )
        named = {"protocol": protocol, **dict(zip(_RUN, run, strict=True))}
        for scope, chosen in _scopes(cells):
            kept = chosen[chosen["answered"]] if exclude_invalid else chosen
            if kept.empty:
                continue
            for row in _score(kept, draws=draws, seed=seed):
                n_invalid = int((~chosen["answered"]).sum())
                row["note"] = _notes(row["note"], note)
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
    return text


def _figure(row: pd.Series) -> str:
    if pd.isna(row["value"]):
        return "not evaluable"
    if pd.isna(row["ci_low"]):
        return f"{row['value']:.3f}"
    return f"{row['value']:.3f} ({row['ci_low']:.3f} to {row['ci_high']:.3f})"


def _join(
    predictions: pd.DataFrame, splits: pd.DataFrame, *, in_sample: bool
) -> tuple[pd.DataFrame, list[str]]:
    """Find the row of the split of each prediction, and keep what may be scored.

    Returns
    -------
    DataFrame
        The predictions kept, with ``row``, their position in `splits`.
    list of str
        What was left out.
    """
    key = ["dataset", "cell", "fold"]
    place = splits[key].assign(row=np.arange(len(splits)))
    joined = predictions.merge(place, on=key, how="left", sort=False)
    notices = _refuse_strangers(joined, splits)
    joined = joined[joined["row"].notna()].astype({"row": np.int64})
    split_role = splits["role"].to_numpy()[joined["row"]]
    role = joined["role"].to_numpy()
    contradiction = (role == "test") & (split_role != "test")
    if contradiction.any():
        row = joined[contradiction].iloc[0]
        raise DataError(
            f"{int(contradiction.sum()):,} predictions are of test cells that are no test cells in "
            f"this split ({row['dataset']}, {row['cell']}, fold {row['fold']}: "
            f"{split_role[contradiction][0]})",
            hint="give --splits the file that the predictor was trained and applied with",
        )
    trained = role == "train"
    test = (split_role == "test") & ~trained
    if in_sample:
        return joined, notices
    if not test.any():
        raise DataError(
            f"none of the {len(predictions):,} predictions is of a test cell "
            f"({int((trained | (split_role == 'train')).sum()):,} are of training cells)",
            hint="predict the test cells of the fold; --in-sample scores training cells and says so",
        )
    if not test.all():
        notices.append(
            f"{int((~test).sum()):,} predictions are of no test cell (training, validation or "
            "excluded) and were left out"
        )
    joined["seen"] = (split_role == "test") & trained
    return joined[(split_role == "test")], notices


def _refuse_strangers(joined: pd.DataFrame, splits: pd.DataFrame) -> list[str]:
    """Refuse predictions of cells that the split does not know, unless they say so themselves."""
    outside = joined[joined["row"].isna()]
    if outside.empty:
        return []
    known = pd.MultiIndex.from_frame(splits[["dataset", "cell"]].drop_duplicates())
    unknown = outside[~pd.MultiIndex.from_frame(outside[["dataset", "cell"]]).isin(known)]
    foreign = sorted(set(unknown["dataset"]) - set(splits["dataset"]))
    if foreign:
        datasets = sorted(set(splits["dataset"]))
        raise DataError(
            f"the split has no dataset {foreign[0]!r}",
            hint=f"it has: {', '.join(datasets[:10])}; a dataset is named after its file",
        )
    claimed = unknown[~unknown["role"].isin(["new", "excluded"])]
    if not claimed.empty:
        row = claimed.iloc[0]
        raise DataError(
            f"{len(claimed):,} predictions are of cells that the split does not have, "
            f"{row['cell']!r} of {row['dataset']} (role {row['role']}) among them",
            hint="give --splits the file that the predictor was trained and applied with",
        )
    claimed = outside[outside["role"] == "test"]
    if not claimed.empty:
        row = claimed.iloc[0]
        raise DataError(
            f"{len(claimed):,} predictions are of test cells that have no part in their fold, "
            f"{row['cell']!r} of {row['dataset']} in fold {row['fold']} among them",
            hint="give --splits the file that the predictor was trained and applied with",
        )
    return [f"{len(outside):,} predictions are of cells without a part in the split: left out"]


def _with_missing(part: pd.DataFrame, splits: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Put the test cells of one run beside its answers; cells without prediction have none.

    Returns
    -------
    DataFrame
        Sorted by dataset, cell and fold: truth and origin of each cell, ``p``, ``threshold``,
        ``answered``.
    str
        What every figure of the run must say.
    """
    seen = part["seen"].to_numpy(bool) if "seen" in part else np.zeros(len(part), bool)
    folds = np.unique(part["fold"])
    in_fold = splits["fold"].isin(folds).to_numpy()
    due = in_fold & (splits["role"] == "test").to_numpy()
    due[part["row"]] = True
    due[part["row"][seen]] = False
    part = part[~seen].set_index("row")
    rows = np.flatnonzero(due)
    further = [column for column in (TARGET, DRAW, *FACETS) if column in splits]
    cells = splits.iloc[rows][[*_ORIGIN, "fold", *further]].copy()
    cells["truth"] = target(splits["label"].to_numpy()[rows]) == 1
    cells["answered"] = (part["state"] == "answered").reindex(rows, fill_value=False).to_numpy()
    cells["p"] = part["p_sensitive"].reindex(rows).where(cells["answered"].to_numpy(), 0.5)
    cells["threshold"] = part["threshold"].reindex(rows).fillna(THRESHOLD)
    threshold_of_fold = part.groupby("fold")["threshold"].min().fillna(THRESHOLD)
    gone = ~np.isin(rows, part.index)
    cells.loc[gone, "threshold"] = cells["fold"][gone].map(threshold_of_fold).fillna(THRESHOLD)
    all_folds = np.unique(splits.loc[splits["role"] == "test", "fold"])
    not_run = sorted(set(all_folds) - set(folds))
    notes = [
        f"{int(gone.sum()):,} test cells without prediction count as wrong" * bool(gone.any()),
        f"{int(seen.sum()):,} test cells that the predictor was trained on left out"
        * bool(seen.any()),
        f"folds not predicted: {', '.join(map(str, not_run))}" * bool(not_run),
    ]
    return cells, _notes(*notes)


def _scopes(cells: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """Give the test sets to score: each fold, all folds, and in all folds each dataset and facet.

    A facet with one value is no part of the test cells, and a target that is one dataset has the
    rows of that dataset already.
    """
    for fold, part in cells.groupby("fold", sort=True):
        yield {"fold": str(fold), "dataset": _dataset(part), FACET: ""}, part
    yield {"fold": "all", "dataset": _dataset(cells), FACET: ""}, cells
    if cells["dataset"].nunique() > 1:
        for dataset, part in cells.groupby("dataset", sort=True):
            yield {"fold": "all", "dataset": str(dataset), FACET: ""}, part
    for column in (TARGET, *FACETS):
        if column not in cells or cells[column].nunique() < 2:
            continue
        if column == TARGET and (cells[TARGET] == cells["dataset"]).all():
            continue
        for value, part in cells[cells[column] != ""].groupby(column, sort=True):
            yield {"fold": "all", "dataset": "all", FACET: f"{column}={value}"}, part


def _dataset(cells: pd.DataFrame) -> str:
    names = cells["dataset"].unique()
    return str(names[0]) if len(names) == 1 else "all"


def _score(cells: pd.DataFrame, *, draws: int, seed: int) -> Iterator[dict[str, Any]]:
    truth = cells["truth"].to_numpy(bool)
    p = cells["p"].to_numpy(np.float64)
    answered = cells["answered"].to_numpy(bool)
    thresholds = {"fixed": np.full(len(cells), THRESHOLD)}
    tuned = cells["threshold"].to_numpy(np.float64)
    if (tuned != THRESHOLD).any():
        thresholds["tuned"] = tuned
    origin = {name: cells[name].to_numpy(object) for name in _ORIGIN}
    draw = cells[DRAW].to_numpy(np.int64) if DRAW in cells else np.zeros(len(cells), np.int64)
    test = TestCells(
        truth=truth,
        p_sensitive=p,
        right={name: answered & ((p >= at) == truth) for name, at in thresholds.items()},
        **origin,
        draw=draw,
    )
    values, spread = {"": np.nan}, ""
    for name, at in thresholds.items():
        one = bool(at.min() == at.max())
        values[name] = float(at[0]) if one else np.nan
        spread = "" if one else f"threshold tuned per fold, {at.min():.3g} to {at.max():.3g}"
    for score in score_levels(test, draws=draws, seed=seed):
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
            "note": _notes(score.note, spread if score.threshold == "tuned" else ""),
        }


def _notes(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
