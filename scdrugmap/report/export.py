"""Figures of a report as files: SVG and PDF, for print."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from scdrugmap.errors import UsageError
from scdrugmap.files import atomic_path
from scdrugmap.report.style import to_pdf, to_plain_svg
from scdrugmap.tables import table_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scdrugmap.report.style import Picture

_LONGEST = 100


def check_figure_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder for figures before any work is done.

    Raises
    ------
    UsageError
        It is no folder, its parent does not exist, or it has files (without `overwrite`).
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is no folder", hint="name a folder with --figures")
    if not folder.resolve().parent.is_dir():
        raise UsageError(
            f"the folder {folder.resolve().parent} does not exist", hint="create it first"
        )
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise UsageError(
            f"the folder {folder} is not empty", hint="name another folder, or add --overwrite"
        )


def write_figures(pictures: Iterable[Picture], folder: Path) -> list[Path]:
    """Write each figure as SVG and PDF, and the table behind it as TSV.

    Parameters
    ----------
    pictures : iterable of Picture
    folder : Path
        Made if it is not there; files of the same name are replaced.

    Returns
    -------
    list of Path
        What was written.
    """
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    taken: dict[str, int] = {}
    written = []
    for picture in pictures:
        if picture.figure is None:
            continue
        name = file_name(picture.file)
        taken[name.lower()] = taken.get(name.lower(), 0) + 1  # some disks ignore case
        if taken[name.lower()] > 1:
            name = f"{name}-{taken[name.lower()]}"
        contents = {
            ".svg": to_plain_svg(picture.figure),
            ".pdf": to_pdf(picture.figure),
            ".tsv": table_bytes(picture.table),
        }
        for ending, raw in contents.items():
            target = folder / f"{name}{ending}"
            with atomic_path(target) as temporary:
                temporary.write_bytes(raw)
            written.append(target)
    return written


def file_name(text: str) -> str:
    """Return a name that is one harmless file name everywhere."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-")
    return name[:_LONGEST] or "figure"
