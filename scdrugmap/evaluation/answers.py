"""Put the answers of models beside the truth: which predictions are scored, and of which cells."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scdrugmap.data.labels import target
from scdrugmap.errors import DataError
from scdrugmap.evaluation.scores import TestCells, join_notes
from scdrugmap.evaluation.tables import (
    DRAW,
    FACETS,
    SET,
    SET_LEVEL,
    TARGET,
    check_predictions,
    check_splits,
)

THRESHOLD = 0.5
"""At or above it a call is sensitive, where no other threshold was tuned."""

RUN = ["model", "strategy", "seed"]
"""Columns that tell apart what predicted."""

_ORIGIN = ["dataset", "sample", "group", "study"]


def join_answers(
    predictions: pd.DataFrame, splits: pd.DataFrame, *, in_sample: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Find the row of the split of each prediction, and keep what may be scored.

    Parameters
    ----------
    predictions, splits : DataFrame
        Checked here.
    in_sample : bool
        Keep predictions of training and validation cells too.

    Returns
    -------
    DataFrame
        The predictions kept, with ``row``, their position in the next.
    DataFrame
        `splits`, sorted by dataset, cell and fold.
    list of str
        What was left out.

    Raises
    ------
    DataError
        A table breaks its rules, the predictions were made on another split, or none is of a test
        cell.
    """
    check_splits(splits)
    check_predictions(predictions)
    splits = splits.sort_values(["dataset", "cell", "fold"], kind="stable", ignore_index=True)
    predictions = predictions.reset_index(drop=True)
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
        return joined, splits, notices
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
    return joined[split_role == "test"], splits, notices


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


def beside_truth(part: pd.DataFrame, splits: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Put the test cells of one run beside its answers; cells without prediction have none.

    Returns
    -------
    DataFrame
        Sorted by dataset, cell and fold: truth and origin of each cell (categories in the order
        of their names), ``p``, ``threshold``, ``answered``, and sets where there are any.
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
    for column in _ORIGIN:  # compared as numbers: sorting names again for each test set takes long
        cells[column] = cells[column].astype("category")
    cells["truth"] = target(splits["label"].to_numpy()[rows]) == 1
    cells["answered"] = (part["state"] == "answered").reindex(rows, fill_value=False).to_numpy()
    cells["p"] = part["p_sensitive"].reindex(rows).where(cells["answered"].to_numpy(), 0.5)
    cells["threshold"] = part["threshold"].reindex(rows).fillna(THRESHOLD)
    if SET in part:
        cells[SET] = part[SET].fillna("").reindex(rows, fill_value="").to_numpy()
        cells[SET_LEVEL] = part[SET_LEVEL].reindex(rows).to_numpy()
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
    return cells, join_notes(*notes)


def as_test_cells(cells: pd.DataFrame) -> tuple[TestCells, dict[str, np.ndarray]]:
    """Return cells as they are scored, and the thresholds of their calls.

    Parameters
    ----------
    cells : DataFrame
        As :func:`beside_truth` gives them, or some of its rows.

    Returns
    -------
    TestCells
    dict of str to (n,) float64
        ``fixed``, and ``tuned`` where a threshold was tuned.
    """
    truth = cells["truth"].to_numpy(bool)
    p = cells["p"].to_numpy(np.float64)
    answered = cells["answered"].to_numpy(bool)
    thresholds = {"fixed": np.full(len(cells), THRESHOLD)}
    tuned = cells["threshold"].to_numpy(np.float64)
    if (tuned != THRESHOLD).any():
        thresholds["tuned"] = tuned
    origin = {name: cells[name].cat.codes.to_numpy(np.int64) for name in _ORIGIN}
    draw = cells[DRAW].to_numpy(np.int64) if DRAW in cells else np.zeros(len(cells), np.int64)
    test = TestCells(
        truth=truth,
        p_sensitive=p,
        right={name: answered & ((p >= at) == truth) for name, at in thresholds.items()},
        **origin,
        draw=draw,
    )
    return test, thresholds
