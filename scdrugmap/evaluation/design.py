"""What a split is made of: the label and the origin of every labelled cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scdrugmap.errors import DataError, UsageError
from scdrugmap.evaluation.tables import FACETS

if TYPE_CHECKING:
    from anndata import AnnData

    from scdrugmap.data.labels import LabelMap

DESIGN_COLUMNS = ("dataset", "cell", "sample", "donor", "study", "label", "fingerprint")
OPTIONAL_COLUMNS = ("cell_line", "control", *FACETS)

_EMPTY_CELL = "0" * 32  # fingerprint of a cell without any value: not a copy of the next such cell


@dataclass(frozen=True)
class Design:
    """The labelled cells of one or more files.

    Attributes
    ----------
    frame : DataFrame
        One row per cell, all columns str: :data:`DESIGN_COLUMNS`, with ``""`` for what is not
        known, and any of :data:`OPTIONAL_COLUMNS`. ``label`` is ``sensitive`` or ``resistant``.
    notices : tuple of str
        What a reader should know, one line each.
    """

    frame: pd.DataFrame
    notices: tuple[str, ...] = ()


def read_design(
    sources: Sequence[str | Path | AnnData],
    *,
    label: str,
    labels: LabelMap,
    group: str | None,
    sample: str | None = None,
    study: str | None = None,
    dataset: str | None = None,
    cell_line: str | None = None,
    control: str | None = None,
    tissue: str | None = None,
    cancer_type: str | None = None,
    drug_type: str | None = None,
    drug: str | None = None,
    collection: str | None = None,
    where: Sequence[tuple[str, str]] = (),
    fingerprints: bool = True,
    cell_arguments: Mapping[str, Any] | None = None,
) -> Design:
    """Read labels, donors and samples, and find copies of cells.

    Parameters
    ----------
    sources : sequence of path or AnnData
        Every cell is named by dataset and cell.
    label : str
        Column of obs with the response.
    labels : LabelMap
        What the words of that column mean; cells without a label are set aside and counted.
    group : str or None
        Column of donors: patients, animals, cultures.
    sample, study, dataset, cell_line, control : str, optional
        Columns of obs. Default: the sample is the donor, dataset and study are the file's stem.
        Cells with one value in `control` are the same untreated cells, in whatever file.
    tissue, cancer_type, drug_type, drug, collection : str, optional
        Columns of obs by which cells are held out and results are grouped. A `drug` may be a
        regimen (``a + b``); a `collection` is ``primary`` or ``external``.
    where : sequence of (column, value)
        Take only cells with this value.
    fingerprints : bool
        Read all values to find copies of cells.
    cell_arguments : mapping, optional
        More arguments of :func:`~scdrugmap.data.cells.open_cells`.

    Returns
    -------
    Design
        Sorted by dataset and cell.

    Raises
    ------
    UsageError
        No such file or column, or two files of one name.
    DataError
        The files or labels cannot be used.
    """
    columns = {
        "donor": (group, "--group"),
        "sample": (sample or group, "--sample"),
        "study": (study, "--study"),
        "dataset": (dataset, "--dataset"),
        "cell_line": (cell_line, "--cell-line"),
        "control": (control, "--control"),
        "tissue": (tissue, "--tissue"),
        "cancer_type": (cancer_type, "--cancer-type"),
        "drug_type": (drug_type, "--drug-type"),
        "drug": (drug, "--drug"),
        "collection": (collection, "--collection"),
    }
    frames: list[pd.DataFrame] = []
    notices: list[str] = []
    names: list[str] = []
    for source in sources:
        name, obs, prints, found = _read(source, where, sample, fingerprints, cell_arguments or {})
        frame, said = _labelled(name, obs, label, labels, columns)
        frame["fingerprint"] = prints[obs.index.get_indexer(pd.Index(frame["cell"]))]
        frames.append(frame)
        notices += [*found, *said]
        names.append(name)
    _require_distinct(names, dataset)
    cells = pd.concat(frames, ignore_index=True)
    optional = [c for c in OPTIONAL_COLUMNS if columns[c][0] is not None]
    cells = cells[[*DESIGN_COLUMNS, *optional]]
    cells = cells.sort_values(["dataset", "cell"], kind="stable", ignore_index=True)
    return Design(cells, tuple(dict.fromkeys(notices)))


def _read(
    source: str | Path | AnnData,
    where: Sequence[tuple[str, str]],
    sample: str | None,
    fingerprints: bool,
    arguments: Mapping[str, Any],
) -> tuple[str, pd.DataFrame, np.ndarray, tuple[str, ...]]:
    """Return name, obs, fingerprints (``""``: none) and notices of a file.

    Only a sample column that the user named makes repeated names unique: training and prediction
    know it too, but not the column of donors.
    """
    from scdrugmap.data.cells import open_cells
    from scdrugmap.data.obs import read_obs

    if not fingerprints:
        sheet = arguments.get("sheet")
        name, obs = read_obs(source, where=where, sample=sample, sheet=sheet)
        return name, obs, np.full(len(obs), "", object), ()
    with open_cells(source, where=where, sample=sample, **arguments) as cells:
        prints = cells.fingerprints()
        prints = np.where(prints == _EMPTY_CELL, "", prints)
        return cells.name, cells.obs, prints, cells.notices


def _labelled(
    name: str,
    obs: pd.DataFrame,
    label: str,
    labels: LabelMap,
    columns: Mapping[str, tuple[str | None, str]],
) -> tuple[pd.DataFrame, list[str]]:
    """Return the labelled cells of one file, and what to say about the others."""
    from scdrugmap.data.labels import require_column

    found = labels.apply(require_column(obs, label, "--label", name), where=name)
    frame = pd.DataFrame({"cell": obs.index.to_numpy(object), "label": found.values})
    for key, (column, option) in columns.items():
        default = name if key in ("dataset", "study") else ""
        frame[key] = (
            default
            if column is None
            else as_text(require_column(obs, column, option, name)).to_numpy(object)
        )
    return frame[frame["label"] != ""].reset_index(drop=True), list(found.notices)


def as_text(column: pd.Series) -> pd.Series:
    """Return names as trimmed text, ``""`` where missing; 3 and 3.0 are the same name.

    Parameters
    ----------
    column : Series
        Text, category, number or bool.

    Raises
    ------
    DataError
        A name holds a NUL character.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        used = column.cat.remove_unused_categories().cat
        words = np.append(as_text(used.categories.to_series(name=column.name)).to_numpy(object), "")
        return pd.Series(words[used.codes.to_numpy()], column.index, object, column.name)
    if pd.api.types.is_float_dtype(column.dtype):
        whole = column.isna() | (column == column.round())
        if whole.all():
            column = column.astype("Int64")
    text = column.astype(object).where(column.notna(), "").astype(str)
    if any("\0" in name for name in text):  # pandas takes two that differ behind it for one
        raise DataError(
            f"column {column.name!r} holds names with a NUL character", hint="rename them"
        )
    return text.str.strip().astype(object)


def _require_distinct(names: list[str], dataset: str | None) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice and dataset is None:
        raise UsageError(
            f"two inputs are called {twice[0]!r}, and a cell is known by dataset and name",
            hint="rename one of the files",
        )
    if not names:
        raise DataError("no input was given", hint="name at least one file")
