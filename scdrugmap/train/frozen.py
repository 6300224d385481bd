"""The strategy ``frozen``: a head trained on the embeddings of an unchanged model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from scdrugmap.errors import DataError
from scdrugmap.train.gather import Chosen
from scdrugmap.train.given import given_rows
from scdrugmap.train.heads import Head, HeadName, make_head
from scdrugmap.train.scores import (
    FEW_COUNTS,
    NO_KNOWN_GENES,
    GeneCoverage,
    Scores,
    Trial,
    empty_cells,
)
from scdrugmap.train.tensors import dump_tensors, load_tensors

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scdrugmap.data.cells import Cells
    from scdrugmap.data.genes import Genes
    from scdrugmap.model.embed import EmbeddingJob
    from scdrugmap.model.load import LoadedModel
    from scdrugmap.model.parts import PartResult
    from scdrugmap.modelkit.tokens import Tokens
    from scdrugmap.run.store import Store
    from scdrugmap.train.domain import Domain

HEAD_FILE = "head.safetensors"


class EmbeddingRows(Protocol):
    """Embeddings that somebody holds already."""

    def of(self, cells: Cells, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return values ((n, D) float32) and status ((n,) object str) of cells of a file."""


class Embedder:
    """A model and how it is run; gives embeddings from the store, from files, or computed.

    Parameters
    ----------
    loaded : LoadedModel
    store : Store, optional
        Where finished parts are kept; None: the default one.
    device, precision, token_budget
        As in :func:`scdrugmap.model.embed.embed_cells`.
    sample : str, optional
        Column of obs with the sample, for models whose cells see each other.
    min_genes : int, optional
        Fewest known genes to go on with.
    files : mapping of str to Path
        Dataset to h5ad file with its embeddings, made by ``scdrugmap embed``.
    held : EmbeddingRows, optional
        Embeddings of this model, as it is, of all cells that are asked for.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        store: Store | None = None,
        device: str = "auto",
        precision: str = "float32",
        token_budget: int | None = None,
        sample: str | None = None,
        min_genes: int | None = None,
        files: Mapping[str, Path] | None = None,
        held: EmbeddingRows | None = None,
    ) -> None:
        self.loaded, self.store, self.device, self.precision = loaded, store, device, precision
        self.token_budget, self.sample, self.min_genes = token_budget, sample, min_genes
        self.files, self.held = dict(files or {}), held

    @property
    def dim(self) -> int:
        """Width of the embeddings."""
        return self.loaded.model.traits.dim

    def job(self, cells: Cells, *, quiet: bool = False) -> EmbeddingJob:
        """Bind the model to a file; see :class:`scdrugmap.model.embed.EmbeddingJob`."""
        from scdrugmap.model.embed import EmbeddingJob

        sample = self.sample if self.sample in cells.obs.columns else None
        return EmbeddingJob(
            cells,
            self.loaded,
            store=self.store,
            device=self.device,
            precision=self.precision,
            token_budget=self.token_budget,
            sample=sample,
            min_genes=self.min_genes,
            quiet=quiet,
        )

    def embed(
        self, cells: Cells, index: np.ndarray, *, quiet: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Embed some cells of a file.

        Whole parts of the file are run, so that training, validation and prediction share the
        finished ones; only cells of `index` are held.

        Returns
        -------
        values : (n, D) float32
            NaN rows for unusable cells.
        status : (n,) object str
        """
        if (held := self._held()) is not None:
            return held.of(cells, index)
        job = self.job(cells, quiet=quiet)
        if cells.name in self.files:
            return given_rows(self.files[cells.name], job, index)
        place = np.full(cells.n_cells, -1, np.int64)
        place[index] = np.arange(len(index))
        values = np.full((len(index), self.dim), np.nan, np.float32)
        status = np.full(len(index), "", object)
        needed = [part for part in job.plan() if (place[part.index] >= 0).any()]
        for part in job.run(needed):
            wanted = place[part.index] >= 0
            values[place[part.index[wanted]]] = part.values[wanted]
            status[place[part.index[wanted]]] = part.status[wanted]
        return values, status

    def parts(self, job: EmbeddingJob) -> Iterator[PartResult]:
        """Embed all cells of a file, one part at a time."""
        from scdrugmap.model.parts import PART_CELLS, PartResult

        if (held := self._held()) is None:
            yield from job.run(job.plan())
            return
        for start in range(0, job.cells.n_cells, PART_CELLS):
            index = np.arange(start, min(start + PART_CELLS, job.cells.n_cells))
            yield PartResult(index, *held.of(job.cells, index))

    def _held(self) -> EmbeddingRows | None:
        """Return what is held; of a network that was trained since, that is nothing."""
        return None if self.loaded.tuned else self.held


