"""Colours, sizes and drawing rules that all figures of a report share.

Figures are drawn without pyplot and without global state, as SVG that depends on nothing but its
data: no dates, fixed identifiers, the reader's own fonts, and a dark dress where the reader's
screen is dark.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from scdrugmap.plain import printable as one_line

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

INK, MUTED, GRID, FAINT = "#1c2430", "#5a6573", "#d9dee5", "#f1f4f7"
SENSITIVE, RESISTANT, BETWEEN = "#2166ac", "#b2182b", "#b9bec6"
SOUND, PAPER, BASELINE = "#0f766e", "#a8670a", "#7b8694"

SERIES = ("#0072b2", "#d55e00", "#009e73", "#b8578f", "#8c6d00", "#5b6ee1")
"""Lines of several models: told apart with every kind of colour vision (after Okabe and Ito)."""

SERIES_MARKERS = ("o", "s", "^", "D", "v", "P")

LABEL_COLOURS = {"sensitive": SENSITIVE, "resistant": RESISTANT}

WIDTH = 400
"""Width of a figure of a whole run in CSS pixels; a telephone shows it nearly unscaled."""

PANEL = 300
"""Width of one of several figures side by side."""

FONT_PX = 12
_FONTS = (
    "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, "
    "'Liberation Sans', sans-serif"
)

# What a colour becomes on a dark screen; data colours are chosen to work on both.
_DARK = {
    INK: "#e8ecf1",
    MUTED: "#a7b1bd",
    GRID: "#343c47",
    FAINT: "#1f2630",
    SENSITIVE: "#62a6e3",
    RESISTANT: "#f0766f",
    SOUND: "#2fb8a9",
    PAPER: "#e0a33e",
    BASELINE: "#98a3b0",
    **dict(
        zip(SERIES, ("#4fa8dd", "#f08a4b", "#2fc397", "#dd8dbb", "#c9a93a", "#8f9cf5"), strict=True)
    ),
}

_RC: dict[Any, Any] = {
    "svg.hashsalt": "scdrugmap",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a sample may be called $x$
    "font.family": ["DejaVu Sans"],
    "font.size": FONT_PX,
    "axes.titlesize": FONT_PX,
    "axes.labelsize": FONT_PX,
    "xtick.labelsize": FONT_PX - 1,
    "ytick.labelsize": FONT_PX - 1,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "axes.unicode_minus": True,
    "path.simplify": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@contextmanager
def drawing(width: int, height: int) -> Iterator[Figure]:
    """Give an empty figure of that many CSS pixels, under our rules."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    with mpl.rc_context(_RC):
        yield Canvas(figsize=(width / 72, height / 72), dpi=72)


def panel(
    figure: Figure, *, left: float, right: float, top: float, bottom: float, grid: str = ""
) -> Axes:
    """Add one axes with margins in pixels; `grid` is ``x``, ``y``, ``xy`` or empty."""
    width, height = figure.get_size_inches() * 72
    axes = figure.add_axes(
        (
            left / width,
            bottom / height,
            (width - left - right) / width,
            (height - top - bottom) / height,
        )
    )
    axes.tick_params(length=0)
    if grid:
        axes.grid(True, axis="both" if grid == "xy" else grid)  # type: ignore[arg-type]
    return axes


def to_svg(figure: Figure, *, dark: bool = True) -> bytes:
    """Return a figure as SVG: the same drawing gives the same bytes.

    Parameters
    ----------
    figure : Figure
    dark : bool
        With a dark dress for dark screens; without it for print.
    """
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # The reader's fonts are used, not the one that only measures the text here.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]  # the doctype would be fetched by old viewers
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace("'DejaVu Sans'", "sans-serif")
    text = re.sub(r"\n\s+", "\n", text)
    head, mark, rest = text.partition(">")
    return (head + mark + f"<style>{_sheet(dark=dark)}</style>" + rest).encode()


def to_pdf(figure: Figure) -> bytes:
    """Return a figure as PDF whose text stays text: the same drawing gives the same bytes."""
    import matplotlib as mpl

    buffer = io.BytesIO()
    with warnings.catch_warnings(), mpl.rc_context({**_RC, "pdf.fonttype": 42}):
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="pdf", dpi=300, metadata={"CreationDate": None})
    return buffer.getvalue()


def to_plain_svg(figure: Figure) -> bytes:
    """Return a figure as SVG for print, under our rules."""
    import matplotlib as mpl

    with mpl.rc_context(_RC):
        return to_svg(figure, dark=False)


def _sheet(*, dark: bool) -> str:
    fonts = f"text{{font-family:{_FONTS}!important}}"
    if not dark:
        return fonts
    shades = "".join(
        f'[style*="{what}: {light}"]{{{what}:{shade}!important}}'
        for light, shade in _DARK.items()
        for what in ("fill", "stroke")
    )
    return f"{fonts}@media(prefers-color-scheme:dark){{{shades}}}"


def to_png(figure: Figure, scale: float = 2.0, *, clear: bool = True) -> bytes:
    """Return a figure as PNG, `scale` pixels per CSS pixel, on a clear or white background."""
    buffer = io.BytesIO()
    how: dict[str, Any] = {"transparent": True} if clear else {"facecolor": "white"}
    figure.savefig(buffer, format="png", dpi=72 * scale, metadata={"Software": None}, **how)
    return buffer.getvalue()


def probability_colours() -> Colormap:
    """Return the colours of p_sensitive: resistant, undecided, sensitive."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("p_sensitive", [RESISTANT, BETWEEN, SENSITIVE])


def printable(text: str, longest: int = 24) -> str:
    """Return a name as a short label: control characters shown, the middle of long names cut."""
    shown = one_line(str(text))
    if len(shown) <= longest:
        return shown
    head = longest * 2 // 3
    return f"{shown[:head]}…{shown[-(longest - head - 1) :]}"


@dataclass(frozen=True)
class Picture:
    """A drawn figure and what belongs to it.

    Attributes
    ----------
    title, alt, caption : str
        ``alt`` says the numbers.
    image : bytes
        Of type `mime`, `width` x `height` CSS pixels.
    table : DataFrame
        The numbers behind it.
    file : str
        Its name without ending.
    figure : Figure
        The drawing itself, for other formats.
    kind : str
        What an interactive page draws of `table`: ``intervals``, ``heatmap``, ``roc`` or nothing.
    reference : float
        Of the dashed line, or the middle of the colours.
    """

    title: str
    alt: str
    image: bytes
    mime: str
    width: int
    height: int
    table: pd.DataFrame
    file: str
    caption: str = ""
    figure: Figure | None = field(default=None, compare=False, repr=False)
    kind: str = ""
    reference: float = float("nan")


def records(frame: pd.DataFrame) -> Iterator[Any]:
    """Return the rows of a table, columns as attributes."""
    return frame.itertuples(index=False)


def spoken(value: float) -> str:
    """Return a value as text alternatives say it."""
    return f"{value:.2f}" if np.isfinite(value) else "undefined"
