"""``scdrugmap.explain``: the verb as a Python function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from scdrugmap.errors import UsageError

if TYPE_CHECKING:
    from anndata import AnnData

    from scdrugmap.explanation.result import Explanation
    from scdrugmap.train.predictor import Predictor


def explain(
    data: AnnData | str | Path,
    predictors: str | Path | Predictor | Sequence[str | Path | Predictor],
    *,
    key_added: str = "scdrugmap",
    copy: bool = False,
    sample: str | None = None,
    label: str | None = None,
    sensitive: Sequence[str] = (),
    resistant: Sequence[str] = (),
    drop: Sequence[str] = (),
    unit: Literal["auto", "sample", "cell"] = "auto",
    weights: Mapping[str, str] | None = None,
    min_genes: int | None = None,
    allow_mismatch: bool = False,
    device: str = "auto",
    token_budget: int | None = None,
    reading: Mapping[str, Any] | None = None,
    quiet: bool = True,
    **settings: Any,
) -> AnnData | Explanation | None:
    """Explain which genes drive the answers of a predictor, and how sure that is.

    Parameters
    ----------
    data : AnnData, str or Path
    predictors : str, Path or Predictor, or several
        Files made by ``scdrugmap train``; several (seeds, folds) are compared and averaged.
    key_added : str
        Prefix of the keys of ``var``, ``varm`` and ``uns``.
    copy : bool
        Return a copy of an AnnData instead of editing it.
    sample, label : str, optional
        Columns of obs with sample and response.
    sensitive, resistant, drop : sequence of str
        What the words of `label` mean.
    unit : {"auto", "sample", "cell"}
        What differential expression is tested over.
    weights : mapping of str to str, optional
        Model to folder of its weights.
    min_genes, allow_mismatch, device, token_budget
        See :meth:`scdrugmap.train.predictor.Predictor.scorer`.
    reading : mapping, optional
        How to read cells: arguments of :func:`scdrugmap.data.cells.open_cells`.
    quiet : bool
        No progress and no notices.
    **settings
        Fields of :class:`~scdrugmap.explanation.settings.Explaining` (``method``, ``steps``,
        ``max_cells``, ...).

    Returns
    -------
    None, AnnData or Explanation
        An AnnData gets ``var["<key>_attribution"]`` (float32, mean over cells; NaN for genes that
        are not read), ``varm["<key>_attribution"]`` ((n_vars, n_samples), where there are samples;
        their names are in the record) and a record in ``uns``; a path gives an
        :class:`~scdrugmap.explanation.result.Explanation` with ``table``, ``genes``,
        ``stability``, ``record()`` and ``pictures()``.

    Raises
    ------
    UsageError
        A predictor of which no gene can be named; a column that does not exist; a key that is
        taken; a setting that there is not.
    DataError
        The cells cannot be used.
    PluginError, WeightsError
        The model or its weights are missing or others; captum is missing.
    """
    from scdrugmap.data.labels import LabelMap
    from scdrugmap.explanation.explain import explain as explain_source
    from scdrugmap.explanation.explain import name_predictors
    from scdrugmap.explanation.settings import read_settings
    from scdrugmap.train.predictor import Predictor as Bundle

    arguments = dict(reading or {})
    adata = None if isinstance(data, str | Path) else data
    if adata is None and copy:
        raise UsageError("copy=True is for an AnnData; a path gives a result object")
    if adata is not None:
        if arguments.get("where"):
            raise UsageError(
                "where= would leave genes of the AnnData explained on other cells",
                hint="take a part of the AnnData first: adata[...].copy()",
            )
        _check_key(adata, key_added)
    many = [predictors] if isinstance(predictors, str | Path | Bundle) else list(predictors)
    paths = name_predictors([Path(p) for p in many if not isinstance(p, Bundle)])
    bundles = {name: Bundle.load(path) for name, path in paths.items()}
    for number, bundle in enumerate(p for p in many if isinstance(p, Bundle)):
        bundles[f"{bundle.info.name} {number + 1}"] = bundle
    found = explain_source(
        data,
        bundles,
        settings=read_settings(settings),
        sample=sample,
        label=label,
        labels=LabelMap.parse(sensitive, resistant, drop) if label is not None else None,
        unit=unit,
        weights=weights,
        device=device,
        token_budget=token_budget,
        min_genes=min_genes,
        allow_mismatch=allow_mismatch,
        reading=arguments,
        quiet=quiet,
    )
    if adata is None:
        return found
    adata = adata.copy() if copy else adata
    _annotate(adata, found, key_added)
    return adata if copy else None


def _check_key(adata: AnnData, key: str) -> None:
    if not key or "/" in key or key.startswith("_"):
        raise UsageError(f"key_added={key!r} cannot be a key", hint="use letters, digits and _")
    record = adata.uns.get(key, {})
    if not isinstance(record, Mapping):
        raise UsageError(f"uns has {key!r}, which scdrugmap did not write", hint="rename it")
    name = f"{key}_attribution"
    if "explain" not in record and (name in adata.var.columns or name in adata.varm):
        raise UsageError(
            f"the AnnData has {name!r}, which scdrugmap did not write; nothing is overwritten",
            hint="choose another prefix with key_added=",
        )


def _annotate(adata: AnnData, found: Explanation, key: str) -> None:
    """Write attributions into var and varm, and the record into uns."""
    import json

    import numpy as np

    if found.location.startswith("raw"):
        raise UsageError(
            "the values are in raw, whose genes are not those of var",
            hint="explain a path, or name a layer: reading={'layer': ...}",
        )

    def by_column(values: np.ndarray) -> np.ndarray:
        there = found.columns >= 0
        return np.where(there, values[found.columns], np.nan).astype(np.float32)

    name = f"{key}_attribution"
    samples = [stratum for stratum in found.parts[0].sums.strata if stratum[0] == "sample"]
    adata.var[name] = by_column(found.attribution())
    if samples:
        adata.varm[name] = np.column_stack([by_column(found.attribution(s)) for s in samples])
    elif name in adata.varm:
        del adata.varm[name]
    record = {**found.record(), "samples": [sample for _, sample in samples]}
    adata.uns[key] = {**adata.uns.get(key, {}), "explain": json.dumps(record, sort_keys=True)}
