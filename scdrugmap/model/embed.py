"""Embed cells: of a matrix in memory, or of a file through the store of finished parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.model.batching import Network
from scdrugmap.model.device import resolve_device
from scdrugmap.model.parts import group_indices

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scdrugmap.data.genes import Genes
    from scdrugmap.modelkit.contract import CellModel


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
