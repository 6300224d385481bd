"""Embeddings that were computed before: taken only if the same model made them of the same file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scdrugmap.errors import DataError, UsageError

if TYPE_CHECKING:
    from scdrugmap.data.cells import Cells
    from scdrugmap.model.embed import EmbeddingJob

KEY = "scdrugmap"


def assign_files(paths: Sequence[Path], sources: Sequence[Cells], model: str) -> dict[str, Path]:
    """Find out which file holds the embeddings of which dataset.

    Parameters
    ----------
    paths : sequence of Path
        h5ad files made by ``scdrugmap embed``.
    sources : sequence of Cells
        Files with training cells.
    model : str

    Returns
    -------
    dict of str to Path
        By name of the dataset; empty if no path is given.

    Raises
    ------
    UsageError
        Two files hold the same dataset, or a dataset has none.
    DataError
        A file holds no embeddings of this model.
    """
    files: dict[str, Path] = {}
    for path in paths:
        name = str(read_record(path, model).get("dataset", ""))
        if name in files:
            raise UsageError(f"{path} and {files[name]} hold embeddings of the same dataset {name}")
        files[name] = Path(path)
    missing = [cells.name for cells in sources if cells.name not in files]
    if paths and missing:
        raise UsageError(
            f"no file has {model} embeddings of {', '.join(missing)}; given: {', '.join(files)}",
            hint="give one --embeddings file for each training file, or none at all",
        )
    return files


def read_record(path: Path, model: str) -> dict[str, Any]:
    """Return the provenance that ``scdrugmap embed`` wrote beside the embeddings.

    Raises
    ------
    DataError
        The file holds no embeddings of this model, or no record.
    """
    import h5py

    from scdrugmap.data.inspect import scan

    scan(path)
    with h5py.File(path, "r") as file:
        group = file.get(f"uns/{KEY}")
        text = group.get(f"embed_{model}") if isinstance(group, h5py.Group) else None
        if not isinstance(text, h5py.Dataset) or f"obsm/X_{model}" not in file:
            raise DataError(
                f"{path} holds no {model} embeddings made by scdrugmap",
                hint=f"make it with `scdrugmap embed INPUT --model {model} -o {path.name}`",
            )
        try:
            record = json.loads(text.asstr()[()])
        except (TypeError, ValueError, UnicodeDecodeError) as err:
            raise DataError(f"{path}: the record of the embeddings cannot be read") from err
    if not isinstance(record, dict):
        raise DataError(f"{path}: the record of the embeddings cannot be read")
    return record


def given_rows(path: Path, job: EmbeddingJob, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Read the embeddings of some cells.

    Parameters
    ----------
    path : Path
    job : EmbeddingJob
        The embedding that would be computed otherwise.
    index : (n,) int64
        Positions of the cells.

    Returns
    -------
    values : (n, D) float32
        NaN rows for unusable cells.
    status : (n,) object str

    Raises
    ------
    DataError
        Another model, other options, weights, genes or values; or cells are missing.
    """
    import h5py
    import pandas as pd

    from scdrugmap.data.cells import read_obs
    from scdrugmap.model.batching import NO_KNOWN_GENES

    model = job.loaded.name
    differing = differences(read_record(path, model).get("what", {}), job.record()["what"])
    if differing:
        raise DataError(
            f"{path}: these embeddings were made in another way: {'; '.join(differing)}",
            hint="embed again with the options given here, or leave --embeddings out",
        )
    _, obs = read_obs(path)
    names = job.cells.names[index]
    found = pd.Index(obs.index, dtype=object).get_indexer(pd.Index(names, dtype=object))
    if (found < 0).any():
        first = names[int((found < 0).argmax())]
        raise DataError(
            f"{path} lacks {int((found < 0).sum()):,} of {len(names):,} cells of "
            f"{job.cells.name} (the first is {first!r})",
            hint="embed the whole file; join shards with `scdrugmap merge`",
        )
    dim = job.loaded.model.traits.dim
    with h5py.File(path, "r") as file:
        stored = file[f"obsm/X_{model}"]
        if not isinstance(stored, h5py.Dataset) or stored.shape != (len(obs), dim):
            raise DataError(f"{path}: obsm/X_{model} is damaged; expected {(len(obs), dim)}")
        order = np.argsort(found, kind="stable")
        values = np.empty((len(found), dim), np.float32)
        for part in np.array_split(order, max(1, len(order) // 4096)):
            if len(part):
                first, last = found[part[0]], found[part[-1]]
                values[part] = stored[first : last + 1][found[part] - first]
    unusable = np.isnan(values).any(1)
    return values, np.where(unusable, NO_KNOWN_GENES, "").astype(object)


def differences(
    recorded: Mapping[str, Any], expected: Mapping[str, Any], prefix: str = ""
) -> list[str]:
    """Name the settings that differ, each with the value in the file and the one expected here.

    The hash of a plugin's editable code is not compared: it differs between any two checkouts.
    """
    differing = []
    for name in sorted({*recorded, *expected}):
        here, there = expected.get(name), recorded.get(name)
        if here == there or f"{prefix}{name}" == "model.code":
            continue
        if isinstance(here, dict) and isinstance(there, dict):
            differing += differences(there, here, f"{prefix}{name}.")
        else:
            differing.append(f"{prefix}{name} is {_short(there)}, here {_short(here)}")
    return differing


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."
