"""The figures of a whole run: a data frame in, one small picture out."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scdrugmap.report.style import (
    BASELINE,
    GRID,
    LABEL_COLOURS,
    MUTED,
    PAPER,
    SOUND,
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

_FAMILY_COLOURS = {"sound": SOUND, "paper": PAPER}


def intervals(
    rows: pd.DataFrame, *, title: str, reference: float, reference_name: str, file: str
) -> Picture:
    """Draw estimates with intervals, one line per model, the protocols beside each other.

    Parameters
    ----------
    rows : DataFrame
        name, protocol, family, value, ci_low, ci_high (floats may be NaN); models in the order
        to be shown, top first.
    reference : float
        Value of the constant predictor, drawn as a vertical line.
    """
    names = list(dict.fromkeys(rows["name"]))
    protocols = list(dict.fromkeys(rows["protocol"]))
    step = 15 * len(protocols) + 13
    height = 62 + step * len(names)
    with drawing(WIDTH, height) as figure:
        axes = panel(figure, left=124, right=14, top=34, bottom=28, grid="x")
        axes.set_ylim(step * len(names), 0)
        known = rows[["value", "ci_low", "ci_high"]].to_numpy(float)
        low = min(reference, np.nanmin(known)) if np.isfinite(known).any() else 0.0
        high = max(reference, np.nanmax(known)) if np.isfinite(known).any() else 1.0
        room = max(high - low, 0.1) * 0.06
        axes.set_xlim(low - room, high + room)
        axes.axvline(reference, color=BASELINE, linewidth=1.2, linestyle=(0, (3, 3)))
        axes.annotate(
            printable(reference_name),
            (reference, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center" if low + 2 * room < reference < high - 2 * room else "left",
            color=MUTED,
            fontsize=10,
        )
        for number in range(1, len(names)):
            axes.axhline(step * number, color=GRID, linewidth=0.6)
        for row in records(rows):
            order = protocols.index(row.protocol)
            y = step * names.index(row.name) + 14 + 15 * order
            colour = _FAMILY_COLOURS[row.family]
            if np.isfinite(row.ci_low) and np.isfinite(row.ci_high):
                axes.plot(
                    [row.ci_low, row.ci_high], [y, y], color=colour, linewidth=2.2, alpha=0.45
                )
            if np.isfinite(row.value):
                sound = row.family == "sound"
                axes.plot(
                    [row.value],
                    [y],
                    marker="o" if sound else "D",
                    markersize=7 if sound else 6,
                    markerfacecolor=colour if sound else "none",
                    markeredgecolor=colour,
                    markeredgewidth=1.6,
                )
        axes.set_yticks([step * number + step / 2 for number in range(len(names))])
        axes.set_yticklabels([printable(name, 19) for name in names])
        axes.spines["left"].set_visible(False)
        image = to_svg(figure)
    said = "; ".join(
        f"{row.name}, {row.protocol}: {spoken(row.value)}"
        + (f" ({spoken(row.ci_low)} to {spoken(row.ci_high)})" if np.isfinite(row.ci_low) else "")
        for row in records(rows)
    )
    alt = f"{title}, {reference_name} {spoken(reference)}. {said}."
    return Picture(title, alt, image, "image/svg+xml", WIDTH, height, rows, file)


def cell_map(
    points: pd.DataFrame, *, title: str, colour: str, method: str, file: str, seed: int = 0
) -> Picture:
    """Draw cells in two dimensions.

    Parameters
    ----------
    points : DataFrame
        dataset, cell, x, y and the column `colour`: numbers are p_sensitive (NaN grey), text
        ``sensitive``/``resistant`` gets the label colours, other text one colour per value.
    """
    side = 330
    order = np.random.default_rng(seed).permutation(len(points))  # no class is always on top
    shuffled = points.iloc[order]
    values = shuffled[colour]
    with drawing(side, side) as figure:
        axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
        size = float(np.clip(14_000 / max(len(points), 1), 2.5, 22))
        axes.scatter(
            shuffled["x"].to_numpy(float),
            shuffled["y"].to_numpy(float),
            c=_point_colours(values),
            s=size,
            linewidths=0,
            alpha=0.85,
        )
        axes.set_axis_off()
        image = to_png(figure)
    alt = f"{title}: {len(points):,} cells as {method}, coloured by {colour}."
    if values.dtype.kind == "f":
        share = float(np.nanmean(values >= 0.5)) if values.notna().any() else float("nan")
        alt += f" {share:.0%} of them have p_sensitive of at least 0.5."
    else:
        counts = values.value_counts()
        alt += (
            " " + ", ".join(f"{name}: {count:,}" for name, count in counts.head(12).items()) + "."
        )
    return Picture(title, alt, image, "image/png", side, side, points, file)


def _point_colours(values: pd.Series) -> np.ndarray:
    """Return (n, 4) colours of points."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgba

    if values.dtype.kind == "f":
        p = values.to_numpy(float)
        colours = np.asarray(probability_colours()(np.nan_to_num(p, nan=0.5)))
        colours[np.isnan(p)] = to_rgba(BASELINE, 0.35)
        return colours
    names = sorted(set(values.astype(str)))
    if set(names) <= set(LABEL_COLOURS):
        return np.array([to_rgba(LABEL_COLOURS[str(name)]) for name in values])
    wheel = np.vstack(
        [colormaps["tab20"](np.arange(0, 20, 2)), colormaps["tab20"](np.arange(1, 20, 2))]
    )
    return np.array([wheel[names.index(str(name)) % len(wheel)] for name in values])


def heatmap(cells: pd.DataFrame, *, title: str, reference: float, file: str) -> Picture:
    """Draw one value per model and dataset; hatched where undefined, empty where not run.

    Parameters
    ----------
    cells : DataFrame
        name, dataset, value (NaN = undefined); rows of models in the order to be shown.
    """
    from matplotlib.colors import TwoSlopeNorm
    from matplotlib.patches import Rectangle

    names, datasets = list(dict.fromkeys(cells["name"])), list(dict.fromkeys(cells["dataset"]))
    width, height = max(WIDTH, 140 + 56 * len(datasets)), 110 + 28 * len(names)
    norm, colours = TwoSlopeNorm(reference, reference - 0.5, reference + 0.5), probability_colours()
    with drawing(width, height) as figure:
        axes = panel(figure, left=128, right=10, top=8, bottom=94)
        axes.set_xlim(0, len(datasets))
        axes.set_ylim(len(names), 0)
        for row in records(cells):
            x, y = datasets.index(row.dataset), names.index(row.name)
            known = bool(np.isfinite(row.value))
            face = colours(float(norm(row.value))) if known else "none"
            axes.add_patch(
                Rectangle(
                    (x + 0.03, y + 0.04),
                    0.94,
                    0.92,
                    facecolor=face,
                    alpha=0.55,
                    edgecolor="none" if known else BASELINE,
                    hatch=None if known else "////",
                    linewidth=0,
                )
            )
            if known:
                axes.text(
                    x + 0.5, y + 0.5, f"{row.value:.2f}", ha="center", va="center", fontsize=10
                )
        axes.set_xticks(
            np.arange(len(datasets)) + 0.5,
            [printable(name, 18) for name in datasets],
            rotation=40,
            ha="right",
        )
        axes.set_yticks(np.arange(len(names)) + 0.5, [printable(name, 19) for name in names])
        axes.spines[:].set_visible(False)
        image = to_svg(figure)
    said = "; ".join(f"{row.name} on {row.dataset}: {spoken(row.value)}" for row in records(cells))
    return Picture(title, f"{title}. {said}.", image, "image/svg+xml", width, height, cells, file)
