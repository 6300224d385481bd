"""What conformal sets were worth: how often they held the label, and how large they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from scdrugmap.report.summary import Estimate, display_name, estimate

if TYPE_CHECKING:
    from scdrugmap.run.record import RunRecord

_OF_CELLS = {
    "cells with their label in the set": "set_coverage",
    "sensitive cells": "set_coverage_sensitive",
    "resistant cells": "set_coverage_resistant",
}


def set_table(run: RunRecord, metrics: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return coverage and mean size of the sets of each model as text; no rows without sets.

    Returns
    -------
    DataFrame
        model, level, coverage of cells (with interval), of either label, of samples with one vote
        each, of datasets with one vote each where there are several, mean size, cells with a set.
    """
    of_sets = metrics[(metrics["protocol"] == protocol) & (metrics["metric"] == "set_coverage")]
    several = (of_sets["level"] == "dataset_macro").any()
    rows = []
    for model in run.models:
        key = (model.name, model.strategy)
        own = of_sets[(of_sets["model"] == key[0]) & (of_sets["strategy"] == key[1])]
        for level in sorted(set(own["threshold"])):

            def found(
                metric: str,
                of: str = "cell",
                key: tuple[str, str] = key,
                level: float = level,
            ) -> Estimate:
                return estimate(metrics, protocol, key, metric, level=of, threshold=level)

            rows.append(
                {
                    "model": display_name(model),
                    "level": f"{level:g}",
                    **{title: _text(found(metric)) for title, metric in _OF_CELLS.items()},
                    "mean over samples": _text(found("set_coverage", "sample")),
                    **(
                        {"mean over datasets": _text(found("set_coverage", "dataset_macro"))}
                        if several
                        else {}
                    ),
                    "labels in a set": found("set_size").text,
                    "cells": f"{found('set_size').n:,}",
                }
            )
    return pd.DataFrame(rows)


def set_sentence(run: RunRecord, metrics: pd.DataFrame, protocol: str) -> str:
    """Say of how many models the sets hold the label less often than they promise."""
    total, short = 0, []
    of_sets = metrics[(metrics["protocol"] == protocol) & (metrics["metric"] == "set_coverage")]
    for model in run.models:
        key = (model.name, model.strategy)
        own = of_sets[(of_sets["model"] == key[0]) & (of_sets["strategy"] == key[1])]
        for level in sorted(set(own["threshold"])):
            one = estimate(metrics, protocol, key, "set_coverage", level="sample", threshold=level)
            total += 1
            if one.high < level:
                short.append(f"{display_name(model)} at {level:g}")
    if not short:
        return (
            f"In none of {total} cases does the interval over groups lie below the promised level."
        )
    return (
        f"Below the promise, with the whole interval over groups, in {len(short)} of {total} cases: "
        f"{', '.join(short)}."
    )


def _text(one: Estimate) -> str:
    return one.text + (f" ({one.interval})" if one.interval else "")
