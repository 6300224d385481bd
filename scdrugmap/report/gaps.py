"""What could not be evaluated, and why: a number that is missing has a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from scdrugmap.report.summary import display_name

if TYPE_CHECKING:
    from scdrugmap.report.run_tables import RunTables
    from scdrugmap.run.record import RunRecord

_MOST_NAMES = 4


def missing_numbers(run: RunRecord, metrics: pd.DataFrame) -> pd.DataFrame:
    """Return one row per reason and place: numbers and intervals that a run does not have.

    Returns
    -------
    DataFrame
        protocol, where, level, missing (``number`` or ``interval``), reason, models.
    """
    columns = ["protocol", "where", "level", "missing", "reason", "models"]
    rows = [
        (item.name, "everywhere", "all", "number", item.reason, "all")
        for item in run.protocols
        if item.status == "refused"
    ]
    metrics = metrics if "facet" in metrics else metrics.assign(facet="")
    pooled = metrics["fold"].astype(str) == "all"
    gone = metrics[
        (metrics["metric"] == "auroc")
        & (metrics["value"].isna() | (metrics["ci_low"].isna() & pooled))
        & (metrics["note"] != "")
    ]
    names = {(model.name, model.strategy): display_name(model) for model in run.models}
    gone = gone.assign(
        missing=gone["value"].isna().map({True: "number", False: "interval"}),
        name=[names.get(key, key[0]) for key in zip(gone["model"], gone["strategy"], strict=True)],
    )
    everyone = set(names.values())
    keys = ["protocol", "dataset", "facet", "level", "missing", "note"]
    for key, part in gone.groupby(keys, sort=False):
        protocol, dataset, facet, level, missing, note = map(str, key)
        folds = sorted(set(part["fold"].astype(str)), key=lambda of: (len(of), of))
        where = facet or dataset
        if folds != ["all"]:
            where += f", fold {', '.join(folds)}"
        rows.append((protocol, where, level, missing, note, _listed(part["name"], everyone)))
    table = pd.DataFrame(rows, columns=columns)
    table["level"] = table["level"].str.replace("_", " ")
    return table.sort_values(
        "missing", key=lambda of: of != "number", kind="stable", ignore_index=True
    )


def _listed(names: pd.Series, everyone: set[str]) -> str:
    found = list(dict.fromkeys(names))
    if set(found) == everyone:
        return "all"
    more = len(found) - _MOST_NAMES
    return ", ".join(found[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def unanswered_cells(tables: RunTables) -> pd.DataFrame:
    """Return how many test cells had no answer, by protocol, model, state and reason."""
    columns = ["model", "protocol", "state", "reason", "cells", "of"]
    names = {(model.name, model.strategy): display_name(model) for model in tables.run.models}
    rows = []
    for protocol, predictions in tables.predictions.items():
        test = predictions[predictions["role"] == "test"]
        total = test.groupby(["model", "strategy"]).size()
        without = test[test["state"] != "answered"]
        counts = without.groupby(["model", "strategy", "state", "reason"]).size()
        for key, n in zip(counts.index, counts, strict=True):
            model, strategy, state, reason = map(str, key)
            name = names.get((model, strategy), model)
            rows.append((name, protocol, state, reason, int(n), int(total[model, strategy])))
    return pd.DataFrame(rows, columns=columns)
