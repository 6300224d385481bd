"""Figures that show their numbers under the pointer, in a page that still fetches nothing.

The picture stays in the page: it is what is printed, and what is seen without scripts.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from scdrugmap.errors import UsageError
from scdrugmap.plain import visible
from scdrugmap.report.style import PAPER, RESISTANT, SENSITIVE, SOUND, records

if TYPE_CHECKING:
    from scdrugmap.report.style import Picture

_SHEETS = re.compile(
    r'getElementById\("([0-9a-f]{64})"\)\)\{var \w+=document\.createElement\("style"\)'
)
"""Where plotly.js adds a style sheet when it is loaded: the sheet's name."""

_SYMBOLS = {
    "sound": ("circle", "square", "triangle-up", "triangle-down", "cross"),
    "paper": ("diamond-open",),
}


def plot_script() -> str:
    """Return the one script of an interactive page: plotly.js, and what draws with it.

    Raises
    ------
    UsageError
        plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as err:
        raise UsageError(
            "--interactive needs plotly, which is not installed",
            hint="pip install 'scdrugmap[report]'",
        ) from err
    library = get_plotlyjs()
    own = (resources.files("scdrugmap.report") / "interactive.js").read_text("utf-8")
    # Rules of maps, which are not drawn here, would breach the policy of the page; they are not
    # added where an element has their name.
    there = "".join(
        f'document.head.append(Object.assign(document.createElement("template"),{{id:"{name}"}}));'
        for name in _SHEETS.findall(library)
    )
    return f"{there}\n{library}\n{own}"


def plot_of(picture: Picture) -> dict[str, Any] | None:
    """Return traces and layout of a picture for plotly.js; None where there is nothing to hover."""
    makers = {"intervals": _intervals, "heatmap": _heatmap, "roc": _roc}
    if picture.kind not in makers:
        return None
    return {**makers[picture.kind](picture), "height": picture.height}


def _intervals(picture: Picture) -> dict[str, Any]:
    rows = picture.table
    names = list(dict.fromkeys(rows["name"]))
    families = dict(zip(rows["protocol"], rows["family"], strict=True))
    traces = []
    for number, (protocol, family) in enumerate(families.items()):
        of = rows[rows["protocol"] == protocol]
        symbols = _SYMBOLS[family]
        shift = 0.5 - (number + 1) / (len(families) + 1)
        value, low, high = (of[name].to_numpy(float) for name in ("value", "ci_low", "ci_high"))
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": _literal(protocol),
                "x": _plain(value),
                "y": [len(names) - names.index(name) + shift for name in of["name"]],
                "text": [_literal(name) for name in of["name"]],
                "customdata": [list(pair) for pair in zip(_plain(low), _plain(high), strict=True)],
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": _plain(high - value),
                    "arrayminus": _plain(value - low),
                    "thickness": 2,
                    "width": 0,
                },
                "marker": {
                    "color": SOUND if family == "sound" else PAPER,
                    "size": 9,
                    "symbol": symbols[number % len(symbols)],
                },
                "hovertemplate": f"%{{text}}<br>{_literal(protocol)}: %{{x:.3f}}"
                "<br>95 %: %{customdata[0]:.3f} to %{customdata[1]:.3f}<extra></extra>",
            }
        )
    layout = {
        "showlegend": False,
        "yaxis": {
            "tickmode": "array",
            "tickvals": [len(names) - place for place in range(len(names))],
            "ticktext": [_literal(name) for name in names],
            "range": [0.4, len(names) + 0.6],
            "showgrid": False,
        },
        "shapes": [_line(picture.reference)],
        "margin": {"l": 130, "r": 14, "t": 10, "b": 30},
    }
    return {"data": traces, "layout": layout}


def _heatmap(picture: Picture) -> dict[str, Any]:
    table = picture.table
    names = list(dict.fromkeys(table["name"]))[::-1]
    columns = list(dict.fromkeys(table["dataset"]))
    grid: list[list[float | None]] = [[None] * len(columns) for _ in names]
    for row in records(table):
        if np.isfinite(row.value):
            grid[names.index(row.name)][columns.index(row.dataset)] = float(row.value)
    trace = {
        "type": "heatmap",
        "x": [_literal(name) for name in columns],
        "y": [_literal(name) for name in names],
        "z": grid,
        "zmin": picture.reference - 0.5,
        "zmax": picture.reference + 0.5,
        "colorscale": [[0, RESISTANT], [0.5, "#b9bec6"], [1, SENSITIVE]],
        "showscale": False,
        "hoverongaps": False,
        "texttemplate": "%{z:.2f}",
        "xgap": 2,
        "ygap": 2,
        "hovertemplate": "%{y}<br>%{x}: %{z:.3f}<extra></extra>",
    }
    return {
        "data": [trace],
        "layout": {
            "xaxis": {"type": "category", "tickangle": -40, "showgrid": False},
            "yaxis": {"type": "category", "showgrid": False},
            "margin": {"l": 130, "r": 10, "t": 8, "b": 94},
        },
    }


def _roc(picture: Picture) -> dict[str, Any]:
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "all folds" if fold == "all" else f"fold {fold}",
            "x": _plain(line["false_positive_rate"].to_numpy(float)),
            "y": _plain(line["true_positive_rate"].to_numpy(float)),
            "line": {"width": 3 if fold == "all" else 1},
            "role": "ink" if fold == "all" else "muted",
            "hovertemplate": "%{fullData.name}: %{x:.2f}, %{y:.2f}<extra></extra>",
        }
        for fold, line in picture.table.groupby("fold", sort=False)
    ]
    chance = {
        "type": "line",
        "x0": 0,
        "y0": 0,
        "x1": 1,
        "y1": 1,
        "line": {"width": 1, "dash": "dash"},
    }
    return {
        "data": traces,
        "layout": {
            "showlegend": False,
            "xaxis": {
                "range": [-0.02, 1.02],
                "title": {"text": "resistant cells called sensitive"},
            },
            "yaxis": {"range": [-0.02, 1.02], "title": {"text": "sensitive cells found"}},
            "shapes": [chance],
            "margin": {"l": 50, "r": 12, "t": 10, "b": 44},
        },
    }


def _line(x: float) -> dict[str, Any]:
    return {
        "type": "line",
        "x0": x,
        "x1": x,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "line": {"width": 1, "dash": "dash"},
    }


def _plain(values: np.ndarray) -> list[float | None]:
    """Return numbers as JSON has them; NaN is nothing."""
    return [round(float(value), 5) if np.isfinite(value) else None for value in values]


def _literal(text: str) -> str:
    """Return a name so that plotly.js shows it as it is: it reads tags and templates in texts."""
    text = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("%{", "%\u200b{").replace("$", "\uff04")
