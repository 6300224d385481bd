"""For golden tests: cells as the original read them, one batch of them, and spoiled checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_matrix

    from scdrugmap.data.genes import Genes
    from scdrugmap.model.load import LoadedModel
    from scdrugmap.modelkit import Tokens
    from scdrugmap.specs import GeneId


class Cells(NamedTuple):
    """Cells of a file.

    ``rows`` ((n, n_genes) CSR), ``genes`` (n_genes) and ``names`` ((n,) str).
    """

    rows: csr_matrix
    genes: Genes
    names: np.ndarray


def read_cells(path: Path, gene_id: GeneId = "symbol") -> Cells:
    """Read an h5ad file column by column as it is.

    The core's own reader would join columns that are an old and a new name of one gene, which
    originals do not.
    """
    import anndata
    from scipy.sparse import csr_matrix

    from scdrugmap.data.genes import Genes

    adata = anndata.read_h5ad(path)
    genes = Genes.from_names(list(adata.var_names), kind=gene_id)
    return Cells(csr_matrix(adata.X), genes, adata.obs_names.to_numpy(object))


def encode(loaded: LoadedModel, cells: Cells) -> Tokens:
    """Bind the genes and tokenise the cells."""
    loaded.model.tokenizer.bind(cells.genes)
    return loaded.model.tokenizer.encode(cells.rows, cells.names)


def embed(loaded: LoadedModel, cells: Cells) -> np.ndarray:
    """Send all cells, unusable ones too, through the network as one batch: (n, D) float32."""
    import torch

    with torch.inference_mode():
        found = loaded.model.module(loaded.model.collate(encode(loaded, cells)))
    return found.numpy()


def edit_saved(path: Path, change: Callable[[Any], Any]) -> None:
    """Change the content of a file of ``torch.save``: in place, or to what `change` returns."""
    import torch

    content = torch.load(path, weights_only=True)
    changed = change(content)
    torch.save(content if changed is None else changed, path)


class Payload:
    """What runs code if it is unpickled freely: it makes an empty file.

    Parameters
    ----------
    trace : Path
        The file; no reader of weights may let it appear.
    """

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)
