"""Do models rank alike on every dataset: mean ranks, and how far apart they must be to differ.

Friedman's test asks whether the ranks differ at all; if they do, Nemenyi's critical difference says
which pairs do (Demsar 2006, jmlr.org/papers/v7/demsar06a.html). Datasets are the units, each with
one vote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdrugmap.report.style import (
    BASELINE,
    INK,
    MUTED,
    PAPER,
    SOUND,
    WIDTH,
    Picture,
    drawing,
    panel,
    printable,
    records,
    to_svg,
)
from scdrugmap.report.summary import display_name, number
from scdrugmap.report.verdicts import candidates

if TYPE_CHECKING:
    from scdrugmap.run.record import ProtocolRecord, RunRecord

MIN_DATASETS = 5
"""Fewest datasets to rank on: as many as groups for an interval."""
MIN_MODELS = 3
"""Two models are compared in pairs."""
ALPHA = 0.05


@dataclass(frozen=True)
class Ranking:
    """Models ranked on the same datasets, 1 the best.

    Attributes
    ----------
    names : tuple of str
        Best mean rank first.
    mean_rank : (k,) float64
    n_datasets : int
    chi_square, p_value : float
        Of Friedman's test.
    critical_difference : float
        Of two mean ranks, in ranks.
    groups : tuple of (int, int)
        First and last place of models that do not differ, the largest such runs of two or more.
    left_out : tuple of str
        Datasets on which some model has no value.
    """

    names: tuple[str, ...]
    mean_rank: np.ndarray
    n_datasets: int
    chi_square: float
    p_value: float
    critical_difference: float
    groups: tuple[tuple[int, int], ...]
    left_out: tuple[str, ...]


def rank_models(run: RunRecord, metrics: pd.DataFrame, protocol: str) -> tuple[Ranking | None, str]:
    """Rank the competing models of a protocol by AUROC on each dataset, or say why not.

    Parameters
    ----------
    run : RunRecord
    metrics : DataFrame
        Rows of ``metrics.tsv``.
    protocol : str

    Returns
    -------
    Ranking or None
    str
        Why there is none.
    """
    names = {(model.name, model.strategy): display_name(model) for model in candidates(run)}
    rows = metrics[
        (metrics["protocol"] == protocol)
        & (metrics["fold"].astype(str) == "all")
        & (metrics["level"] == "cell")
        & (metrics["metric"] == "auroc")
        & metrics["dataset"].isin([item.name for item in run.datasets])
    ]
    if "facet" in rows:
        rows = rows[rows["facet"] == ""]
    means = rows.groupby(["dataset", "model", "strategy"])["value"].mean().dropna()
    values = means.unstack(["model", "strategy"])
    values = values[[key for key in names if key in values.columns]]
    whole = values.dropna()
    if len(names) < MIN_MODELS:
        return None, f"{len(names)} competing models, {MIN_MODELS} needed"
    if len(whole) < MIN_DATASETS or values.shape[1] < MIN_MODELS:
        n = f"{len(whole)} {'dataset' if len(whole) == 1 else 'datasets'}"
        return None, f"{n} with a number for every model, {MIN_DATASETS} needed"
    left_out = tuple(sorted(map(str, set(values.index) - set(whole.index))))
    shown = [name for key, name in names.items() if key in whole.columns]
    return rank_values(whole.to_numpy(), shown, left_out), ""


def rank_values(values: np.ndarray, names: list[str], left_out: tuple[str, ...] = ()) -> Ranking:
    """Rank models on datasets.

    Parameters
    ----------
    values : (n_datasets, k) float64
        Higher is better.
    names : list of str
        Of the k models, at least 3.
    left_out : tuple of str
        Handed on.
    """
    from scipy import stats

    n, k = values.shape
    ranks = stats.rankdata(-values, axis=1)
    order = np.argsort(ranks.mean(0), kind="stable")
    mean = ranks.mean(0)[order]
    alike = np.ptp(ranks, axis=1).max() == 0  # Friedman's statistic is then 0 / 0
    chi_square, p_value = (0.0, 1.0) if alike else stats.friedmanchisquare(*values.T)
    quantile = float(stats.studentized_range.ppf(1 - ALPHA, k, np.inf))
    critical = quantile / np.sqrt(2) * np.sqrt(k * (k + 1) / (6 * n))
    least = critical if p_value < ALPHA else np.inf
    return Ranking(
        tuple(names[place] for place in order),
        mean,
        n,
        float(chi_square),
        float(p_value),
        float(critical),
        _alike(mean, least),
        left_out,
    )


def _alike(mean: np.ndarray, least: float) -> tuple[tuple[int, int], ...]:
    """Return the longest runs of ascending mean ranks that lie within a distance."""
    found: list[tuple[int, int]] = []
    for first, value in enumerate(mean):
        last = int(np.flatnonzero(mean - value <= least)[-1])
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return tuple(found)


def ranking_sentence(ranking: Ranking) -> str:
    """Say what the ranks show."""
    text = (
        f"{len(ranking.names)} models on {ranking.n_datasets} datasets: Friedman χ² = "
        f"{ranking.chi_square:.1f}, p {_p(ranking.p_value)}. "
    )
    if ranking.p_value >= ALPHA:
        text += "The ranks do not differ beyond chance, so no pair is told apart."
    else:
        text += (
            f"Mean ranks that lie more than {number(ranking.critical_difference)} apart differ "
            f"(Nemenyi, {ALPHA:g} over all pairs)."
        )
    if ranking.left_out:
        text += f" Without {', '.join(ranking.left_out)}, where a model has no number."
    return text


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def ranking_picture(ranking: Ranking, protocol: ProtocolRecord) -> Picture:
    """Draw the critical-difference diagram: mean ranks, and lines that join what does not differ."""
    names, mean = ranking.names, ranking.mean_rank
    step, top = 24, 58
    height = top + step * len(names) + 14
    right = 22 + 9 * len(ranking.groups)
    colour = SOUND if protocol.family == "sound" else PAPER
    with drawing(WIDTH, height) as figure:
        axes = panel(figure, left=124, right=right, top=top, bottom=14, grid="x")
        axes.set_ylim(len(names), 0)
        axes.set_xlim(0.7, len(names) + 0.3)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.set_xticks(_ticks(len(names)))
        axes.spines[:].set_visible(False)
        start, stop = 1.0, min(1.0 + ranking.critical_difference, len(names) + 0.3)
        axes.annotate(
            f"critical difference {number(ranking.critical_difference)}",
            (start, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 40),
            textcoords="offset points",
            color=MUTED,
            fontsize=10,
        )
        axes.plot(
            [start, stop],
            [1 + 33 / (step * len(names))] * 2,
            transform=axes.get_xaxis_transform(),
            color=INK,
            linewidth=2.2,
            clip_on=False,
        )
        for place, value in enumerate(mean):
            axes.plot([0.7, value], [place + 0.5] * 2, color=BASELINE, linewidth=0.6)
            axes.plot([value], [place + 0.5], marker="o", markersize=7, color=colour)
        for at, (first, last) in enumerate(ranking.groups):
            x = 1 + (10 + 9 * at) / (WIDTH - 124 - right)
            axes.plot(
                [x, x],
                [first + 0.25, last + 0.75],
                transform=axes.get_yaxis_transform(),
                color=INK,
                linewidth=3,
                clip_on=False,
            )
        axes.set_yticks(np.arange(len(names)) + 0.5, [printable(name, 19) for name in names])
        image = to_svg(figure)
    table = pd.DataFrame(
        {
            "name": names,
            "mean_rank": mean.round(6),
            "not_different": [
                " ".join(
                    str(at + 1)
                    for at, (first, last) in enumerate(ranking.groups)
                    if first <= place <= last
                )
                for place in range(len(names))
            ],
        }
    )
    title = f"Mean rank over {ranking.n_datasets} datasets, {protocol.name}"
    said = "; ".join(f"{row.name} {row.mean_rank:.2f}" for row in records(table))
    joined = "; ".join(", ".join(names[first : last + 1]) for first, last in ranking.groups)
    alt = f"{title}, 1 is best. {said}. Not different: {joined or 'none'}."
    return Picture(
        title,
        alt,
        image,
        "image/svg+xml",
        WIDTH,
        height,
        table,
        f"ranks-{protocol.name}",
        "By AUROC, 1 is best. Lines at the right join models that do not differ.",
        figure,
    )


def _ticks(k: int) -> list[int]:
    step = max(1, int(np.ceil(k / 8)))
    return list(range(1, k + 1, step))
