"""Predictions as keys of an AnnData: the keys are a contract with users and other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scdrugmap.data.hdf5_writing import write_h5ad
from scdrugmap.errors import UsageError
from scdrugmap.files import atomic_path
from scdrugmap.train.conformal import SETS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from scdrugmap.train.predicted import Predicted

CALLS = ("resistant", "sensitive", "abstain", "invalid")
COLORS = ("#b2182b", "#2166ac", "#bdbdbd", "#636363")
"""Colours of the calls, apart for colour-blind readers too."""
REASONS = ("no_known_genes", "low_coverage", "few_counts", "out_of_domain", "conformal")
"""Categories that are always there; what a text model gives as a reason comes behind them."""
NAMES = ("p_sensitive", "call", "reason", "domain", "set")
KEY = "scdrugmap"


def columns(predicted: Predicted, key: str = KEY) -> pd.DataFrame:
    """Return the columns of obs.

    Parameters
    ----------
    predicted : Predicted
    key : str
        Prefix of the names.

    Returns
    -------
    pandas.DataFrame
        ``<key>_p_sensitive`` and ``<key>_domain`` (float32), ``<key>_call``, ``<key>_reason`` and,
        if there are conformal sets, ``<key>_set`` (categorical); index = cell names.
    """
    predictions = predicted.table
    reason = predictions["reason"]
    others = sorted(set(reason.unique()) - {"", *REASONS})
    found = {
        f"{key}_p_sensitive": predictions["p_sensitive"].to_numpy(np.float32),
        f"{key}_call": _categories(predicted.calls, CALLS),
        f"{key}_reason": _categories(reason, (*REASONS, *others)),
        f"{key}_domain": predicted.domain,
    }
    if predicted.sets is not None:
        found[f"{key}_set"] = _categories(predicted.sets.names, SETS)
    return pd.DataFrame(found, index=pd.Index(predictions["cell"], dtype=object, name=None))


def _categories(values: Any, categories: Sequence[str]) -> pd.Categorical:
    """Return text as categories; missing where it is none of them (``""``)."""
    return pd.Categorical(values).set_categories(list(categories))


def check_key(key: str, obs: pd.DataFrame, uns: Any) -> None:
    """Refuse a prefix that would overwrite something that we did not write.

    Raises
    ------
    UsageError
        The prefix cannot be used in h5ad, or is taken.
    """
    if not key or "/" in key or key.startswith("_"):
        raise UsageError(f"--key-added {key!r} cannot be a key", hint="use letters, digits and _")
    taken = [f"{key}_{name}" for name in NAMES]
    taken = [name for name in taken if name in obs.columns]
    ours = key in uns and isinstance(uns[key], dict) and "predict" in uns[key]
    if ours or taken:
        what = f"obs already has {', '.join(taken)}" if taken else f"uns already has {key!r}"
        raise UsageError(
            f"{what}; nothing is overwritten", hint="choose another prefix with --key-added NAME"
        )
    if key in uns and not isinstance(uns[key], dict):
        raise UsageError(
            f"uns already has {key!r}, which scdrugmap did not write",
            hint="choose another prefix with --key-added NAME",
        )


def annotate(adata: AnnData, predicted: Predicted, key: str = KEY) -> None:
    """Add predictions to an AnnData in place; X, layers, raw and obsp are left alone.

    Raises
    ------
    UsageError
        The prefix is taken.
    """
    check_key(key, adata.obs, adata.uns)
    for name, values in columns(predicted, key).items():
        adata.obs[name] = values.array
    kept = json.dumps(predicted.record(), sort_keys=True)
    adata.uns[key] = {**adata.uns.get(key, {}), "predict": kept}
    adata.uns[f"{key}_call_colors"] = np.array(COLORS, object)


def write_annotated(obs: pd.DataFrame, predicted: Predicted, target: Path, key: str = KEY) -> None:
    """Write an h5ad file with the cells' table and the predictions, without any expression.

    Parameters
    ----------
    obs : pandas.DataFrame
        Table of the cells that were predicted, in their order.
    predicted : Predicted
    target : Path
    key : str
        Prefix of all keys.
    """
    import anndata

    from scdrugmap.model.embedding_file import storable

    adata = anndata.AnnData(obs=storable(obs)[0])
    annotate(adata, predicted, key)
    with atomic_path(Path(target)) as temporary:
        write_h5ad(adata, temporary)
