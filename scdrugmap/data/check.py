"""What a file holds, what is wrong with it, and what can be done with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scdrugmap.data.columns import (
    GroupColumn,
    LabelColumn,
    confounded,
    group_columns,
    label_columns,
    mixed_cell_types,
)
from scdrugmap.data.usable import Usable, usable_estimators, usable_models
from scdrugmap.errors import DataError
from scdrugmap.progress import Progress

if TYPE_CHECKING:
    from anndata import AnnData

    from scdrugmap.data.cells import Cells

QUICK_CELLS = 2000
"""Cells that ``quick`` looks at."""

_QUICK_RUNS = 8
_FEW_MAPPED = 0.5
_FEW_COUNTS = 200.0
_MOST_LISTED = 6

RULES: Mapping[str, tuple[str, str]] = {
    "F1": ("error", "the file can be read, and every block of it is sound"),
    "V1": ("note", "the values are counts"),
    "V2": ("warning", "no cell is empty"),
    "V3": ("warning", "cells have enough counts"),
    "G1": ("warning", "at least half of the gene names are known"),
    "G2": ("note", "no gene occurs twice"),
    "C1": ("warning", "no cell is a copy of another"),
    "C2": ("note", "tumour cells are not mixed with others"),
    "L1": ("note", "a column of obs holds the response"),
    "L2": ("note", "the response is written as sensitive and resistant"),
    "L3": ("note", "a column of obs says which cells belong together"),
    "L4": ("warning", "each response comes from more than one group"),
    "N1": ("note", "nothing else has to be said"),
}
"""Rules by number: severity when broken, and what holds when it is kept."""


@dataclass(frozen=True)
class Finding:
    """A rule that a file breaks."""

    rule: str
    message: str
    hint: str = ""

    @property
    def severity(self) -> str:
        """``error``, ``warning`` or ``note``."""
        return RULES[self.rule][0]


@dataclass(frozen=True)
class Check:
    """What was found in a file.

    Parameters
    ----------
    source : str
    facts : dict
        Numbers and words about cells, genes and values; empty if the file cannot be used.
    findings : tuple of Finding
    labels : tuple of LabelColumn
        Columns that could be the response, the likeliest first.
    groups : tuple of GroupColumn
        Columns that could say what belongs together, the likeliest first.
    usable : tuple of Usable
        One per installed model and estimator.
    quick : bool
        Only some cells were looked at.
    """

    source: str
    facts: dict[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    labels: tuple[LabelColumn, ...] = ()
    groups: tuple[GroupColumn, ...] = ()
    usable: tuple[Usable, ...] = ()
    quick: bool = False

    @property
    def error(self) -> Finding | None:
        """The finding that makes the file unusable, if any."""
        return next((item for item in self.findings if item.severity == "error"), None)

    def raise_for_error(self) -> None:
        """Raise what makes the file unusable.

        Raises
        ------
        DataError
        """
        if self.error is not None:
            raise DataError(self.error.message, hint=self.error.hint)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able values."""
        return {
            "source": self.source,
            "ok": self.error is None,
            "quick": self.quick,
            "facts": self.facts,
            "findings": [{"severity": item.severity, **asdict(item)} for item in self.findings],
            "labels": [asdict(item) for item in self.labels],
            "groups": [asdict(item) for item in self.groups],
            "usable": [asdict(item) for item in self.usable],
        }

    def lines(self) -> Iterator[str]:
        """Return the report as lines of text."""
        from scdrugmap.data.check_text import lines

        yield from lines(self)


