"""The figures of a whole run: a data frame in, one small picture out."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scdrugmap.report.style import (
    BASELINE,
    GRID,
    INK,
    LABEL_COLOURS,
    MUTED,
    PAPER,
    SERIES,
    SERIES_MARKERS,
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

UNTRAINED = " (untrained)"
"""After the name of a network with random weights."""

_FAMILY_COLOURS = {"sound": SOUND, "paper": PAPER}


def intervals(
    rows: pd.DataFrame, *, title: str, reference: float, reference_name: str, file: str
) -> Picture:
    """Draw estimates with intervals, one line per model, the protocols beside each other.

    Parameters
    ----------
    rows : DataFrame
        name, protocol, family, value, ci_low, ci_high (floats may be NaN) and perhaps role; models
        in the order to be shown, top first, controls last.
    reference : float
        Value of the constant predictor, drawn as a vertical line.
    """
    names = list(dict.fromkeys(rows["name"]))
    protocols = list(dict.fromkeys(rows["protocol"]))
    step = max(15 * len(protocols) + 13, 36)  # two lines of a name
    roles = dict(zip(rows["name"], rows["role"], strict=True)) if "role" in rows else {}
    n_models = sum(roles.get(name, "model") == "model" for name in names)
    gap = 22 if 0 < n_models < len(names) else 0
    top = {name: step * at + gap * (at >= n_models) for at, name in enumerate(names)}
    height = 62 + step * len(names) + gap
    marks = _marks(rows)
    with drawing(WIDTH, height) as figure:
        axes = panel(figure, left=124, right=14, top=34, bottom=28, grid="x")
        axes.set_ylim(step * len(names) + gap, 0)
        low, high = _value_range(rows, reference)
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
        for name in names[1:]:
            axes.axhline(top[name], color=GRID, linewidth=0.6)
        if gap:
            axes.axhline(step * n_models, color=BASELINE, linewidth=0.8)
            axes.annotate(
                "controls",
                (0, step * n_models + gap / 2),
                xycoords=("axes fraction", "data"),
                xytext=(-116, 0),
                textcoords="offset points",
                va="center",
                color=MUTED,
                fontsize=10,
                annotation_clip=False,
            )
        for row in records(rows):
            y = top[row.name] + 14 + 15 * protocols.index(row.protocol)
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
                    marker=marks[row.protocol][0],
                    markersize=7 if sound else 6,
                    markerfacecolor=colour if sound else "none",
                    markeredgecolor=colour,
                    markeredgewidth=1.6,
                )
        axes.set_yticks([top[name] + step / 2 for name in names])
        axes.set_yticklabels([printable(name.removesuffix(UNTRAINED), 19) for name in names])
        for name in names:
            if name.endswith(UNTRAINED):
                axes.annotate(
                    UNTRAINED.strip(),
                    (0, top[name] + step / 2),
                    xycoords=("axes fraction", "data"),
                    xytext=(-3.5, -12),
                    textcoords="offset points",
                    ha="right",
                    va="center",
                    color=MUTED,
                    fontsize=9,
                    annotation_clip=False,
                )
        axes.spines["left"].set_visible(False)
        image = to_svg(figure)
    said = "; ".join(
        f"{row.name}, {row.protocol}: {spoken(row.value)}"
        + (f" ({spoken(row.ci_low)} to {spoken(row.ci_high)})" if np.isfinite(row.ci_low) else "")
        for row in records(rows)
    )
    alt = f"{title}, {reference_name} {spoken(reference)}. {said}."
    order = ", ".join(f"{sign} {name}" for name, (_, sign) in marks.items())
    return Picture(
        title,
        alt,
        image,
        "image/svg+xml",
        WIDTH,
        height,
        rows,
        file,
        f"From top to bottom: {order}." if len(protocols) > 1 else "",
        figure,
        "intervals",
        reference,
    )


def _value_range(rows: pd.DataFrame, reference: float) -> tuple[float, float]:
    known = rows[["value", "ci_low", "ci_high"]].to_numpy(float)
    if not np.isfinite(known).any():
        return 0.0, 1.0
    return min(reference, float(np.nanmin(known))), max(reference, float(np.nanmax(known)))


def _marks(rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Return a marker, and the sign that stands for it in text, of each protocol."""
    signs = {"sound": ("o●", "s■", "^▲", "v▼", "P✚"), "paper": ("D◇", "h⬡")}
    marks: dict[str, tuple[str, str]] = {}
    families = dict(zip(rows["protocol"], rows["family"], strict=True))
    for family, known in signs.items():
        for at, name in enumerate(name for name, of in families.items() if of == family):
            pair = known[at % len(known)]
            marks[name] = (pair[0], pair[1])
    return {name: marks[name] for name in families}


