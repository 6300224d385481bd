"""Which models differ from a plain linear model on the same test cells, and by how much."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdrugmap.report import figures
from scdrugmap.report.summary import display_name, number
from scdrugmap.report.verdicts import best_model, candidates

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scdrugmap.report.style import Picture
    from scdrugmap.run.record import ModelRecord, RunRecord

LINEAR = ("hvg-logreg", "pca-logreg")
"""What other models are compared with, where a run has one of them."""

SHOWN_METRICS = ("auroc", "macro_f1")
SURE = 0.05

_TESTS = {
    "sign-flip": "exchange of the models within units",
    "wilcoxon": "signed ranks",
    "nadeau-bengio": "corrected t-test over folds",
}


def compare_run(
    run: RunRecord,
    metrics: pd.DataFrame,
    predictions: Mapping[str, pd.DataFrame],
    splits: Mapping[str, pd.DataFrame],
) -> pd.DataFrame:
    """Compare the models of a run with one of them, protocol by protocol.

    Parameters
    ----------
    run : RunRecord
    metrics : DataFrame
        To find the best model where there is no linear one.
    predictions, splits : mapping of str to DataFrame
        By protocol.

    Returns
    -------
    DataFrame
        Columns of ``comparisons.tsv``; no row with fewer than two models.
    """
    from scdrugmap.evaluation.compare import compare_models
    from scdrugmap.evaluation.tables import COMPARISON_COLUMNS

    tables = []
    competing = {(model.name, model.strategy) for model in candidates(run)}
    for protocol, table in predictions.items():
        reference = reference_of(run, metrics, protocol)
        keys = pd.Series(list(zip(table["model"], table["strategy"], strict=True)))
        chosen = table[keys.isin(competing).to_numpy()]
        if reference is None or chosen[["model", "strategy"]].drop_duplicates().shape[0] < 2:
            continue
        tables.append(
            compare_models(
                chosen,
                splits[protocol],
                reference=f"{reference.name}:{reference.strategy}",
                metrics=SHOWN_METRICS,
                draws=int(run.config.get("draws", 2000)),
            )
        )
    if not tables:
        return pd.DataFrame(columns=list(COMPARISON_COLUMNS))
    return pd.concat(tables, ignore_index=True)


def compare_folder(folder: Path, run: RunRecord, metrics: pd.DataFrame) -> pd.DataFrame:
    """Compare the models of a run folder that has its predictions and splits; see `compare_run`."""
    from scdrugmap.evaluation.tables import read_predictions, read_splits

    names = [item.name for item in run.protocols if item.status == "evaluated"]
    predictions = {name: read_predictions(folder / f"predictions-{name}.tsv.gz") for name in names}
    splits = {name: read_splits(folder / f"splits-{name}.tsv.gz") for name in names}
    return compare_run(run, metrics, predictions, splits)


def reference_of(run: RunRecord, metrics: pd.DataFrame, protocol: str) -> ModelRecord | None:
    """Return the model that others are compared with: a linear one, else the best."""
    by_name = {model.name: model for model in candidates(run)}
    for name in LINEAR:
        if name in by_name:
            return by_name[name]
    return best_model(run, metrics, protocol)


def comparison_table(run: RunRecord, compared: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return the differences of AUROC and macro-F1 over cells as text, one row per test."""
    names = {(model.name, model.strategy): display_name(model) for model in run.models}
    rows = []
    chosen = compared[(compared["protocol"] == protocol) & (compared["level"] == "cell")]
    for item in chosen.to_dict("records"):
        low, high = float(item["ci_low"]), float(item["ci_high"])
        interval = f" ({_signed(low)} to {_signed(high)})" if np.isfinite([low, high]).all() else ""
        rows.append(
            {
                "model": names.get((item["model_a"], item["strategy_a"]), item["model_a"]),
                "against": names.get((item["model_b"], item["strategy_b"]), item["model_b"]),
                "metric": {"auroc": "AUROC", "macro_f1": "Macro-F1"}.get(
                    item["metric"], item["metric"]
                ),
                "difference": _signed(float(item["difference"])) + interval,
                "test": f"{_TESTS.get(item['test'], item['test'])}, {item['n_units']} {item['unit']}s",
                "p": p_text(float(item["p_value"])),
                "p (Holm)": p_text(float(item["p_holm"])),
                "effect size": number(float(item["effect_size"])),
                "better in": number(100 * float(item["share_better"]), 0) + " %"
                if np.isfinite(float(item["share_better"]))
                else "–",
                "note": item["note"],
            }
        )
    return pd.DataFrame(rows)


