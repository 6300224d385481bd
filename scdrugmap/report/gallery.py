"""All figures of a run, drawn once for the page and for files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdrugmap.report import curves, figures
from scdrugmap.report.compared import comparison_pictures
from scdrugmap.report.model_gallery import PICTURE_BUDGET, ModelPictures, Scored, draw_models
from scdrugmap.report.ranks import rank_models, ranking_picture
from scdrugmap.report.style import SERIES
from scdrugmap.report.summary import (
    METRICS,
    Summary,
    best_constant_of,
    display_name,
    estimate,
    shots_of,
)
from scdrugmap.report.verdicts import best_model

if TYPE_CHECKING:
    from scdrugmap.report.run_tables import RunTables
    from scdrugmap.report.style import Picture
    from scdrugmap.run.record import ModelRecord, RunRecord

__all__ = [
    "PICTURE_BUDGET",
    "Gallery",
    "ModelPictures",
    "Scored",
    "draw_gallery",
    "sample_table",
    "score_cells",
]

MOST_GROUPS = 40
"""A map with more colours than this says nothing."""


@dataclass(frozen=True)
class Gallery:
    """The figures of a run by section of the page.

    Attributes
    ----------
    overview, compared, ranks, shots, datasets, parts, maps : list of Picture
        ``parts`` are tissues, cancer types, drug types and drugs.
    models : list of ModelPictures
    left_out : list of str
        Models without figures, to keep the file small.
    """

    overview: list[Picture]
    compared: list[Picture]
    ranks: list[Picture]
    shots: list[Picture]
    datasets: list[Picture]
    parts: list[Picture]
    maps: list[Picture]
    models: list[ModelPictures]
    left_out: list[str]

    def __iter__(self) -> Iterator[Picture]:
        yield from self.overview
        yield from self.compared
        for pictures in (self.ranks, self.shots, self.datasets, self.parts, self.maps):
            yield from pictures
        for model in self.models:
            for _, pictures in model.protocols:
                yield from pictures


def draw_gallery(
    tables: RunTables, summary: Summary, scored: Scored, *, budget: int = PICTURE_BUDGET
) -> Gallery:
    """Draw the figures of a run; those of single models best first, until the budget is used."""
    models, left_out = draw_models(tables, summary, scored, budget)
    return Gallery(
        overview=_overview(tables, summary),
        compared=comparison_pictures(
            tables.run, tables.compared, [item.name for item in summary.shown]
        ),
        ranks=_ranks(tables, summary),
        shots=_shots(tables, summary),
        datasets=_datasets(tables, summary),
        parts=_parts(tables.metrics, summary),
        maps=_maps(tables, summary, scored),
        models=models,
        left_out=left_out,
    )


def score_cells(tables: RunTables, summary: Summary) -> Scored:
    """Put labels beside the predictions of each shown protocol and model, first seed only."""
    scored = {}
    for protocol in summary.shown:
        rows = tables.predictions[protocol.name]
        for key, part in rows.groupby(["model", "strategy"], sort=True):
            first = part[part["seed"] == part["seed"].min()]
            model, strategy = key
            scored[protocol.name, (str(model), str(strategy))] = curves.score_table(
                first, tables.splits[protocol.name]
            )
    return scored


def _overview(tables: RunTables, summary: Summary) -> list[Picture]:
    pictures = []
    for metric in ("auroc", "macro_f1"):
        rows = []
        for row in summary.of_role("model", "control"):
            name = row.name + figures.UNTRAINED * ("untrained" in row.badges)
            for item in summary.shown:
                one = estimate(tables.metrics, item.name, row.key, metric)
                rows.append((name, row.role, item.name, item.family, one.value, one.low, one.high))
        table = pd.DataFrame(
            rows, columns=["name", "role", "protocol", "family", "value", "ci_low", "ci_high"]
        )
        if table["value"].notna().any():
            picture = figures.intervals(
                table,
                title=f"{METRICS[metric][0]} per model",
                reference=best_constant_of(tables.metrics, summary.shown[0].name, metric).value,
                reference_name="best constant",
                file=f"overview-{metric}",
            )
            pictures.append(picture)
    return pictures


def _ranks(tables: RunTables, summary: Summary) -> list[Picture]:
    pictures = []
    for item in summary.shown:
        ranking, _ = rank_models(tables.run, tables.metrics, item.name)
        if ranking is not None:
            pictures.append(ranking_picture(ranking, item))
    return pictures


def _shots(tables: RunTables, summary: Summary) -> list[Picture]:
    """Draw AUROC against the labelled samples, and against the labelled cells, of the target."""
    units: dict[str, dict[int, str]] = {}
    for item in summary.evaluated:
        shots = shots_of(item.name)
        if shots:
            units.setdefault(shots[1], {})[shots[0]] = item.name
    zero = next((item.name for item in summary.evaluated if item.name == "zero-shot"), "")
    pictures = []
    for unit, protocols in units.items():
        of_shots = dict(sorted({**({0: zero} if zero else {}), **protocols}.items()))
        rows = [
            (row.name, shots, *_value_and_interval(tables.metrics, name, row.key))
            for row in summary.of_role("model", "control")
            for shots, name in of_shots.items()
        ]
        table = pd.DataFrame(rows, columns=["name", "shots", "value", "ci_low", "ci_high"])
        last = table[table["shots"] == max(of_shots)].set_index("name")["value"]
        best = list(last.dropna().sort_values(ascending=False).index[: len(SERIES)])
        table = table[table["name"].isin(best)]
        if len(table):
            table = table.sort_values(
                "name", key=lambda of: of.map(best.index), kind="stable", ignore_index=True
            )
            title = f"AUROC by labelled {unit}"
            picture = figures.shot_curves(table, title=title, unit=unit, file=f"few-shot-{unit}")
            more = len(last) - len(best)
            note = (
                f"The best {len(best)} of {len(last)} rows; the others are below." if more else ""
            )
            pictures.append(replace(picture, caption=note))
    return pictures


def _value_and_interval(
    metrics: pd.DataFrame, protocol: str, key: tuple[str, str]
) -> tuple[float, float, float]:
    one = estimate(metrics, protocol, key, "auroc")
    return one.value, one.low, one.high


def _datasets(tables: RunTables, summary: Summary) -> list[Picture]:
    """Draw model by dataset."""
    names = [item.name for item in tables.run.datasets]
    if len(names) < 2:
        return []
    rows = _pooled_auroc(tables.metrics)
    rows = rows[(rows["facet"] == "") & rows["dataset"].isin(names)]
    pictures = []
    for protocol in summary.shown:
        table = _by_model(rows[rows["protocol"] == protocol.name], "dataset", summary)
        if len(table):
            picture = figures.heatmap(
                table,
                title=f"AUROC, {protocol.name}",
                reference=0.5,
                file=f"datasets-{protocol.name}",
            )
            pictures.append(picture)
    return pictures


def _parts(metrics: pd.DataFrame, summary: Summary) -> list[Picture]:
    """Draw model by tissue, cancer type, drug type and drug, where the run knows them."""
    rows = _pooled_auroc(metrics)
    rows = rows[rows["facet"] != ""]
    rows = rows.assign(
        kind=[facet.partition("=")[0] for facet in rows["facet"]],
        part=[facet.partition("=")[2] for facet in rows["facet"]],
    )
    pictures = []
    for protocol in summary.shown:
        for kind, of_kind in rows[rows["protocol"] == protocol.name].groupby("kind", sort=False):
            said = str(kind).replace("_", " ")
            picture = figures.heatmap(
                _by_model(of_kind, "part", summary),
                title=f"AUROC by {said}, {protocol.name}",
                reference=0.5,
                file=f"{kind}-{protocol.name}",
            )
            pictures.append(picture)
    return pictures


def _pooled_auroc(metrics: pd.DataFrame) -> pd.DataFrame:
    metrics = metrics if "facet" in metrics else metrics.assign(facet="")
    return metrics[
        (metrics["fold"].astype(str) == "all")
        & (metrics["level"] == "cell")
        & (metrics["metric"] == "auroc")
    ]


def _by_model(rows: pd.DataFrame, column: str, summary: Summary) -> pd.DataFrame:
    """Return name, dataset, value: one row per model and part, the constant first."""
    means = rows.groupby(["model", "strategy", column], as_index=False)["value"].mean()
    if means.empty:
        return pd.DataFrame(columns=["name", "dataset", "value"])
    parts = sorted(set(means[column]))
    known = means.groupby(column)["value"].count()  # where nobody is evaluable, a constant is not
    constant = pd.DataFrame({"name": "best constant", "dataset": parts, "value": 0.5})
    constant["value"] = constant["value"].where(constant["dataset"].map(known) > 0)
    order = {row.key: place for place, row in enumerate(summary.rows) if row.role != "reference"}
    names = {row.key: row.name for row in summary.rows}
    keys = list(zip(means["model"], means["strategy"], strict=True))
    means = means.assign(
        name=[names.get(key, key[0]) for key in keys], place=[order.get(key, -1) for key in keys]
    )
    means = means[means["place"] >= 0].sort_values(["place", column], kind="stable")
    means = means.rename(columns={column: "dataset"})[["name", "dataset", "value"]]
    return pd.concat([constant, means], ignore_index=True)


def _maps(tables: RunTables, summary: Summary, scored: Scored) -> list[Picture]:
    points = tables.cell_map
    if points is None or points.empty or not summary.shown:
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
    if 1 < points["group"].nunique() <= MOST_GROUPS:
        pictures.append(
            figures.cell_map(
                points[[*base.columns, "group"]],
                title=f"Group ({points['group'].nunique()} colours)",
                colour="group",
                method=method,
                file="map-group",
            )
        )
    model = _model_of_maps(tables.run, tables.metrics, summary)
    for protocol in summary.shown:
        if (protocol.name, (model.name, model.strategy)) not in scored:
            continue
        rows = scored[protocol.name, (model.name, model.strategy)]
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


def _model_of_maps(run: RunRecord, metrics: pd.DataFrame, summary: Summary) -> ModelRecord:
    best = best_model(run, metrics, summary.shown[0].name)
    if best is not None:
        return best
    keys = [row.key for row in summary.of_role("model", "control")]
    return next((m for m in run.models if (m.name, m.strategy) in keys), run.models[0])


def sample_table(scored: Scored, summary: Summary, protocol: str) -> pd.DataFrame:
    """Return the mean p_sensitive of each sample, one column per model, and the cells it rests on."""
    columns: dict[str, pd.Series] = {}
    base = None
    for row in summary.of_role("model", "control"):
        if (protocol, row.key) not in scored:
            continue
        cells = scored[protocol, row.key]
        samples = cells.groupby(["dataset", "sample"], sort=True)
        columns[row.name] = samples["p"].mean().round(3)
        if base is None:
            base = samples.agg(
                label=("label", lambda of: of.iloc[0] if of.nunique() == 1 else "mixed"),
                cells=("p", "size"),
            )
    if base is None:
        return pd.DataFrame()
    table = base.join(pd.DataFrame(columns)).reset_index()
    table = table.sort_values(["label", "dataset", "sample"], ascending=[False, True, True])
    names = ["sample", "dataset", "label", "cells", *columns]
    table["cells"] = table["cells"].astype(np.int64)
    if table["dataset"].nunique() == 1:
        names.remove("dataset")
    return table[names].reset_index(drop=True)
