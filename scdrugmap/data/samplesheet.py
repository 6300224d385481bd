"""A cohort of several files described by one table: which cells are which sample, and its response.

One line per sample. A file with one sample needs nothing in it; a file with several names the
column of obs that tells them apart::

    file,sample,column,donor,label,drug
    p1.h5ad,,,P1,PR,paclitaxel
    pool.h5ad,s2,sample_id,P2,PD,paclitaxel
    pool.h5ad,s3,sample_id,P3,PR,paclitaxel
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.errors import DataError, UsageError

if TYPE_CHECKING:
    import pandas as pd

REQUIRED = ("file", "label")
"""Columns that every sheet has; ``sample``, ``column`` and ``donor`` have defaults, all others are
taken over into obs as they are."""

_NEAR = 0.75
_MOST_SHOWN = 80
_OPTIONS = ("study", "tissue", "cancer_type", "drug_type", "drug", "collection")


@dataclass(frozen=True)
class Line:
    """A sample.

    Attributes
    ----------
    number : int
        Line of the file, from 1.
    path : Path
    sample : str
        Default: the file's name without its ending.
    column : str
        Column of obs that holds `sample`; ``""``: all cells of the file are this sample.
    facts : dict of str to str
        ``donor``, ``label`` and whatever else the sheet has.
    """

    number: int
    path: Path
    sample: str
    column: str
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Samplesheet:
    """All samples of a cohort."""

    source: Path
    lines: tuple[Line, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files, each once, in the order of the sheet."""
        return tuple(dict.fromkeys(line.path for line in self.lines))

    def columns(self) -> dict[str, str]:
        """Return, for each option of a split or a benchmark, the column that the sheet gives it.

        As ``{"label": "label", "group": "donor", "sample": "sample", "drug": "drug"}``.
        """
        there = {name for line in self.lines for name, value in line.facts.items() if value}
        return {
            "label": "label",
            "group": "donor",
            "sample": "sample",
            **{name: name for name in _OPTIONS if name in there},
        }

    def describe(
        self, path: Path | None, obs: pd.DataFrame
    ) -> tuple[pd.DataFrame, tuple[str, ...]]:
        """Add what the sheet says to the table of a file's cells.

        Parameters
        ----------
        path : Path or None
            One of :attr:`files`; None: cells in memory, which no sheet describes.
        obs : pandas.DataFrame

        Returns
        -------
        obs : pandas.DataFrame
            A copy with ``sample``, ``donor``, ``label`` and the other columns of the sheet; None
            for cells of samples that the sheet does not name.
        notices : tuple of str

        Raises
        ------
        DataError
            A column or a sample is not in the file; names line and column of the sheet.
        """
        place = None if path is None else path.resolve()
        lines = [line for line in self.lines if line.path.resolve() == place]
        if path is None or not lines:
            raise UsageError(
                f"{self.source} does not name {path or 'cells in memory'}",
                hint=f"it names: {', '.join(file.name for file in self.files)}",
            )
        names = dict.fromkeys(name for line in lines for name in ("sample", *line.facts))
        columns = {name: np.full(len(obs), None, object) for name in names}
        covered = np.zeros(len(obs), bool)
        for line in lines:
            cells = self._cells(line, obs)
            covered |= cells
            for name, value in {"sample": line.sample, **line.facts}.items():
                columns[name][cells] = value or None
        notices = []
        if not covered.all():
            notices.append(
                f"{path.name}: {int((~covered).sum()):,} cells are of samples that "
                f"{self.source.name} does not name; they take no part"
            )
        return obs.assign(**columns), tuple(notices)

    def _cells(self, line: Line, obs: pd.DataFrame) -> np.ndarray:
        """Return which cells of a file are a sample, (n,) bool."""
        if not line.column:
            return np.ones(len(obs), bool)
        if line.column not in obs:
            raise self._error(
                line.number,
                "column",
                f"{line.path.name} has no column {line.column!r} in obs",
                f"it has: {', '.join(map(str, obs.columns))}",
            )
        values = obs[line.column].astype(str).str.strip()
        cells = (values == line.sample).to_numpy(bool)
        if not cells.any():
            there = ", ".join(sorted(values.unique())[:8])
            raise self._error(
                line.number,
                "sample",
                f"{line.path.name} has no cell with {line.column} = {line.sample!r}",
                f"{line.column} holds: {there}",
            )
        return cells

    def _error(self, number: int, column: str, message: str, hint: str) -> DataError:
        return DataError(f"{self.source}, line {number}, {column}: {message}", hint=hint)


