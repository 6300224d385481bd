"""From the tables of a run to what a page shows: rows, numbers as text, and plain sentences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from scdrugmap.run.record import ModelRecord, ProtocolRecord, RunRecord

CONSTANT = "constant"
REFERENCES = ("constant", "stratified")
TECHNICAL = "technical"
AS_GOOD = 0.02
"""A control within this AUROC of the best model does as well as it."""

OVERSTATED = 0.08
"""A random split that gives this much more AUROC than the sound one recognises patients."""

METRICS: dict[str, tuple[str, str]] = {
    "auroc": ("AUROC", "chance that a sensitive cell scores above a resistant one; 0.5 is chance"),
    "macro_f1": ("Macro-F1", "mean F1 of both classes at the threshold"),
    "mcc": ("MCC", "correlation of call and label; 0 is chance"),
    "balanced_accuracy": ("Balanced accuracy", "mean recall of both classes; 0.5 is chance"),
    "f1_sensitive": ("F1 sensitive", "F1 of the sensitive class"),
    "f1_resistant": ("F1 resistant", "F1 of the resistant class"),
    "auprc_sensitive": ("AUPRC sensitive", "chance is the share of sensitive cells"),
    "auprc_resistant": ("AUPRC resistant", "chance is the share of resistant cells"),
    "brier": ("Brier", "mean squared error of the probability; lower is better"),
    "ece": ("ECE", "expected calibration error, 15 equal-mass bins; lower is better"),
}
HEADLINE = ("auroc", "macro_f1", "mcc")

Level = Literal["bad", "warn", "good", "info"]


@dataclass(frozen=True)
class Estimate:
    """One number of the results: mean over seeds, its interval, and what it rests on."""

    value: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    spread: float = float("nan")
    n_seeds: int = 0
    n: int = 0
    n_sensitive: int = 0
    n_groups: int = 0
    n_invalid: int = 0
    note: str = ""

    @property
    def text(self) -> str:
        """The number with two decimals, or a dash."""
        return number(self.value)

    @property
    def interval(self) -> str:
        """``0.52 to 0.86``, or empty."""
        if not (np.isfinite(self.low) and np.isfinite(self.high)):
            return ""
        return f"{number(self.low)} to {number(self.high)}"


@dataclass(frozen=True)
class Row:
    """A model in a table of results."""

    key: tuple[str, str]
    name: str
    title: str
    kind: str
    badges: tuple[str, ...]
    cells: tuple[tuple[Estimate, ...], ...]  # per protocol, per metric


@dataclass(frozen=True)
class Finding:
    """A sentence that a reader must not miss."""

    level: Level
    text: str


@dataclass
class Summary:
    """What the page says in words and numbers."""

    protocols: list[ProtocolRecord]
    rows: list[Row]
    findings: list[Finding] = field(default_factory=list)


def number(value: float, digits: int = 2) -> str:
    """Return a number as text with a real minus sign; a dash where it is undefined."""
    return f"{value:.{digits}f}".replace("-", "−") if np.isfinite(value) else "–"


def estimate(
    metrics: pd.DataFrame, protocol: str, key: tuple[str, str], metric: str, *, level: str = "cell"
) -> Estimate:
    """Look up one number: pooled out-of-fold, threshold 0.5, mean over seeds.

    The interval is the mean of the bounds over seeds; `spread` is the standard deviation of the
    value over seeds, which is another kind of uncertainty and is never mixed in.
    """
    from scdrugmap.evaluate.tables import headline

    rows = metrics[
        (metrics["protocol"] == protocol)
        & (metrics["model"] == key[0])
        & (metrics["strategy"] == key[1])
    ]
    rows = headline(rows)
    rows = rows[(rows["metric"] == metric) & (rows["level"] == level)]
    fixed = np.isclose(rows["threshold"], 0.5)  # calls have a row for a tuned threshold too
    rows = rows[fixed] if fixed.any() else rows[rows["threshold"].isna()]
    if rows.empty:
        return Estimate()
    first = rows.iloc[0]
    values = rows["value"].to_numpy(float)
    known = np.isfinite(values)
    return Estimate(
        value=_mean(values),
        low=_mean(rows["ci_low"].to_numpy(float)),
        high=_mean(rows["ci_high"].to_numpy(float)),
        spread=float(values[known].std(ddof=1)) if known.sum() > 1 else float("nan"),
        n_seeds=len(rows),
        n=int(first["n"]),
        n_sensitive=int(first["n_sensitive"]),
        n_groups=int(first["n_groups"]),
        n_invalid=int(first["n_invalid"]),
        note=str(first["note"]),
    )


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def summarise(run: RunRecord, metrics: pd.DataFrame) -> Summary:
    """Make the headline rows and the findings of a run."""
    protocols = sorted(run.protocols, key=lambda item: item.family != "sound")
    shown = [item for item in protocols if item.status == "evaluated"]
    lead = shown[0].name if shown else ""

    def rank(model: ModelRecord) -> tuple[int, float]:
        if model.name in REFERENCES:
            return REFERENCES.index(model.name), 0.0
        value = estimate(metrics, lead, (model.name, model.strategy), "auroc").value
        return len(REFERENCES), -value if np.isfinite(value) else np.inf

    rows = []
    for model in sorted(run.models, key=rank):
        key = (model.name, model.strategy)
        cells = tuple(
            tuple(estimate(metrics, item.name, key, metric) for metric in HEADLINE)
            for item in shown
        )
        rows.append(
            Row(key, display_name(model), model.title, model.kind, tuple(_badges(model)), cells)
        )
    summary = Summary(protocols, rows)
    summary.findings = findings(run, metrics)
    return summary


def display_name(model: ModelRecord) -> str:
    """Return the name of a model as tables show it, with the strategy unless it is frozen."""
    return (
        model.name
        if model.strategy in ("estimator", "frozen")
        else f"{model.name} {model.strategy}"
    )


def _badges(model: ModelRecord) -> list[str]:
    badges = []
    if model.untrained:
        badges.append("untrained")
    if model.name in REFERENCES:
        badges.append("reference")
    elif model.name == TECHNICAL:
        badges.append("control")
    if model.level == "sample":
        badges.append("per sample")
    if model.commercial_use is False:
        badges.append("non-commercial")
    return badges


def findings(run: RunRecord, metrics: pd.DataFrame) -> list[Finding]:
    """Return what a reader must not miss, the gravest first within each protocol."""
    found: list[Finding] = []
    if any(item.simulated for item in run.datasets):
        found.append(
            Finding("info", "The cells are simulated: the truth is known, nothing here is biology.")
        )
    found += [
        Finding("bad", f"{item.name} was refused: {item.reason}")
        for item in run.protocols
        if item.status == "refused"
    ]
    sound = [x for x in run.protocols if x.family == "sound" and x.status == "evaluated"]
    paper = [x for x in run.protocols if x.family == "paper" and x.status == "evaluated"]
    for protocol in sound:
        found += _about_protocol(run, metrics, protocol)
    if not sound:
        found.append(
            Finding(
                "bad",
                "No sound protocol could be evaluated: no figure below is evidence that a model works for a new patient.",
            )
        )
    for protocol in paper:
        found += _about_gap(run, metrics, sound[0] if sound else None, protocol)
    found += [Finding("info", text) for text in _about_licences(run)]
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
        (estimate(metrics, protocol, (m.name, m.strategy), "auroc").value, m)
        for m in candidates(run)
    ]
    known = [(value, model) for value, model in known if np.isfinite(value)]
    return max(known, key=lambda pair: pair[0])[1] if known else None


def _about_protocol(
    run: RunRecord, metrics: pd.DataFrame, protocol: ProtocolRecord
) -> list[Finding]:
    best = best_model(run, metrics, protocol.name)
    if best is None:
        return []
    found = []
    top = estimate(metrics, protocol.name, (best.name, best.strategy), "auroc")
    n_models = len(candidates(run))
    text = f"{protocol.name}: the best of {n_models} models, {display_name(best)}, reaches AUROC {top.text}"
    text += f" ({top.interval}, 95 % interval over groups)" if top.interval else ""
    text += "; a constant predictor has 0.50."
    if top.interval and top.low <= 0.5:
        text += " The interval includes 0.5: these cells do not show that any model works."
        found.append(Finding("warn", text))
    elif not top.interval:
        text += " There are too few groups for an interval."
        found.append(Finding("warn", text))
    else:
        found.append(Finding("good", text))
    for model in run.models:
        control = estimate(metrics, protocol.name, (model.name, model.strategy), "auroc")
        if not np.isfinite(control.value) or control.value < top.value - AS_GOOD:
            continue
        if model.name == TECHNICAL:
            found.append(
                Finding(
                    "bad",
                    f"{protocol.name}: technical covariates alone (counts, genes, mitochondrial share) reach AUROC {control.text}, as much as the best model. The label goes with the quality of the cells or their batch.",
                )
            )
        elif model.name in REFERENCES:
            found.append(
                Finding(
                    "bad",
                    f"{protocol.name}: {model.name}, which never looks at a gene, does as well as the best model (AUROC {control.text}).",
                )
            )
        elif model.untrained:
            found.append(
                Finding(
                    "bad",
                    f"{protocol.name}: {display_name(model)} with random weights reaches AUROC {control.text}, as much as the best model. What is measured is not what was learnt in pretraining.",
                )
            )
    return found


def _about_gap(
    run: RunRecord,
    metrics: pd.DataFrame,
    sound: ProtocolRecord | None,
    paper: ProtocolRecord,
) -> list[Finding]:
    best = best_model(run, metrics, paper.name)
    if best is None:
        return []
    key = (best.name, best.strategy)
    easy = estimate(metrics, paper.name, key, "auroc")
    text = f"{paper.name}: {display_name(best)} reaches AUROC {easy.text}"
    hard = estimate(metrics, sound.name, key, "auroc") if sound else Estimate()
    if sound is None or not np.isfinite(hard.value):
        return [
            Finding(
                "warn",
                f"{text}. Cells of one patient are on both sides of this split: the number is comparable with publications, and no evidence.",
            )
        ]
    gap = easy.value - hard.value
    if gap < OVERSTATED:
        return [Finding("info", f"{text}, {number(gap)} more than under {sound.name}.")]
    return [
        Finding(
            "warn",
            f"{text}, but {hard.text} under {sound.name}. The difference of {number(gap)} is recognition of groups seen in training; a new patient will not bring it.",
        )
    ]


def _about_licences(run: RunRecord) -> list[str]:
    names = [model.name for model in run.models if model.commercial_use is False]
    return [f"Not for commercial use: the weights of {', '.join(names)}."] if names else []


def results_table(run: RunRecord, metrics: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return all metrics of a protocol as text, one row per model, the constant first."""
    rows = []
    for model in sorted(run.models, key=lambda item: item.name not in REFERENCES):
        key = (model.name, model.strategy)
        row: dict[str, str] = {"model": display_name(model)}
        for metric in METRICS:
            found = estimate(metrics, protocol, key, metric)
            row[metric] = found.text + (f" ({found.interval})" if found.interval else "")
        sample = estimate(metrics, protocol, key, "auroc", level="sample")
        row["auroc_of_samples"] = sample.text + (f" ({sample.interval})" if sample.interval else "")
        skill = estimate(metrics, protocol, key, "skill_macro_f1")
        row["skill_macro_f1"] = skill.text
        spread = estimate(metrics, protocol, key, "auroc").spread
        row["auroc_spread_over_seeds"] = number(spread, 3)
        rows.append(row)
    return pd.DataFrame(rows)


def split_table(splits: pd.DataFrame) -> pd.DataFrame:
    """Return per fold what is trained on and tested on: cells, groups, classes."""
    rows = []
    for fold, part in splits.groupby("fold", sort=True):
        row: dict[str, object] = {"fold": str(fold)}
        for role in ("train", "validation", "test", "excluded"):
            of_role = part[part["role"] == role]
            if role in ("validation", "excluded") and not (splits["role"] == role).any():
                continue
            row[f"{role} cells"] = len(of_role)
            if role in ("train", "test"):
                row[f"{role} groups"] = of_role["group"].nunique()
                row[f"{role} sensitive"] = int((of_role["label"] == "sensitive").sum())
                row[f"{role} resistant"] = int((of_role["label"] == "resistant").sum())
        shared = set(part.loc[part["role"] == "train", "group"]) & set(
            part.loc[part["role"] == "test", "group"]
        )
        row["groups on both sides"] = len(shared)
        rows.append(row)
    return pd.DataFrame(rows)
