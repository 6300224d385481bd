"""Vectors of genes: the mean over cells of what a model says of each gene in each cell.

One cell has a vector for each of tens of thousands of genes, too many to keep for every cell; they
are averaged over all cells, or over the cells of each value of a column.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scdrugmap.data.hdf5_writing import write_h5ad
from scdrugmap.errors import DataError, PluginError, UsageError
from scdrugmap.files import atomic_path
from scdrugmap.model.device import Precision, arithmetic, resolve_device, resolve_precision
from scdrugmap.model.load import bind
from scdrugmap.progress import Progress, say
from scdrugmap.specs import Capability

if TYPE_CHECKING:
    from scdrugmap.data.cells import Cells
    from scdrugmap.model.load import LoadedModel

BLOCK_CELLS = 256

MOST_GROUPS = 64
"""Groups whose sums are held at once; scFoundation's take 79 MB each."""


@dataclass(frozen=True)
class GeneEmbeddings:
    """Mean vectors of genes.

    Attributes
    ----------
    genes : (G,) object str
        Names as the model has them.
    groups : tuple of str
        ``("",)`` where all cells are one group.
    n_cells : (n_groups,) int
        Cells that each mean is taken over; those without a known gene are not among them.
    values : (n_groups, G, D) float32
        NaN for a group without such cells.
    record : dict
        What decided the values, JSON-able.
    """

    genes: np.ndarray
    groups: tuple[str, ...]
    n_cells: np.ndarray
    values: np.ndarray
    record: dict[str, Any]


def require_genes(loaded: LoadedModel) -> tuple[torch.nn.Module, list[str]]:
    """Return the network for genes of a model, and the names of its genes.

    Raises
    ------
    PluginError
        The model gives no vectors of genes.
    UsageError
        It does with other options.
    """
    loaded.spec.require(Capability.GENES)
    module: torch.nn.Module | None = getattr(loaded.model, "gene_module", None)
    if module is None:
        raise UsageError(
            f"{loaded.name} gives no vectors of genes with these options",
            hint=f"see `scdrugmap models show {loaded.name}`; scfoundation: --set model=gene",
        )
    return module, list(getattr(loaded.model, "gene_names", ()))


def embed_genes(
    cells: Cells,
    loaded: LoadedModel,
    *,
    by: str | None = None,
    device: str = "auto",
    precision: str = "float32",
    min_genes: int | None = None,
    quiet: bool = False,
) -> GeneEmbeddings:
    """Average a model's vectors of genes over the cells of a file.

    Parameters
    ----------
    cells : Cells
    loaded : LoadedModel
        With the capability GENES.
    by : str, optional
        Column of obs: one mean per value; cells without a value are left out.
    device, precision
        See :class:`scdrugmap.model.batching.Network`.
    min_genes : int, optional
        Fewest known genes to go on with.
    quiet : bool

    Returns
    -------
    GeneEmbeddings

    Raises
    ------
    UsageError
        There is no such column, or it has too many values.
    DataError
        The model knows too few genes, or none of any cell.
    PluginError
        The model gives no vectors of genes, or values that are not finite.
    """
    module, names = require_genes(loaded)
    coverage = bind(loaded, cells.genes, min_genes=min_genes, where=cells.where)
    groups, group_of = _groups(cells, by)
    where = resolve_device(device)
    used, notice = resolve_precision(precision, where)
    if notice:
        say(f"Notice: {notice}", quiet=quiet)
    module.to(where)
    chosen = np.flatnonzero(group_of >= 0)
    genes = np.array(names, dtype=object)
    n_cells = np.zeros(len(groups), np.int64)
    sums: np.ndarray | None = None
    with Progress(f"genes of {loaded.name}", len(chosen), quiet=quiet) as progress:
        for block in cells.blocks(BLOCK_CELLS, chosen):
            tokens = loaded.model.tokenizer.encode(block.rows, block.names)
            for cell in np.flatnonzero(tokens.usable):
                values = _one_cell(loaded, module, tokens.take(np.array([cell])), where, used)
                if sums is None:
                    sums = np.zeros((len(groups), *values.shape))
                group = group_of[block.index[cell]]
                sums[group] += values
                n_cells[group] += 1
                progress.advance(1)
            progress.advance(int((~tokens.usable).sum()))
    if sums is None:
        raise DataError(
            f"{cells.where}: no cell has a gene that {loaded.name} knows",
            hint="see `scdrugmap check` for the genes that the model knows",
        )
    with np.errstate(invalid="ignore"):
        means = (sums / n_cells[:, None, None]).astype(np.float32)
    record = {
        "model": loaded.identity(),
        "by": by,
        "precision": used,
        "n_cells": int(n_cells.sum()),
        "n_no_known_genes": len(chosen) - int(n_cells.sum()),
        "n_without_group": cells.n_cells - len(chosen),
        "n_matched": int(coverage.n_matched),
        "weights": loaded.weights.label,
    }
    return GeneEmbeddings(genes, groups, n_cells, means, record)


