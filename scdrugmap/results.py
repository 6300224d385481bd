"""What the Python functions return for a path: tables, with ways to keep them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scdrugmap.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from anndata import AnnData

    from scdrugmap.train.predicted import Predicted
    from scdrugmap.train.record import PredictorInfo


@dataclass(frozen=True)
class Embedded:
    """Embedded cells of a file.

    Attributes
    ----------
    key : str
        Key of ``obsm``.
    cells : DataFrame
        Table of the cells, index = names.
    values : (n_cells, D) float32
        NaN rows for cells without a gene that the model knows.
    record : dict
        What decided the values, JSON-able.
    """

    key: str
    cells: pd.DataFrame
    values: np.ndarray
    record: dict[str, Any]

    def to_adata(self) -> AnnData:
        """Return an AnnData without expression: table of cells, ``obsm`` and record."""
        from anndata import AnnData

        from scdrugmap.model.embedding_file import storable

        frame, _ = storable(self.cells)
        adata = AnnData(obs=frame)
        adata.obsm[self.key] = self.values
        name = f"embed_{self.key.removeprefix('X_')}"
        adata.uns["scdrugmap"] = {name: json.dumps(self.record, sort_keys=True)}
        return adata


@dataclass(frozen=True)
class Predictions:
    """Predicted cells of a file.

    Attributes
    ----------
    predicted : Predicted
    obs : DataFrame
        Table of the cells as the file has it.
    key : str
        Prefix of the keys of :meth:`to_adata`.
    metrics : DataFrame or None
        ``metrics.tsv``, if a split was given.
    """

    predicted: Predicted
    obs: pd.DataFrame
    key: str = "scdrugmap"
    metrics: pd.DataFrame | None = None

    @property
    def cells(self) -> pd.DataFrame:
        """``predictions.tsv``: one row per cell, in file order."""
        return self.predicted.cells

    @property
    def info(self) -> PredictorInfo:
        """What the predictor says about itself."""
        return self.predicted.info

    @property
    def samples(self) -> pd.DataFrame:
        """One row per sample; see :func:`scdrugmap.train.samples.summarise`."""
        return self.predicted.samples

    @property
    def details(self) -> pd.DataFrame:
        """What else is known of each cell: call, domain, conformal set."""
        return self.predicted.details

    @property
    def record(self) -> dict[str, Any]:
        """What decides how far to trust the predictions, JSON-able."""
        return self.predicted.record()

    def to_adata(self) -> AnnData:
        """Return an AnnData without expression: table of cells, calls and record."""
        from anndata import AnnData

        from scdrugmap.model.embedding_file import storable
        from scdrugmap.train.annotate import annotate

        frame, _ = storable(self.obs)
        adata = AnnData(obs=frame)
        annotate(adata, self.predicted, self.key)
        return adata

    def to_table(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write all tables to a folder, which is made if need be.

        ``predictions.tsv``, ``samples.tsv``, ``details.tsv``, ``summary.json`` and, if known,
        ``metrics.tsv``.

        Raises
        ------
        UsageError
            One of them exists, without `overwrite`.
        """
        from scdrugmap.evaluation.tables import write_metrics, write_predictions
        from scdrugmap.files import check_output, make_folder, together, write_json
        from scdrugmap.tables import write_table

        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is no folder")
        make_folder(folder)
        names = ["predictions.tsv", "samples.tsv", "details.tsv", "summary.json"]
        names += ["metrics.tsv"] * (self.metrics is not None)
        for name in names:
            check_output(folder / name, overwrite=overwrite)
        with together(*(folder / name for name in names)):
            write_predictions(self.cells, folder / "predictions.tsv")
            write_table(self.samples, folder / "samples.tsv")
            write_table(self.details, folder / "details.tsv")
            write_json(folder / "summary.json", self.predicted.summary())
            if self.metrics is not None:
                write_metrics(self.metrics, folder / "metrics.tsv")

    def _repr_html_(self) -> str:
        """Show the samples in a notebook; every name is escaped."""
        title = f"{self.info.name}: {len(self.cells):,} cells"
        table: str = self.samples.to_html(index=False, escape=True, float_format="{:.3f}".format)
        return f"<p>{escape(title)}</p>{table}"
