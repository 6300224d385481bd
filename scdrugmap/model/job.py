"""The embedding of one file by one model: parts found in the store, the others computed.

A thread reads, hashes, looks up and tokenises; the caller's thread runs the network.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from scdrugmap.data.fingerprints import cell_hashes, gene_hashes
from scdrugmap.errors import ResourceError
from scdrugmap.files import hash_json
from scdrugmap.model.batching import NO_KNOWN_GENES, Network
from scdrugmap.model.device import resolve_device, resolve_precision
from scdrugmap.model.parts import (
    GROUP_CELLS,
    Part,
    PartResult,
    Shard,
    names_digest,
    plan_parts,
    read_part,
    write_part,
)
from scdrugmap.model.prefetch import Prefetched
from scdrugmap.progress import Progress, say
from scdrugmap.run.store import LOCK_TIMEOUT_S, Lock, Store

if TYPE_CHECKING:
    from scdrugmap.data.cells import Cells
    from scdrugmap.model.load import LoadedModel
    from scdrugmap.modelkit.tokens import Tokens

KIND = "embedding"
"""Kind of the store's entries that hold a part: ``values.npy`` and ``status.json``."""

WINDOW_CELLS = 512
"""Cells that are tokenised, sorted and divided into batches together."""


class EmbeddingJob:
    """The embedding of (some) cells of one file by one model; arguments as :func:`embed_cells`.

    Attributes
    ----------
    coverage : Coverage
    precision : str
        The one that is used.
    """

    def __init__(
        self,
        cells: Cells,
        loaded: LoadedModel,
        *,
        store: Store | None = None,
        device: str = "auto",
        precision: str = "float32",
        token_budget: int | None = None,
        sample: str | None = None,
        min_genes: int | None = None,
        quiet: bool = False,
    ) -> None:
        from scdrugmap.data.genes import gene_table
        from scdrugmap.model.load import bind
        from scdrugmap.specs import Capability

        loaded.spec.require(Capability.EMBED)
        self.cells, self.loaded, self.quiet = cells, loaded, quiet
        self.store = Store(quiet=quiet) if store is None else store
        self.device = resolve_device(device)
        self.precision, _ = resolve_precision(precision, self.device)
        self._asked, self._budget = precision, token_budget
        self.grouped = loaded.spec.cell_batching == "group"
        self.sample = sample if self.grouped else None
        self.coverage = bind(loaded, cells.genes, min_genes=min_genes, where=cells.where)
        self.unusable = 0
        self._gene_hashes = gene_hashes(cells.genes.identity())
        self._what: dict[str, Any] = {
            "model": loaded.identity(),
            "genes": {"table": gene_table().version, "names": cells.genes.digest()},
            "matrix": {"location": cells.matrix.location, "values": cells.matrix.values},
            "precision": self.precision,
        }
        if loaded.model.traits.stochastic:
            self._what["draw"] = 0

    def plan(self, index: np.ndarray | None = None, *, shard: Shard | None = None) -> list[Part]:
        """Divide cells ((n,) int, default: all), or one share of them, into parts.

        Raises
        ------
        UsageError
            There is no column of that name for the samples.
        """
        chosen = np.arange(self.cells.n_cells) if index is None else index
        labels = None
        if self.grouped and self.sample is not None:
            from scdrugmap.data.labels import require_column

            column = require_column(self.cells.obs, self.sample, "--sample", self.cells.where)
            labels = column.astype(str).to_numpy(object)[chosen]
            longest = (
                int(column.iloc[chosen].astype(str).value_counts().max()) if len(chosen) else 0
            )
            if longest > GROUP_CELLS:
                self._notice(
                    f"{self.loaded.name} embeds cells together; samples of more than "
                    f"{GROUP_CELLS:,} cells are cut into windows of about equal size"
                )
        elif self.grouped:
            self._notice(
                f"{self.loaded.name} embeds cells together, and no --sample names the column of "
                "their sample: windows in file order are used"
            )
        return plan_parts(chosen, grouped=self.grouped, labels=labels, shard=shard)

    def _notice(self, text: str) -> None:
        say(f"Notice: {text}", quiet=self.quiet)

    def record(self) -> dict[str, Any]:
        """Return what decides the values and what was seen, JSON-able."""
        weights, coverage = self.loaded.weights, self.coverage
        return {
            "what": self._what,
            "dim": self.loaded.model.traits.dim,
            "groups": (self.sample or "windows in file order") if self.grouped else None,
            "dataset": self.cells.name,
            "coverage": {
                "n_genes": coverage.n_genes,
                "n_matched": coverage.n_matched,
                "n_vocabulary": coverage.n_vocabulary,
            },
            "weights": {
                "source": weights.source,
                "label": weights.label,
                "licence": weights.licence,
                "commercial_use": weights.commercial_use,
            },
            "n_no_known_genes": self.unusable,
        }

    def part_record(self, part: Part, hashes: np.ndarray) -> dict[str, Any]:
        """Return what decides the values of a part; its hash is the part's key.

        Parameters
        ----------
        part : Part
        hashes : (n, 2) uint64
            Content of each cell, from :func:`scdrugmap.data.fingerprints.cell_hashes`.
        """
        groups = None if part.groups is None else list(part.groups)
        return {
            **self._what,
            "groups": groups,
            "n_cells": len(part.index),
            "names": names_digest(self.cells.names[part.index]),
            "cells": hashlib.sha256(np.ascontiguousarray(hashes, "<u8").tobytes()).hexdigest(),
        }

    def run(self, parts: Sequence[Part]) -> Iterator[PartResult]:
        """Embed parts, or find them in the store; they come in any order."""
        network = Network(
            self.loaded.model,
            device=self.device,
            precision=self._asked,
            token_budget=self._budget,
            name=self.loaded.name,
        )
        n_cells = sum(len(part.index) for part in parts)
        self._announce(n_cells)
        self.unusable = 0
        told = self._tell(network, 0)
        locks: list[Lock] = []
        with (
            contextlib.ExitStack() as stack,
            Progress(f"embed {self.loaded.name}", n_cells, quiet=self.quiet) as progress,
            Prefetched(lambda stopped: self._prepare(parts, locks, stopped)) as prepared,
        ):
            stack.callback(_release, locks)
            items = iter(prepared)
            for item in items:
                task = cast("_Task", item)
                if task.folder is not None:
                    progress.skip(len(task.part.index))
                    values, status = read_part(task.folder)
                else:
                    windows = (cast("Tokens", next(items)) for _ in range(task.n_windows))
                    values, status = _forward(task.part, windows, network, progress)
                    self.store.put(KIND, task.key, partial(write_part, values, status), task.record)
                task.lock.release()
                told = self._tell(network, told)
                self.unusable += int((status != "").sum())
                yield PartResult(task.part.index, values, status)

    def _tell(self, network: Network, told: int) -> int:
        """Say what the network has to say since the first `told` notices; return how many."""
        for notice in network.notices[told:]:
            self._notice(notice)
        return len(network.notices)

    def _announce(self, n_cells: int) -> None:
        weights, coverage = self.loaded.weights, self.coverage
        label = f" ({weights.label})" if weights.source != "none" else ""
        say(
            f"{self.loaded.name}{label}: {n_cells:,} cells on "
            f"{self.device} in {self.precision}; {coverage.n_matched:,} of "
            f"{coverage.n_genes:,} genes known",
            quiet=self.quiet,
        )
        if weights.commercial_use is False:
            self._notice(f"weights of {self.loaded.name}: no commercial use ({weights.licence})")

    def _prepare(
        self, parts: Sequence[Part], locks: list[Lock], stopped: Callable[[], bool]
    ) -> Iterator[_Task | Tokens]:
        """Read, hash, look up and tokenise part by part; runs in a thread of its own.

        Gives a task, then the tokens of its windows if the part must be computed. Parts that
        another process is working on come last.
        """
        later = []
        for part in parts:
            if stopped():
                return
            if not (yield from self._prepare_part(part, locks, 0.0, stopped)):
                later.append(part)
        if later:
            self._notice("waiting for another process on the same cells")
        for part in later:
            if not (yield from self._prepare_part(part, locks, LOCK_TIMEOUT_S, stopped)):
                raise ResourceError(
                    "another process has been working on the same cells for more than "
                    f"{LOCK_TIMEOUT_S / 3600:.0f} h",
                    hint="wait for it, or stop it, and run the command again",
                )

    def _prepare_part(
        self, part: Part, locks: list[Lock], timeout_s: float, stopped: Callable[[], bool]
    ) -> Generator[_Task | Tokens, None, bool]:
        """Prepare one part; False if its lock could not be had in time."""
        rows = self.cells.rows(part.index)
        record = self.part_record(part, cell_hashes(rows, self._gene_hashes))
        key = hash_json(record)
        lock = self.store.acquire(KIND, key, timeout_s=timeout_s, cancelled=stopped)
        if lock is None:
            return False
        locks.append(lock)
        folder = self.store.get(KIND, key)
        if folder is not None:
            yield _Task(part, key, record, lock, folder=folder)
            return True
        size = WINDOW_CELLS if part.groups is None else len(part.index)
        starts = range(0, len(part.index), size)
        yield _Task(part, key, record, lock, n_windows=len(starts))
        names, encode = self.cells.names[part.index], self.loaded.model.tokenizer.encode
        for start in starts:
            yield encode(rows[start : start + size], names[start : start + size])
        return True


@dataclass(frozen=True)
class _Task:
    """A part whose lock is held: found in `folder`, or to be computed from `n_windows` tokens."""

    part: Part
    key: str
    record: dict[str, Any]
    lock: Lock
    folder: Path | None = None
    n_windows: int = 0


def _release(locks: list[Lock]) -> None:
    for lock in locks:
        lock.release()


def _forward(
    part: Part, windows: Iterator[Tokens], network: Network, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Send the windows of a part through the network; (n, D) float32 and (n,) object str."""
    values, usable = [], []
    groups = None
    if part.groups is not None:
        groups = np.split(np.arange(len(part.index)), np.cumsum(part.groups)[:-1])
    for tokens in windows:
        before = progress.done
        values.append(
            network.embed(tokens, groups, lambda cells, n: progress.advance(cells, tokens=n))
        )
        progress.advance(tokens.n_cells - (progress.done - before))  # the unusable ones
        usable.append(tokens.usable)
    status = np.where(np.concatenate(usable), "", NO_KNOWN_GENES).astype(object)
    return np.concatenate(values), status
