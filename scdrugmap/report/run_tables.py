"""The tables of a finished run, as the report reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from scdrugmap.run.record import CELL_MAP_FILE, COMPARISONS_FILE, read_run

if TYPE_CHECKING:
    from scdrugmap.run.record import RunRecord


@dataclass(frozen=True)
class RunTables:
    """The tables of a finished run.

    Attributes
    ----------
    run : RunRecord
    metrics : DataFrame
        Rows of ``metrics.tsv``.
    predictions, splits : dict of str to DataFrame
        By protocol.
    cell_map : DataFrame or None
    compared : DataFrame
        Rows of ``comparisons.tsv``, made here for a run that has none.
    warnings : tuple of str
        What must be said before anything else.
    """

    run: RunRecord
    metrics: pd.DataFrame
    predictions: dict[str, pd.DataFrame]
    splits: dict[str, pd.DataFrame]
    cell_map: pd.DataFrame | None
    compared: pd.DataFrame
    warnings: tuple[str, ...] = ()


def read_tables(folder: Path) -> RunTables:
    """Read the tables of a run folder.

    Raises
    ------
    UsageError
        A table is missing.
    DataError
        A table is damaged.
    """
    from scdrugmap.evaluation.tables import (
        read_comparisons,
        read_metrics,
        read_predictions,
        read_splits,
    )
    from scdrugmap.report.compared import compare_run
    from scdrugmap.tables import read_table

    run = read_run(folder)
    shown = [item.name for item in run.protocols if item.status == "evaluated"]
    path, compared = folder / CELL_MAP_FILE, folder / COMPARISONS_FILE
    metrics = read_metrics(folder / "metrics.tsv")
    predictions = {name: read_predictions(folder / f"predictions-{name}.tsv.gz") for name in shown}
    splits = {name: read_splits(folder / f"splits-{name}.tsv.gz") for name in shown}
    return RunTables(
        run=run,
        metrics=metrics,
        predictions=predictions,
        splits=splits,
        cell_map=read_table(path, numbers={"x": "float64", "y": "float64"})
        if path.exists()
        else None,
        compared=read_comparisons(compared)
        if compared.exists()
        else compare_run(run, metrics, predictions, splits),
    )
