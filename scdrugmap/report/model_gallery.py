"""The figures of single models: how each ranks, is calibrated, calls cells and samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd

from scdrugmap.report import curves, model_figures
from scdrugmap.report.summary import Row, Summary, best_constant_of, estimate, number

if TYPE_CHECKING:
    from scdrugmap.report.run_tables import RunTables
    from scdrugmap.report.style import Picture
    from scdrugmap.run.record import ProtocolRecord

PICTURE_BUDGET = 1_300_000
"""Bytes that the figures of single models may take; the file stays under 3 MB."""

Scored = dict[tuple[str, tuple[str, str]], pd.DataFrame]
"""Test cells with their labels by protocol and (model, strategy), first seed only."""


@dataclass(frozen=True)
class ModelPictures:
    """The AUROC and the figures of one row of the results, by protocol."""

    row: Row
    auroc: list[tuple[str, str]]
    protocols: list[tuple[ProtocolRecord, list[Picture]]]


def draw_models(
    tables: RunTables, summary: Summary, scored: Scored, budget: int
) -> tuple[list[ModelPictures], list[str]]:
    """Draw the figures of each model, best first, until the budget of bytes is used.

    Returns
    -------
    list of ModelPictures
    list of str
        Models that were left out.
    """
    models: list[ModelPictures] = []
    left_out: list[str] = []
    used = 0
    for row in summary.of_role("model", "control"):
        known = [item for item in summary.shown if (item.name, row.key) in scored]
        if not known:
            continue  # predictions of permuted labels are no results of the cells
        if used > budget:
            left_out.append(row.name)
            continue
        parts = [(item, _of_model(tables, row, item, scored[item.name, row.key])) for item in known]
        used += sum(len(one.image) for _, pictures in parts for one in pictures)
        found = [
            (item.name, estimate(tables.metrics, item.name, row.key, "auroc")) for item in known
        ]
        models.append(ModelPictures(row, [(name, one.text) for name, one in found], parts))
    return models, left_out


def _of_model(
    tables: RunTables, row: Row, protocol: ProtocolRecord, rows: pd.DataFrame
) -> list[Picture]:
    """Draw ROC, precision and recall, calibration, calls and samples of one model."""
    name = f"{protocol.name}-{row.name}".replace(" ", "-")
    of = f"{row.name}, {protocol.name}"

    def value(metric: str) -> str:
        return _first_seed(tables.metrics, protocol.name, row.key, metric)

    def constant(metric: str) -> str:
        return best_constant_of(tables.metrics, protocol.name, metric).text

    drawn: list[tuple[Picture, str]] = []
    points = curves.roc_points(rows)
    if len(points):
        share = float(rows["y"].mean())
        picture = model_figures.roc(
            points, of=of, area=f"AUROC {value('auroc')}", file=f"roc-{name}"
        )
        drawn.append((picture, f"Best constant: {constant('auroc')}."))
        picture = model_figures.precision_recall(
            curves.precision_recall_points(rows),
            prevalence=share,
            of=of,
            area=f"AUPRC {value('auprc_sensitive')}",
            file=f"pr-{name}",
        )
        drawn.append((picture, f"Best constant: {number(share)}, the share sensitive."))
    if len(rows):
        note = f"ECE {value('ece')}, Brier {value('brier')}"
        bins = curves.calibration_bins(rows)
        picture = model_figures.calibration(bins, of=of, note=note, file=f"calibration-{name}")
        drawn.append((picture, f"Best constant: Brier {constant('brier')}."))
        thresholds = sorted(set(rows["threshold"]))
        at = f"p ≥ {thresholds[0]:g}" if len(thresholds) == 1 else "the threshold of its fold"
        counts = curves.confusion_counts(rows)
        picture = model_figures.confusion(counts, of=of, threshold=at, file=f"calls-{name}")
        beside = f"Macro-F1 {value('macro_f1')}; best constant: {constant('macro_f1')}."
        drawn.append((picture, beside))
        bars = curves.sample_bars(rows)
        least = curves.MIN_CELLS_PER_SAMPLE
        picture = model_figures.samples(bars, of=of, min_cells=least, file=f"samples-{name}")
        drawn.append((picture, "A constant calls every sample alike."))
    return [replace(item, caption=f"{item.caption} {text}".strip()) for item, text in drawn]


def _first_seed(metrics: pd.DataFrame, protocol: str, key: tuple[str, str], metric: str) -> str:
    rows = metrics[(metrics["protocol"] == protocol) & (metrics["model"] == key[0])]
    rows = rows[rows["seed"] == rows["seed"].min()]
    return estimate(rows, protocol, key, metric).text
