"""Draw galaxy_tools/static/images/data_flow.png, the picture in the help of the Galaxy tools."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
from PIL import Image

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch

TARGET = Path(__file__).resolve().parent.parent / "galaxy_tools/static/images/data_flow.png"

TOOLS = {
    "check": (0.9, 3.0),
    "embed": (3.4, 3.0),
    "merge": (5.6, 3.0),
    "split": (3.4, 1.2),
    "train": (5.6, 1.9),
    "predict": (7.9, 1.75),
    "evaluate": (10.2, 1.2),
    "explain": (10.2, 3.0),
    "benchmark": (3.4, -0.2),
    "report": (7.9, -0.2),
}
ARROWS = [
    ("embed", "merge"),
    ("merge", "train"),
    ("split", "train"),
    ("train", "predict"),
    ("predict", "evaluate"),
    ("train", "explain"),
    ("benchmark", "report"),
]
FILES = {
    "cells (h5ad)": (0.6, 1.8),
    "vectors (h5ad)": (6.95, 3.4),
    "folds (tabular)": (4.5, 0.72),
    "predictor (zip)": (5.6, 1.36),
    "p(sensitive) (tabular)": (7.9, 1.2),
    "metrics (tabular)": (10.2, 0.66),
    "genes (tabular)": (10.2, 2.46),
    "run (zip)": (5.65, 0.0),
    "page (html)": (7.9, -0.72),
}
HALF = 0.75
"""Half the width of a box."""


def main() -> None:
    """Draw the boxes and arrows."""
    figure, axes = plt.subplots(figsize=(7.2, 2.9), dpi=160)
    axes.set(xlim=(0, 11.2), ylim=(-0.95, 3.5))
    axes.axis("off")
    for name, (x, y) in TOOLS.items():
        box = FancyBboxPatch(
            (x - HALF, y - 0.27),
            2 * HALF,
            0.54,
            boxstyle="round,pad=0.02",
            fc="#e8eef7",
            ec="#2c3143",
        )
        axes.add_patch(box)
        axes.text(x, y, name, ha="center", va="center", fontsize=8, weight="bold", color="#2c3143")
    for name, (x, y) in FILES.items():
        axes.text(
            x, y, name, ha="center", va="center", fontsize=6.5, style="italic", color="#444444"
        )
    style = {"arrowstyle": "-|>", "color": "#2c3143", "lw": 1.1, "shrinkA": 0, "shrinkB": 0}
    for first, second in ARROWS:
        (x0, y0), (x1, y1) = TOOLS[first], TOOLS[second]
        axes.annotate("", (x1 - HALF - 0.05, y1), (x0 + HALF + 0.05, y0), arrowprops=style) if abs(
            x1 - x0
        ) > 1 else axes.annotate("", (x1, y1 + 0.3), (x0, y0 - 0.3), arrowprops=style)
    for end in ((0.9, 2.7), (2.6, 2.9), (2.6, 1.3), (2.6, 0.0)):
        axes.annotate("", end, (1.1, 2.12), arrowprops=style)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, bbox_inches="tight", pad_inches=0.02)
    Image.open(drawn).convert("RGB").quantize(16).save(TARGET, optimize=True)


if __name__ == "__main__":
    main()
