"""One sentence per question that a run asked: what was found, with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from scdrugmap.report.summary import (
    Estimate,
    display_name,
    estimate,
    number,
    role_of,
    shots_of,
)

if TYPE_CHECKING:
    import pandas as pd

    from scdrugmap.run.record import ModelRecord, ProtocolRecord, RunRecord

CHANCE = 0.5
AS_GOOD = 0.02
"""A control within this AUROC of what it is measured against does as well as it."""

OVERSTATED = 0.08
"""A random split that gives this much more AUROC than the sound one recognises patients."""

Level = Literal["bad", "warn", "good", "info"]

_KIND_OF_ZERO_SHOT = {
    "zero-shot": "No label of the target was used; the head was trained on other studies.",
    "zero-shot-unlabelled": "No label was used at all, neither of the target nor of other studies.",
}


@dataclass(frozen=True)
class Verdict:
    """The answer to the question of a protocol.

    Attributes
    ----------
    name : str
        The protocol, or the protocols of one curve.
    family : str
    question : str
    level : {"bad", "warn", "good", "info"}
    text : str
    """

    name: str
    family: str
    question: str
    level: Level
    text: str


def verdicts(run: RunRecord, metrics: pd.DataFrame) -> list[Verdict]:
    """Answer the question of each protocol, the sound ones first; few-shot ones are one question."""
    protocols = sorted(run.protocols, key=lambda item: item.family != "sound")
    sound = next((x for x in protocols if x.family == "sound" and x.status == "evaluated"), None)
    found = []
    curves: dict[str, list[ProtocolRecord]] = {}
    for protocol in protocols:
        shots = shots_of(protocol.name)
        if protocol.status == "refused":
            text = f"Not answered: {protocol.reason}."
            found.append(_verdict(protocol, "bad", text))
        elif shots:
            curves.setdefault(shots[1], []).append(protocol)
        elif protocol.family == "paper":
            found.append(_verdict(protocol, *_of_paper(run, metrics, sound, protocol)))
        else:
            found.append(_verdict(protocol, *_of_sound(run, metrics, protocol)))
    found += [_of_curve(run, metrics, unit, points) for unit, points in curves.items()]
    return sorted(found, key=lambda item: item.family != "sound")


def candidates(run: RunRecord) -> list[ModelRecord]:
    """Return the models that compete: no reference, no control, no untrained network."""
    return [model for model in run.models if role_of(model) == "model"]


def best_model(run: RunRecord, metrics: pd.DataFrame, protocol: str) -> ModelRecord | None:
    """Return the competing model of highest AUROC under a protocol, None without one."""
    known = [
        (estimate(metrics, protocol, (model.name, model.strategy), "auroc").value, model)
        for model in candidates(run)
    ]
    known = [(value, model) for value, model in known if np.isfinite(value)]
    return max(known, key=lambda pair: pair[0])[1] if known else None


def _verdict(protocol: ProtocolRecord, level: Level, text: str) -> Verdict:
    return Verdict(protocol.name, protocol.family, protocol.question, level, text)


def _nobody(run: RunRecord) -> tuple[Level, str]:
    if candidates(run):
        return "bad", "Not answered: no model has a number; see what was not evaluable."
    return "info", "Not answered: only references and controls ran, no model that competes."


def _of_sound(run: RunRecord, metrics: pd.DataFrame, protocol: ProtocolRecord) -> tuple[Level, str]:
    best = best_model(run, metrics, protocol.name)
    if best is None:
        return _nobody(run)
    top = estimate(metrics, protocol.name, (best.name, best.strategy), "auroc")
    n_models = len(candidates(run))
    who = display_name(best) + (f", the best of {n_models} models," if n_models > 1 else "")
    reached = f"reaches AUROC {top.text}"
    reached += f" ({top.interval}, 95 % interval over groups)" if top.interval else ""
    reached += "; a constant predictor has 0.50."
    kind = _KIND_OF_ZERO_SHOT.get(protocol.name, "")
    if top.value < CHANCE + AS_GOOD:
        return (
            "bad",
            f"No evidence: no model does better than a constant. {who} {reached} {kind}".strip(),
        )
    if not top.interval:
        return "warn", f"Cannot be said: too few groups. {who} {reached} {kind}".strip()
    if round(top.low, 2) <= CHANCE:  # as the reader sees it
        text = f"Not shown: the interval includes 0.50. {who} {reached} {kind}"
        return "warn", text.strip()
    return "good", f"Yes, better than chance: {who} {reached} {kind}".strip()


def _of_paper(
    run: RunRecord,
    metrics: pd.DataFrame,
    sound: ProtocolRecord | None,
    paper: ProtocolRecord,
) -> tuple[Level, str]:
    """Compare a random split with the sound one, for the model that the random split likes best."""
    best = best_model(run, metrics, paper.name)
    if best is None:
        return _nobody(run)
    key = (best.name, best.strategy)
    easy = estimate(metrics, paper.name, key, "auroc")
    hard = estimate(metrics, sound.name, key, "auroc") if sound else Estimate()
    text = f"{display_name(best)} reaches AUROC {easy.text}"
    text += f" ({easy.interval})" if easy.interval else ""
    if sound is None or not np.isfinite(hard.value):
        text += (
            ". Cells of one patient are on both sides of this split: the number compares with "
            "publications and is no evidence."
        )
        return "warn", text
    gap = easy.value - hard.value
    if gap < OVERSTATED:
        more = "more" if gap >= 0 else "less"
        text += f", {number(abs(gap))} {more} than under {sound.name}."
        return "info", text
    text += (
        f", but {hard.text} under {sound.name}. The difference of {number(gap)} is recognition of "
        "groups seen in training; a new patient will not bring it."
    )
    return "warn", text


def _of_curve(
    run: RunRecord, metrics: pd.DataFrame, unit: str, protocols: list[ProtocolRecord]
) -> Verdict:
    """Say how the best model of each number of shots does."""
    points = []
    for protocol in sorted(protocols, key=lambda item: shots_of(item.name) or (0, "")):
        best = best_model(run, metrics, protocol.name)
        if best is not None:
            one = estimate(metrics, protocol.name, (best.name, best.strategy), "auroc")
            shots, _ = shots_of(protocol.name) or (0, "")
            points.append((shots, display_name(best), one))
    question = f"How much do a few labelled {unit} of a new dataset help?"
    names = ", ".join(item.name for item in protocols)
    if not points:
        level, text = _nobody(run)
        return Verdict(names, "sound", question, level, text)
    said = "; ".join(
        f"{shots} per label: {one.text}"
        + (f" ({one.interval})" if one.interval else "")
        + f", {name}"
        for shots, name, one in points
    )
    above = any(np.isfinite(one.low) and one.low > CHANCE for _, _, one in points)
    text = f"AUROC of the best model with {said}. A constant predictor has 0.50."
    return Verdict(names, "sound", question, "good" if above else "warn", text)