def read_samplesheet(source: Path) -> Samplesheet:
    """Read and check a samplesheet: CSV or, with the ending ``.tsv``, tab-separated.

    Paths are relative to the folder of the sheet.

    Raises
    ------
    UsageError
        The sheet does not exist or is no text.
    DataError
        A column is missing, a cell of the table is empty that must not be, a file does not exist,
        or two lines contradict each other; names line and column.
    """
    source = Path(source)
    try:
        text = source.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        raise UsageError(f"{source} cannot be read: {err}") from err
    delimiter = "\t" if source.suffix == ".tsv" else ","
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, restkey="")
    try:
        header = [name.strip() for name in reader.fieldnames or ()]
        _check_header(source, header, delimiter)
        reader.fieldnames = header
        lines = tuple(_lines(source, header, reader))
    except csv.Error as err:
        raise DataError(f"{source}, line {reader.line_num + 1} cannot be read: {err}") from err
    if not lines:
        raise DataError(f"{source} has a header but no sample", hint="add one line per sample")
    _check_together(source, lines)
    return Samplesheet(source, lines)


def _check_header(source: Path, header: list[str], delimiter: str) -> None:
    for name in REQUIRED:
        if name not in header:
            near = difflib.get_close_matches(name, header, n=1, cutoff=_NEAR)
            hint = f"rename {near[0]!r} to {name!r}" if near else f"it has: {', '.join(header)}"
            if len(header) < len(REQUIRED):
                separator = "tabs" if delimiter == "\t" else "commas"
                hint = f"values are separated by {separator} in a {source.suffix} file"
            raise DataError(f"{source}, line 1: there is no column {name!r}", hint=hint)
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise DataError(f"{source}, line 1: the column {min(twice)!r} is there twice")


def _lines(source: Path, header: list[str], reader: csv.DictReader[str]) -> Iterator[Line]:
    for row in reader:
        number = reader.line_num
        if "" in row and header.count("") == 0:
            raise DataError(
                f"{source}, line {number} has more values than the header has columns",
                hint="put a value that holds a comma between quotes",
            )
        values = {name: (row.get(name) or "").strip() for name in header if name}
        if not any(values.values()):
            continue
        for name in REQUIRED:
            if not values[name]:
                raise DataError(
                    f"{source}, line {number}, {name}: the value is missing",
                    hint="leave the whole line out, or fill it in",
                )
        path = _file(source, number, values.pop("file"))
        column = values.pop("column", "")
        sample = values.pop("sample", "") or ("" if column else path.name.split(".")[0])
        if not sample:
            raise DataError(
                f"{source}, line {number}, sample: the value is missing",
                hint=f"name the sample that {column} of {path.name} holds",
            )
        donor = values.pop("donor", "") or sample
        yield Line(number, path, sample, column, {"donor": donor, **values})


def _file(source: Path, number: int, name: str) -> Path:
    """Return the file that a line names, relative to the folder of the sheet."""
    try:
        path = source.parent / Path(name).expanduser()
        found = path.exists()
    except (OSError, RuntimeError, ValueError) as err:  # too long; the home of nobody; a NUL
        reason = getattr(err, "strerror", "") or err
        raise DataError(
            f"{source}, line {number}, file: {name[:_MOST_SHOWN]!r} is no path: {reason}"
        ) from err
    if not found:
        raise DataError(
            f"{source}, line {number}, file: {path} does not exist",
            hint="paths are relative to the folder of the sheet",
        )
    return path


def _check_together(source: Path, lines: tuple[Line, ...]) -> None:
    """Raise DataError where lines contradict each other."""
    seen: dict[tuple[Path, str], Line] = {}
    by_sample: dict[str, Line] = {}
    for line in lines:
        whole = [other for other in lines if other.path == line.path and not other.column]
        if whole and len({other.number for other in lines if other.path == line.path}) > 1:
            raise DataError(
                f"{source}, line {whole[0].number}, column: {line.path.name} has several lines, "
                "and this one takes all of its cells",
                hint="name the column of obs that tells the samples of the file apart",
            )
        first = seen.setdefault((line.path, line.sample), line)
        if first is not line:
            raise DataError(
                f"{source}, line {line.number}, sample: {line.sample!r} of {line.path.name} is in "
                f"line {first.number} already",
                hint="one line per sample",
            )
        other = by_sample.setdefault(line.sample, line)
        for name in ("donor", "label", "study", "dataset"):
            here, there = line.facts.get(name, ""), other.facts.get(name, "")
            if here.casefold() != there.casefold():
                raise DataError(
                    f"{source}, line {line.number}, {name}: sample {line.sample!r} has {here!r} "
                    f"here and {there!r} in line {other.number}",
                    hint="give different samples different names",
                )
