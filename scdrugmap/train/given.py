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
    UsageError
        There is no such file.
    DataError
        The file holds no embeddings of this model, or no record of how they were made.
    """
    from scdrugmap.model.embedding_file import open_embeddings, read_records

    with open_embeddings(path) as file:
        records = read_records(file, path.name)
    if model not in records:
        raise DataError(
            f"{path} holds no {model} embeddings made by scdrugmap"
            + (f" (it holds: {', '.join(records)})" if records else ""),
            hint=f"make them with `scdrugmap embed INPUT --model {model} -o OUT.h5ad`",
        )
    return records[model]


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
    import pandas as pd

    from scdrugmap.data.obs import read_obs
    from scdrugmap.model.batching import NO_KNOWN_GENES
    from scdrugmap.model.embedding_file import embedding, open_embeddings, read_runs

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
    order = np.argsort(found, kind="stable")
    values = np.empty((len(found), dim), np.float32)
    with open_embeddings(path) as file:
        stored = embedding(file, model, path.name, len(obs))
        if stored.shape[1] != dim:
            raise DataError(f"{path}: the {model} embeddings are {stored.shape[1]} wide, not {dim}")
        values[order] = read_runs(stored, found[order])
    unusable = np.isnan(values)
    if np.isinf(values).any() or (unusable.any(1) != unusable.all(1)).any():
        raise DataError(
            f"{path}: the {model} embeddings hold infinite values or rows that are partly NaN",
            hint="embed the cells again",
        )
    return values, np.where(unusable.all(1), NO_KNOWN_GENES, "").astype(object)


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