def check_file(
    source: str | Path | AnnData,
    *,
    quick: bool = False,
    models: bool = True,
    quiet: bool = True,
    **reading: Any,
) -> Check:
    """Look at a file: what it holds, what is wrong with it, and what can use it.

    Parameters
    ----------
    source : path or AnnData
    quick : bool
        Look at 2,000 cells from all over the file instead of every block.
    models : bool
        Ask each installed model how many of the genes it knows.
    quiet : bool
        Show no progress.
    **reading
        Arguments of :func:`scdrugmap.data.cells.open_cells`.

    Returns
    -------
    Check
        A file that cannot be used gives a finding of severity ``error``, and no exception.

    Raises
    ------
    UsageError
        There is no such path or column.
    ResourceError
        The file cannot be read now.
    """
    from scdrugmap.data.cells import open_cells

    name = str(source) if isinstance(source, str | Path) else "adata"
    try:
        with open_cells(source, **reading) as cells:
            return _check_cells(cells, name, quick, models, quiet)
    except DataError as err:
        return Check(name, findings=(Finding("F1", err.message, err.hint),), quick=quick)


def _check_cells(cells: Cells, name: str, quick: bool, models: bool, quiet: bool) -> Check:
    index = quick_index(cells.n_cells) if quick else None
    seen = _read_all(cells, index, quiet)
    labels, groups = label_columns(cells.obs), group_columns(cells.obs)
    findings = [
        *_value_findings(cells, seen),
        *_gene_findings(cells),
        *_cell_findings(cells, seen),
        *_label_findings(cells, labels, groups),
    ]
    findings += [_notice(text) for text in cells.notices]
    usable = [*usable_models(cells, load_weights=not quick)] if models else []
    return Check(
        name,
        _facts(cells, seen),
        tuple(findings),
        labels,
        groups,
        (*usable, *usable_estimators(cells)),
        quick,
    )


def quick_index(n_cells: int) -> np.ndarray:
    """Return the positions ((n,) int64) of some cells, in runs from all over the file."""
    if n_cells <= QUICK_CELLS:
        return np.arange(n_cells)
    run = QUICK_CELLS // _QUICK_RUNS
    starts = np.linspace(0, n_cells - run, _QUICK_RUNS).astype(np.int64)
    return np.unique((starts[:, None] + np.arange(run)).ravel())


@dataclass(frozen=True)
class _Seen:
    """What reading the cells showed; arrays of (n,), one entry per cell read."""

    totals: np.ndarray
    detected: np.ndarray
    mitochondrial: np.ndarray
    copies: int
    largest: float


def _read_all(cells: Cells, index: np.ndarray | None, quiet: bool) -> _Seen:
    """Read every block once: it is validated, measured and hashed."""
    from scdrugmap.data.fingerprints import cell_hashes, gene_hashes

    genes = gene_hashes(cells.genes.identity())
    of_mitochondrion = cells.genes.is_mitochondrial()
    totals, detected, mitochondrial, hashes = [], [], [], []
    largest = 0.0
    n = cells.n_cells if index is None else len(index)
    with Progress(f"checking {cells.name}", n, quiet=quiet) as progress:
        for block in cells.blocks(index=index):
            rows = block.rows
            totals.append(np.asarray(rows.sum(1, dtype=np.float64)).ravel())
            detected.append(np.diff(rows.indptr))
            mitochondrial.append(_row_sums(rows, of_mitochondrion))
            hashes.append(cell_hashes(rows, genes))
            largest = max(largest, float(rows.data.max(initial=0.0)))
            progress.advance(rows.shape[0])
    filled = np.concatenate(detected) > 0
    words = np.concatenate(hashes)[filled]
    copies = len(words) - len(np.unique(words.view("V16"))) if len(words) else 0
    return _Seen(
        np.concatenate(totals),
        np.concatenate(detected),
        np.concatenate(mitochondrial),
        copies,
        largest,
    )


def _row_sums(rows: Any, columns: np.ndarray) -> np.ndarray:
    """Return the total of some columns ((n_genes,) bool) in each row ((n,) float64)."""
    taken = rows.data * columns[rows.indices]
    ends = np.concatenate([[0.0], np.cumsum(taken, dtype=np.float64)])
    return np.diff(ends[rows.indptr])


