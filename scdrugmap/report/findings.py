"""What a reader must not miss, in plain sentences: results, cautions and red flags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from scdrugmap.report.summary import (
    REFERENCES,
    TECHNICAL,
    Estimate,
    display_name,
    estimate,
    number,
)

if TYPE_CHECKING:
    import pandas as pd

    from scdrugmap.run.record import ModelRecord, ProtocolRecord, RunRecord

CHANCE = 0.5
AS_GOOD = 0.02
"""A control within this AUROC of the best model does as well as it."""

OVERSTATED = 0.08
"""A random split that gives this much more AUROC than the sound one recognises patients."""

Level = Literal["bad", "warn", "good", "info"]


@dataclass(frozen=True)
class Finding:
    """A sentence that a reader must not miss."""

    level: Level
    text: str


def findings(run: RunRecord, metrics: pd.DataFrame) -> list[Finding]:
    """Return the findings of a run: first about the cells, then protocol by protocol."""
    found: list[Finding] = []
    if any(item.simulated for item in run.datasets):
        found.append(
            Finding("info", "The cells are simulated: the truth is known, nothing here is biology.")
        )
    found += [
        Finding("bad", f"{item.name} was refused: {item.reason}.")
        for item in run.protocols
        if item.status == "refused"
    ]
    sound = [x for x in run.protocols if x.family == "sound" and x.status == "evaluated"]
    paper = [x for x in run.protocols if x.family == "paper" and x.status == "evaluated"]
    if not sound:
        text = (
            "No sound protocol was evaluated: no figure below is evidence that a model works for "
        )
        found.append(Finding("bad", text + "a new patient."))
    for protocol in sound:
        found += _about_protocol(run, metrics, protocol)
    for protocol in paper:
        found += _about_gap(run, metrics, sound[0] if sound else None, protocol)
    names = [model.name for model in run.models if model.commercial_use is False]
    if names:
        text = f"Not for commercial use: the weights of {', '.join(names)}."
        found.append(Finding("info", text))
    return found


def candidates(run: RunRecord) -> list[ModelRecord]:
    """Return the models that compete: no reference, no control, no untrained network."""
    return [
        model
        for model in run.models
        if model.name not in (*REFERENCES, TECHNICAL) and not model.untrained
    ]


def best_model(run: RunRecord, metrics: pd.DataFrame, protocol: str) -> ModelRecord | None:
    """Return the competing model of highest AUROC under a protocol, None without one."""
    known = [
        (estimate(metrics, protocol, (model.name, model.strategy), "auroc").value, model)
        for model in candidates(run)
    ]
    known = [(value, model) for value, model in known if np.isfinite(value)]
    return max(known, key=lambda pair: pair[0])[1] if known else None


def _about_protocol(
    run: RunRecord, metrics: pd.DataFrame, protocol: ProtocolRecord
) -> list[Finding]:
    best = best_model(run, metrics, protocol.name)
    if best is None:
        return []
    top = estimate(metrics, protocol.name, (best.name, best.strategy), "auroc")
    n_models = len(candidates(run))
    among = f"the best of {n_models} models, " if n_models > 1 else ""
    text = f"{protocol.name}: {among}{display_name(best)}, reaches AUROC {top.text}"
    text = text if among else text.replace(", reaches", " reaches")
    text += f" ({top.interval}, 95 % interval over groups)" if top.interval else ""
    text += "; a constant predictor has 0.50."
    level: Level = "good"
    if top.value < CHANCE + AS_GOOD:
        level, text = "bad", f"{text} No model does better than a constant."
    elif not top.interval:
        level, text = "warn", f"{text} There are too few groups for an interval."
    elif top.low <= CHANCE:
        level, text = (
            "warn",
            f"{text} The interval includes 0.50: this does not show that any works.",
        )
    return [Finding(level, text), *_about_controls(run, metrics, protocol, top.value)]


def _about_controls(
    run: RunRecord, metrics: pd.DataFrame, protocol: ProtocolRecord, best: float
) -> list[Finding]:
    """Say which control does as well as the best model, if that does anything at all."""
    found = []
    for model in run.models:
        one = estimate(metrics, protocol.name, (model.name, model.strategy), "auroc")
        if not one.value >= max(best - AS_GOOD, CHANCE + AS_GOOD):
            continue
        if model.name == TECHNICAL:
            text = (
                f"{protocol.name}: technical covariates alone (counts, genes, mitochondrial share) "
                f"reach AUROC {one.text}, as much as the best model. The label goes with the "
                "quality of the cells or with their batch."
            )
            found.append(Finding("bad", text))
        elif model.untrained:
            text = (
                f"{protocol.name}: {display_name(model)} with random weights reaches AUROC "
                f"{one.text}, as much as the best model. What is measured is not what pretraining "
                "learnt."
            )
            found.append(Finding("bad", text))
    return found


def _about_gap(
    run: RunRecord,
    metrics: pd.DataFrame,
    sound: ProtocolRecord | None,
    paper: ProtocolRecord,
) -> list[Finding]:
    """Compare a random split with the sound one, for the model that the random split likes best."""
    best = best_model(run, metrics, paper.name)
    if best is None:
        return []
    key = (best.name, best.strategy)
    easy = estimate(metrics, paper.name, key, "auroc")
    hard = estimate(metrics, sound.name, key, "auroc") if sound else Estimate()
    text = f"{paper.name}: {display_name(best)} reaches AUROC {easy.text}"
    if sound is None or not np.isfinite(hard.value):
        text += (
            ". Cells of one patient are on both sides of this split: the number compares with "
            "publications and is no evidence."
        )
        return [Finding("warn", text)]
    gap = easy.value - hard.value
    if gap < OVERSTATED:
        more = "more" if gap >= 0 else "less"
        text += f", {number(abs(gap))} {more} than under {sound.name}."
        return [Finding("info", text)]
    text += (
        f", but {hard.text} under {sound.name}. The difference of {number(gap)} is recognition of "
        "groups seen in training; a new patient will not bring it."
    )
    return [Finding("warn", text)]
