"""What the tables between split, train, predict, evaluate and report hold, and their rules."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdrugmap.data.labels import RESISTANT, SENSITIVE
from scdrugmap.data.names import are_unique
from scdrugmap.errors import DataError
from scdrugmap.tables import escape

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

SET, SET_LEVEL = "prediction_set", "set_level"
"""Which labels cannot be excluded for a cell, and at which level: further columns of predictions,
where the predictor saw validation cells."""
LABEL_SETS = ("resistant", "sensitive", "both", "none")
SPLIT_EXTRAS = (TARGET, DRAW, *FACETS)
"""Columns that a split has where there is something to say."""

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
    for column in (*SPLIT_COLUMNS[:-1], *(c for c in SPLIT_EXTRAS if c in table)):
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
        _require(table[column] != "", table[column], where, "is empty")
    _require_no_nul(table, ("dataset", "cell", "group", "sample", "donor"), where)
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
        _require(table[column] != "", table[column], where, "is empty")
    _require_no_nul(table, ("dataset", "cell", "sample"), where)
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
    if SET in table or SET_LEVEL in table:
        _require_columns(table, (SET, SET_LEVEL), where)
        named = table[SET].astype(object).fillna("")
        _require_one_of(named, ("", *LABEL_SETS), where)
        level = table[SET_LEVEL]
        held = ((level > 0) & (level < 1)) | (named == "")
        _require(held, level, where, "is no level of a set")


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
    _require_no_nul(table, (*METRIC_COLUMNS[:9], FACET), where)
    _require_unique(metric_columns(table), (*METRIC_COLUMNS[:9], FACET), where)


def check_comparisons(table: pd.DataFrame, where: str = "comparisons") -> None:
    """Check a table of comparisons.

    Raises
    ------
    DataError
        A column is missing, or a row occurs twice; names row and column.
    """
    _require_columns(table, COMPARISON_COLUMNS, where)
    _require_no_nul(table, (*COMPARISON_COLUMNS[:8], "test"), where)
    _require_unique(table, (*COMPARISON_COLUMNS[:8], "test"), where)


def split_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of a split in their order."""
    return table[[*SPLIT_COLUMNS, *(c for c in SPLIT_EXTRAS if c in table)]]


def prediction_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of predictions in their order, sets last where there are any.

    A table that is so already is returned itself: a million rows are not copied.
    """
    wanted = [*PREDICTION_COLUMNS, *((SET, SET_LEVEL) if SET in table else ())]
    if SET in table and table[SET].isna().any():
        table = table.assign(**{SET: table[SET].astype(object).fillna("")})
    return table if table.columns.tolist() == wanted else table[wanted]


def metric_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of metrics in their order, the facet last."""
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


def _require_no_nul(table: pd.DataFrame, columns: Sequence[str], where: str) -> None:
    """Refuse names that pandas may take for one, since it stops reading a text at a NUL."""
    for column in [name for name in columns if name in table]:
        plain = [not isinstance(name, str) or "\0" not in name for name in table[column]]
        _require(pd.Series(plain), table[column], where, "holds a NUL character")


def _require_unique(table: pd.DataFrame, columns: Sequence[str], where: str) -> None:
    if "cell" in columns and are_unique(table["cell"].to_numpy(object)):
        return  # as in most tables; the numbers that pandas gives to all columns take much memory
    twice = table.duplicated(list(columns))
    if twice.any():
        row = int(twice.to_numpy().argmax())
        key = ", ".join(f"{name} {table[name].iloc[row]}" for name in columns)
        raise DataError(
            f"{where}, line {row + 2}, column {columns[1]}: {key} occurs twice",
            hint="each may occur once; do not give the same file twice",
        )
