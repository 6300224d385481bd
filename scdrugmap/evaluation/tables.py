"""The tables that pass between split, train, predict, evaluate and report, and their rules.

Readers and writers check the same rules, so a table on disk is always one that can be used.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdrugmap.data.labels import RESISTANT, SENSITIVE
from scdrugmap.errors import DataError
from scdrugmap.tables import escape, read_table, write_table

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

SPLIT_COLUMNS = (
    "dataset",
    "cell",
    "sample",
    "donor",
    "study",
    "label",
    "fold",
    "group",
    "role",
    "split_id",
)
TARGET, DRAW = "target", "draw"
"""What a fold holds out, and which draw of labelled samples it has: further columns of a split, where
there is something to say."""
FACETS = ("tissue", "cancer_type", "drug_type", "drug", "collection")
"""Further columns of a split by which results are grouped."""
PREDICTION_COLUMNS = (
    "dataset",
    "cell",
    "sample",
    "model",
    "strategy",
    "fold",
    "seed",
    "role",
    "p_sensitive",
    "threshold",
    "state",
    "reason",
)
METRIC_COLUMNS = (
    "protocol",
    "model",
    "strategy",
    "dataset",
    "fold",
    "seed",
    "level",
    "metric",
    "threshold",
    "value",
    "ci_low",
    "ci_high",
    "n",
    "n_sensitive",
    "n_groups",
    "n_invalid",
    "note",
)
COMPARISON_COLUMNS = (
    "protocol",
    "model_a",
    "strategy_a",
    "model_b",
    "strategy_b",
    "level",
    "metric",
    "threshold",
    "value_a",
    "value_b",
    "difference",
    "ci_low",
    "ci_high",
    "test",
    "unit",
    "n_units",
    "p_value",
    "p_holm",
    "n_comparisons",
    "effect_size",
    "share_better",
    "seed_sd_a",
    "seed_sd_b",
    "n_seeds_a",
    "n_seeds_b",
    "n",
    "n_groups",
    "note",
)
FACET = "facet"
"""Last column of the metrics: which part of the test cells a row is about, as
``cancer_type=Melanoma``; ``""`` for all of them."""
SPLIT_ROLES = ("train", "validation", "test", "excluded")
PREDICTION_ROLES = (*SPLIT_ROLES, "new")
"""``new``: predicted without a split, and no training cell of the predictor."""
STATES = ("answered", "abstained", "invalid")
LEVELS = ("cell", "sample", "dataset_macro")

ONE_PREDICTION = ("dataset", "cell", "model", "strategy", "fold", "seed")
"""Columns that no two predictions share."""

_SPLIT_EXTRAS = (TARGET, DRAW, *FACETS)
_SPLIT_NUMBERS = {"fold": "int64", DRAW: "int64"}
_PREDICTION_NUMBERS = {
    "fold": "int64",
    "seed": "int64",
    "p_sensitive": "float64",
    "threshold": "float64",
}
_METRIC_NUMBERS = {
    "seed": "int64",
    **dict.fromkeys(("threshold", "value", "ci_low", "ci_high"), "float64"),
    **dict.fromkeys(("n", "n_sensitive", "n_groups", "n_invalid"), "int64"),
}
_COMPARISON_NUMBERS = {
    **dict.fromkeys(
        (
            *("threshold", "value_a", "value_b", "difference", "ci_low", "ci_high"),
            *("p_value", "p_holm", "effect_size", "share_better", "seed_sd_a", "seed_sd_b"),
        ),
        "float64",
    ),
    **dict.fromkeys(
        ("n_units", "n_comparisons", "n_seeds_a", "n_seeds_b", "n", "n_groups"), "int64"
    ),
}
_ID_LENGTH = 16


def split_id(table: pd.DataFrame, protocol: str) -> str:
    """Return ``<protocol>-<hash>``: the hash of the rows, whatever their order.

    Parameters
    ----------
    table : DataFrame
        With all of :data:`SPLIT_COLUMNS` but ``split_id``, and any of the further columns, which
        are hashed too.
    protocol : str
        Hashed too, so that a split cannot be relabelled.
    """
    order = np.lexsort(
        [pd.factorize(table[column], sort=True)[0] for column in ("fold", "cell", "dataset")]
    )
    digest = hashlib.sha256(protocol.encode())
    for column in (*SPLIT_COLUMNS[:-1], *(c for c in _SPLIT_EXTRAS if c in table)):
        code, values = pd.factorize(table[column])
        fields = np.array([escape(str(value)) for value in values], object)
        digest.update(f"\n{column}\n".encode())
        digest.update("\n".join(fields[code[order]]).encode("utf-8", "backslashreplace"))
    return f"{protocol}-{digest.hexdigest()[:_ID_LENGTH]}"


def protocol_of(splits: pd.DataFrame) -> str:
    """Return the protocol that made a split."""
    return str(splits["split_id"].iloc[0]).rpartition("-")[0]


def check_splits(table: pd.DataFrame, where: str = "splits") -> None:
    """Check a split manifest.

    Raises
    ------
    DataError
        A column is missing, a value is not allowed, a row occurs twice, or the rows are not
        those that ``split_id`` was made of; names row and column.
    """
    _require_columns(table, SPLIT_COLUMNS, where)
    if table.empty:
        raise DataError(f"{where} has no rows", hint="make it again with `scdrugmap split`")
    for column in ("dataset", "cell", "group", "split_id"):
        _require(table[column].astype(str) != "", table[column], where, "is empty")
    _require_one_of(table["label"], (SENSITIVE, RESISTANT), where)
    _require_one_of(table["role"], SPLIT_ROLES, where)
    _require(table["fold"] >= 0, table["fold"], where, "is no fold")
    _require_unique(table, ("dataset", "cell", "fold"), where)
    ids = table["split_id"]
    _require(ids == ids.iloc[0], ids, where, f"is another split than {ids.iloc[0]}")
    if split_id(table, protocol_of(table)) != ids.iloc[0]:
        raise DataError(
            f"{where}, column split_id: the rows are not those that {ids.iloc[0]} was made of",
            hint="the table was edited or cut; make it again with `scdrugmap split`",
        )


def check_predictions(table: pd.DataFrame, where: str = "predictions") -> None:
    """Check a table of predictions.

    Raises
    ------
    DataError
        A column is missing, a value is not allowed, or a row occurs twice; names row and column.
    """
    _require_columns(table, PREDICTION_COLUMNS, where)
    if table.empty:
        raise DataError(f"{where} has no rows", hint="make it again with `scdrugmap predict`")
    for column in ("dataset", "cell", "model", "strategy"):
        _require(table[column].astype(str) != "", table[column], where, "is empty")
    _require_one_of(table["role"], PREDICTION_ROLES, where)
    _require_one_of(table["state"], STATES, where)
    p = table["p_sensitive"]
    unanswered = (table["state"] != "answered") & p.isna()
    _require(p.between(0, 1) | unanswered, p, where, "is no probability")
    _require(
        table["threshold"].between(0, 1) | table["threshold"].isna(),
        table["threshold"],
        where,
        "is not between 0 and 1",
    )
    _require_unique(table, ONE_PREDICTION, where)


def check_metrics(table: pd.DataFrame, where: str = "metrics") -> None:
    """Check a table of metrics.

    Raises
    ------
    DataError
        A column is missing, or a level or fold is not allowed; names row and column.
    """
    _require_columns(table, METRIC_COLUMNS, where)
    _require_one_of(table["level"], LEVELS, where)
    fold = table["fold"].astype(str)
    _require(fold.str.isdecimal() | (fold == "all"), fold, where, "is neither a fold nor all")
    _require_unique(_metric_columns(table), (*METRIC_COLUMNS[:9], FACET), where)


def read_splits(path: Path) -> pd.DataFrame:
    """Read ``splits.tsv`` or ``splits.tsv.gz``.

    Returns
    -------
    DataFrame
        :data:`SPLIT_COLUMNS` and, where the file has them, :data:`TARGET`, :data:`DRAW` and
        :data:`FACETS`; ``fold`` and ``draw`` int64, all others str.

    Raises
    ------
    UsageError
        There is no such file.
    DataError
        As :func:`check_splits`.
    """
    table = read_table(path, SPLIT_COLUMNS, _SPLIT_NUMBERS)
    check_splits(table, str(path))
    return _split_columns(table)


def read_predictions(path: Path) -> pd.DataFrame:
    """Read ``predictions.tsv`` or ``predictions.tsv.gz``.

    Returns
    -------
    DataFrame
        :data:`PREDICTION_COLUMNS`; ``fold`` and ``seed`` int64, ``p_sensitive`` and
        ``threshold`` float64, all others str.

    Raises
    ------
    UsageError
        There is no such file.
    DataError
        As :func:`check_predictions`.
    """
    table = read_table(path, PREDICTION_COLUMNS, _PREDICTION_NUMBERS)
    check_predictions(table, str(path))
    return table[list(PREDICTION_COLUMNS)]


def read_metrics(path: Path) -> pd.DataFrame:
    """Read ``metrics.tsv``.

    Returns
    -------
    DataFrame
        :data:`METRIC_COLUMNS` and :data:`FACET`; ``fold`` is text, because the pooled rows have
        ``all``.

    Raises
    ------
    UsageError
        There is no such file.
    DataError
        As :func:`check_metrics`.
    """
    table = read_table(path, METRIC_COLUMNS, _METRIC_NUMBERS)
    check_metrics(table, str(path))
    return _metric_columns(table)


def read_comparisons(path: Path) -> pd.DataFrame:
    """Read ``comparisons.tsv``.

    Returns
    -------
    DataFrame
        :data:`COMPARISON_COLUMNS`.

    Raises
    ------
    UsageError
        There is no such file.
    DataError
        A column is missing, or a row occurs twice; names row and column.
    """
    table = read_table(path, COMPARISON_COLUMNS, _COMPARISON_NUMBERS)
    _check_comparisons(table, str(path))
    return table[list(COMPARISON_COLUMNS)]


def write_splits(table: pd.DataFrame, path: Path) -> None:
    """Write ``splits.tsv`` (compressed for ``.gz``) after :func:`check_splits`."""
    check_splits(table)
    write_table(_split_columns(table), path)


def write_predictions(table: pd.DataFrame, path: Path) -> None:
    """Write ``predictions.tsv`` (compressed for ``.gz``) after :func:`check_predictions`."""
    check_predictions(table)
    write_table(table[list(PREDICTION_COLUMNS)], path)


def write_metrics(table: pd.DataFrame, path: Path) -> None:
    """Write ``metrics.tsv`` (compressed for ``.gz``) after :func:`check_metrics`."""
    check_metrics(table)
    write_table(_metric_columns(table), path)


def write_comparisons(table: pd.DataFrame, path: Path) -> None:
    """Write ``comparisons.tsv``."""
    _check_comparisons(table, "comparisons")
    write_table(table[list(COMPARISON_COLUMNS)], path)


def _check_comparisons(table: pd.DataFrame, where: str) -> None:
    _require_columns(table, COMPARISON_COLUMNS, where)
    _require_unique(table, (*COMPARISON_COLUMNS[:8], "test"), where)


def headline(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the rows over all test cells of a run: pooled over folds and over datasets.

    Parameters
    ----------
    metrics : DataFrame
        As :func:`~scdrugmap.evaluation.evaluate.evaluate` gives it. A run on one dataset has that
        dataset's name in its pooled rows, a run on several has ``all``.
    """
    pooled = _metric_columns(metrics)
    pooled = pooled[(pooled["fold"] == "all") & (pooled[FACET] == "")]
    run = pooled.groupby(["protocol", "model", "strategy", "seed"], sort=False)
    return pooled[(pooled["dataset"] == "all") | (run["dataset"].transform("nunique") == 1)]


