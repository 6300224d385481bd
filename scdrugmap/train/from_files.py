"""Train on files, or on cells in memory, from the names of a model and its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scdrugmap.errors import UsageError
from scdrugmap.progress import say
from scdrugmap.registry import get_registry

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from scdrugmap.model.load import LoadedModel
    from scdrugmap.text.load import LoadedText
    from scdrugmap.train.predictor import Predictor


def train_files(
    inputs: Sequence[Path | AnnData],
    splits: Path | pd.DataFrame,
    *,
    model: str | None = None,
    weights: str | None = None,
    randomize: int | None = None,
    seed: int = 0,
    estimator: str | None = None,
    settings: Mapping[str, str] | None = None,
    sample: str | None = None,
    where: Sequence[tuple[str, str]] = (),
    layer: str | None = None,
    values: str | None = None,
    gene_id: str | None = None,
    round_counts: bool = False,
    transpose: bool = False,
    quiet: bool = False,
    **how: Any,
) -> Predictor:
    """Train on files; what ``scdrugmap train`` does.

    Parameters
    ----------
    inputs : sequence of Path or AnnData
        What the split was made of.
    splits : Path or DataFrame
        ``splits.tsv``.
    model, weights, randomize
        See :func:`scdrugmap.model.load.load_model`.
    settings : mapping of str to str
        Options of the model or estimator.
    sample, where, layer, values, gene_id, round_counts, transpose
        See :func:`scdrugmap.data.cells.open_cells`.
    seed, estimator, quiet, how
        See :func:`scdrugmap.train.train.train_predictor`.
    """
    from contextlib import ExitStack

    from scdrugmap.data.cells import open_cells
    from scdrugmap.evaluation.tables import read_splits
    from scdrugmap.model.load import load_model
    from scdrugmap.text.load import load_text_model
    from scdrugmap.train.train import PROMPT, train_predictor

    table = read_splits(splits) if isinstance(splits, Path) else splits
    if (estimator is None) == (model is None):
        raise UsageError(
            "name either --estimator or --model", hint="`scdrugmap plugins list` shows both"
        )
    loaded: LoadedModel | LoadedText | None = None
    if model is not None and how.get("strategy") == PROMPT:
        loaded = load_text_model(
            model, settings=settings, weights=weights, randomize=randomize, seed=seed
        )
    elif model is not None:
        loaded = load_model(
            model, settings=settings, weights=weights, randomize=randomize, seed=seed
        )
        for notice in loaded.weights.notices:
            say(f"Notice: {notice}", quiet=quiet)
    elif weights is not None or randomize is not None:
        raise UsageError("--weights and --randomize are for models, not for estimators")
    spec = loaded.spec if loaded is not None else get_registry().estimator(estimator or "")
    with ExitStack() as stack:
        sources = [
            stack.enter_context(
                open_cells(
                    path,
                    accepts=sorted(spec.accepts),
                    sample=sample,
                    where=where,
                    layer=layer,
                    values=values,
                    gene_id=gene_id,
                    round_counts=round_counts,
                    transpose=transpose,
                )
            )
            for path in inputs
        ]
        for cells in sources:
            for notice in cells.notices:
                say(f"Notice: {notice}", quiet=quiet)
        return train_predictor(
            sources,
            table,
            seed=seed,
            estimator=estimator,
            model=loaded,
            settings=settings if model is None else None,
            sample=sample,
            quiet=quiet,
            **how,
        )
