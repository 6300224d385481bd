"""The figures of one model under one protocol: a data frame in, one small picture out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdrugmap.report.style import (
    BASELINE,
    INK,
    LABEL_COLOURS,
    MUTED,
    PANEL,
    PAPER,
    SOUND,
    Picture,
    drawing,
    panel,
    printable,
    records,
    spoken,
    to_svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_SAMPLES = 48


def roc(curves: pd.DataFrame, *, of: str, area: str, file: str) -> Picture:
    """Draw ROC lines: one thin line per fold, a thick one for all folds together.

    Parameters
    ----------
    curves : DataFrame
        fold (str, ``all`` = pooled), false_positive_rate, true_positive_rate.
    """
    return _curves(
        curves,
        x=("false_positive_rate", "resistant cells called sensitive"),
        y=("true_positive_rate", "sensitive cells found"),
        chance=((0, 1), (0, 1)),
        title="ROC",
        of=of,
        note=area,
        file=file,
    )


def precision_recall(
    curves: pd.DataFrame, *, prevalence: float, of: str, area: str, file: str
) -> Picture:
    """Draw precision over recall per fold, with the share of sensitive cells as chance line."""
    return _curves(
        curves,
        x=("recall", "sensitive cells found (recall)"),
        y=("precision", "calls that are right (precision)"),
        chance=((0, 1), (prevalence, prevalence)),
        title="Precision and recall",
        of=of,
        note=area,
        file=file,
    )


def _curves(
    curves: pd.DataFrame,
    *,
    x: tuple[str, str],
    y: tuple[str, str],
    chance: tuple[tuple[float, float], tuple[float, float]],
    title: str,
    of: str,
    note: str,
    file: str,
) -> Picture:
    width, height = PANEL, 276
    folds = [fold for fold in dict.fromkeys(curves["fold"]) if fold != "all"]
    with drawing(width, height) as figure:
        axes = panel(figure, left=44, right=12, top=10, bottom=40, grid="xy")
        axes.plot(*chance, color=BASELINE, linewidth=1.2, linestyle=(0, (3, 3)))
        for fold in folds:
            line = curves[curves["fold"] == fold]
            axes.plot(line[x[0]], line[y[0]], color=BASELINE, linewidth=1, alpha=0.75)
        line = curves[curves["fold"] == "all"]
        axes.plot(line[x[0]], line[y[0]], color=INK, linewidth=2)
        axes.text(
            0.97 if chance[1][0] != chance[1][1] else 0.04,
            0.05,
            note,
            transform=axes.transAxes,
            ha="right" if chance[1][0] != chance[1][1] else "left",
            color=INK,
            fontsize=12,
        )
        _unit_square(axes)
        axes.set_xlabel(x[1])
        axes.set_ylabel(y[1])
        image = to_svg(figure)
    alt = f"{title} of {of}: {note}; {len(folds)} folds, the pooled line and the chance line."
    kind = "roc" if title == "ROC" else ""
    return Picture(
        title, alt, image, "image/svg+xml", width, height, curves, file, figure=figure, kind=kind
    )


def _unit_square(axes: Axes) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks([0, 0.25, 0.5, 0.75, 1], ["0", "¼", "½", "¾", "1"])


def calibration(bins: pd.DataFrame, *, of: str, note: str, file: str) -> Picture:
    """Draw how often cells of a predicted probability are sensitive, with the bin counts below.

    Parameters
    ----------
    bins : DataFrame
        p_mean, share_sensitive, low, high (95 % interval of the share), n.
    """
    width, height = PANEL, 276
    with drawing(width, height) as figure:
        axes = panel(figure, left=44, right=12, top=10, bottom=84, grid="xy")
        axes.plot((0, 1), (0, 1), color=BASELINE, linewidth=1.2, linestyle=(0, (3, 3)))
        axes.vlines(bins["p_mean"], bins["low"], bins["high"], color=INK, linewidth=1.2, alpha=0.5)
        axes.plot(
            bins["p_mean"],
            bins["share_sensitive"],
            color=INK,
            marker="o",
            markersize=4.5,
            linewidth=1.4,
        )
        _unit_square(axes)
        axes.set_ylabel("share sensitive")
        axes.text(0.03, 0.9, note, transform=axes.transAxes, color=INK, fontsize=12)
        below = panel(figure, left=44, right=12, top=height - 72, bottom=40)
        below.vlines(bins["p_mean"], 0, bins["n"], color=BASELINE, linewidth=3)
        below.set_xlim(-0.02, 1.02)
        below.set_ylim(0, max(1, bins["n"].max()) * 1.1)
        below.set_yticks([0, int(bins["n"].max())])
        below.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "¼", "½", "¾", "1"])
        axes.set_xticklabels([])
        below.set_xlabel("predicted p_sensitive; cells per bin")
        image = to_svg(figure)
    alt = (
        f"Calibration of {of}: {note}. "
        + "; ".join(
            f"p {spoken(row.p_mean)}: {row.share_sensitive:.0%} sensitive of {row.n:,}"
            for row in records(bins)
        )
        + "."
    )
    return Picture(
        "Calibration", alt, image, "image/svg+xml", width, height, bins, file, figure=figure
    )


def confusion(counts: pd.DataFrame, *, of: str, threshold: str, file: str) -> Picture:
    """Draw the confusion matrix with counts and the share of each row.

    Parameters
    ----------
    counts : DataFrame
        label, call, n, share_of_label; four rows.
    """
    width, height = PANEL, 276
    names = ("sensitive", "resistant")
    with drawing(width, height) as figure:
        axes = panel(figure, left=74, right=12, top=34, bottom=40)
        axes.set_xlim(0, 2)
        axes.set_ylim(2, 0)
        for row in records(counts):
            i, j = names.index(row.label), names.index(row.call)
            right = row.label == row.call
            share = 0.0 if not np.isfinite(row.share_of_label) else float(row.share_of_label)
            axes.fill(
                [j + 0.02, j + 0.98, j + 0.98, j + 0.02],
                [i + 0.02, i + 0.02, i + 0.98, i + 0.98],
                color=SOUND if right else PAPER,
                alpha=0.08 + 0.32 * share,
                linewidth=0,
            )
            axes.text(j + 0.5, i + 0.46, f"{row.n:,}", ha="center", va="center", fontsize=15)
            text = f"{share:.0%} of {row.label}"
            axes.text(j + 0.5, i + 0.66, text, ha="center", va="center", color=MUTED, fontsize=10)
        axes.set_xticks([0.5, 1.5], [f"called {name}" for name in names])
        axes.xaxis.tick_top()
        axes.set_yticks([0.5, 1.5], names)
        axes.tick_params(length=0, labelcolor=INK)
        axes.spines[:].set_visible(False)
        axes.text(
            1,
            2.14,
            f"called sensitive at {threshold}",
            ha="center",
            va="top",
            color=MUTED,
            fontsize=10,
        )
        image = to_svg(figure)
    alt = (
        f"Calls of {of} at {threshold}: "
        + "; ".join(f"{row.n:,} {row.label} cells called {row.call}" for row in records(counts))
        + "."
    )
    return Picture("Calls", alt, image, "image/svg+xml", width, height, counts, file, figure=figure)


def samples(bars: pd.DataFrame, *, of: str, min_cells: int, file: str) -> Picture:
    """Draw the share of cells called sensitive per sample, with its interval.

    Parameters
    ----------
    bars : DataFrame
        dataset, sample, label, n, share, low, high; NaN where there are fewer than `min_cells`.
    """
    shown = bars.head(_MOST_SAMPLES)
    width, height = PANEL, 74 + 18 * len(shown)
    with drawing(width, height) as figure:
        axes = panel(figure, left=84, right=50, top=30, bottom=44, grid="x")
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(0, 1)
        axes.axvline(0.5, color=BASELINE, linewidth=1, linestyle=(0, (3, 3)))
        for y, row in enumerate(records(shown)):
            colour = LABEL_COLOURS.get(row.label, BASELINE)
            if np.isfinite(row.share):
                axes.barh(y, row.share, height=0.62, color=colour, alpha=0.8, linewidth=0)
                axes.plot([row.low, row.high], [y, y], color=INK, linewidth=1.2)
            else:
                axes.text(0.02, y, f"under {min_cells} cells", va="center", color=MUTED)
            axes.text(1.04, y, f"n {row.n:,}", va="center", color=MUTED, fontsize=10.5)
        axes.set_yticks(range(len(shown)), [printable(name, 12) for name in shown["sample"]])
        axes.set_xticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
        axes.set_xlabel("cells called sensitive")
        for x, label in ((0.0, "sensitive"), (0.55, "resistant")):
            axes.annotate(
                f"● {label}",
                (x, 1),
                xycoords="axes fraction",
                xytext=(0, 10),
                textcoords="offset points",
                color=LABEL_COLOURS[label],
            )
        axes.spines["left"].set_visible(False)
        image = to_svg(figure)
    said = "; ".join(
        f"{row.sample} ({row.label}): "
        + (f"{row.share:.0%} of {row.n:,}" if np.isfinite(row.share) else "too few cells")
        for row in records(shown)
    )
    alt = f"Share of cells called sensitive per sample, {of}. {said}."
    more = len(bars) - len(shown)
    caption = f"The first {len(shown)} of {len(bars)} samples; the table has all." if more else ""
    title = "Per sample, by its label"
    return Picture(
        title, alt, image, "image/svg+xml", width, height, bars, file, caption, figure=figure
    )
