"""From the tables of a run to the variables of the page."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from scdrugmap.report import curves, figures, model_figures
from scdrugmap.report.findings import best_model
from scdrugmap.report.inline import web_picture, web_table
from scdrugmap.report.summary import (
    BEST_CONSTANT,
    HEADLINE,
    METRICS,
    REFERENCES,
    Row,
    Summary,
    best_constant_of,
    display_name,
    estimate,
    number,
    results_table,
    split_table,
    summarise,
)

if TYPE_CHECKING:
    from scdrugmap.report.style import Picture
    from scdrugmap.run.record import ProtocolRecord, RunRecord

PICTURE_BUDGET = 2_000_000
"""Characters that the figures of single models may take; the file stays under 3 MB."""

_MOST_GROUPS = 40  # a map with more colours than this says nothing


@dataclass(frozen=True)
class RunTables:
    """The tables of a finished run."""

    run: RunRecord
    metrics: pd.DataFrame
    predictions: dict[str, pd.DataFrame]  # by protocol, like splits
    splits: dict[str, pd.DataFrame]
    cell_map: pd.DataFrame | None


def page_variables(tables: RunTables) -> dict[str, Any]:
    """Return everything that the template shows."""
    run, metrics = tables.run, tables.metrics
    summary = summarise(run, metrics)
    shown = [item for item in summary.protocols if item.status == "evaluated"]
    scored = _scored(tables, shown)
    models, left_out = _model_pages(tables, summary, shown, scored)
    return {
        "run": run,
        "summary": summary,
        "shown": shown,
        "simulated": any(item.simulated for item in run.datasets),
        "headline": [METRICS[name][0] for name in HEADLINE],
        "facts": _facts(tables, scored),
        "coverage": _coverage(run),
        "notices": list(
            dict.fromkeys([*run.notices, *(n for d in run.datasets for n in d.notices)])
        ),
        "sizes": _sizes(metrics, summary),
        "overview": [web_picture(item) for item in _overview(tables, summary)],
        "cell_map": [web_picture(item) for item in _cell_map(tables, shown, scored)],
        "heatmap": [web_picture(item) for item in _heatmaps(run, metrics, shown, summary)],
        "models": models,
        "left_out": left_out,
        "splits": [
            {
                "protocol": item,
                "table": web_table(split_table(tables.splits[item.name]), f"splits-{item.name}"),
            }
            for item in shown
        ],
        "tables": [
            {
                "protocol": item,
                "table": web_table(results_table(run, metrics, item.name), f"metrics-{item.name}"),
            }
            for item in shown
        ],
        "glossary": list(METRICS.values()),
        "provenance": [
            ("Configuration", json.dumps(run.config, indent=2, sort_keys=True, ensure_ascii=False)),
            (
                "Models, weights and options",
                json.dumps(
                    {m.name: m.identity for m in run.models},
                    indent=2,
                    sort_keys=True,
                    ensure_ascii=False,
                ),
            ),
            (
                "Versions and plugins",
                json.dumps(run.provenance, indent=2, sort_keys=True, ensure_ascii=False),
            ),
        ],
        "cited": [model for model in run.models if model.citation],
    }


def _scored(
    tables: RunTables, shown: list[ProtocolRecord]
) -> dict[tuple[str, tuple[str, str]], pd.DataFrame]:
    """Return the test cells with labels of each protocol and model, first seed only."""
    scored = {}
    for protocol in shown:
        rows = tables.predictions[protocol.name]
        for key, part in rows.groupby(["model", "strategy"], sort=True):
            first = part[part["seed"] == part["seed"].min()]
            model, strategy = key
            scored[protocol.name, (str(model), str(strategy))] = curves.score_table(
                first, tables.splits[protocol.name]
            )
    return scored


def _facts(tables: RunTables, scored: dict[Any, pd.DataFrame]) -> dict[str, Any]:
    run = tables.run
    names = [item.name for item in run.protocols]
    seeds = sorted({int(seed) for rows in tables.predictions.values() for seed in rows["seed"]})
    total = {
        "cells": sum(item.n_used for item in run.datasets),
        "groups": sum(item.n_groups for item in run.datasets),
    }
    return {
        "models": len(run.models),
        "protocols": " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names),
        "seeds": f"mean of {len(seeds)} seeds" if len(seeds) > 1 else "one seed",
        "first_seed": seeds[0] if seeds else 0,
        "strip": [
            ("files" if len(run.datasets) > 1 else "file", len(run.datasets)),
            ("labelled cells", f"{total['cells']:,}"),
            ("groups (patients)", f"{total['groups']:,}"),
            ("sensitive", _share(sum(d.n_sensitive for d in run.datasets), total["cells"])),
            ("models and controls", len(run.models)),
            ("training seeds" if len(seeds) > 1 else "training seed", max(1, len(seeds))),
        ],
    }


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "–"


def _coverage(run: RunRecord) -> list[dict[str, Any]]:
    return [
        {
            "model": display_name(model),
            "untrained": model.untrained,
            "weights": model.weights,
            "dataset": item.dataset,
            "known": f"{item.n_known:,} of {item.n_genes:,}",
            "share": _share(item.n_known, item.n_genes),
            "low": item.n_known < 0.5 * item.n_genes,
            "unusable": f"{item.n_unusable:,}",
        }
        for model in run.models
        for item in model.coverage
    ]


def _sizes(metrics: pd.DataFrame, summary: Summary) -> list[str]:
    """Say what the headline numbers rest on, per protocol."""
    lines = []
    for item in summary.protocols:
        found = [estimate(metrics, item.name, row.key, "auroc") for row in summary.rows]
        found = [one for one in found if one.n]
        if found:
            one = max(found, key=lambda each: each.n)
            lines.append(
                f"{item.name}: {one.n:,} test cells ({one.n_sensitive:,} sensitive), {one.n_groups} groups."
            )
    return lines


def _overview(tables: RunTables, summary: Summary) -> list[Picture]:
    pictures = []
    shown = [item for item in summary.protocols if item.status == "evaluated"]
    for metric in ("auroc", "macro_f1"):
        rows = []
        for row in summary.rows:
            if row.name in (BEST_CONSTANT, *REFERENCES):
                continue
            name = f"{row.name} (untrained)" if "untrained" in row.badges else row.name
            for item in shown:
                one = estimate(tables.metrics, item.name, row.key, metric)
                rows.append((name, item.name, item.family, one.value, one.low, one.high))
        table = pd.DataFrame(
            rows, columns=["name", "protocol", "family", "value", "ci_low", "ci_high"]
        )
        if table["value"].notna().any():
            picture = figures.intervals(
                table,
                title=f"{METRICS[metric][0]} per model",
                reference=best_constant_of(tables.metrics, shown[0].name, metric).value,
                reference_name="best constant",
                file=f"overview-{metric}",
            )
            pictures.append(picture)
    return pictures


def _cell_map(
    tables: RunTables,
    shown: list[ProtocolRecord],
    scored: dict[tuple[str, tuple[str, str]], pd.DataFrame],
) -> list[Picture]:
    points = tables.cell_map
    if points is None or points.empty:
        return []
    method = tables.run.cell_map
    base = points[["dataset", "cell", "x", "y"]]
    pictures = [
        figures.cell_map(
            points[[*base.columns, "label"]],
            title="Label",
            colour="label",
            method=method,
            file="map-label",
        )
    ]
    if 1 < points["group"].nunique() <= _MOST_GROUPS:
        pictures.append(
            figures.cell_map(
                points[[*base.columns, "group"]],
                title=f"Group ({points['group'].nunique()} colours)",
                colour="group",
                method=method,
                file="map-group",
            )
        )
    model = best_model(tables.run, tables.metrics, shown[0].name) or _any_model(tables.run)
    key = (model.name, model.strategy)
    for protocol in shown:
        if (protocol.name, key) not in scored:
            continue
        rows = scored[protocol.name, key]
        p = rows.assign(p_sensitive=rows["p_sensitive"].where(rows["state"] == "answered"))
        p = p.groupby(["dataset", "cell"])["p_sensitive"].mean().reset_index()
        pictures.append(
            figures.cell_map(
                base.merge(p, on=["dataset", "cell"], how="left"),
                title=f"p_sensitive, {display_name(model)}, {protocol.name}",
                colour="p_sensitive",
                method=method,
                file=f"map-{protocol.name}-{model.name}",
            )
        )
    return pictures


def _any_model(run: RunRecord) -> Any:
    return next((m for m in run.models if m.name not in REFERENCES), run.models[0])


def _heatmaps(
    run: RunRecord, metrics: pd.DataFrame, shown: list[ProtocolRecord], summary: Summary
) -> list[Picture]:
    if len(run.datasets) < 2:
        return []
    pictures = []
    rows = metrics[
        (metrics["fold"].astype(str) == "all")
        & (metrics["level"] == "cell")
        & (metrics["metric"] == "auroc")
        & metrics["dataset"].isin([item.name for item in run.datasets])
    ]
    for protocol in shown:
        table = rows[rows["protocol"] == protocol.name]
        means = table.groupby(["model", "strategy", "dataset"], as_index=False)["value"].mean()
        names = {row.key: row.name for row in summary.rows}
        order = {row.key: position for position, row in enumerate(summary.rows)}
        keys = list(zip(means["model"], means["strategy"], strict=True))
        means = means.assign(
            name=[names.get(key, key[0]) for key in keys],
            order=[order.get(key, len(order)) for key in keys],
        ).sort_values(["order", "dataset"])
        if len(means):
            pictures.append(
                figures.heatmap(
                    means[["name", "dataset", "value"]].reset_index(drop=True),
                    title=f"AUROC, {protocol.name}",
                    reference=0.5,
                    file=f"datasets-{protocol.name}",
                )
            )
    return pictures


def _model_pages(
    tables: RunTables,
    summary: Summary,
    shown: list[ProtocolRecord],
    scored: dict[tuple[str, tuple[str, str]], pd.DataFrame],
) -> tuple[list[dict[str, Any]], list[str]]:
    """Draw each model's figures, best first, until the budget is used; name the rest."""
    pages: list[dict[str, Any]] = []
    left_out: list[str] = []
    used = 0
    for row in summary.rows:
        if row.name in (BEST_CONSTANT, *REFERENCES):
            continue
        if used > PICTURE_BUDGET:
            left_out.append(row.name)
            continue
        parts = []
        for protocol in shown:
            if (protocol.name, row.key) not in scored:
                continue
            rows = scored[protocol.name, row.key]
            drawn = [web_picture(item) for item in _model_pictures(tables, row, protocol, rows)]
            used += sum(len(item["src"]) + len(item["data"]) for item in drawn)
            parts.append((protocol, drawn))
        values = [f"{item.name} {one.text}" for item, one in zip(shown, row.cells[0], strict=True)]
        pages.append({"row": row, "protocols": parts, "headline": "AUROC " + ", ".join(values)})
    return pages, left_out


def _model_pictures(
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
