"""The report of a run whose tables are made by hand: what it says, and what it must never do."""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scdrugmap.errors import DataError, UsageError
from scdrugmap.report.build import build_report
from scdrugmap.report.findings import controls_by_dataset, findings
from scdrugmap.report.run_tables import read_tables
from scdrugmap.report.summary import summarise
from scdrugmap.report.verdicts import best_model, verdicts
from scdrugmap.run.record import (
    CELL_MAP_FILE,
    CoverageRecord,
    DatasetRecord,
    ModelRecord,
    ProtocolRecord,
    RunRecord,
    write_run,
)
from scdrugmap.tables import write_table

N_PATIENTS, N_CELLS = 12, 60  # cells per patient
SOUND = ProtocolRecord(
    name="pooled-group", family="sound", question="A new patient?", status="evaluated", n_folds=3
)
PAPER = ProtocolRecord(
    name="paper-pooled", family="paper", question="Random cells?", status="evaluated", n_folds=3
)
HOSTILE = "<script>alert(1)</script>$x^{$\t\"'"


def cells(n_patients: int = N_PATIENTS, names: str = "P%02d") -> pd.DataFrame:
    """Make the cells of patients, every other one sensitive."""
    patient = np.repeat(np.arange(n_patients), N_CELLS)
    return pd.DataFrame(
        {
            "dataset": "cohort",
            "cell": [f"c{i}" for i in range(len(patient))],
            "sample": [names % i for i in patient],
            "donor": [names % i for i in patient],
            "study": "",
            "label": np.where(patient % 2 == 0, "sensitive", "resistant"),
            "group": [names % i for i in patient],
            "patient": patient,
        }
    )


def split_of(table: pd.DataFrame, protocol: str, folds: int = 3) -> pd.DataFrame:
    """Divide patients (sound) or cells (paper) into folds."""
    from scdrugmap.evaluation.tables import SPLIT_COLUMNS, split_id

    unit = table["patient"] // 2 if protocol == "pooled-group" else pd.Series(range(len(table)))
    parts = [
        table.assign(fold=fold, role=np.where(unit % folds == fold, "test", "train"))
        for fold in range(folds)
    ]
    rows = pd.concat(parts, ignore_index=True)
    rows["split_id"] = split_id(rows, protocol)
    return rows[list(SPLIT_COLUMNS)]


def predictions_of(
    splits: pd.DataFrame, model: str, strategy: str, signal: float, seeds: tuple[int, ...] = (0, 1)
) -> pd.DataFrame:
    """Predict the test cells of a split, `signal` better than chance."""
    from scdrugmap.evaluation.tables import PREDICTION_COLUMNS

    test = splits[splits["role"] == "test"]
    parts = []
    for seed in seeds:
        random = np.random.default_rng([seed, len(model)])
        y = np.where(test["label"] == "sensitive", 1.0, -1.0)
        p = 1 / (1 + np.exp(-(signal * y + random.normal(0, 1, len(test)))))
        parts.append(
            test[["dataset", "cell", "sample", "fold", "role"]].assign(
                model=model,
                strategy=strategy,
                seed=seed,
                p_sensitive=0.5 if signal == 0 and model == "constant" else p,
                threshold=0.5,
                state="answered",
                reason="",
            )
        )
    return pd.concat(parts, ignore_index=True)[list(PREDICTION_COLUMNS)]


DRAWS = 50
"""Of the bootstrap, for scores and for the comparisons that a report makes."""

