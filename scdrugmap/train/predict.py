"""Apply a predictor to cells; labels are never needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scdrugmap.data.labels import SENSITIVE
from scdrugmap.errors import DataError, UsageError
from scdrugmap.evaluation.tables import PREDICTION_COLUMNS, SET, SET_LEVEL
from scdrugmap.progress import say
from scdrugmap.train.calibration import scale
from scdrugmap.train.conformal import (
    DEFAULT_LEVEL,
    SETS,
    at_level,
    coverage,
    covers,
    guarantee,
    prediction_sets,
)
from scdrugmap.train.gather import as_categories, dataset_names, one_text
from scdrugmap.train.known import complete_roles, first_known, look_up, sample_column, units_of
from scdrugmap.train.mismatch import installed
from scdrugmap.train.predicted import Predicted, PredictionSets
from scdrugmap.train.samples import MIN_CELLS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scdrugmap.data.cells import Cells
    from scdrugmap.model.load import LoadedModel
    from scdrugmap.run.store import Store
    from scdrugmap.text.scorer import Prompting
    from scdrugmap.train.predictor import Predictor
    from scdrugmap.train.record import ConformalInfo, ConformalLevel, PredictorInfo
    from scdrugmap.train.scores import GeneCoverage

MOST_MISSING = 0.2
"""Share of the genes read in training that a file may lack before it is said."""

_DIGITS = 9
"""Digits of p_sensitive: all that float32 has, so that a table reads back as it was."""


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
    prompting: Prompting | None = None,
    conformal_level: float | None = None,
    min_cells: int = MIN_CELLS,
    allow_mismatch: bool = False,
    quiet: bool = False,
) -> Predicted:
    """Predict every cell of a file, in bounded memory.

    Parameters
    ----------
    predictor : Predictor
        Its self-test runs first.
    cells : Cells
    splits : pandas.DataFrame, optional
        ``splits.tsv`` that it was trained on: gives roles, samples, and the labels by which the
        conformal sets of test cells are checked.
    sample : str, optional
        Column of obs with the sample, for the table of samples and for models whose cells see each
        other; default: the one named in training, if there is one.
    dataset : str, optional
        Column of obs with the dataset; default: the file's name.
    drug : str, optional
        Drug of interest; a notice if the predictor was trained on another.
    weights, model, store, device, precision, token_budget, min_genes, prompting, allow_mismatch
        See :meth:`Predictor.scorer`.
    conformal_level : float, optional
        Level of the conformal sets; default: 0.9 if the predictor has any.
    min_cells : int
        Samples with fewer answered cells get no figure.
    quiet : bool

    Returns
    -------
    Predicted
        ``role`` of a cell is that of the split, else ``train`` for a cell that the predictor was
        trained on, else ``new``.

    Raises
    ------
    UsageError
        The sample column does not exist; a level that the predictor has no sets for.
    DataError
        Another split than the predictor's; too many genes are missing.
    PluginError, WeightsError
        The model or its weights are missing or others; the self-test fails.
    """
    info = predictor.info
    level = _level(info.conformal, conformal_level)
    if info.weights is not None and info.weights.notice:  # before any cell is looked at
        say(f"Notice: {info.weights.label}: {info.weights.notice}", quiet=quiet)
    notices = [*drug_notices(predictor, drug)]
    datasets = dataset_names(cells, dataset)
    known = look_up(predictor, cells, datasets, splits)
    scorer = predictor.scorer(
        weights=weights,
        model=model,
        store=store,
        device=device,
        precision=precision,
        token_budget=token_budget,
        min_genes=min_genes,
        sample=sample,
        prompting=prompting,
        allow_mismatch=allow_mismatch,
        quiet=quiet,
    )
    samples = known["sample"]
    column = sample_column(predictor, cells, sample)
    if column is not None:
        samples = first_known(samples, column)
    roles = complete_roles(predictor, cells, known["role"])
    if cells.matrix.values != info.values:
        notices.append(_other_values(cells, info))
    units = None
    if splits is not None or column is not None:
        units = units_of(samples, roles)
    scores = scorer.scores(cells, samples=units, quiet=quiet)
    notices += [*scores.notices, *_gene_notices(scores.coverage, cells, info)]
    for notice in notices:
        say(f"Notice: {notice}", quiet=quiet)
    valid = scores.reason == ""
    n = cells.n_cells
    scaled = scores.p if info.calibration is None else scale(scores.p, info.calibration.temperature)
    rounded = (float(f"{value:.{_DIGITS}g}") for value in scaled)
    p = np.fromiter(rounded, np.float64, len(scaled))
    table = pd.DataFrame(
        {
            "dataset": datasets,
            "cell": cells.names,
            "sample": samples,
            "model": one_text(info.name, n),
            "strategy": one_text(info.strategy, n),
            "fold": np.full(n, info.split.fold, np.min_scalar_type(info.split.fold)),
            "seed": np.full(n, info.seed, np.min_scalar_type(info.seed)),
            "role": roles,
            "p_sensitive": np.where(valid, p, np.nan),
            "threshold": np.full(n, info.threshold.value),
            "state": as_categories(scores.states()),
            "reason": as_categories(scores.reason),
        },
        columns=list(PREDICTION_COLUMNS),
    )
    sets = None
    if level is not None and info.conformal is not None:
        promise = guarantee(info.conformal, level)
        sets = _sets(level, promise, np.where(valid, scaled, np.nan), known)
        table[SET] = sets.names
        table[SET_LEVEL] = np.where(sets.names == "", np.nan, level.level)
    return Predicted(
        table,
        info,
        np.full(n, np.nan, np.float32) if scores.domain is None else scores.domain,
        coverage=scores.coverage,
        sets=sets,
        mismatches=predictor.mismatches,
        notices=tuple(notices),
        min_cells=min_cells,
        answers=scores.answers,
    )


def _level(info: ConformalInfo | None, wanted: float | None) -> ConformalLevel | None:
    """Return the level of the conformal sets; None: there are none, and none were asked for."""
    if info is not None:
        return at_level(info, DEFAULT_LEVEL if wanted is None else wanted)
    if wanted is not None:
        raise UsageError(
            "this predictor has no conformal sets: it was trained without validation cells",
            hint="leave --conformal-level out, or `scdrugmap split --validation` and train again",
        )
    return None


def _sets(
    level: ConformalLevel, promise: str, p: np.ndarray, known: Mapping[str, pd.Categorical]
) -> PredictionSets:
    """Name the sets, and check them on the test cells whose label the split gives."""
    names = pd.Categorical(prediction_sets(p, level.least_p), categories=[*SETS, ""])
    test = (known["role"] == "test") & (names != "")
    sensitive = known["label"][test] == SENSITIVE
    groups, code = np.unique(np.asarray(known["group"][test], str), return_inverse=True)
    found = np.asarray(names[test], object)
    tested = coverage(covers(found, sensitive), sensitive, code) if test.any() else {}
    return PredictionSets(level, promise, names, int(test.sum()), len(groups), tested)


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


def _gene_notices(coverage: GeneCoverage | None, cells: Cells, info: PredictorInfo) -> list[str]:
    """Say that a model reads far fewer genes than in training; estimators say so themselves."""
    n_training = info.genes.n_needed
    if info.strategy == "estimator" or coverage is None:
        return []
    if coverage.n_read >= (1 - MOST_MISSING) * n_training:
        return []
    notice = (
        f"{info.name} reads {coverage.n_read:,} genes of {cells.name}, and read {n_training:,} in "
        "training: its embeddings of these cells may not be comparable"
    )
    return [notice]


def drug_notices(predictor: Predictor, drug: str | None) -> list[str]:
    """Say that a predictor knows nothing of a drug; empty if it does, or none is named."""
    known, prompt = predictor.info.drug, predictor.info.prompt
    if prompt is not None and not prompt.n_examples:
        return []  # it learnt nothing of any drug: it is told which one is meant
    if not drug or drug.strip().casefold() in {name.casefold() for name in known}:
        return []
    learnt = f"was trained on {', '.join(known)}" if known else "does not say which drug it was for"
    return [
        f"the predictor {learnt}, not on {drug}: what it calls sensitive may not hold for {drug}"
    ]


def open_like_training(source: Path, info: PredictorInfo, **how: Any) -> Cells:
    """Open a file, with values of the kind that was trained on if it has them."""
    from scdrugmap.data.cells import open_cells

    spec = installed(info).spec
    try:
        return open_cells(source, accepts=[info.values], **how)
    except DataError:
        if set(spec.accepts) == {info.values}:
            raise
        # Not of the other kinds alone: what else is wrong would read as a lack of such values.
        return open_cells(source, accepts=sorted(spec.accepts), **how)


def predict_file(
    source: Path,
    predictor: Predictor,
    output: Path,
    *,
    splits: Path | None = None,
    h5ad: Path | None = None,
    samples_table: Path | None = None,
    cells_table: Path | None = None,
    summary: Path | None = None,
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
    samples_table, cells_table : Path, optional
        Write :attr:`Predicted.samples` and :attr:`Predicted.details`.
    summary : Path, optional
        Write :meth:`Predicted.summary` as JSON.
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
    from scdrugmap.files import together, write_json
    from scdrugmap.tables import write_table
    from scdrugmap.train.annotate import check_key, write_annotated

    table = None if splits is None else read_splits(splits)
    with open_like_training(
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
        found = predict_cells(predictor, cells, splits=table, sample=sample, quiet=quiet, **how)
        with together(h5ad, samples_table, cells_table, summary, output):
            if h5ad is not None:
                write_annotated(cells.obs, found, h5ad, key_added)
            if samples_table is not None:
                write_table(found.samples, samples_table)
            if cells_table is not None:
                write_table(found.details, cells_table)
            if summary is not None:
                write_json(summary, found.summary())
            write_predictions(found.table, output)
    for line in found.lines():
        say(line, quiet=quiet)
    return found