def _split_columns(table: pd.DataFrame) -> pd.DataFrame:
    return table[[*SPLIT_COLUMNS, *(c for c in _SPLIT_EXTRAS if c in table)]]


def _metric_columns(table: pd.DataFrame) -> pd.DataFrame:
    if FACET not in table:
        table = table.assign(**{FACET: ""})
    return table[[*METRIC_COLUMNS, FACET]]


def _require_columns(table: pd.DataFrame, columns: Sequence[str], where: str) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise DataError(
            f"{where}: the columns {', '.join(missing)} are missing",
            hint=f"it has: {', '.join(map(str, table.columns[:20]))}",
        )


def _require(good: pd.Series, column: pd.Series, where: str, complaint: str) -> None:
    bad = ~good.to_numpy(bool)
    if bad.any():
        row = int(bad.argmax())
        value = column.iloc[row]
        shown = repr(value) if isinstance(value, str) else str(value)
        others = f" ({int(bad.sum()) - 1:,} more such rows)" * (int(bad.sum()) > 1)
        raise DataError(
            f"{where}, line {row + 2}, column {column.name}: {shown} {complaint}{others}"
        )


def _require_one_of(column: pd.Series, allowed: Collection[str], where: str) -> None:
    _require(column.isin(allowed), column, where, f"is none of {', '.join(allowed)}")


def _require_unique(table: pd.DataFrame, columns: Sequence[str], where: str) -> None:
    twice = table.duplicated(list(columns))
    if twice.any():
        row = int(twice.to_numpy().argmax())
        key = ", ".join(f"{name} {table[name].iloc[row]}" for name in columns)
        raise DataError(
            f"{where}, line {row + 2}, column {columns[1]}: {key} occurs twice",
            hint="each may occur once; do not give the same file twice",
        )
