"""The figures of an explanation: an explanation in, one picture out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scdrugmap.explanation.summed import ALL
from scdrugmap.report.style import (
    BASELINE,
    INK,
    LABEL_COLOURS,
    MUTED,
    PANEL,
    RESISTANT,
    SENSITIVE,
    WIDTH,
    Picture,
    drawing,
    panel,
    printable,
    probability_colours,
    records,
    spoken,
    to_png,
    to_svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from scdrugmap.explanation.result import Explanation
    from scdrugmap.explanation.settings import Image

_GENES = 25
_MOST_COLUMNS = 24
_NAMED = 16
_LARGEST_DOT = 150.0
_SMALLEST_DOT = 4.0
_ROW = 17


def bars(found: Explanation, image: Image = "svg") -> Picture:
    """Draw the share of the first genes in all attributions, and how far their rank moves."""
    rows = found.genes.head(_GENES)
    width, height = WIDTH, 84 + _ROW * len(rows)
    with drawing(width, height) as figure:
        axes = panel(figure, left=92, right=92, top=36, bottom=44, grid="x")
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, _roof(rows["share"]))
        for y, row in enumerate(records(rows)):
            axes.barh(y, row.share, height=0.66, color=_colour(row.direction), linewidth=0)
            note = f"{row.rank} ± {row.rank_sd:.1f}" if np.isfinite(row.rank_sd) else f"{row.rank}"
            axes.text(
                1.03,
                y,
                note,
                transform=axes.get_yaxis_transform(),
                va="center",
                color=MUTED,
                fontsize=10.5,
            )
        axes.set_yticks(range(len(rows)), [printable(name, 12) for name in rows["gene"]])
        axes.set_xlabel("share of all attributions")
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
        axes.locator_params(axis="x", nbins=4)
        axes.text(
            1.03,
            len(rows) - 0.1,
            "rank ± sd",
            transform=axes.get_yaxis_transform(),
            va="center",
            color=MUTED,
            fontsize=10.5,
        )
        _legend(axes, "speaks for")
        axes.spines["left"].set_visible(False)
        data, mime = _rendered(figure, image)
    said = "; ".join(f"{row.gene} {row.share:.1%}" for row in records(rows.head(10)))
    return Picture(
        "Genes that drive the predictions",
        f"The first {len(rows)} genes of {found.title} by their share in all attributions: {said}.",
        data,
        mime,
        width,
        height,
        rows,
        "explain_bars",
        _between(found),
    )


def dots(found: Explanation, image: Image = "svg") -> Picture:
    """Draw the first genes by class and sample: size = share, colour = mean attribution."""
    genes = found.genes["gene"].head(_GENES).tolist()
    table = pd.concat(
        [found.rows(*ALL), found.rows("class"), found.rows("sample")], ignore_index=True
    )
    table = table[table["gene"].isin(genes)]
    columns = list(dict.fromkeys(zip(table["level"], table["stratum"], strict=True)))
    hidden = max(0, len(columns) - _MOST_COLUMNS)
    columns = columns[:_MOST_COLUMNS]
    place = {pair: x for x, pair in enumerate(columns)}
    table = table[[pair in place for pair in zip(table["level"], table["stratum"], strict=True)]]
    x = [place[pair] for pair in zip(table["level"], table["stratum"], strict=True)]
    y = [genes.index(gene) for gene in table["gene"]]
    longest = max(len(printable(stratum, 14)) for _, stratum in columns)
    top = 26 + 6 * longest
    width, height = 230 + 22 * len(columns), top + 56 + _ROW * len(genes)
    largest = float(table["share"].max())
    limit = float(table["attribution_mean"].abs().max()) or 1.0
    with drawing(width, height) as figure:
        axes = panel(figure, left=92, right=width - 92 - 22 * len(columns), top=top, bottom=30)
        axes.set_xlim(-0.6, len(columns) - 0.4)
        axes.set_ylim(len(genes) - 0.4, -0.6)
        axes.scatter(
            x,
            y,
            s=[_dot(share, largest) for share in table["share"]],
            c=table["attribution_mean"],
            cmap=probability_colours(),
            vmin=-limit,
            vmax=limit,
            linewidths=0,
        )
        axes.set_yticks(range(len(genes)), [printable(name, 12) for name in genes])
        axes.set_xticks(range(len(columns)), [printable(name, 14) for _, name in columns])
        axes.xaxis.tick_top()
        axes.tick_params(axis="x", labelrotation=90)
        axes.spines[:].set_visible(False)
        for border in _borders([level for level, _ in columns]):
            axes.axvline(border, color=BASELINE, linewidth=0.8)
        _dot_legend(figure, width, top, largest, limit, found.parts[0].unit)
        data, mime = _rendered(figure, image)
    caption = f"{hidden} more samples are in the table." if hidden else ""
    return Picture(
        "Attributions by class and sample",
        f"The first {len(genes)} genes of {found.title} in {len(columns)} groups of cells.",
        data,
        mime,
        width,
        height,
        table,
        "explain_dots",
        caption,
    )


def stability(found: Explanation, image: Image = "svg") -> Picture:
    """Draw which share of the first k genes two rankings have in common."""
    width, height = PANEL, 276
    mean = found.stability.groupby("k")[["overlap", "chance"]].mean().reset_index()
    rank = found.stability.drop_duplicates(["first", "second"])["spearman"].mean()
    note = f"rank correlation {spoken(rank)}"
    with drawing(width, height) as figure:
        axes = panel(figure, left=48, right=14, top=26, bottom=42, grid="y")
        places = range(len(mean))
        for _, pair in found.stability.groupby(["first", "second"]):
            axes.plot(
                range(len(pair)),
                pair["overlap"],
                color=BASELINE,
                linewidth=1,
                alpha=0.6,
                marker="o",
                markersize=2.5,
            )
        axes.plot(places, mean["overlap"], color=INK, linewidth=2, marker="o", markersize=4)
        axes.plot(places, mean["chance"], color=BASELINE, linewidth=1.2, linestyle=(0, (3, 3)))
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlim(-0.3, len(mean) - 0.7)
        axes.set_xticks(list(places), [str(k) for k in mean["k"]])
        axes.yaxis.set_ticks([0, 0.25, 0.5, 0.75, 1], ["0", "¼", "½", "¾", "1"])
        axes.set_xlabel("first genes of both rankings")
        axes.set_ylabel("share in common")
        axes.text(0, 1.05, note, transform=axes.transAxes, color=INK)
        last = mean.iloc[-1]
        axes.annotate(
            "chance",
            (len(mean) - 1, last["chance"]),
            xytext=(0, 5),
            textcoords="offset points",
            ha="right",
            color=MUTED,
            fontsize=10.5,
        )
        data, mime = _rendered(figure, image)
    alt = f"{note}; " + "; ".join(
        f"first {row.k} genes: {row.overlap:.0%} in common" for row in records(mean)
    )
    return Picture(
        "Stability of the ranking",
        f"{_between(found)} {alt}.",
        data,
        mime,
        width,
        height,
        found.stability,
        "explain_stability",
        _between(found),
    )


def expression(found: Explanation, image: Image = "svg") -> Picture:
    """Draw the share of each gene against its difference of expression."""
    rows = found.genes.dropna(subset=["de_effect"])
    width, height = WIDTH, 300
    with drawing(width, height) as figure:
        axes = panel(figure, left=56, right=16, top=36, bottom=44, grid="y")
        axes.axvline(0, color=BASELINE, linewidth=1)
        axes.scatter(
            rows["de_effect"],
            rows["share"],
            s=12,
            c=[_colour(d) for d in rows["direction"]],
            alpha=0.75,
            linewidths=0,
        )
        axes.set_ylim(0, _roof(rows["share"]) * 1.06)
        reach = float(rows["de_effect"].abs().max() or 1) * 1.15
        axes.set_xlim(-reach, reach)
        for row in _apart(rows.head(_NAMED), reach):
            left = row.de_effect > 0.6 * reach
            axes.annotate(
                printable(row.gene, 12),
                (row.de_effect, row.share),
                xytext=(-5 if left else 5, 0),
                textcoords="offset points",
                ha="right" if left else "left",
                va="center",
                fontsize=10,
            )
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
        axes.locator_params(axis="y", nbins=5)
        axes.set_xlabel("log expression, sensitive minus resistant")
        axes.set_ylabel("share of all attributions")
        _legend(axes, "speaks for")
        data, mime = _rendered(figure, image)
    assert found.differential is not None
    named = ", ".join(rows["gene"].head(10))
    return Picture(
        "Attributions and differential expression",
        f"{len(rows):,} genes of {found.title}; those of largest share are {named}.",
        data,
        mime,
        width,
        height,
        rows,
        "explain_expression",
        f"{found.differential.test}: {found.differential.n_sensitive:,} sensitive, "
        f"{found.differential.n_resistant:,} resistant.",
    )


def _apart(rows: pd.DataFrame, reach: float) -> list[Any]:
    """Return the rows whose names do not cover those of rows before them."""
    roof = _roof(rows["share"])
    named: list[Any] = []
    for row in records(rows):
        covers = (
            abs(row.share - other.share) < 0.05 * roof
            and abs(row.de_effect - other.de_effect) < 0.45 * reach
            for other in named
        )
        if not any(covers):
            named.append(row)
    return named


def _rendered(figure: Figure, image: Image) -> tuple[bytes, str]:
    if image == "png":
        return to_png(figure, clear=False), "image/png"
    return to_svg(figure), "image/svg+xml"


def _between(found: Explanation) -> str:
    """Say what ranks are compared between."""
    if len(found.parts) > 1:
        return f"Between {len(found.parts)} predictors."
    return "Between disjoint draws of the cells."


def _colour(direction: float) -> str:
    """Return the colour of the label that more of a gene speaks for."""
    if not np.isfinite(direction) or direction == 0:
        return BASELINE
    return SENSITIVE if direction > 0 else RESISTANT


def _legend(axes: Axes, words: str) -> None:
    axes.annotate(
        f"more of it {words}",
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 14),
        textcoords="offset points",
        color=MUTED,
    )
    for x, label in ((132, "sensitive"), (206, "resistant")):
        axes.annotate(
            f"● {label}",
            (0, 1),
            xycoords="axes fraction",
            xytext=(x, 14),
            textcoords="offset points",
            color=LABEL_COLOURS[label],
        )


def _roof(shares: pd.Series) -> float:
    largest = float(shares.max()) if len(shares) else 0.0
    return 1.05 * largest if largest > 0 else 1.0


def _dot(share: float, largest: float) -> float:
    """Return the area of a dot in square points."""
    if not largest > 0 or not share > 0:
        return 0.0
    return max(_SMALLEST_DOT, _LARGEST_DOT * share / largest)


def _borders(levels: list[str]) -> list[float]:
    return [x - 0.5 for x in range(1, len(levels)) if levels[x] != levels[x - 1]]


def _dot_legend(
    figure: Figure, width: int, top: int, largest: float, limit: float, unit: str
) -> None:
    """Explain sizes and colours at the right."""
    height = figure.get_size_inches()[1] * 72
    axes = figure.add_axes(
        ((width - 130) / width, 1 - (top + 190) / height, 124 / width, 190 / height)
    )
    axes.set_axis_off()
    axes.set_xlim(0, 124)
    axes.set_ylim(190, 0)
    axes.text(6, 8, "share", color=MUTED, va="center")
    for row, part in enumerate((1.0, 0.5, 0.1)):
        axes.scatter([14], [28 + 20 * row], s=_dot(part * largest, largest), c=MUTED, linewidths=0)
        axes.text(28, 28 + 20 * row, f"{100 * part * largest:.2g} %", va="center", color=INK)
    axes.text(6, 104, "mean attribution", color=MUTED, va="center")
    axes.text(6, 118, printable(unit, 24), color=MUTED, va="center", fontsize=9.5)
    for row, value in enumerate((limit, 0.0, -limit)):
        colour = probability_colours()((value / limit + 1) / 2)
        axes.scatter([14], [136 + 18 * row], s=80, color=[colour], linewidths=0)
        axes.text(
            28, 136 + 18 * row, "0" if value == 0 else f"{value:+.2g}", va="center", color=INK
        )
