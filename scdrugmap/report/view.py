"""From the tables of a run to the variables of the page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from scdrugmap.report.citations import bibtex, citations
from scdrugmap.report.compared import (
    comparison_sentence,
    comparison_table,
    verdict_of_comparisons,
)
from scdrugmap.report.findings import Finding, controls_by_dataset, findings
from scdrugmap.report.gallery import sample_table
from scdrugmap.report.gaps import missing_numbers, unanswered_cells
from scdrugmap.report.inline import web_file, web_picture, web_table
from scdrugmap.report.label_sets import set_sentence, set_table
from scdrugmap.report.methods import methods_paragraphs
from scdrugmap.report.ranks import rank_models, ranking_sentence
from scdrugmap.report.summary import (
    METRICS,
    display_name,
    estimate,
    results_table,
    split_table,
)
from scdrugmap.report.verdicts import verdicts

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from scdrugmap.report.gallery import Gallery, ModelPictures, Scored
    from scdrugmap.report.run_tables import RunTables
    from scdrugmap.report.style import Picture
    from scdrugmap.report.summary import Summary
    from scdrugmap.run.record import RunRecord

_ROLES = {"reference": "References", "model": "Models", "control": "Controls"}


def page_variables(
    tables: RunTables,
    summary: Summary,
    scored: Scored,
    gallery: Gallery,
    *,
    interactive: bool = False,
) -> dict[str, Any]:
    """Return everything that the template shows."""

    def web(pictures: list[Picture]) -> list[dict[str, Any]]:
        return [web_picture(item, interactive=interactive) for item in pictures]

    run, metrics = tables.run, tables.metrics
    works = citations(run)
    bib = bibtex(works)
    return {
        "run": run,
        "summary": summary,
        "shown": summary.shown,
        "verdicts": verdicts(run, metrics),
        "findings": [*(Finding("bad", text) for text in tables.warnings), *findings(run, metrics)],
        "simulated": any(item.simulated for item in run.datasets),
        "headline": [METRICS[name][0] for name in summary.metrics],
        "row_groups": [
            (title, [row for row in summary.rows if row.role == role])
            for role, title in _ROLES.items()
        ],
        "facts": _facts(tables),
        "coverage": _coverage(run),
        "notices": list(
            dict.fromkeys([*run.notices, *(n for d in run.datasets for n in d.notices)])
        ),
        "sizes": _sizes(metrics, summary),
        "overview": web(gallery.overview),
        "compared": web(gallery.compared),
        "comparisons": [
            (
                item,
                verdict_of_comparisons(run, tables.compared, item.name),
                web_table(table, f"comparisons-{item.name}"),
            )
            for item in summary.evaluated
            if len(table := comparison_table(run, tables.compared, item.name))
        ],
        "ranks": web(gallery.ranks),
        "ranked": _ranked(run, metrics, summary),
        "shots": web(gallery.shots),
        "zero_shot": [item for item in summary.evaluated if item.name.startswith("zero-shot")],
        "cell_map": web(gallery.maps),
        "heatmap": web(gallery.datasets),
        "parts": web(gallery.parts),
        "by_dataset": _optional(_rounded(controls_by_dataset(run, metrics)), "controls-by-dataset"),
        "models": [_model_page(item, web) for item in gallery.models],
        "left_out": gallery.left_out,
        "samples": [
            (item, web_table(table, f"samples-{item.name}"))
            for item in summary.shown
            if len(table := sample_table(scored, summary, item.name))
        ],
        "sets": [
            (
                item,
                set_sentence(run, metrics, item.name),
                web_table(table, f"sets-{item.name}"),
            )
            for item in summary.evaluated
            if len(table := set_table(run, metrics, item.name))
        ],
        "missing": _optional(missing_numbers(run, metrics), "not-evaluable"),
        "unanswered": _optional(unanswered_cells(tables), "cells-without-answer"),
        "deviations": [item for item in summary.evaluated if item.deviations],
        "splits": [
            {
                "protocol": item,
                "table": web_table(split_table(tables.splits[item.name]), f"splits-{item.name}"),
            }
            for item in summary.evaluated
        ],
        "tables": [
            {
                "protocol": item,
                "table": web_table(results_table(run, metrics, item.name), f"metrics-{item.name}"),
            }
            for item in summary.evaluated
        ],
        "glossary": list(METRICS.values()),
        "methods": methods_paragraphs(run, summary, compared=comparison_sentence(tables.compared)),
        "citations": works,
        "non_commercial": {
            model.model or model.name for model in run.models if model.commercial_use is False
        },
        "downloads": _downloads(tables, bib),
        "bibtex": bib,
        "provenance": [
            ("Configuration", _json(run.config)),
            ("Models, weights and options", _json({m.name: m.identity for m in run.models})),
            ("Versions and plugins", _json(run.provenance)),
        ],
    }


def _ranked(run: RunRecord, metrics: pd.DataFrame, summary: Summary) -> list[tuple[Any, str]]:
    """Say per shown protocol what the ranks over datasets show, or why there are none."""
    said = []
    for item in summary.shown:
        ranking, reason = rank_models(run, metrics, item.name)
        text = f"No ranks: {reason}." if ranking is None else ranking_sentence(ranking)
        said.append((item, text))
    return said


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)


def _optional(table: pd.DataFrame, file: str) -> dict[str, Any] | None:
    """Return a table as the page shows it, None for one without rows."""
    return web_table(table, file) if len(table) else None


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    return table.round(2).astype(object).where(table.notna(), "–")


def _downloads(tables: RunTables, bib: str) -> list[dict[str, Any]]:
    """Return the files that the page holds besides the tables that it shows."""
    from scdrugmap.run.record import run_text
    from scdrugmap.tables import table_bytes

    record = run_text(tables.run)
    return [
        web_file(
            "metrics.tsv",
            table_bytes(tables.metrics),
            "Every metric, fold, seed and interval",
        ),
        *(
            [
                web_file(
                    "comparisons.tsv",
                    table_bytes(tables.compared),
                    "Every comparison of two models, at all levels",
                )
            ]
            if len(tables.compared)
            else []
        ),
        web_file("run.json", record.encode(), "What decided the numbers"),
        web_file("references.bib", bib.encode(), "Works to cite, BibTeX"),
    ]


def _facts(tables: RunTables) -> dict[str, Any]:
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
    for item in summary.shown:
        found = [estimate(metrics, item.name, row.key, "auroc") for row in summary.rows]
        found = [one for one in found if one.n]
        if found:
            one = max(found, key=lambda each: each.n)
            lines.append(
                f"{item.name}: {one.n:,} test cells ({one.n_sensitive:,} sensitive), {one.n_groups} groups."
            )
    return lines


def _model_page(
    item: ModelPictures, web: Callable[[list[Picture]], list[dict[str, Any]]]
) -> dict[str, Any]:
    return {
        "row": item.row,
        "protocols": [(protocol, web(pictures)) for protocol, pictures in item.protocols],
        "headline": "AUROC " + ", ".join(f"{name} {text}" for name, text in item.auroc),
    }
