"""The verbs as Python functions, with the manners of scanpy.

An ``AnnData`` that comes in is edited in place and nothing is returned, or copied with
``copy=True``; a path that comes in gives a result object. ``X``, ``layers``, ``raw`` and ``obsp``
are never written, and no key that scDrugMap did not write is overwritten.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scdrugmap.benchmarking import benchmark, evaluate
from scdrugmap.errors import ScDrugMapWarning, UsageError
from scdrugmap.explanation.interface import explain
from scdrugmap.training import train

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from scdrugmap.data.check import Check
    from scdrugmap.results import Embedded, Predictions
    from scdrugmap.text.scorer import Prompting
    from scdrugmap.train.predictor import Predictor

__all__ = ["benchmark", "check", "embed", "evaluate", "explain", "predict", "train"]


def embed(
    data: AnnData | str | Path,
    model: str,
    *,
    weights: str | Path | None = None,
    randomize: int | None = None,
    seed: int = 0,
    key_added: str | None = None,
    copy: bool = False,
    sample: str | None = None,
    min_genes: int | None = None,
    device: str = "auto",
    precision: str = "float32",
    token_budget: int | None = None,
    reading: Mapping[str, Any] | None = None,
    quiet: bool = True,
    **options: Any,
) -> AnnData | Embedded | None:
    """Embed cells with a model.

    Parameters
    ----------
    data : AnnData, str or Path
    model : str
        Name of an installed model, as ``scdrugmap models list`` shows it.
    weights : str or Path, optional
        Folder of the weights, or ``random``; default: where weights are kept.
    randomize : int, optional
        Keep sizes and vocabulary of the weights, draw all tensors anew with this seed.
    seed : int
        Of random tensors, and of what the model draws per cell.
    key_added : str, optional
        Key of ``obsm``; default ``X_<model>``.
    copy : bool
        Return a copy of an AnnData instead of editing it.
    sample : str, optional
        Column of obs with the sample, for models whose cells see each other.
    min_genes, device, precision, token_budget
        See :func:`scdrugmap.model.embed.embed_cells`.
    reading : mapping, optional
        How to read cells: arguments of :func:`scdrugmap.data.cells.open_cells`, such as ``layer``.
    quiet : bool
        No progress and no notices.
    **options
        Options of the model (``max_length=256``).

    Returns
    -------
    None, AnnData or Embedded
        An AnnData gets ``obsm[key_added]`` ((n_cells, D) float32; NaN rows for cells without a
        gene that the model knows), a record in ``uns["scdrugmap"]`` and, in var, which genes the
        model knows (``scdrugmap_in_vocab_<model>``); a path gives an
        :class:`~scdrugmap.results.Embedded`.

    Raises
    ------
    UsageError
        An unknown option, or a key that is taken.
    DataError
        The cells cannot be used by the model.
    WeightsError, PluginError
        The model or its weights are missing.
    """
    from scdrugmap.config import text_of
    from scdrugmap.data.cells import open_cells
    from scdrugmap.model.annotate import annotate, check_key, known_columns
    from scdrugmap.model.embed import embed_cells
    from scdrugmap.model.embedding_file import obsm_key
    from scdrugmap.model.load import load_model
    from scdrugmap.results import Embedded

    adata = _own(data, copy=copy)
    key = key_added or obsm_key(model)
    if adata is not None:
        check_key(adata, key)
    loaded = load_model(
        model,
        settings={name: text_of(value) for name, value in options.items()},
        weights=weights,
        randomize=randomize,
        seed=seed,
    )
    source = data if adata is None else adata
    arguments = _reading(reading, whole=adata is not None)
    accepts = tuple(loaded.spec.accepts)
    with open_cells(source, sample=sample, accepts=accepts, **arguments) as cells:
        made = embed_cells(
            cells,
            loaded,
            device=device,
            precision=precision,
            token_budget=token_budget,
            sample=sample,
            min_genes=min_genes,
            quiet=quiet,
        )
        result = Embedded(key, cells.obs, made.values, made.record)
        known = known_columns(cells, made)
    if adata is None:
        return result
    annotate(adata, key, made, known)
    return adata if copy else None


def predict(
    data: AnnData | str | Path,
    predictor: str | Path | Predictor,
    *,
    key_added: str = "scdrugmap",
    copy: bool = False,
    splits: str | Path | pd.DataFrame | None = None,
    sample: str | None = None,
    drug: str | None = None,
    weights: str | Path | None = None,
    min_genes: int | None = None,
    conformal_level: float | None = None,
    min_cells: int = 30,
    allow_mismatch: bool = False,
    prompting: Prompting | None = None,
    device: str = "auto",
    precision: str | None = None,
    token_budget: int | None = None,
    reading: Mapping[str, Any] | None = None,
    quiet: bool = True,
) -> AnnData | Predictions | None:
    """Predict which cells are sensitive; labels are never needed.

    Parameters
    ----------
    data : AnnData, str or Path
    predictor : str, Path or Predictor
        File made by ``scdrugmap train``, or what ``scdrugmap.ask_model`` gives: a text model that
        was not trained at all.
    key_added : str
        Prefix of the keys of ``obs`` and ``uns``; several predictors need different ones.
    copy : bool
        Return a copy of an AnnData instead of editing it.
    splits : path or DataFrame, optional
        Split of the training: gives each cell its role, and a path as `data` its metrics.
    sample : str, optional
        Column of obs with the sample; default: the one named in training.
    drug : str, optional
        Drug of interest; a notice if the predictor was trained on another.
    conformal_level : float, optional
        Level of the conformal sets; default: 0.9 if the predictor has any.
    min_cells : int
        Samples with fewer answered cells get no figure.
    allow_mismatch : bool
        Go on with another version of the model, or other weights, than in training.
    prompting : Prompting, optional
        How a text model may be asked (network, budget), and what it is told.
    weights, min_genes, device, precision, token_budget
        See :func:`scdrugmap.train.predict.predict_cells`.
    reading : mapping, optional
        How to read cells: arguments of :func:`scdrugmap.data.cells.open_cells`.
    quiet : bool
        No progress and no notices.

    Returns
    -------
    None, AnnData or Predictions
        An AnnData gets ``obs["<key>_p_sensitive"]``, ``obs["<key>_call"]``,
        ``obs["<key>_reason"]``, ``obs["<key>_domain"]``, ``obs["<key>_set"]`` if there are
        conformal sets, and a record in ``uns``; a path gives a
        :class:`~scdrugmap.results.Predictions`.

    Raises
    ------
    UsageError
        A key that is taken, or a column that does not exist.
    DataError
        The cells or the predictor cannot be used.
    WeightsError, PluginError
        The model or its weights are missing or others.

    Warns
    -----
    ScDrugMapWarning
        Many cells of a sample lie far from the training cells: do not rely on what is predicted.
    """
    from scdrugmap.data.cells import open_cells
    from scdrugmap.evaluation.evaluate import evaluate as score
    from scdrugmap.evaluation.tables import read_splits
    from scdrugmap.results import Predictions
    from scdrugmap.train.annotate import annotate, check_key
    from scdrugmap.train.predict import predict_cells
    from scdrugmap.train.predictor import Predictor as Bundle
    from scdrugmap.train.samples import far_notices

    adata = _own(data, copy=copy)
    if adata is not None:
        check_key(key_added, adata.obs, adata.uns)
    bundle = predictor if isinstance(predictor, Bundle) else Bundle.load(Path(predictor))
    manifest = read_splits(Path(splits)) if isinstance(splits, str | Path) else splits
    source = data if adata is None else adata
    arguments = _reading(reading, whole=adata is not None)
    with open_cells(source, sample=sample, **arguments) as cells:
        found = predict_cells(
            bundle,
            cells,
            splits=manifest,
            sample=sample,
            drug=drug,
            weights=weights,
            device=device,
            precision=precision,
            token_budget=token_budget,
            min_genes=min_genes,
            conformal_level=conformal_level,
            min_cells=min_cells,
            allow_mismatch=allow_mismatch,
            prompting=prompting,
            quiet=quiet,
        )
        obs = cells.obs
    for notice in far_notices(found.samples):
        warnings.warn(notice, ScDrugMapWarning, stacklevel=2)
    if adata is None:
        metrics = None if manifest is None else score(found.cells, manifest)
        return Predictions(found, obs, key_added, metrics)
    annotate(adata, found, key_added)
    return adata if copy else None


def check(
    data: AnnData | str | Path, *, quick: bool = False, reading: Mapping[str, Any] | None = None
) -> Check:
    """Look at cells: what they hold, what is wrong, and which models can use them.

    Parameters
    ----------
    data : AnnData, str or Path
        Never modified.
    quick : bool
        Look at 2,000 cells instead of all.
    reading : mapping, optional
        How to read cells: arguments of :func:`scdrugmap.data.cells.open_cells`.

    Returns
    -------
    Check
        With ``facts``, ``findings``, ``to_dict()`` and ``lines()``.

    Raises
    ------
    UsageError
        There is no such path.
    """
    from scdrugmap.data.check import check_file

    return check_file(data, quick=quick, **dict(reading or {}))


def _own(data: AnnData | str | Path, *, copy: bool) -> AnnData | None:
    """Return the AnnData to edit; None for a path."""
    if isinstance(data, str | Path):
        if copy:
            raise UsageError("copy=True is for an AnnData; a path gives a result object")
        return None
    return data.copy() if copy else data


def _reading(reading: Mapping[str, Any] | None, *, whole: bool) -> dict[str, Any]:
    """Return arguments of ``open_cells``; an AnnData is always read whole, row for row."""
    arguments = dict(reading or {})
    if whole and arguments.get("where"):
        raise UsageError(
            "where= would leave cells of the AnnData without a value",
            hint="take a part of the AnnData first: adata[...].copy()",
        )
    return arguments