MODELS: dict[str, dict[str, Any]] = {
    "constant": {
        "kind": "estimator",
        "strategy": "estimator",
        "title": "Majority class",
        "control": "constant",
    },
    "technical": {
        "kind": "estimator",
        "strategy": "estimator",
        "title": "Technical covariates",
        "control": "technical",
    },
    "hvg-logreg": {"kind": "estimator", "strategy": "estimator", "title": "Logistic regression"},
    "scgpt": {
        "kind": "model",
        "strategy": "frozen",
        "title": "scGPT",
        "control": "untrained",
        "weights": "random weights (untrained, means nothing)",
        "untrained": True,
        "citation": "Cui et al., Nature Methods 2024.",
        "coverage": (CoverageRecord(dataset="cohort", n_known=1200, n_genes=2000),),
    },
}
SIGNAL = {
    "pooled-group": {"constant": 0.0, "technical": 0.05, "hvg-logreg": 0.5, "scgpt": 0.1},
    "paper-pooled": {"constant": 0.0, "technical": 0.3, "hvg-logreg": 1.8, "scgpt": 0.8},
}


@cache
def scored_split(
    names: str, protocol: str, signal: tuple[tuple[str, float], ...]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return split, predictions and metrics; many tests want the same, and scoring takes long."""
    from scdrugmap.evaluation.evaluate import evaluate

    splits = split_of(cells(names=names), protocol)
    predictions = pd.concat(
        [
            predictions_of(splits, model, MODELS[model]["strategy"], strength)
            for model, strength in signal
        ],
        ignore_index=True,
    )
    return splits, predictions, evaluate(predictions, splits, draws=DRAWS)


def make_run(
    folder: Path,
    *,
    names: str = "P%02d",
    signal: dict[str, dict[str, float]] = SIGNAL,
    protocols: tuple[ProtocolRecord, ...] = (SOUND, PAPER),
    **changes: Any,
) -> Path:
    """Fill a folder as a finished benchmark does."""
    from scdrugmap.evaluation.tables import write_metrics, write_predictions, write_splits

    folder.mkdir(parents=True, exist_ok=True)
    table = cells(names=names)
    metrics = []
    for item in protocols:
        if item.status == "refused":
            continue
        splits, predictions, scored = scored_split(
            names, item.name, tuple(signal[item.name].items())
        )
        write_splits(splits, folder / f"splits-{item.name}.tsv.gz")
        write_predictions(predictions, folder / f"predictions-{item.name}.tsv.gz")
        metrics.append(scored)
    write_metrics(pd.concat(metrics, ignore_index=True), folder / "metrics.tsv")
    random = np.random.default_rng(0)
    where = random.normal(0, 1, (N_PATIENTS, 2))[table["patient"]] * 4
    write_table(
        table[["dataset", "cell", "label", "group"]].assign(
            x=where[:, 0] + random.normal(0, 1, len(table)),
            y=where[:, 1] + random.normal(0, 1, len(table)),
        ),
        folder / CELL_MAP_FILE,
    )
    dataset = DatasetRecord(
        name="cohort",
        path="cohort.h5ad",
        n_cells=len(table),
        n_used=len(table),
        n_sensitive=int((table["label"] == "sensitive").sum()),
        n_resistant=int((table["label"] == "resistant").sum()),
        n_samples=N_PATIENTS,
        n_groups=N_PATIENTS,
        n_genes=2000,
        values="counts",
        location="X",
        gene_id="symbol",
        gene_counts={"exact": 1900, "alias": 60, "case": 0, "unmapped": 40, "joined": 3},
        notices=("3 duplicate gene names joined",),
    )
    values: dict[str, Any] = {
        "name": "hand-made",
        "config": {"folds": 3, "draws": DRAWS},
        "config_id": "0" * 64,
        "datasets": (dataset,),
        "models": tuple(ModelRecord(name=name, **MODELS[name]) for name in MODELS),
        "protocols": protocols,
        "cell_map": "First two principal components",
        "provenance": {"scdrugmap": "0.1.0"},
    }
    write_run(folder, RunRecord(**{**values, **changes}))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="module")
def page(run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    output = tmp_path_factory.mktemp("page") / "report.html"
    build_report(run, output)
    return output.read_text("utf-8")


class Outline(HTMLParser):
    """What a page holds; complains about tags that are not closed in order."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def test_report_is_one_valid_file_under_3_mb_that_fetches_nothing(page: str) -> None:
    outline = Outline(page)
    assert len(page.encode()) < 3_000_000
    assert outline.all("script") == []
    assert outline.all("link") == []
    assert all(str(img["src"]).startswith("data:image/") for img in outline.all("img"))
    assert all(str(a["href"]).startswith(("#", "data:")) for a in outline.all("a"))
    assert not [tag for tag, attrs in outline.tags if "style" in attrs or "onclick" in attrs]
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert all(str(a["href"])[1:] in ids for a in outline.all("a") if str(a["href"])[0] == "#")


def test_content_policy_allows_exactly_the_style_of_the_page(page: str) -> None:
    import hashlib

    outline = Outline(page)
    policy = str(next(meta for meta in outline.all("meta") if meta.get("http-equiv"))["content"])
    style = page.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none';")
    assert f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert page.count("<style>") == 1


def test_every_figure_has_a_text_alternative_and_its_table(page: str) -> None:
    outline = Outline(page)
    images = outline.all("img")
    assert len(images) > 20
    assert all(len(str(img["alt"])) > 30 for img in images)
    links = [a for a in outline.all("a") if "download" in a]
    assert len(links) >= len(images)
    for link in links:
        head, _, data = str(link["href"]).partition(",")
        raw = base64.b64decode(data)
        text = gzip.decompress(raw) if "gzip" in head else raw
        name = str(link["download"])
        assert name.endswith(".gz") == ("gzip" in head)
        if name not in ("run.json", "references.bib"):
            assert b"\t" in text
            assert name.removesuffix(".gz").endswith(".tsv")


def test_sound_and_paper_stand_side_by_side_with_the_constant(page: str) -> None:
    text = " ".join(" ".join(Outline(page).text).split())
    order = ["In short", "Results, side by side", "Data: can it be believed?", "Methods, ready"]
    places = [text.rindex(title) for title in order]
    assert places == sorted(places)
    assert "References best constant 0.50 0.50" in text
    assert "scgpt untrained" in text
    assert "random weights (untrained, means nothing)" in text
    assert "Pooled out-of-fold predictions, mean of 2 seeds" in text
    assert "720 test cells (360 sensitive), 12 groups" in text


def test_the_same_run_gives_the_same_bytes(run: Path, page: str, tmp_path: Path) -> None:
    build_report(run, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text("utf-8") == page


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", names=HOSTILE + "%d", name=HOSTILE, notices=(HOSTILE,))
    build_report(folder, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text("utf-8")
    outline = Outline(page)
    assert outline.all("script") == []
    assert HOSTILE.strip() in "".join(outline.text)
    for img in outline.all("img"):
        raw = base64.b64decode(str(img["src"]).partition(",")[2])
        if "svg" in str(img["src"])[:30]:
            from xml.etree import ElementTree

            tree = ElementTree.fromstring(raw)
            assert not [node for node in tree.iter() if node.tag.endswith("script")]


def test_a_refused_protocol_is_a_red_flag_with_its_reason(tmp_path: Path) -> None:
    refused = SOUND.model_copy(update={"status": "refused", "reason": "one library per label"})
    folder = make_run(tmp_path / "run", protocols=(refused, PAPER))
    build_report(folder, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "Not answered: one library per label." in page
    assert "no figure below is evidence" in page
    assert "<td>one library per label</td>" in page


def sentences(folder: Path) -> list[tuple[str, str]]:
    tables = read_tables(folder)
    said = [*verdicts(tables.run, tables.metrics), *findings(tables.run, tables.metrics)]
    return [(item.level, item.text) for item in said]


def test_every_question_has_one_answer_and_the_gap_is_put_into_words(run: Path) -> None:
    tables = read_tables(run)
    found = verdicts(tables.run, tables.metrics)
    assert [(item.name, item.level) for item in found] == [
        ("pooled-group", "good"),
        ("paper-pooled", "warn"),
    ]
    assert "Yes, better than chance: hvg-logreg reaches AUROC" in found[0].text
    assert "95 % interval over groups" in found[0].text
    assert "recognition of groups seen in training" in found[1].text


def test_an_interval_that_begins_at_chance_as_printed_is_no_yes(run: Path) -> None:
    tables = read_tables(run)
    auroc = (tables.metrics["metric"] == "auroc") & (tables.metrics["level"] == "cell")
    for low, level in ((0.503, "warn"), (0.507, "good")):
        metrics = tables.metrics.assign(ci_low=tables.metrics["ci_low"].mask(auroc, low))
        assert verdicts(tables.run, metrics)[0].level == level


def test_a_number_that_rounds_to_zero_has_no_sign() -> None:
    from scdrugmap.report.summary import number

    assert number(-0.004) == "0.00"
    assert number(-0.006) == "\N{MINUS SIGN}0.01"
    assert number(float("nan")) == "\N{EN DASH}"


def test_technical_covariates_that_win_are_a_red_flag(tmp_path: Path) -> None:
    signal = {**SIGNAL, "pooled-group": {**SIGNAL["pooled-group"], "technical": 0.6}}
    found = sentences(make_run(tmp_path / "run", signal=signal))
    assert any(level == "bad" and "technical covariates alone" in text for level, text in found)


def test_an_untrained_network_that_wins_is_a_red_flag(tmp_path: Path) -> None:
    signal = {**SIGNAL, "pooled-group": {**SIGNAL["pooled-group"], "scgpt": 0.6}}
    found = sentences(make_run(tmp_path / "run", signal=signal))
    assert any(level == "bad" and "with random weights" in text for level, text in found)


def test_models_at_chance_are_a_red_flag_and_no_control_is_blamed(tmp_path: Path) -> None:
    signal = {**SIGNAL, "pooled-group": dict.fromkeys(SIGNAL["pooled-group"], 0.0)}
    found = sentences(make_run(tmp_path / "run", signal=signal))
    assert any(level == "bad" and "no model does better" in text for level, text in found)
    assert not any("technical covariates alone" in text for _, text in found)


def test_simulated_cells_and_licences_are_said(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    tables = read_tables(folder)
    simulated = tables.run.datasets[0].model_copy(update={"simulated": True})
    models = tuple(
        item.model_copy(update={"commercial_use": False}) if item.name == "scgpt" else item
        for item in tables.run.models
    )
    run = tables.run.model_copy(update={"datasets": (simulated,), "models": models})
    text = " ".join(item.text for item in findings(run, tables.metrics))
    assert "The cells are simulated" in text
    assert "Not for commercial use: the weights of scgpt." in text
    write_run(folder, run)
    build_report(folder, tmp_path / "r.html")
    assert "simulated cells" in (tmp_path / "r.html").read_text("utf-8")


def test_permuted_labels_that_do_as_well_are_a_red_flag_under_every_protocol(
    tmp_path: Path,
) -> None:
    folder = make_run(tmp_path / "run")
    tables = read_tables(folder)
    permuted = ModelRecord(
        name="hvg-logreg-permuted",
        model="hvg-logreg",
        title="permuted",
        kind="estimator",
        strategy="estimator",
        control="permuted",
    )
    run = tables.run.model_copy(update={"models": (*tables.run.models, permuted)})
    same = tables.metrics[tables.metrics["model"] == "hvg-logreg"]
    metrics = pd.concat(
        [tables.metrics, same.assign(model="hvg-logreg-permuted")], ignore_index=True
    )
    flags = [item.text for item in findings(run, metrics) if item.level == "bad"]
    assert len(flags) == 2
    assert all("labels dealt out anew over groups" in text for text in flags)
    assert "rewards recognising patients" in flags[1]
    best = best_model(run, metrics, "paper-pooled")
    assert best is not None
    assert best.name == "hvg-logreg"

    better = permuted.model_copy(update={"name": "gbt", "model": "gbt", "control": ""})
    ahead = same[same["metric"] == "auroc"].assign(model="gbt")
    ahead["value"] = 0.5 + (ahead["value"] + 0.5) / 4 + 0.1  # still below one
    run = run.model_copy(update={"models": (*run.models, better)})
    flags = [
        item.text
        for item in findings(run, pd.concat([metrics, ahead], ignore_index=True))
        if "as with its true labels" in item.text
    ]
    assert len(flags) == 2


def test_few_shots_are_one_question_and_zero_shot_says_its_kind(run: Path) -> None:
    tables = read_tables(run)
    names = ("zero-shot", "few-shot-1", "few-shot-4", "few-shot-2-cells")
    protocols = tuple(
        SOUND.model_copy(update={"name": name, "question": f"{name}?"}) for name in names
    )
    sound = tables.metrics[tables.metrics["protocol"] == "pooled-group"]
    metrics = pd.concat([sound.assign(protocol=name) for name in names], ignore_index=True)
    changed = tables.run.model_copy(update={"protocols": protocols})
    found = verdicts(changed, metrics)
    assert [item.name for item in found] == [
        "zero-shot",
        "few-shot-1, few-shot-4",
        "few-shot-2-cells",
    ]
    assert "the head was trained on other studies" in found[0].text
    assert found[1].question == "How much do a few labelled samples of a new dataset help?"
    assert "1 per label: 0." in found[1].text
    assert "4 per label: 0." in found[1].text
    assert found[2].question.startswith("How much do a few labelled cells")
    summary = summarise(changed, metrics)
    assert [item.name for item in summary.shown] == ["zero-shot"]


def test_a_dataset_whose_control_does_as_well_is_flagged_by_name(run: Path) -> None:
    tables = read_tables(run)
    datasets = tuple(
        tables.run.datasets[0].model_copy(update={"name": name}) for name in ("a", "b")
    )
    rows = tables.metrics[tables.metrics["protocol"] == "pooled-group"]
    metrics = pd.concat([rows.assign(dataset=name) for name in ("a", "b", "all")])
    metrics = metrics.reset_index(drop=True)
    best = metrics[(metrics["model"] == "hvg-logreg") & (metrics["dataset"] == "b")]
    swapped = best.assign(model="technical", strategy="estimator")
    gone = (metrics["model"] == "technical") & (metrics["dataset"] == "b")
    metrics = pd.concat([metrics[~gone], swapped], ignore_index=True)
    changed = tables.run.model_copy(update={"datasets": datasets, "protocols": (SOUND,)})
    table = controls_by_dataset(changed, metrics).set_index("dataset")
    assert dict(table["red flag"]) == {"a": "", "b": "technical"}
    flags = [item.text for item in findings(changed, metrics) if item.level == "bad"]
    assert any(text.startswith("pooled-group, b: technical does as well") for text in flags)


def test_missing_numbers_have_a_reason(run: Path) -> None:
    from scdrugmap.report.gaps import missing_numbers, unanswered_cells

    tables = read_tables(run)
    metrics = tables.metrics.copy()
    metrics.loc[metrics["fold"] == "1", ["value", "note"]] = [np.nan, "not evaluable: one class"]
    gaps = missing_numbers(tables.run, metrics)
    row = gaps[(gaps["level"] == "cell") & (gaps["protocol"] == "pooled-group")].iloc[0]
    assert (row["where"], row["missing"], row["models"]) == ("cohort, fold 1", "number", "all")
    assert row["reason"] == "not evaluable: one class"
    assert unanswered_cells(tables).empty
    predictions = tables.predictions["pooled-group"].copy()
    predictions.loc[0, ["state", "reason"]] = ["invalid", "no_known_genes"]
    changed = replace(tables, predictions={"pooled-group": predictions})
    assert unanswered_cells(changed)[["state", "reason", "cells"]].values.tolist() == [
        ["invalid", "no_known_genes", 1]
    ]


def test_deviations_and_the_methods_stand_on_the_page(tmp_path: Path) -> None:
    paper = PAPER.model_copy(update={"deviations": ("theirs with dropout on",)})
    folder = make_run(tmp_path / "run", protocols=(SOUND, paper))
    build_report(folder, tmp_path / "r.html")
    text = " ".join(" ".join(Outline((tmp_path / "r.html").read_text("utf-8")).text).split())
    assert "Where paper-pooled departs from the paper's authors theirs with dropout on" in text
    assert "We used 720 labelled cells (360 sensitive, 360 resistant) of 12 groups" in text
    assert "scgpt [scgpt]" in text
    assert "@misc{scgpt" in text or "@article{scgpt" in text


def test_untrained_networks_do_not_compete(run: Path) -> None:
    tables = read_tables(run)
    best = best_model(tables.run, tables.metrics, "paper-pooled")
    assert best is not None
    assert best.name == "hvg-logreg"


def test_rows_are_ordered_by_the_sound_protocol_after_the_references(run: Path) -> None:
    tables = read_tables(run)
    rows = summarise(tables.run, tables.metrics).rows
    assert [row.name for row in rows][:3] == ["best constant", "constant", "hvg-logreg"]
    assert [row.role for row in rows] == ["reference"] * 2 + ["model"] + ["control"] * 2
    values = [row.cells[0][0].value for row in rows[3:]]
    assert values == sorted(values, reverse=True)


def test_seeds_are_averaged_and_their_spread_kept_apart(run: Path) -> None:
    from scdrugmap.evaluation.tables import headline
    from scdrugmap.report.summary import estimate

    metrics = read_tables(run).metrics
    found = estimate(metrics, "pooled-group", ("hvg-logreg", "estimator"), "auroc")
    rows = headline(metrics)
    rows = rows[
        (rows["protocol"] == "pooled-group")
        & (rows["model"] == "hvg-logreg")
        & (rows["metric"] == "auroc")
        & (rows["level"] == "cell")
    ]
    assert len(rows) == 2
    assert found.value == pytest.approx(rows["value"].mean())
    assert found.low == pytest.approx(rows["ci_low"].mean())
    assert found.spread == pytest.approx(rows["value"].std(ddof=1))


def test_figures_beyond_the_budget_are_left_out_by_name(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scdrugmap.report.build.PICTURE_BUDGET", 1000)
    build_report(run, tmp_path / "r.html")
    text = " ".join(Outline((tmp_path / "r.html").read_text("utf-8")).text)
    assert "No figures, to keep this file small: scgpt, technical" in " ".join(text.split())


def test_text_has_enough_contrast_on_light_and_dark_screens() -> None:
    from importlib import resources

    css = (resources.files("scdrugmap.report") / "report.css").read_text("utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[:2]
    for block in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6});", block))
        pairs = [("ink", "page"), ("ink", "sheet"), ("ink", "faint"), ("muted", "sheet")]
        pairs += [("muted", "page"), ("muted", "faint"), ("link", "sheet"), ("link", "page")]
        pairs += [(name, f"{name}-bg") for name in ("sound", "paper", "bad", "warn", "good")]
        pairs += [("info", "info-bg")]
        pairs += [("ink", f"{name}-bg") for name in ("bad", "warn", "good", "info")]
        for text, ground in pairs:
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


def contrast(one: str, two: str) -> float:
    """Return the contrast of two colours as WCAG defines it."""

    def luminance(colour: str) -> float:
        parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    bright, faint = sorted((luminance(one), luminance(two)), reverse=True)
    return (bright + 0.05) / (faint + 0.05)


def damage_run(folder: Path) -> None:
    (folder / "run.json").write_text("{}")


def damage_metrics(folder: Path) -> None:
    (folder / "metrics.tsv").write_text("a\tb\n1\t2\n")


@pytest.mark.parametrize("damage", [damage_run, damage_metrics])
def test_damaged_runs_are_refused_and_nothing_is_written(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder = make_run(tmp_path / "run")
    damage(folder)
    with pytest.raises(DataError):
        build_report(folder, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_unfinished_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no finished run"):
        build_report(tmp_path, tmp_path / "r.html")
