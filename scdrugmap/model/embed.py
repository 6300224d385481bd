"""Embed cells: of a matrix in memory, or of a file through the store of finished parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from scdrugmap.model.batching import Network
from scdrugmap.model.device import resolve_device
from scdrugmap.model.job import EmbeddingJob
from scdrugmap.model.parts import group_indices
from scdrugmap.run.store import Store

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scdrugmap.data.cells import Cells
    from scdrugmap.data.genes import Genes
    from scdrugmap.model.load import LoadedModel
    from scdrugmap.modelkit.contract import CellModel, Coverage

__all__ = ["EmbeddingJob", "Embeddings", "embed_cells", "embed_rows"]


@dataclass
class Embeddings:
    """Embedded cells.

    Parameters
    ----------
    names : (n,) object str
    values : (n, D) float32
        NaN rows for unusable cells.
    status : (n,) object str
        ``""`` or ``no_known_genes``.
    record : dict
        What decided the values and how they came about, JSON-able.
    coverage : Coverage, optional
        Genes of the file that the model knows; None for embeddings read from a file.
    """

    names: np.ndarray
    values: np.ndarray
    status: np.ndarray
    record: dict[str, Any] = field(default_factory=dict)
    coverage: Coverage | None = None


def embed_rows(
    model: CellModel,
    genes: Genes,
    rows: csr_matrix,
    cells: np.ndarray,
    *,
    device: str = "cpu",
    precision: str = "float32",
    token_budget: int | None = None,
    groups: np.ndarray | None = None,
    draw: int = 0,
) -> np.ndarray:
    """Embed cells that are in memory.

    Parameters
    ----------
    model : CellModel
    genes : Genes
        Columns of `rows`.
    rows : (n, n_genes) CSR float32
        Sorted indices, no explicit zeros.
    cells : (n,) str
        Cell names.
    device, precision, token_budget
        See :class:`scdrugmap.model.batching.Network`.
    groups : (n,) object, optional
        Sample of each cell, for models whose cells see each other; None: each cell alone.
    draw : int
        Number of the random draw.

    Returns
    -------
    (n, D) float32
        NaN for cells without a gene that the model knows.
    """
    model.tokenizer.bind(genes)
    network = Network(
        model, device=resolve_device(device), precision=precision, token_budget=token_budget
    )
    sequences = None if groups is None else group_indices(groups, len(cells))
    return network.embed(model.tokenizer.encode(rows, cells, draw), sequences)


def embed_cells(
    cells: Cells,
    loaded: LoadedModel,
    *,
    store: Store | None = None,
    device: str = "auto",
    precision: str = "float32",
    token_budget: int | None = None,
    index: np.ndarray | None = None,
    sample: str | None = None,
    min_genes: int | None = None,
    quiet: bool = False,
) -> Embeddings:
    """Embed cells of a file, part by part, reusing finished parts.

    Parameters
    ----------
    cells : Cells
    loaded : LoadedModel
    store : Store, optional
        Where finished parts are kept; None: the default one.
    device, precision, token_budget
        See :class:`scdrugmap.model.batching.Network`.
    index : (n,) int, optional
        Positions of the cells; default: all.
    sample : str, optional
        Column of obs with the sample of each cell, for models whose cells see each other.
    min_genes : int, optional
        Fewest known genes to go on with.
    quiet : bool
        No progress, no notices.

    Returns
    -------
    Embeddings
        In the order of `index`.

    Raises
    ------
    DataError
        The model knows too few genes, or a block of the file is damaged.
    ResourceError
        Memory, disk or a lock is missing.
    """
    job = EmbeddingJob(
        cells,
        loaded,
        store=store,
        device=device,
        precision=precision,
        token_budget=token_budget,
        sample=sample,
        min_genes=min_genes,
        quiet=quiet,
    )
    chosen = np.arange(cells.n_cells) if index is None else np.asarray(index, np.int64)
    place = np.full(cells.n_cells, -1, np.int64)
    place[chosen] = np.arange(len(chosen))
    values = np.full((len(chosen), loaded.model.traits.dim), np.nan, np.float32)
    status = np.full(len(chosen), "", object)
    for result in job.run(job.plan(chosen)):
        values[place[result.index]] = result.values
        status[place[result.index]] = result.status
    return Embeddings(cells.names[chosen], values, status, job.record(), job.coverage)