class FrozenScorer:
    """A model, and a head on its embeddings.

    Attributes
    ----------
    domain : Domain or None
        Where the training embeddings lie, once they are known.
    """

    def __init__(self, embedder: Embedder, head: Head) -> None:
        self.embedder, self.head = embedder, head
        self.domain: Domain | None = None

    @classmethod
    def restored(cls, embedder: Embedder, head: HeadName, dim: int, data: bytes) -> FrozenScorer:
        """Return the scorer whose :meth:`files` held `data`.

        Raises
        ------
        DataError
            The head is damaged or of another width than the model gives.
        """
        if dim != embedder.dim:
            raise DataError(
                f"the predictor reads embeddings of width {dim}, the model gives {embedder.dim}",
                hint="it was trained with another variant of the model",
            )
        restored = make_head(head, dim)
        restored.restore(load_tensors(data, HEAD_FILE), HEAD_FILE)
        return cls(embedder, restored)

    def files(self) -> dict[str, bytes]:
        """Return the head."""
        return {HEAD_FILE: dump_tensors(self.head.tensors())}

    def scores(
        self,
        cells: Cells,
        *,
        index: np.ndarray | None = None,
        samples: np.ndarray | None = None,
        quiet: bool = False,
    ) -> Scores:
        """Predict cells of a file; see :class:`~scdrugmap.train.scores.Scorer`."""
        job = self.embedder.job(cells, quiet=quiet)
        if index is None and cells.name not in self.embedder.files:
            p, domain, usable = self._stream(job)
        else:
            index = np.arange(cells.n_cells) if index is None else index
            values, status = self.embedder.embed(cells, index, quiet=quiet)
            usable = status == ""
            p, domain = self._head(values, usable)
        where = np.arange(cells.n_cells) if index is None else index
        reason = np.full(len(p), "", object)
        bad = np.flatnonzero(~usable)
        reason[bad] = np.where(empty_cells(cells, where[bad]), FEW_COUNTS, NO_KNOWN_GENES)
        genes = job.coverage
        return Scores(
            p,
            reason,
            domain=None if self.domain is None else domain,
            coverage=GeneCoverage(genes.n_genes, genes.n_matched, genes.n_vocabulary),
        )

    def _stream(self, job: EmbeddingJob) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predict all cells, holding one part of the embeddings at a time."""
        n_cells = job.cells.n_cells
        p, domain = np.full((2, n_cells), np.nan, np.float32)
        usable = np.zeros(n_cells, bool)
        for part in self.embedder.parts(job):
            usable[part.index] = part.status == ""
            p[part.index], domain[part.index] = self._head(part.values, usable[part.index])
        return p, domain, usable

    def _head(self, values: np.ndarray, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return probability and domain ((n,) float32 each), NaN where not usable."""
        p, domain = np.full((2, len(values)), np.nan, np.float32)
        p[usable] = self.head.predict(values[usable])
        if self.domain is not None:
            domain[usable] = self.domain.place(values[usable])
        return p, domain

    def trial(self, rows: csr_matrix, genes: Genes, names: np.ndarray) -> Trial:
        """Predict synthetic cells, and hash their tokens."""
        from scdrugmap.model.embed import embed_rows

        model = self.embedder.loaded.model
        values = embed_rows(
            model, genes, rows, names, device=self.embedder.device, precision="float32"
        )
        p, _ = self._head(values, ~np.isnan(values).any(1))
        return Trial(p, token_hashes(model.tokenizer.encode(rows, names)))


def fit_frozen(
    embedder: Embedder,
    head: HeadName,
    chosen: Sequence[Chosen],
    seed: int,
    *,
    quiet: bool = False,
) -> tuple[FrozenScorer, list[Chosen], np.ndarray]:
    """Train a head on the embeddings of training cells.

    Parameters
    ----------
    embedder : Embedder
    head : {"logistic", "mlp"}
    chosen : sequence of Chosen
        Training cells; both labels occur.
    seed : int
    quiet : bool

    Returns
    -------
    scorer : FrozenScorer
    used : list of Chosen
        The cells without those of which the model knows no gene.
    values : (n, D) float32
        Embeddings of the used cells.

    Raises
    ------
    DataError
        The cells that the model can read have one label only.
    """
    used, blocks = [], []
    for part in chosen:
        values, status = embedder.embed(part.cells, part.index, quiet=quiet)
        known = np.flatnonzero(status == "")
        used.append(part.take(known))
        blocks.append(values[known])
    x = np.concatenate(blocks)
    y = np.concatenate([part.y for part in used])
    if not 0 < y.sum() < len(y):
        raise DataError(
            f"{embedder.loaded.spec.name} can read {len(y):,} of "
            f"{sum(len(part.index) for part in chosen):,} training cells, and those have one label",
            hint="see `scdrugmap check` for the genes that the model knows",
        )
    trained = make_head(head, embedder.dim, _device(embedder.device))
    trained.fit(x, y, seed)
    return FrozenScorer(embedder, trained), used, x


def _device(name: str) -> Any:
    from scdrugmap.model.device import resolve_device

    return resolve_device(name)


def token_hashes(tokens: Tokens) -> tuple[str, ...]:
    """Return the SHA-256 (hex) of each cell's tokens, dataset columns left out."""
    hashes = []
    names = sorted(name for name in tokens.flat if name != "column")
    for cell in range(tokens.n_cells):
        digest = hashlib.sha256()
        for name in names:
            values = tokens.flat[name][tokens.start[cell] : tokens.start[cell + 1]]
            digest.update(f"{name}\0{values.dtype.str}\0{values.shape}\0".encode())
            digest.update(np.ascontiguousarray(values).tobytes())
        hashes.append(digest.hexdigest())
    return tuple(hashes)
