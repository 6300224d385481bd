"""Tokens of a file, written once and memory-mapped: training reads cells in random order.

Tokenising cells in random order from h5ad is slower than the network; here every cell is
tokenised once, and later epochs, folds and seeds read a few kilobytes per cell.

An entry of the store holds one file, ``tokens.safetensors``: ``start``, ``flat.<name>`` and
``cell.<name>`` of :class:`~scdrugmap.modelkit.tokens.Tokens` for some consecutive cells. Dataset
columns are left out: no network takes them.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.data.fingerprints import cell_hashes, gene_hashes
from scdrugmap.files import hash_json, remove
from scdrugmap.model.parts import Part
from scdrugmap.modelkit.tokens import Tokens
from scdrugmap.progress import Progress

if TYPE_CHECKING:
    from scdrugmap.model.job import EmbeddingJob

KIND = "tokens"
"""Kind of the store's entries."""

TOKEN_CELLS = 4096
"""Cells of an entry: each costs one open map, and its tokens are held while it is written."""

_WINDOW_CELLS = 512
_FILE = "tokens.safetensors"


class CellTokens:
    """Tokens of cells that lie in files; only those that are asked for are read.

    Attributes
    ----------
    cost : (n,) int64
        What the model says each cell costs.
    usable : (n,) bool
        False for cells without any gene that the model knows.
    """

    def __init__(
        self, entries: Sequence[_Entry], place: np.ndarray, cost: np.ndarray, usable: np.ndarray
    ) -> None:
        self._entries = list(entries)
        self._place = place  # (n, 2) int64: number of the entry, row in it
        self.cost, self.usable = cost, usable

    def __len__(self) -> int:
        return len(self._place)

    def take(self, index: np.ndarray) -> Tokens:
        """Read the tokens of some cells, in the order of `index` ((m,) int, m > 0)."""
        found = [self._entries[entry].cell(int(row)) for entry, row in self._place[index]]
        flat, cell = found[0]
        lengths = [len(next(iter(tokens.values()))) for tokens, _ in found]
        return Tokens(
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            {name: np.concatenate([tokens[name] for tokens, _ in found]) for name in flat},
            {name: np.concatenate([facts[name] for _, facts in found]) for name in cell},
        )

    def subset(self, index: np.ndarray) -> CellTokens:
        """Return some of the cells, in the order of `index`."""
        return CellTokens(self._entries, self._place[index], self.cost[index], self.usable[index])

    @staticmethod
    def concatenate(parts: Sequence[CellTokens]) -> CellTokens:
        """Join the cells of several files, in order."""
        entries: list[_Entry] = []
        places = [np.zeros((0, 2), np.int64)]
        for part in parts:
            places.append(part._place + np.array([len(entries), 0]))
            entries.extend(part._entries)
        return CellTokens(
            entries,
            np.concatenate(places),
            np.concatenate([np.zeros(0, np.int64), *(part.cost for part in parts)]),
            np.concatenate([np.zeros(0, bool), *(part.usable for part in parts)]),
        )


class _Entry:
    """One file with the tokens of some cells; a temporary one is removed with the last user."""

    def __init__(self, folder: Path, *, temporary: bool = False) -> None:
        from safetensors import safe_open

        if temporary:
            weakref.finalize(self, remove, folder)
        self._file = safe_open(folder / _FILE, framework="numpy")
        self._names = list(self._file.keys())
        self.start: np.ndarray = self._file.get_tensor("start")

    def cell(self, row: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return the fields per token and per cell of one cell, all of them arrays."""
        first, last = int(self.start[row]), int(self.start[row + 1])
        return (
            {name[5:]: self._rows(name, first, last) for name in self._of("flat.")},
            {name[5:]: self._rows(name, row, row + 1) for name in self._of("cell.")},
        )

    def all_cells(self) -> Tokens:
        """Return the tokens of all cells."""
        return Tokens(
            self.start,
            {name[5:]: self._file.get_tensor(name) for name in self._of("flat.")},
            {name[5:]: self._file.get_tensor(name) for name in self._of("cell.")},
        )

    def _of(self, kind: str) -> list[str]:
        return [name for name in self._names if name.startswith(kind)]

    def _rows(self, name: str, first: int, last: int) -> np.ndarray:
        if first == last:  # safetensors 0.8 refuses an empty slice at the end of a tensor
            return self._file.get_tensor(name)[:0]
        return self._file.get_slice(name)[first:last]


def store_tokens(job: EmbeddingJob, index: np.ndarray) -> CellTokens:
    """Tokenise cells of a file, or find their tokens in the store.

    Entries are of consecutive cells of the whole file, so that all folds share them; those without
    a cell of `index` are left out.

    Parameters
    ----------
    job : EmbeddingJob
        A model that was just bound to the file.
    index : (n,) int64
        Positions of the cells.

    Returns
    -------
    CellTokens
        In the order of `index`.

    Raises
    ------
    ResourceError
        Disk full and the like.
    """
    cells = job.cells
    place = np.full((len(index), 2), -1, np.int64)
    cost, usable = np.zeros(len(index), np.int64), np.zeros(len(index), bool)
    entries: list[_Entry] = []
    hashes = gene_hashes(cells.genes.identity())
    with Progress(f"tokens {job.loaded.name}", len(index), quiet=job.quiet) as progress:
        for first in range(0, cells.n_cells, TOKEN_CELLS):
            part = Part(np.arange(first, min(first + TOKEN_CELLS, cells.n_cells)))
            wanted = np.flatnonzero((index >= first) & (index < first + TOKEN_CELLS))
            if not len(wanted):
                continue
            entry, found = _entry(job, part, hashes)
            rows = index[wanted] - first
            place[wanted] = np.column_stack([np.full(len(rows), len(entries)), rows])
            tokens = entry.all_cells()
            cost[wanted] = np.asarray(job.loaded.model.cost(tokens), np.int64)[rows]
            usable[wanted] = tokens.usable[rows]
            entries.append(entry)
            (progress.skip if found else progress.advance)(len(wanted))
    return CellTokens(entries, place, cost, usable)


def _entry(job: EmbeddingJob, part: Part, hashes: np.ndarray) -> tuple[_Entry, bool]:
    """Return the entry of a part, and whether it was there."""
    rows = job.cells.rows(part.index)
    record = job.part_record(part, cell_hashes(rows, hashes))
    record = {name: value for name, value in record.items() if name not in ("precision", "groups")}
    key = hash_json(record)
    with job.store.lock(KIND, key):
        folder = job.store.get(KIND, key)
        if folder is not None:
            return _Entry(folder), True
        names, encode = job.cells.names[part.index], job.loaded.model.tokenizer.encode
        windows = [
            encode(rows[start : start + _WINDOW_CELLS], names[start : start + _WINDOW_CELLS])
            for start in range(0, len(names), _WINDOW_CELLS)
        ]
        write: Callable[[Path], None] = partial(_write, Tokens.concatenate(windows))
        folder = job.store.put(KIND, key, write, record)
    if folder is not None:
        return _Entry(folder), False
    folder = Path(tempfile.mkdtemp(prefix="scdrugmap-tokens-"))
    write(folder)
    return _Entry(folder, temporary=True), False


def _write(tokens: Tokens, folder: Path) -> None:
    from safetensors.numpy import save_file

    flat = {name: values for name, values in tokens.flat.items() if name != "column"}
    save_file(
        {
            "start": tokens.start,
            **{f"flat.{name}": np.ascontiguousarray(values) for name, values in flat.items()},
            **{
                f"cell.{name}": np.ascontiguousarray(values) for name, values in tokens.cell.items()
            },
        },
        folder / _FILE,
    )
