"""Figures of the report: deterministic, safe with any name, and honest about what is undefined."""

from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from scdrugmap.report import curves, figures, model_figures
from scdrugmap.report.style import Picture, printable

NAMES = ["plain", "<b>&amp;", "$\\frac{1}{0}$", "tab\tnew\nline\x00\x1b[31m", "日本語", "x" * 200]


def text_of(picture: Picture) -> list[str]:
    """Return the words of an SVG; it must be well-formed."""
    tree = ElementTree.fromstring(picture.image)
    return ["".join(node.itertext()) for node in tree.iter() if node.tag.endswith("}text")]


def scored(n: int = 400, signal: float = 1.0, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    y = (np.arange(n) % 2 == 0).astype(float)
    p = 1 / (1 + np.exp(-(signal * (2 * y - 1) + random.normal(size=n))))
    return pd.DataFrame(
        {
            "dataset": "d",
            "cell": [f"c{i}" for i in range(n)],
            "sample": [f"s{i % 2}{i // 2 % 4}" for i in range(n)],
            "label": np.where(y == 1, "sensitive", "resistant"),
            "fold": np.arange(n) % 3,
            "threshold": 0.5,
            "state": "answered",
            "y": y,
            "p": p,
        }
    )


def interval_rows(names: list[str]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            (name, protocol, family, 0.6, 0.5, 0.7)
            for name in names
            for protocol, family in (("pooled-group", "sound"), ("paper-pooled", "paper"))
        ],
        columns=["name", "protocol", "family", "value", "ci_low", "ci_high"],
    )


def draw_intervals(names: list[str]) -> Picture:
    return figures.intervals(
        interval_rows(names), title="AUROC", reference=0.5, reference_name="constant", file="f"
    )


def draw_samples(names: list[str]) -> Picture:
    bars = pd.DataFrame(
        {
            "dataset": "d",
            "sample": names,
            "label": "sensitive",
            "n": 20,
            "share": 0.5,
            "low": 0.3,
            "high": 0.7,
        }
    )
    return model_figures.samples(bars, of="m", min_cells=10, file="f")


def draw_heatmap(names: list[str]) -> Picture:
    cells = pd.DataFrame({"name": names, "dataset": names[::-1], "value": 0.7})
    return figures.heatmap(cells, title="AUROC", reference=0.5, file="f")


DRAWINGS = [draw_intervals, draw_samples, draw_heatmap]


@pytest.mark.parametrize("draw", DRAWINGS)
def test_any_name_can_be_drawn(draw: Callable[[list[str]], Picture]) -> None:
    words = text_of(draw(NAMES))
    assert "plain" in words
    assert "<b>&amp;" in words
    assert "$\\frac{1}{0}$" in words or any("frac" in word for word in words)


@pytest.mark.parametrize("draw", DRAWINGS)
def test_the_same_data_give_the_same_bytes(draw: Callable[[list[str]], Picture]) -> None:
    assert draw(["a", "b"]).image == draw(["a", "b"]).image


def test_drawing_leaves_the_settings_of_matplotlib_alone() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    draw_intervals(["a"])
    assert dict(mpl.rcParams) == before


def test_long_names_are_cut_in_the_middle_and_control_characters_shown() -> None:
    assert printable("x" * 50, 11) == "xxxxxxx…xxx"
    assert printable("a\tb\x1b") == "a\\tb\\x1b"
    assert printable("short") == "short"


def test_an_undefined_estimate_is_drawn_as_nothing_and_said() -> None:
    rows = interval_rows(["a"])
    rows.loc[0, ["value", "ci_low", "ci_high"]] = np.nan
    picture = figures.intervals(
        rows, title="AUROC", reference=0.5, reference_name="constant", file="f"
    )
    assert "a, pooled-group: undefined" in picture.alt
    text_of(picture)


def test_an_undefined_cell_of_the_heatmap_is_hatched() -> None:
    cells = pd.DataFrame({"name": ["m", "m"], "dataset": ["a", "b"], "value": [0.7, np.nan]})
    picture = figures.heatmap(cells, title="AUROC", reference=0.5, file="f")
    assert b"<pattern" in picture.image
    assert "m on b: undefined" in picture.alt
    assert "0.70" in text_of(picture)


@pytest.mark.parametrize("colour", ["label", "group", "p_sensitive"])
def test_the_cell_map_colours_words_and_probabilities(colour: str) -> None:
    random = np.random.default_rng(0)
    points = pd.DataFrame(
        {
            "x": random.normal(size=60),
            "y": random.normal(size=60),
            "label": np.where(np.arange(60) % 2, "sensitive", "resistant"),
            "group": [f"P{i % 25}" for i in range(60)],
            "p_sensitive": np.where(np.arange(60) < 5, np.nan, random.random(60)),
        }
    )
    picture = figures.cell_map(points, title="Map", colour=colour, method="PCA", file="f")
    again = figures.cell_map(points, title="Map", colour=colour, method="PCA", file="f")
    assert picture.image[:8] == b"\x89PNG\r\n\x1a\n"
    assert picture.image == again.image
    assert "60 cells" in picture.alt