def shot_curves(points: pd.DataFrame, *, title: str, unit: str, file: str) -> Picture:
    """Draw a score against the number of labelled units of the new dataset.

    Parameters
    ----------
    points : DataFrame
        name, shots (int; 0: zero-shot), value, ci_low, ci_high; models in the order of the legend,
        at most as many as there are colours.
    """
    names, shots = list(dict.fromkeys(points["name"])), sorted(set(points["shots"]))
    width, height = WIDTH, 290 + 18 * len(names)
    with drawing(width, height) as figure:
        axes = panel(figure, left=44, right=14, top=12, bottom=60 + 18 * len(names), grid="y")
        axes.axhline(0.5, color=BASELINE, linewidth=1.2, linestyle=(0, (3, 3)))
        for at, name in enumerate(names):
            line = points[(points["name"] == name) & points["value"].notna()]
            x = [shots.index(k) + 0.05 * (at - (len(names) - 1) / 2) for k in line["shots"]]
            colour = SERIES[at % len(SERIES)]
            axes.vlines(x, line["ci_low"], line["ci_high"], color=colour, linewidth=1.6, alpha=0.4)
            axes.plot(
                x,
                line["value"],
                color=colour,
                marker=SERIES_MARKERS[at % len(SERIES_MARKERS)],
                markersize=6,
                linewidth=1.6,
                label=printable(name, 40),
            )
        axes.set_xticks(range(len(shots)), ["none" if k == 0 else str(k) for k in shots])
        axes.set_xlim(-0.4, len(shots) - 0.6)
        axes.set_xlabel(f"labelled {unit} of each label that are known of the new dataset")
        axes.set_ylabel("AUROC")
        axes.legend(
            loc="upper left", bbox_to_anchor=(-0.02, -0.17), labelcolor=INK, fontsize=11, ncols=1
        )
        image = to_svg(figure)
    said = "; ".join(
        f"{row.name} with {row.shots or 'no'}: {spoken(row.value)}" for row in records(points)
    )
    alt = f"{title}, against labelled {unit} per label. {said}."
    return Picture(
        title,
        alt,
        image,
        "image/svg+xml",
        width,
        height,
        points,
        file,
        figure=figure,
        reference=0.5,
    )


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
            rasterized=True,
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
    return Picture(title, alt, image, "image/png", side, side, points, file, figure=figure)


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
    longest = max((len(printable(name, 18)) for name in datasets), default=0)
    below = 26 + 4 * longest  # the tilted names
    width, height = max(WIDTH, 140 + 56 * len(datasets)), 16 + below + 28 * len(names)
    norm, colours = TwoSlopeNorm(reference, reference - 0.5, reference + 0.5), probability_colours()
    with drawing(width, height) as figure:
        axes = panel(figure, left=128, right=10, top=8, bottom=below)
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
    return Picture(
        title,
        f"{title}. {said}.",
        image,
        "image/svg+xml",
        width,
        height,
        cells,
        file,
        figure=figure,
        kind="heatmap",
        reference=reference,
    )
