"""Put an embedding into the AnnData that a user holds, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from scdrugmap.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData

    from scdrugmap.data.cells import Cells
    from scdrugmap.model.embed import Embeddings

UNS = "scdrugmap"


def check_key(adata: AnnData, key: str) -> None:
    """Refuse a key of obsm that we did not write, or that no file could hold.

    Raises
    ------
    UsageError
        The key is taken, or is none.
    """
    if not key or "/" in key:
        raise UsageError(f"key_added={key!r} cannot be a key", hint="use letters, digits and _")
    there = adata.uns.get(UNS, {})
    if not isinstance(there, Mapping):
        raise UsageError(f"uns has {UNS!r}, which scdrugmap did not write", hint="rename it")
    if key in adata.obsm and _record_key(key) not in there:
        raise UsageError(
            f"obsm has {key!r}, which scdrugmap did not write; nothing is overwritten",
            hint="choose another name with key_added=",
        )


def annotate(adata: AnnData, key: str, made: Embeddings, known: np.ndarray | None) -> None:
    """Write an embedding and its record.

    Parameters
    ----------
    adata : AnnData
        Gets ``obsm[key]``, a record in ``uns["scdrugmap"]``, and in var which genes were known.
    key : str
    made : Embeddings
        Of all cells, in order.
    known : (n_vars,) bool, optional
        See :func:`known_columns`.
    """
    adata.obsm[key] = made.values
    if known is not None:
        adata.var[f"{UNS}_in_vocab_{key.removeprefix('X_')}"] = known
    adata.uns[UNS] = {
        **adata.uns.get(UNS, {}),
        _record_key(key): json.dumps(made.record, sort_keys=True),
    }


def known_columns(cells: Cells, made: Embeddings) -> np.ndarray | None:
    """Return which columns of the matrix the model knows.

    Returns
    -------
    (n_vars,) bool or None
        None where the values came from ``raw``, whose columns are not those of var.
    """
    if made.coverage is None or cells.matrix.location.startswith("raw"):
        return None
    column = cells.mapping.column
    return (column >= 0) & made.coverage.matched[column]


def _record_key(key: str) -> str:
    return f"embed_{key.removeprefix('X_')}"