def test_curves_start_and_end_where_they_must() -> None:
    rows = scored()
    roc = curves.roc_points(rows)
    assert list(dict.fromkeys(roc["fold"])) == ["0", "1", "2", "all"]
    pooled = roc[roc["fold"] == "all"]
    assert tuple(pooled.iloc[0, 1:]) == (0.0, 0.0)
    assert tuple(pooled.iloc[-1, 1:]) == (1.0, 1.0)
    pr = curves.precision_recall_points(rows)
    assert pr[pr["fold"] == "all"]["recall"].is_monotonic_increasing
    assert pr[pr["fold"] == "all"]["precision"].iloc[-1] == pytest.approx(0.5)


def test_a_fold_of_one_class_has_no_curve() -> None:
    rows = scored()
    rows = rows[(rows["fold"] != 1) | (rows["y"] == 1)]
    assert list(dict.fromkeys(curves.roc_points(rows)["fold"])) == ["0", "2", "all"]
    assert curves.roc_points(rows[rows["y"] == 1]).empty


def test_calls_without_an_answer_count_as_wrong() -> None:
    rows = scored(8, signal=50.0)
    rows.loc[0, "state"] = "invalid"  # a sensitive cell
    counts = curves.confusion_counts(rows).set_index(["label", "call"])["n"]
    assert counts["sensitive", "resistant"] == 1
    assert counts["sensitive", "sensitive"] == 3
    assert counts["resistant", "resistant"] == 4


def test_a_sample_with_few_cells_has_no_verdict() -> None:
    rows = pd.concat([scored(80), scored(4).assign(sample="tiny")])
    bars = curves.sample_bars(rows).set_index("sample")
    assert np.isnan(bars.loc["tiny", "share"])
    assert np.isfinite(bars.drop("tiny")["share"]).all()
    picture = model_figures.samples(bars.reset_index(), of="m", min_cells=10, file="f")
    assert "under 10 cells" in text_of(picture)


def test_many_samples_are_cut_and_it_is_said() -> None:
    picture = draw_samples([f"S{i}" for i in range(70)])
    assert "first 48 of 70" in picture.caption
    assert len(picture.table) == 70


def test_wilson_interval_agrees_with_scipy() -> None:
    from scipy.stats import binomtest

    for k, n in ((0, 10), (3, 10), (50, 60), (7, 7)):
        exact = binomtest(k, n).proportion_ci(method="wilson")
        assert curves.wilson(k / n, n) == pytest.approx((exact.low, exact.high), abs=1e-6)
    assert all(np.isnan(curves.wilson(float("nan"), 5)))


def test_calibration_and_confusion_say_their_numbers() -> None:
    rows = scored()
    bins = curves.calibration_bins(rows)
    assert bins["n"].sum() == len(rows)
    assert (
        (bins["low"] <= bins["share_sensitive"]) & (bins["share_sensitive"] <= bins["high"])
    ).all()
    picture = model_figures.calibration(bins, of="m", note="ECE 0.1", file="f")
    assert "ECE 0.1" in text_of(picture)
    counts = curves.confusion_counts(rows)
    picture = model_figures.confusion(counts, of="m", threshold="p ≥ 0.5", file="f")
    assert str(counts["n"].iloc[0]) in text_of(picture)


def shot_points() -> pd.DataFrame:
    return pd.DataFrame(
        [
            (name, shots, 0.55 + 0.05 * place, 0.5, 0.7)
            for name in ("model <b>", "other")
            for place, shots in enumerate((0, 1, 4))
        ],
        columns=["name", "shots", "value", "ci_low", "ci_high"],
    )


def test_a_curve_over_few_labels_says_what_none_is() -> None:
    points = shot_points()
    points.loc[1, ["value", "ci_low", "ci_high"]] = np.nan
    picture = figures.shot_curves(points, title="AUROC", unit="samples", file="f")
    assert {"none", "1", "4", "model <b>"} <= set(text_of(picture))
    assert "model <b> with no: 0.55" in picture.alt
    assert "model <b> with 1: undefined" in picture.alt


def test_protocols_and_controls_can_be_told_apart_without_colours() -> None:
    rows = interval_rows(["m", "technical"])
    more = rows.assign(protocol=rows["protocol"].replace("pooled-group", "lodo"))
    rows = pd.concat([rows, more[more["protocol"] == "lodo"]], ignore_index=True)
    rows["role"] = np.where(rows["name"] == "technical", "control", "model")
    rows = rows.sort_values("name", ignore_index=True)
    picture = figures.intervals(
        rows, title="AUROC", reference=0.5, reference_name="constant", file="f"
    )
    assert picture.caption == "From top to bottom: ● pooled-group, ◇ paper-pooled, ■ lodo."
    assert "controls" in text_of(picture)


def test_an_untrained_network_keeps_its_whole_name_on_two_lines() -> None:
    words = text_of(draw_intervals(["scfoundation lora (untrained)", "plain"]))
    assert "scfoundation lora" in words
    assert "(untrained)" in words
