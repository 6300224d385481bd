"""Look a folder of weights over: files, tensors, genes, and what it makes of a few cells."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scdrugmap.errors import WeightsError
from scdrugmap.hashes import forget_hashes
from scdrugmap.manifest import MANIFEST
from scdrugmap.model.load import load_model
from scdrugmap.weights import open_weights, weight_set

if TYPE_CHECKING:
    from scdrugmap.model.load import LoadedModel
    from scdrugmap.specs import ModelSpec

N_CELLS = 16
_MOST_GENES = 200  # expressed per cell: enough to tell cells apart, quick with large networks
_MEAN_COUNT = 3.0


@dataclass(frozen=True)
class Verification:
    """What :func:`verify_weights` found; all of it is as it should be."""

    model: str
    folder: str
    layout: str
    digest: str
    files: dict[str, dict[str, Any]]
    """Hash, size and ``state`` (as_imported, as_known, other or unknown) of each file."""
    config: dict[str, Any]
    tensors: dict[str, list[int]]
    """Shapes, by the names of the plugin's modules."""
    n_parameters: int
    dim: int
    n_vocabulary: int
    n_named: int
    """Genes of the vocabulary that the packaged gene table knows."""
    cells: dict[str, float]
    """Of 16 synthetic cells: genes each, and the least and mean distance of their embeddings."""
    notices: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dictionary."""
        return asdict(self)


def verify_weights(spec: ModelSpec, folder: Path, *, variant: str = "") -> Verification:
    """Hash, read and try a folder of weights in either layout.

    Raises
    ------
    WeightsError
        Something is missing, damaged, of another model, or gives the same embedding for all cells.
    """
    folder = Path(folder)
    imported = (folder / MANIFEST).is_file()
    forget_hashes()
    weights, record = open_weights(spec, folder, variant=variant)
    loaded = load_model(spec, settings={"variant": variant}, weights=folder)
    n_named, cells = _try_cells(loaded, folder)
    known = {file.path: file.sha256 for file in weight_set(spec, variant).files}
    files = {}
    for name, (_, found) in record.opened.items():
        state = "as_imported" if imported else _state(found.sha256, known.get(name))
        files[name] = {**found.model_dump(), "state": state}
    return Verification(
        model=spec.name,
        folder=str(folder),
        layout=record.source,
        digest=record.digest,
        files=files,
        config=dict(weights.config),
        tensors={name: list(tensor.shape) for name, tensor in weights.tensors.items()},
        n_parameters=sum(tensor.numel() for tensor in weights.tensors.values()),
        dim=loaded.model.traits.dim,
        n_vocabulary=loaded.model.traits.vocabulary_size,
        n_named=n_named,
        cells=cells,
        notices=record.notices,
    )


def _state(sha256: str, known: str | None) -> str:
    if known is None:
        return "unknown"
    return "as_known" if sha256 == known else "other"


def _try_cells(loaded: LoadedModel, folder: Path) -> tuple[int, dict[str, float]]:
    """Embed cells that express random genes of the vocabulary; count the genes that have a name."""
    from scipy.sparse import csr_matrix

    from scdrugmap.data.genes import Genes, gene_table
    from scdrugmap.model.embed import embed_rows

    kind = loaded.spec.gene_id
    table = Genes.from_names(gene_table().names(kind), kind=kind)
    coverage = loaded.model.tokenizer.bind(table)
    known = np.flatnonzero(coverage.matched)
    if len(known) < N_CELLS:
        raise WeightsError(
            f"{folder}: the gene table knows {len(known)} genes of the vocabulary",
            hint=f"is this a vocabulary of {' or '.join(loaded.spec.species)} {kind} names?",
        )
    genes = table.take(known)
    random = np.random.default_rng(0)
    n_genes = min(_MOST_GENES, len(known) // 2)
    dense = np.zeros((N_CELLS, len(known)), np.float32)
    for row in dense:
        expressed = random.choice(len(known), n_genes, replace=False)
        row[expressed] = 1 + random.poisson(_MEAN_COUNT, n_genes)
    names = np.array([f"synthetic_{number}" for number in range(N_CELLS)], object)
    embedded = embed_rows(loaded.model, genes, csr_matrix(dense), names)
    if not np.isfinite(embedded).all():
        raise WeightsError(f"{folder}: {N_CELLS} synthetic cells give values that are not finite")
    distance = np.sqrt(((embedded[:, None] - embedded[None]) ** 2).sum(-1))
    distance = distance[np.triu_indices(N_CELLS, 1)]
    if not distance.min() > 0:
        raise WeightsError(f"{folder}: different synthetic cells get the same embedding")
    return len(known), {
        "n_genes": n_genes,
        "least_distance": float(distance.min()),
        "mean_distance": float(distance.mean()),
    }
