"""Make the report of one run, or of several side by side: one HTML file that fetches nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from scdrugmap.errors import UsageError
from scdrugmap.files import write_text
from scdrugmap.plain import visible
from scdrugmap.report.gallery import PICTURE_BUDGET, Gallery, draw_gallery, score_cells
from scdrugmap.report.run_tables import read_tables
from scdrugmap.report.summary import summarise
from scdrugmap.report.view import page_variables

if TYPE_CHECKING:
    from scdrugmap.report.run_tables import RunTables


def build_report(
    runs: Path | Sequence[Path],
    output: Path | None = None,
    *,
    figures: Path | None = None,
    interactive: bool = False,
) -> None:
    """Write one self-contained HTML file about finished runs, their figures, or both.

    Parameters
    ----------
    runs : Path or sequence of Path
        Folders that ``scdrugmap benchmark`` filled; several are compared.
    output : Path, optional
        The file to write; the same runs give the same bytes.
    figures : Path, optional
        A folder for every figure as SVG and PDF.
    interactive : bool
        Figures that show their numbers under the pointer; needs the extra ``report``.

    Raises
    ------
    UsageError
        A folder holds no finished run, or plotly is missing.
    DataError
        A table is damaged, or the runs have no manifest in common.
    """
    from scdrugmap.report.combine import combine_runs
    from scdrugmap.report.export import write_figures

    folders = [Path(runs)] if isinstance(runs, str | Path) else [Path(run) for run in runs]
    if not folders:
        raise UsageError("no run was given")
    tables = read_tables(folders[0]) if len(folders) == 1 else combine_runs(folders)
    page, gallery = render(tables, interactive=interactive)
    if output is not None:
        write_text(Path(output), page)
    if figures is not None:
        write_figures(gallery, figures)


def render(tables: RunTables, *, interactive: bool = False) -> tuple[str, Gallery]:
    """Return the page of a run as text, and its figures."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    from scdrugmap.report.interactive import plot_script

    summary = summarise(tables.run, tables.metrics)
    scored = score_cells(tables, summary)
    gallery = draw_gallery(tables, summary, scored, budget=PICTURE_BUDGET)
    folder = resources.files("scdrugmap.report")
    style = (folder / "report.css").read_text("utf-8")
    script = plot_script() if interactive else ""
    page = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, finalize=_shown
    ).from_string((folder / "report.html.j2").read_text("utf-8"))
    text = page.render(
        style=Markup(style),
        style_hash=Markup(_digest(style)),
        script=Markup(script),
        script_hash=Markup(_digest(script)),
        interactive=interactive,
        **page_variables(tables, summary, scored, gallery, interactive=interactive),
    )
    return text, gallery


def _shown(value: object) -> object:
    """Return what the page shows of a value; names in it may turn a line round, or hide."""
    return visible(value) if type(value) is str else value


def _digest(text: str) -> str:
    """Return the hash by which the policy of the page allows exactly this text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def make_outputs(
    runs: Sequence[Path],
    *,
    output: Path | None = None,
    figures: Path | None = None,
    crate: Path | None = None,
    interactive: bool = False,
    overwrite: bool = False,
) -> None:
    """Write what was asked for of finished runs: a page, a folder of figures, an RO-Crate.

    Parameters
    ----------
    runs : sequence of Path
        Folders that ``scdrugmap benchmark`` filled; several are compared.
    output, figures, crate : Path, optional
        HTML file, folder, and zip file; at least one.
    interactive : bool
        As for :func:`build_report`.
    overwrite : bool
        Existing outputs may be replaced.

    Raises
    ------
    UsageError
        Nothing was asked for, an output exists or cannot be, a crate is asked of several runs, or
        as for :func:`build_report`.
    DataError
        As for :func:`build_report`.
    """
    from scdrugmap.files import check_different, check_output, together
    from scdrugmap.report.crate import write_crate
    from scdrugmap.report.export import check_figure_folder

    if output is None and figures is None and crate is None:
        raise UsageError("nothing was asked for", hint="name a file with -o")
    if interactive and output is None:
        raise UsageError("--interactive is about the HTML file", hint="name it with -o")
    if crate is not None and len(runs) > 1:
        raise UsageError("a crate is of one run", hint="name one run, or leave --crate out")
    files = [path for path in (output, crate) if path is not None]
    for path in files:
        check_output(path, overwrite=overwrite)
    check_different(files)
    if figures is not None:
        check_figure_folder(figures, overwrite=overwrite)
    with together(*files):
        if output is not None or figures is not None:
            build_report(runs, output, figures=figures, interactive=interactive)
        if crate is not None:
            write_crate(runs[0], crate)
