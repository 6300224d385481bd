"""``scdrugmap.api.train``: what the verb ``train`` does, for cells in memory or in files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from scdrugmap.train.predictor import Predictor
    from scdrugmap.train.settings import FineTuning


def train(
    data: AnnData | str | Path | Sequence[AnnData | str | Path],
    splits: str | Path | pd.DataFrame,
    *,
    fold: int,
    model: str | None = None,
    estimator: str | None = None,
    strategy: str = "frozen",
    tuning: FineTuning | Mapping[str, Any] | None = None,
    head: str | None = None,
    weights: str | Path | None = None,
    seed: int = 0,
    sample: str | None = None,
    min_genes: int | None = None,
    device: str = "auto",
    precision: str = "float32",
    token_budget: int | None = None,
    reading: Mapping[str, Any] | None = None,
    quiet: bool = True,
    **options: Any,
) -> Predictor:
    """Train a predictor on the training cells of one fold.

    Parameters
    ----------
    data : AnnData, path, or several
        What the split was made of; never modified.
    splits : path or DataFrame
        ``splits.tsv``.
    fold : int
    model, estimator : str, optional
        Name of one of them.
    strategy : str
        For models: ``frozen`` (a head on embeddings), ``lora`` (adapters in the network too) or
        ``full`` (all of the network).
    tuning : FineTuning or mapping, optional
        How ``lora`` and ``full`` train (``{"epochs": 3, "r": 16}``).
    head : {"logistic", "mlp"}, optional
        Default: logistic regression; the paper's network for splits of the paper's family.
    weights : str or Path, optional
        Folder of the weights, or ``random``; default: where weights are kept.
    seed : int
    sample, min_genes, device, precision, token_budget
        See :func:`scdrugmap.train.train.train_predictor`.
    reading : mapping, optional
        How to read cells: arguments of :func:`scdrugmap.data.cells.open_cells`.
    quiet : bool
        No progress and no notices.
    **options
        Options of the model or estimator (``variant="tiny"``).

    Returns
    -------
    Predictor
        ``save`` writes it; :func:`scdrugmap.predict` takes it as it is.

    Raises
    ------
    UsageError
        Neither or both of `model` and `estimator`, settings that do nothing, no such fold.
    DataError
        One label only, or cells that cannot be used.
    PluginError, WeightsError
        The model or its weights are missing; the strategy is not offered; adapters do not act.
    """
    from scdrugmap.config import text_of
    from scdrugmap.train.from_files import train_files
    from scdrugmap.train.settings import read_tuning

    sources = data if isinstance(data, Sequence) and not isinstance(data, str) else [data]
    return train_files(
        [Path(source) if isinstance(source, str) else source for source in sources],
        Path(splits) if isinstance(splits, str) else splits,
        fold=fold,
        model=model,
        estimator=estimator,
        strategy=strategy,
        tuning=read_tuning(tuning),
        head=head,
        weights=None if weights is None else str(weights),
        seed=seed,
        sample=sample,
        min_genes=min_genes,
        device=device,
        precision=precision,
        token_budget=token_budget,
        settings={name: text_of(value) for name, value in options.items()},
        quiet=quiet,
        **dict(reading or {}),
    )