def p_text(value: float) -> str:
    """Return a p-value as text."""
    if not np.isfinite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + number(value)


def comparison_pictures(run: RunRecord, compared: pd.DataFrame, shown: list[str]) -> list[Picture]:
    """Draw the difference of AUROC of each model to the reference, under the shown protocols."""
    rows = compared[
        (compared["level"] == "cell")
        & (compared["metric"] == "auroc")
        & compared["protocol"].isin(shown)
    ].drop_duplicates(["protocol", "model_a", "strategy_a"])
    if rows["difference"].notna().sum() == 0:
        return []
    names = {(model.name, model.strategy): display_name(model) for model in run.models}
    family = {item.name: item.family for item in run.protocols}
    against = sorted(
        {names[pair] for pair in zip(rows["model_b"], rows["strategy_b"], strict=True)}
    )
    table = pd.DataFrame(
        {
            "name": [names[pair] for pair in zip(rows["model_a"], rows["strategy_a"], strict=True)],
            "protocol": rows["protocol"].to_numpy(),
            "family": rows["protocol"].map(family).to_numpy(),
            "value": rows["difference"].to_numpy(float),
            "ci_low": rows["ci_low"].to_numpy(float),
            "ci_high": rows["ci_high"].to_numpy(float),
        }
    )
    return [
        figures.intervals(
            table,
            title=f"AUROC minus that of {' / '.join(against)}",
            reference=0.0,
            reference_name="no difference",
            file="comparisons-auroc",
        )
    ]


def comparison_sentence(compared: pd.DataFrame) -> str:
    """Say for the methods which tests were made; empty without any."""
    tests = [name for name in _TESTS if (compared["test"] == name).any()]
    if not tests:
        return ""
    said = ", ".join(_TESTS[name] for name in tests)
    return (
        f"Models were compared in pairs on the same test cells ({said}), with Holm's correction "
        "over the models."
    )


def verdict_of_comparisons(run: RunRecord, compared: pd.DataFrame, protocol: str) -> str:
    """Say which models beat the reference under a protocol; empty where nothing was compared."""
    rows = compared[
        (compared["protocol"] == protocol)
        & (compared["level"] == "cell")
        & (compared["metric"] == "auroc")
        & compared["test"].isin(["sign-flip", "nadeau-bengio"])
        & compared["p_holm"].notna()
    ]
    if rows.empty:
        return ""
    names = {(model.name, model.strategy): display_name(model) for model in run.models}
    first = rows.iloc[0]
    reference = names[first["model_b"], first["strategy_b"]]
    sure = rows[rows["p_holm"] < SURE]
    better, worse = (
        [names[pair] for pair in zip(of["model_a"], of["strategy_a"], strict=True)]
        for of in (sure[sure["difference"] > 0], sure[sure["difference"] < 0])
    )
    among = f"Holm, {len(rows)} {'comparison' if len(rows) == 1 else 'comparisons'}"
    parts = []
    if better:
        parts.append(f"better than {reference}: {', '.join(better)}")
    if worse:
        parts.append(f"worse than {reference}: {', '.join(worse)}")
    if not parts:
        return f"No model differs from {reference} beyond chance ({among})."
    return f"Beyond chance ({among}) {'; '.join(parts)}."
