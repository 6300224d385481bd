"""Make the report of a run: one HTML file with everything in it and nothing fetched."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from pathlib import Path

from scdrugmap.files import write_text
from scdrugmap.report.view import RunTables, page_variables
from scdrugmap.run.record import CELL_MAP_FILE, read_run


def build_report(run_folder: Path, output: Path) -> None:
    """Write one self-contained HTML file about a finished run.

    Parameters
    ----------
    run_folder : Path
        A folder that ``scdrugmap benchmark`` filled.
    output : Path
        The file to write; the same run gives the same bytes.

    Raises
    ------
    UsageError
        The folder holds no finished run.
    DataError
        One of its tables is damaged.
    """
    write_text(Path(output), render(read_tables(Path(run_folder))))


def read_tables(folder: Path) -> RunTables:
    """Read the tables of a run folder.

    Raises
    ------
    UsageError
        A table is missing.
    DataError
        A table is damaged.
    """
    from scdrugmap.evaluation.tables import read_metrics, read_predictions, read_splits
    from scdrugmap.tables import read_table

    run = read_run(folder)
    shown = [item.name for item in run.protocols if item.status == "evaluated"]
    path = folder / CELL_MAP_FILE
    return RunTables(
        run=run,
        metrics=read_metrics(folder / "metrics.tsv"),
        predictions={
            name: read_predictions(folder / f"predictions-{name}.tsv.gz") for name in shown
        },
        splits={name: read_splits(folder / f"splits-{name}.tsv.gz") for name in shown},
        cell_map=read_table(path, numbers={"x": "float64", "y": "float64"})
        if path.exists()
        else None,
    )


def render(tables: RunTables) -> str:
    """Return the page of a run as text."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    folder = resources.files("scdrugmap.report")
    style = (folder / "report.css").read_text("utf-8")
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(
        (folder / "report.html.j2").read_text("utf-8")
    )
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return page.render(
        style=Markup(style), style_hash=Markup(f"sha256-{digest}"), **page_variables(tables)
    )
