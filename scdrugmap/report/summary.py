"""From the tables of a run to what a page shows: rows, numbers as text, and plain sentences."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from scdrugmap.run.record import ModelRecord, ProtocolRecord, RunRecord

BEST_CONSTANT = "best constant"
"""The reference row that is computed and not trained."""

REFERENCES = ("constant", "stratified")
TECHNICAL = "technical"

Role = Literal["reference", "model", "control"]

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

_ROLES: tuple[Role, ...] = ("reference", "model", "control")
_MOST_COLUMNS = 6  # numbers beside each other that a screen takes
_FEW_SHOT = re.compile(r"few-shot-(\d+)(?:-(cells))?")


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
    role: Role
    badges: tuple[str, ...]
    cells: tuple[tuple[Estimate, ...], ...]  # per metric, per protocol


@dataclass(frozen=True)
class Summary:
    """The headline numbers of a run.

    Attributes
    ----------
    protocols : list of ProtocolRecord
        All, the sound ones first.
    shown : list of ProtocolRecord
        Those of the columns of `rows`: evaluated, and no point of a few-shot curve unless there is
        nothing else.
    metrics : tuple of str
        Those of the columns: fewer where there are many protocols.
    rows : list of Row
        References, models by falling AUROC, controls.
    """

    protocols: list[ProtocolRecord]
    shown: list[ProtocolRecord]
    metrics: tuple[str, ...]
    rows: list[Row]

    @property
    def evaluated(self) -> list[ProtocolRecord]:
        """Every protocol with numbers."""
        return [item for item in self.protocols if item.status == "evaluated"]

    def of_role(self, *roles: Role) -> list[Row]:
        """Return the rows of some roles, without the computed constant."""
        return [row for row in self.rows if row.role in roles and row.name != BEST_CONSTANT]


def number(value: float, digits: int = 2) -> str:
    """Return a number as text with a real minus sign; a dash where it is undefined."""
    # adding 0.0 takes the sign from a zero
    return (
        f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−") if np.isfinite(value) else "–"
    )


def estimate(
    metrics: pd.DataFrame,
    protocol: str,
    key: tuple[str, str],
    metric: str,
    *,
    level: str = "cell",
    threshold: float = 0.5,
) -> Estimate:
    """Look up one number: pooled out-of-fold, mean over seeds; calls at one threshold.

    The interval is the mean of the bounds over seeds; `spread` is the standard deviation of the
    value over seeds, which is another kind of uncertainty and is never mixed in.
    """
    from scdrugmap.evaluation.tables import headline

    rows = metrics[
        (metrics["protocol"] == protocol)
        & (metrics["model"] == key[0])
        & (metrics["strategy"] == key[1])
    ]
    rows = headline(rows)
    rows = rows[(rows["metric"] == metric) & (rows["level"] == level)]
    fixed = np.isclose(rows["threshold"], threshold)  # calls have one for a tuned threshold too
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


def best_constant_of(metrics: pd.DataFrame, protocol: str, metric: str) -> Estimate:
    """Return what the best single constant reaches on the test cells of a protocol.

    A predictor that is constant within each fold can do worse: a fold that tests many sensitive
    cells was trained on few.
    """
    from scdrugmap.evaluation.metrics import METRICS as SCORED
    from scdrugmap.evaluation.metrics import best_constant

    rows = metrics[
        (metrics["protocol"] == protocol)
        & (metrics["fold"].astype(str) == "all")
        & (metrics["level"] == "cell")
        & (metrics["metric"] == "auroc")
    ]
    if rows.empty or metric not in SCORED or metric == "ece":
        return Estimate()
    most = rows.iloc[int(rows["n"].to_numpy().argmax())]
    n, n_sensitive = int(most["n"]), int(most["n_sensitive"])
    value = float(best_constant(metric, n_sensitive, n - n_sensitive))
    return Estimate(value, n=n, n_sensitive=n_sensitive, n_groups=int(most["n_groups"]))


def summarise(run: RunRecord, metrics: pd.DataFrame) -> Summary:
    """Make the headline rows of a run."""
    protocols = sorted(run.protocols, key=lambda item: item.family != "sound")
    evaluated = [item for item in protocols if item.status == "evaluated"]
    shown = [item for item in evaluated if shots_of(item.name) is None] or evaluated[:1]
    lead = shown[0].name if shown else ""
    chosen = HEADLINE[: max(1, _MOST_COLUMNS // max(1, len(shown)))]

    def rank(model: ModelRecord) -> tuple[int, float]:
        value = estimate(metrics, lead, (model.name, model.strategy), "auroc").value
        if role_of(model) == "reference":
            value = 0.0
        return _ROLES.index(role_of(model)), -value if np.isfinite(value) else np.inf

    trivial = tuple(
        tuple(best_constant_of(metrics, item.name, metric) for item in shown) for metric in chosen
    )
    rows = [Row(("", ""), BEST_CONSTANT, "", "reference", (), trivial)]
    for model in sorted(run.models, key=rank):
        key = (model.name, model.strategy)
        cells = tuple(
            tuple(estimate(metrics, item.name, key, metric) for item in shown) for metric in chosen
        )
        badges = tuple(_badges(model))
        rows.append(Row(key, display_name(model), model.title, role_of(model), badges, cells))
    return Summary(protocols, shown, chosen, rows)


def role_of(model: ModelRecord) -> Role:
    """Say whether a model is a trivial reference, a control, or competes."""
    if model.control == "constant" or model.name in REFERENCES:
        return "reference"
    return "control" if model.control or model.untrained or model.name == TECHNICAL else "model"


def shots_of(protocol: str) -> tuple[int, str] | None:
    """Return shots and their unit of a few-shot protocol: ``few-shot-4-cells`` is (4, "cells")."""
    found = _FEW_SHOT.fullmatch(protocol)
    return (int(found[1]), found[2] or "samples") if found else None


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
    if model.control == "permuted":
        badges.append("permuted labels")
    if model.level == "sample":
        badges.append("per sample")
    if model.commercial_use is False:
        badges.append("non-commercial")
    return badges


def results_table(run: RunRecord, metrics: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return all metrics of a protocol as text, one row per model, the best constant first."""
    trivial = {metric: best_constant_of(metrics, protocol, metric).text for metric in METRICS}
    rows = [{"model": BEST_CONSTANT, **trivial}]
    for model in sorted(run.models, key=lambda item: _ROLES.index(role_of(item))):
        key = (model.name, model.strategy)
        found = {metric: estimate(metrics, protocol, key, metric) for metric in METRICS}
        sample = estimate(metrics, protocol, key, "auroc", level="sample")
        rows.append(
            {
                "model": display_name(model),
                **{metric: _with_interval(one) for metric, one in found.items()},
                "auroc_of_samples": _with_interval(sample),
                "skill_macro_f1": estimate(metrics, protocol, key, "skill_macro_f1").text,
                "auroc_spread_over_seeds": number(found["auroc"].spread, 3),
            }
        )
    return pd.DataFrame(rows).fillna("–")


def _with_interval(found: Estimate) -> str:
    return found.text + (f" ({found.interval})" if found.interval else "")


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
