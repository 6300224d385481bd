"""What a reader must not miss beside the answers: cautions, and controls that do as well as models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdrugmap.report.summary import (
    TECHNICAL,
    display_name,
    estimate,
    number,
    shots_of,
)
from scdrugmap.report.verdicts import AS_GOOD, CHANCE, Level, best_model, candidates

if TYPE_CHECKING:
    from scdrugmap.run.record import ModelRecord, ProtocolRecord, RunRecord

PERMUTED = "permuted"
_FLAGS = (TECHNICAL, PERMUTED, "untrained")


@dataclass(frozen=True)
class Finding:
    """A sentence that a reader must not miss."""

    level: Level
    text: str


def findings(run: RunRecord, metrics: pd.DataFrame) -> list[Finding]:
    """Return the findings of a run: red flags first."""
    found: list[Finding] = []
    evaluated = [item for item in run.protocols if item.status == "evaluated"]
    if not any(item.family == "sound" for item in evaluated):
        text = (
            "No sound protocol was evaluated: no figure below is evidence that a model works for "
            "a new patient."
        )
        found.append(Finding("bad", text))
    for protocol in evaluated:
        found += _about_controls(run, metrics, protocol)
    found += _about_datasets(run, metrics)
    if any(item.simulated for item in run.datasets):
        found.append(
            Finding("info", "The cells are simulated: the truth is known, nothing here is biology.")
        )
    names = [model.name for model in run.models if model.commercial_use is False]
    if names:
        text = f"Not for commercial use: the weights of {', '.join(dict.fromkeys(names))}."
        found.append(Finding("info", text))
    return found


def _about_controls(
    run: RunRecord, metrics: pd.DataFrame, protocol: ProtocolRecord
) -> list[Finding]:
    """Say which control does as well as its rival, if that does anything at all.

    Permuted labels are measured against the same model with its true ones, all others against the
    best model.
    """
    best = best_model(run, metrics, protocol.name)
    if best is None:
        return []
    top = estimate(metrics, protocol.name, (best.name, best.strategy), "auroc").value
    found = []
    for model in run.models:
        one = estimate(metrics, protocol.name, (model.name, model.strategy), "auroc")
        flag = _flag_of(model)
        own = _of_true_labels(model)
        true = estimate(metrics, protocol.name, (own.name, own.strategy), "auroc")
        if flag and _as_good(flag, one.value, true.value, top):
            blame = _blame(model, flag, protocol, one.text, true.text)
            found.append(Finding("bad", f"{protocol.name}: {blame}"))
    return found


def _of_true_labels(model: ModelRecord) -> ModelRecord:
    """Return what a control of permuted labels is made of, by name; others are what they are."""
    return model.model_copy(update={"name": model.model or model.name})


def _as_good(flag: str, value: float, true: float, top: float) -> bool:
    """Tell whether a control does as well as its rival, and better than chance."""
    rival = true if flag == PERMUTED and np.isfinite(true) else top
    return value >= max(rival - AS_GOOD, CHANCE + AS_GOOD)


def _flag_of(model: ModelRecord) -> str:
    """Return the control that a model is, if its success would discredit the others."""
    if model.name == TECHNICAL:
        return TECHNICAL
    kind = "untrained" if model.untrained else model.control
    return kind if kind in _FLAGS else ""


def _blame(model: ModelRecord, flag: str, protocol: ProtocolRecord, auroc: str, true: str) -> str:
    if flag == TECHNICAL:
        return (
            f"technical covariates alone (counts, genes, mitochondrial share) reach AUROC {auroc}, "
            "as much as the best model. The label goes with the quality of the cells or with their "
            "batch."
        )
    if flag == PERMUTED:
        why = (
            "This split rewards recognising patients, whatever their label."
            if protocol.family == "paper"
            else "With so few groups, or with copies of cells on both sides, labels that mean nothing "
            "do as well."
        )
        return (
            f"{model.model or model.name} trained on labels dealt out anew over groups reaches "
            f"AUROC {auroc}, as much as with its true labels ({true}). {why}"
        )
    return (
        f"{display_name(model)} with random weights reaches AUROC {auroc}, as much as the best "
        "model. What is measured is not what pretraining learnt."
    )


def controls_by_dataset(run: RunRecord, metrics: pd.DataFrame) -> pd.DataFrame:
    """Return per protocol and dataset the best model beside the controls that could discredit it.

    Permuted labels are measured as in :func:`findings`, against the same model with its true ones.

    Returns
    -------
    DataFrame
        protocol, dataset, best model, auroc of it and of each control (NaN where there is none),
        and ``red flag``: the controls that do as well, joined; no rows for a single dataset.
    """
    if len(run.datasets) < 2:
        return pd.DataFrame()
    pooled = metrics[
        (metrics["fold"].astype(str) == "all")
        & (metrics["level"] == "cell")
        & (metrics["metric"] == "auroc")
        & metrics["dataset"].isin([item.name for item in run.datasets])
    ]
    if "facet" in pooled:
        pooled = pooled[pooled["facet"] == ""]
    mean = pooled.groupby(["protocol", "dataset", "model", "strategy"])["value"].mean()
    rows = []
    for protocol in run.protocols:
        if shots_of(protocol.name):
            continue
        for dataset in (item.name for item in run.datasets):

            def value(
                model: ModelRecord, protocol: str = protocol.name, dataset: str = dataset
            ) -> float:
                return float(mean.get((protocol, dataset, model.name, model.strategy), np.nan))

            scored = [(value(model), display_name(model)) for model in candidates(run)]
            scored = [pair for pair in scored if np.isfinite(pair[0])]
            if not scored:
                continue
            top, name = max(scored)
            row: dict[str, object] = {
                "protocol": protocol.name,
                "dataset": dataset,
                "best model": name,
                "its AUROC": top,
            }
            flags = []
            for flag in _FLAGS:
                controls = [model for model in run.models if _flag_of(model) == flag]
                found = [(value(model), value(_of_true_labels(model))) for model in controls]
                found = [(one, true) for one, true in found if np.isfinite(one)]
                row[flag] = max((one for one, _ in found), default=np.nan)
                if any(_as_good(flag, one, true, top) for one, true in found):
                    flags.append(flag)
            rows.append({**row, "red flag": ", ".join(flags)})
    return pd.DataFrame(rows)


def _about_datasets(run: RunRecord, metrics: pd.DataFrame) -> list[Finding]:
    table = controls_by_dataset(run, metrics)
    if table.empty:
        return []
    sound = {item.name for item in run.protocols if item.family == "sound"}
    flagged = table[(table["red flag"] != "") & table["protocol"].isin(sound)]
    return [
        Finding(
            "bad",
            f"{row['protocol']}, {row['dataset']}: {row['red flag']} does as well as the models "
            f"(best: {row['best model']}, AUROC {number(float(row['its AUROC']))}).",
        )
        for row in flagged.to_dict("records")
    ]