def _groups(cells: Cells, by: str | None) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the groups, and the number of each cell's group ((n,) int, -1: none)."""
    from scdrugmap.data.labels import require_column

    if by is None:
        return ("",), np.zeros(cells.n_cells, np.int64)
    column = require_column(cells.obs, by, "--genes-by", cells.where)
    text = column.astype(str).where(column.notna())
    groups = sorted(text.dropna().unique())
    if not 0 < len(groups) <= MOST_GROUPS:
        raise UsageError(
            f"{cells.where}: column {by!r} has {len(groups):,} values, expected 1 to {MOST_GROUPS}",
            hint="name a column with few values with --genes-by",
        )
    number = {group: place for place, group in enumerate(groups)}
    return tuple(groups), text.map(number).fillna(-1).to_numpy(np.int64)


def _one_cell(
    loaded: LoadedModel,
    module: torch.nn.Module,
    tokens: Any,
    device: torch.device,
    precision: Precision,
) -> np.ndarray:
    """Return (G, D) float64. Cells go one by one: each is as long as the model has genes."""
    batch = {name: value.to(device) for name, value in loaded.model.collate(tokens).items()}
    with arithmetic(device, precision):
        values: np.ndarray = module.eval()(batch)[0].double().cpu().numpy()
    if not np.isfinite(values).all():
        raise PluginError(
            f"{loaded.name} returns vectors of genes that are not finite",
            hint="use --precision float32; if it is, this is a fault of the model or its weights",
        )
    return values


def write_gene_embeddings(found: GeneEmbeddings, model: str, target: Path) -> None:
    """Write mean vectors as an h5ad file: one row per gene, or per group and gene.

    ``obsm["X_<model>"]`` holds the vectors; ``obs`` has ``gene``, ``group`` and ``n_cells``;
    ``uns["scdrugmap"]["genes_<model>"]`` is the record as JSON.
    """
    import anndata
    import pandas as pd

    from scdrugmap.files import canonical_json
    from scdrugmap.model.embedding_file import UNS, obsm_key

    n_genes = len(found.genes)
    group = np.repeat(np.array(found.groups, object), n_genes)
    gene = np.tile(found.genes, len(found.groups))
    names = [f"{a}:{b}" if a else b for a, b in zip(group, gene, strict=True)]
    obs = pd.DataFrame(
        {
            "gene": gene,
            "group": pd.Categorical(group),
            "n_cells": np.repeat(found.n_cells, n_genes),
        },
        index=pd.Index(names, dtype=object),
    )
    adata = anndata.AnnData(obs=obs)
    adata.obsm[obsm_key(model)] = found.values.reshape(-1, found.values.shape[-1])
    adata.uns[UNS] = {f"genes_{model}": canonical_json(found.record)}
    with atomic_path(Path(target), n_bytes=found.values.nbytes) as temporary:
        write_h5ad(adata, temporary)
