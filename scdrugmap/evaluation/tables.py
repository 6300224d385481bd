"""Read and write the tables that pass between split, train, predict, evaluate and report.

Readers and writers check the same rules, so a table on disk is always one that can be used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scdrugmap.evaluation.table_rules import (
    COMPARISON_COLUMNS,
    DRAW,
    FACET,
    FACETS,
    LEVELS,
    METRIC_COLUMNS,
    ONE_PREDICTION,
    PREDICTION_COLUMNS,
    PREDICTION_ROLES,
    SET,
    SET_LEVEL,
    SPLIT_COLUMNS,
    SPLIT_ROLES,
    STATES,
    TARGET,
    check_comparisons,
    check_metrics,
    check_predictions,
    check_splits,
    metric_columns,
    prediction_columns,
    protocol_of,
    split_columns,
    split_id,
)
from scdrugmap.tables import read_table, write_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "COMPARISON_COLUMNS",
    "DRAW",
    "FACET",
    "FACETS",
    "LEVELS",
    "METRIC_COLUMNS",
    "ONE_PREDICTION",
    "PREDICTION_COLUMNS",
    "PREDICTION_ROLES",
    "SET",
    "SET_LEVEL",
    "SPLIT_COLUMNS",
    "SPLIT_ROLES",
    "STATES",
    "TARGET",
    "check_metrics",
    "check_predictions",
    "check_splits",
    "headline",
    "protocol_of",
    "read_comparisons",
    "read_metrics",
    "read_predictions",
    "read_splits",
    "split_id",
    "write_comparisons",
    "write_metrics",
    "write_predictions",
    "write_splits",
]

_SPLIT_NUMBERS = {"fold": "int64", DRAW: "int64"}
_PREDICTION_NUMBERS = {
    "fold": "int64",
    "seed": "int64",
    "p_sensitive": "float64",
    "threshold": "float64",
    SET_LEVEL: "float64",
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
    return split_columns(table)


def read_predictions(path: Path) -> pd.DataFrame:
    """Read ``predictions.tsv`` or ``predictions.tsv.gz``.

    Returns
    -------
    DataFrame
        :data:`PREDICTION_COLUMNS` and, where the file has them, :data:`SET` and :data:`SET_LEVEL`;
        ``fold`` and ``seed`` int64, ``p_sensitive``, ``threshold`` and ``set_level`` float64, all
        others str.

    Raises
    ------
    UsageError
        There is no such file.
    DataError
        As :func:`check_predictions`.
    """
    table = read_table(path, PREDICTION_COLUMNS, _PREDICTION_NUMBERS)
    check_predictions(table, str(path))
    return prediction_columns(table)


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
    return metric_columns(table)


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
    check_comparisons(table, str(path))
    return table[list(COMPARISON_COLUMNS)]


def write_splits(table: pd.DataFrame, path: Path) -> None:
    """Write ``splits.tsv`` (compressed for ``.gz``) after :func:`check_splits`."""
    check_splits(table)
    write_table(split_columns(table), path)


def write_predictions(table: pd.DataFrame, path: Path) -> None:
    """Write ``predictions.tsv`` (compressed for ``.gz``) after :func:`check_predictions`."""
    check_predictions(table)
    write_table(prediction_columns(table), path)


def write_metrics(table: pd.DataFrame, path: Path) -> None:
    """Write ``metrics.tsv`` (compressed for ``.gz``) after :func:`check_metrics`."""
    check_metrics(table)
    write_table(metric_columns(table), path)


def write_comparisons(table: pd.DataFrame, path: Path) -> None:
    """Write ``comparisons.tsv``."""
    check_comparisons(table, "comparisons")
    write_table(table[list(COMPARISON_COLUMNS)], path)


def headline(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the rows over all test cells of a run: pooled over folds and over datasets.

    Parameters
    ----------
    metrics : DataFrame
        As :func:`~scdrugmap.evaluation.evaluate.evaluate` gives it. A run on one dataset has that
        dataset's name in its pooled rows, a run on several has ``all``.
    """
    pooled = metric_columns(metrics)
    pooled = pooled[(pooled["fold"] == "all") & (pooled[FACET] == "")]
    run = pooled.groupby(["protocol", "model", "strategy", "seed"], sort=False)
    return pooled[(pooled["dataset"] == "all") | (run["dataset"].transform("nunique") == 1)]