def _facts(cells: Cells, seen: _Seen) -> dict[str, Any]:
    totals = seen.totals[seen.totals > 0]
    share = seen.mitochondrial[seen.totals > 0] / totals
    entries = len(seen.totals) * cells.n_genes
    is_counts = cells.matrix.values == "counts"
    return {
        "dataset": cells.name,
        "n_cells": cells.n_cells,
        "n_genes": cells.n_genes,
        "n_cells_read": len(seen.totals),
        "values": cells.matrix.values,
        "location": cells.matrix.location,
        "storage": cells.matrix.storage,
        "dtype": cells.matrix.dtype,
        "largest_value": seen.largest,
        "share_nonzero": float(seen.detected.sum() / entries),
        "median_counts": float(np.median(totals)) if is_counts and len(totals) else None,
        "median_genes": float(np.median(seen.detected)),
        "median_mitochondrial_share": float(np.median(share)) if is_counts and len(share) else None,
        "gene_id": cells.mapping.gene_id,
        "genes": dict(cells.mapping.counts),
        "n_genes_known": cells.mapping.n_mapped,
        "columns": [str(column) for column in cells.obs.columns],
    }


def _value_findings(cells: Cells, seen: _Seen) -> Iterator[Finding]:
    where = cells.where
    empty = int((seen.detected == 0).sum())
    if empty:
        yield Finding("V2", f"{where}: {empty:,} cells hold no value; no model can answer for them")
    if cells.matrix.values == "counts":
        few = int(((seen.totals < _FEW_COUNTS) & (seen.detected > 0)).sum())
        if few:
            yield Finding(
                "V3",
                f"{where}: {few:,} cells have fewer than {_FEW_COUNTS:.0f} counts",
                "cells of so few counts are mostly noise: remove them",
            )


def _gene_findings(cells: Cells) -> Iterator[Finding]:
    known, n = cells.mapping.n_mapped, cells.n_genes
    if known < _FEW_MAPPED * n:
        unknown = cells.genes.published[cells.genes.symbol == ""][:_MOST_LISTED]
        yield Finding(
            "G1",
            f"{cells.where}: only {known:,} of {n:,} genes have a current symbol "
            f"(not {', '.join(unknown)})",
            "are the gene names HGNC symbols or Ensembl ids of human genes?",
        )


def _notice(text: str) -> Finding:
    """Return what the reader of cells had to say, under the rule it belongs to."""
    if "log-normalised" in text:
        return Finding("V1", text)
    return Finding("G2" if "repeat a gene" in text else "N1", text)


def _cell_findings(cells: Cells, seen: _Seen) -> Iterator[Finding]:
    if seen.copies:
        yield Finding(
            "C1",
            f"{cells.where}: {seen.copies:,} cells are copies of others, value by value",
            "sound splits keep copies on one side; find out how they came about",
        )
    mixed = mixed_cell_types(cells.obs, cells.where)
    if mixed:
        yield Finding("C2", mixed)


def _label_findings(
    cells: Cells, labels: tuple[LabelColumn, ...], groups: tuple[GroupColumn, ...]
) -> Iterator[Finding]:
    from scdrugmap.data.labels import LabelMap

    where = cells.where
    if not labels:
        yield Finding(
            "L1",
            f"{where}: no column of obs looks like a response",
            "not needed to predict; to train, name one with --label",
        )
    elif not labels[0].ready:
        words = ", ".join(labels[0].counts)
        yield Finding(
            "L2",
            f"{where}: {labels[0].name} could be the response ({words})",
            f"say what the words mean: --label {labels[0].name} --sensitive A --resistant B",
        )
    if not groups:
        yield Finding(
            "L3",
            f"{where}: no column of obs looks like patients or samples",
            "name one with --group: without it no split is sound",
        )
    if labels and labels[0].ready and groups:
        words_of = LabelMap.parse().apply(cells.obs[labels[0].name], where=where).values
        problem = confounded(words_of, cells.obs[groups[0].name].astype(str).to_numpy(object))
        if problem:
            yield Finding(
                "L4",
                f"{where}: {problem}, so the response cannot be told from {groups[0].name}",
                "sound splits will refuse this file; name another --group if there is one",
            )
