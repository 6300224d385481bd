"""Apply a predictor to cells; labels are never needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scdrugmap.errors import DataError
from scdrugmap.evaluation.tables import PREDICTION_COLUMNS
from scdrugmap.progress import say
from scdrugmap.registry import get_registry
from scdrugmap.train.gather import cell_keys, dataset_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scdrugmap.data.cells import Cells
    from scdrugmap.model.load import LoadedModel
    from scdrugmap.run.store import Store
    from scdrugmap.train.predictor import Predictor
    from scdrugmap.train.record import PredictorInfo

_DIGITS = 9
"""Digits of p_sensitive: all that float32 has, so that a table reads back as it was."""


@dataclass(frozen=True)
class Predicted:
    """What a predictor says of the cells of a file.

    Attributes
    ----------
    cells : pandas.DataFrame
        ``predictions.tsv``, one row per cell in file order.
    info : PredictorInfo
        What predicted.
    domain : (n,) float32
        Share of the training cells that lie closer to their mean than the cell does; NaN for
        cells without an answer, and for predictors that have no embeddings.
    """

    cells: pd.DataFrame
    info: PredictorInfo
    domain: np.ndarray


def predict_cells(
    predictor: Predictor,
    cells: Cells,
    *,
    splits: pd.DataFrame | None = None,
    sample: str | None = None,
    dataset: str | None = None,
    drug: str | None = None,
    weights: str | Path | None = None,
    model: LoadedModel | None = None,
    store: Store | None = None,
    device: str = "auto",
    precision: str | None = None,
    token_budget: int | None = None,
    min_genes: int | None = None,
    quiet: bool = False,
) -> Predicted:
    """Predict every cell of a file, in bounded memory.

    Parameters
    ----------
    predictor : Predictor
        Its self-test runs first.
    cells : Cells
    splits : pandas.DataFrame, optional
        ``splits.tsv`` that it was trained on: gives roles and samples.
    sample : str, optional
        Column of obs with the sample; default: the one named in training, if there is one.
    dataset : str, optional
        Column of obs with the dataset; default: the file's name.
    drug : str, optional
        Drug of interest; a notice if the predictor was trained on another.
    weights, model, store, device, precision, token_budget, min_genes
        See :meth:`Predictor.scorer`.
    quiet : bool

    Returns
    -------
    Predicted
        ``role`` of a cell is that of the split, else ``train`` for a cell that the predictor was trained on, else ``new``.

    Raises
    ------
    UsageError
        The sample column does not exist.
    DataError
        Another split than the predictor's; too many genes are missing.
    PluginError, WeightsError
        The model or its weights are missing or others; the self-test fails.
    """
    info = predictor.info
    for notice in drug_notices(predictor, drug):
        say(f"Notice: {notice}", quiet=quiet)
    datasets = dataset_names(cells, dataset)
    roles, samples = _roles_and_samples(predictor, cells, datasets, splits)
    scorer = predictor.scorer(
        weights=weights,
        model=model,
        store=store,
        device=device,
        precision=precision,
        token_budget=token_budget,
        min_genes=min_genes,
        quiet=quiet,
    )
    column = _sample_column(predictor, cells, sample)
    if column is not None:
        samples = np.where(samples == "", column, samples)
    unknown = np.flatnonzero(roles == "")
    if len(unknown):
        seen = predictor.is_training_cell(cells.fingerprints()[unknown])
        roles[unknown] = np.where(seen, "train", "new")
    if cells.matrix.values != info.values:
        say(f"Notice: {_other_values(cells, info)}", quiet=quiet)
    units = None
    if splits is not None or column is not None:
        # Training and test cells of one sample (random splits) are never averaged together.
        units = np.where(samples == "", "", samples + "\0" + roles)
    scores = scorer.scores(cells, samples=units, quiet=quiet)
    for notice in scores.notices:
        say(f"Notice: {notice}", quiet=quiet)
    valid = scores.reason == ""
    p = np.array([float(f"{value:.{_DIGITS}g}") for value in scores.p], np.float64)
    n = cells.n_cells
    table = pd.DataFrame(
        {
            "dataset": datasets,
            "cell": cells.names,
            "sample": samples,
            "model": np.full(n, info.name, object),
            "strategy": np.full(n, info.strategy, object),
            "fold": np.full(n, info.split.fold, np.int64),
            "seed": np.full(n, info.seed, np.int64),
            "role": roles,
            "p_sensitive": np.where(valid, p, np.nan),
            "threshold": np.full(n, info.threshold.value),
            "state": np.where(valid, "answered", "invalid").astype(object),
            "reason": scores.reason,
        },
        columns=list(PREDICTION_COLUMNS),
    )
    unknown_domain = np.full(n, np.nan, np.float32)
    return Predicted(table, info, unknown_domain if scores.domain is None else scores.domain)


def _roles_and_samples(
    predictor: Predictor, cells: Cells, datasets: np.ndarray, splits: pd.DataFrame | None
) -> tuple[np.ndarray, np.ndarray]:
    """Look the cells up in the split; ``""`` for those that it does not know."""
    roles, samples = np.full(cells.n_cells, "", object), np.full(cells.n_cells, "", object)
    if splits is None:
        return roles, samples
    split = predictor.info.split
    given = str(splits["split_id"].iloc[0])
    if given != split.split_id:
        raise DataError(
            f"the predictor was trained on split {split.split_id}, these are the roles of {given}",
            hint="give the splits.tsv that it was trained with, or leave --splits out",
        )
    table = splits[splits["fold"] == split.fold]
    keys = pd.Index(cell_keys(table["dataset"], table["cell"]), dtype=object)
    found = keys.get_indexer(pd.Index(cell_keys(datasets, cells.names), dtype=object))
    known = found >= 0
    roles[known] = table["role"].to_numpy(object)[found[known]]
    samples[known] = table["sample"].to_numpy(object)[found[known]]
    return roles, samples


def _sample_column(predictor: Predictor, cells: Cells, sample: str | None) -> np.ndarray | None:
    from scdrugmap.data.labels import require_column
    from scdrugmap.evaluation.design import as_text

    remembered = predictor.info.sample_column
    if sample is None and remembered in cells.obs.columns:
        sample = remembered
    if sample is None:
        return None
    return as_text(require_column(cells.obs, sample, "--sample", cells.where)).to_numpy(object)


def _other_values(cells: Cells, info: PredictorInfo) -> str:
    if info.values == "counts":
        return (
            f"{cells.name} holds log-normalised values and the predictor was trained on counts: "
            "they are taken as log1p of counts scaled to 10,000"
        )
    return (
        f"{cells.name} holds counts and the predictor was trained on log-normalised values, which "
        "may have been made in another way"
    )


def drug_notices(predictor: Predictor, drug: str | None) -> list[str]:
    """Say that a predictor knows nothing of a drug; empty if it does, or none is named."""
    known = predictor.info.drug
    if not drug or drug.strip().casefold() in {name.casefold() for name in known}:
        return []
    learnt = f"was trained on {', '.join(known)}" if known else "does not say which drug it was for"
    return [
        f"the predictor {learnt}, not on {drug}: what it calls sensitive may not hold for {drug}"
    ]


def summarise(predictions: pd.DataFrame) -> pd.DataFrame:
    """Sum predictions up per sample.

    Returns
    -------
    pandas.DataFrame
        Columns sample, n, n_invalid, n_sensitive, share_sensitive and mean_p (NaN without any
        answered cell), ordered by sample.
    """
    answered = predictions["state"] == "answered"
    called = answered & (predictions["p_sensitive"] >= predictions["threshold"])
    frame = pd.DataFrame(
        {
            "sample": predictions["sample"],
            "answered": answered.astype(np.int64),
            "called": called.astype(np.int64),
            "p": predictions["p_sensitive"].where(answered),
        }
    )
    groups = frame.groupby("sample", sort=True)
    n, n_answered = groups.size(), groups["answered"].sum()
    return pd.DataFrame(
        {
            "n": n,
            "n_invalid": n - n_answered,
            "n_sensitive": groups["called"].sum(),
            "share_sensitive": groups["called"].sum() / n_answered.where(n_answered > 0),
            "mean_p": groups["p"].mean(),
        }
    ).reset_index()


def summary_lines(predictions: pd.DataFrame, most: int = 20) -> list[str]:
    """Return the summary per sample as lines for a terminal; at most `most` samples."""
    table = summarise(predictions)
    lines = []
    for row in table.head(most).to_dict("records"):
        name, n, n_invalid = row["sample"] or "all cells", row["n"], row["n_invalid"]
        if n == n_invalid:
            lines.append(f"{name}: {n:,} cells, none could be predicted")
            continue
        invalid = f", {n_invalid:,} not predicted" if n_invalid else ""
        lines.append(
            f"{name}: {row['n_sensitive']:,} of {n - n_invalid:,} cells sensitive "
            f"({row['share_sensitive']:.0%}), mean p {row['mean_p']:.2f}{invalid}"
        )
    if len(table) > most:
        lines.append(f"... and {len(table) - most:,} more samples")
    trained = int((predictions["role"] == "train").sum())
    if trained:
        lines.append(
            f"{trained:,} of these cells were trained on: their predictions say nothing about how "
            "good the predictor is"
        )
    return lines


def _open_like_training(source: Path, info: PredictorInfo, **how: Any) -> Cells:
    """Open a file, with values of the kind that was trained on if it has them."""
    from scdrugmap.data.cells import open_cells

    registry = get_registry()
    spec = (registry.estimator if info.strategy == "estimator" else registry.model)(info.name)
    others = set(spec.accepts) - {info.values}
    try:
        return open_cells(source, accepts=[info.values], **how)
    except DataError:
        if not others:
            raise
        return open_cells(source, accepts=sorted(others), **how)


def predict_file(
    source: Path,
    predictor: Predictor,
    output: Path,
    *,
    splits: Path | None = None,
    h5ad: Path | None = None,
    key_added: str = "scdrugmap",
    sample: str | None = None,
    where: Sequence[tuple[str, str]] = (),
    layer: str | None = None,
    values: str | None = None,
    gene_id: str | None = None,
    round_counts: bool = False,
    transpose: bool = False,
    quiet: bool = False,
    **how: Any,
) -> Predicted:
    """Predict a file and write the answers; what ``scdrugmap predict`` does.

    Parameters
    ----------
    source : Path
    predictor : Predictor
    output : Path
        ``predictions.tsv``.
    splits : Path, optional
    h5ad : Path, optional
        Write the table of cells with the answers too.
    key_added : str
        Prefix of the keys in `h5ad`.
    sample, where, layer, values, gene_id, round_counts, transpose
        See :func:`scdrugmap.data.cells.open_cells`.
    quiet, how
        See :func:`predict_cells`.

    Returns
    -------
    Predicted
        Its table is what was written to `output`.
    """
    from scdrugmap.evaluation.tables import read_splits, write_predictions
    from scdrugmap.train.annotate import check_key, write_annotated

    table = None if splits is None else read_splits(splits)
    with _open_like_training(
        source,
        predictor.info,
        sample=sample,
        where=where,
        layer=layer,
        values=values,
        gene_id=gene_id,
        round_counts=round_counts,
        transpose=transpose,
    ) as cells:
        for notice in cells.notices:
            say(f"Notice: {notice}", quiet=quiet)
        if h5ad is not None:
            check_key(key_added, cells.obs, {})
        found = predict_cells(
            predictor,
            cells,
            splits=table,
            sample=sample,
            quiet=quiet,
            **how,
        )
        if h5ad is not None:
            write_annotated(cells.obs, found, h5ad, key_added)
    write_predictions(found.cells, output)
    for line in summary_lines(found.cells):
        say(line, quiet=quiet)
    return found
