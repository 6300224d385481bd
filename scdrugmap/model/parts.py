"""Divide cells into parts (units of the embedding store), groups (sequences of cells) and shards."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from scdrugmap.errors import UsageError

PART_CELLS = 1024
"""Cells of a part: what is stored, verified and recomputed as one.

A killed run repeats one part at most: some 20 minutes of a model that embeds a cell a second.
"""

GROUP_CELLS = 4096
"""Most cells of a group: longer samples are cut into windows of about equal size."""


_VALUES, _STATUS = "values.npy", "status.json"


@dataclass(frozen=True)
class Part:
    """Some cells that are embedded and stored together.

    Parameters
    ----------
    index : (n,) int64
        Positions of the cells.
    groups : tuple of int, optional
        Sizes of the groups that `index` lists one after the other; None for models that look at
        each cell alone.
    """

    index: np.ndarray
    groups: tuple[int, ...] | None = None


@dataclass(frozen=True)
class PartResult:
    """One embedded part.

    Parameters
    ----------
    index : (n,) int64
        Positions of the cells.
    values : (n, D) float32
        NaN for unusable cells; perhaps memory-mapped, read-only.
    status : (n,) object str
        ``""`` or ``no_known_genes``.
    """

    index: np.ndarray
    values: np.ndarray
    status: np.ndarray


@dataclass(frozen=True)
class Shard:
    """One of several equal shares of a file: number `i` (from 1) of `n`."""

    i: int
    n: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``i/n``.

        Raises
        ------
        UsageError
            Another form, or i is not in 1..n.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(f"--shard {text!r} is not of the form I/N with 1 <= I <= N")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.i}/{self.n}"


def group_indices(labels: np.ndarray | None, n_cells: int) -> list[np.ndarray]:
    """Divide cells into the sequences of a model whose cells see each other.

    Parameters
    ----------
    labels : (n_cells,) object, optional
        Sample of each cell; None: all cells are one sample.
    n_cells : int

    Returns
    -------
    list of (m,) int64
        Positions in file order, groups in order of their first cell; none has more than
        :data:`GROUP_CELLS`.
    """
    if labels is None:
        samples = [np.arange(n_cells)] if n_cells else []
    else:
        first: dict[object, int] = {}
        code = np.fromiter((first.setdefault(label, len(first)) for label in labels), np.int64)
        order = np.argsort(code, kind="stable")
        samples = np.split(order, np.cumsum(np.bincount(code))[:-1]) if n_cells else []
    return [
        window
        for sample in samples
        for window in np.array_split(sample, -(-len(sample) // GROUP_CELLS))
    ]


def plan_parts(
    index: np.ndarray,
    *,
    grouped: bool = False,
    labels: np.ndarray | None = None,
    shard: Shard | None = None,
) -> list[Part]:
    """Divide cells into parts.

    Parameters
    ----------
    index : (n,) int64
        Positions of the cells.
    grouped : bool
        The cells of a batch see each other: parts end where groups end.
    labels : (n,) object, optional
        Sample of each of these cells, for `grouped`.
    shard : Shard, optional
        Give only this share of the parts; shares end where parts end, and a file with fewer parts
        than shares gets smaller parts.

    Returns
    -------
    list of Part
        Together the cells of `index`, each once (of the shard, if there is one).
    """
    index = np.asarray(index, np.int64)
    if grouped:
        parts = _pack([index[group] for group in group_indices(labels, len(index))])
    else:
        size = PART_CELLS
        if shard and -(-len(index) // size) < shard.n:
            size = max(1, -(-len(index) // shard.n))
        parts = [Part(index[start : start + size]) for start in range(0, len(index), size)]
    if shard is None:
        return parts
    borders = [round(number * len(parts) / shard.n) for number in (shard.i - 1, shard.i)]
    return parts[slice(*borders)]


def _pack(groups: list[np.ndarray]) -> list[Part]:
    """Put whole groups together until a part is full."""
    parts: list[Part] = []
    held: list[np.ndarray] = []
    for group in groups:
        if held and sum(map(len, held)) + len(group) > PART_CELLS:
            parts.append(_joined(held))
            held = []
        held.append(group)
    return [*parts, _joined(held)] if held else parts


def _joined(groups: list[np.ndarray]) -> Part:
    return Part(np.concatenate(groups), tuple(map(len, groups)))


def names_digest(names: np.ndarray) -> str:
    """Return the SHA-256 (hex) of cell names ((n,) str) in their order."""
    content = hashlib.sha256()
    for name in names:
        text = str(name).encode("utf-8", "surrogatepass")
        content.update(len(text).to_bytes(4, "little") + text)
    return content.hexdigest()


def write_part(values: np.ndarray, status: np.ndarray, folder: Path) -> None:
    """Write the files of a part into its folder of the store."""
    values = np.ascontiguousarray(values, "<f4")
    with open(folder / _VALUES, "wb") as handle:  # as numpy.save, which hides why a write failed
        header = np.lib.format.header_data_from_array_1_0(values)
        np.lib.format.write_array_header_1_0(handle, header)
        handle.write(values.tobytes())
    unusable = {word: np.flatnonzero(status == word).tolist() for word in set(status) - {""}}
    (folder / _STATUS).write_text(json.dumps(unusable, sort_keys=True), "utf-8")


def read_part(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the values ((n, D) float32, memory-mapped) and status ((n,) str) of a stored part."""
    values = np.load(folder / _VALUES, mmap_mode="r", allow_pickle=False)
    status = np.full(len(values), "", object)
    for word, index in json.loads((folder / _STATUS).read_text("utf-8")).items():
        status[index] = word
    return values, status
