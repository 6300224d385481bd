"""The contract of an embedding model: three parts, and the core owns everything between them.

::

    h5ad rows --(tokenizer, NumPy)--> ragged tokens --(collate)--> batch --(nn.Module)--> (B, D)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_matrix
    from torch import Tensor, nn

    from scdrugmap.data.genes import Genes
    from scdrugmap.modelkit.tokens import Tokens


@dataclass(frozen=True)
class Traits:
    """What is known of a model once its options and weights are resolved."""

    dim: int
    """Width D of the embedding."""
    max_tokens: int | None
    """Longest sequence of a cell, special tokens included; None: no limit."""
    stochastic: bool = False
    """Whether the result depends on the seed (then seed and draw are part of the cache key)."""
    gene_order_matters: bool = False
    """Whether the order of the file's columns changes the result."""
    vocabulary_size: int = 0
    """Number of genes the model knows, special tokens not counted."""


@dataclass(frozen=True)
class Coverage:
    """How much of a file a model can read; returned by ``Tokenizer.bind``."""

    n_genes: int
    """Genes of the file, after duplicates were joined."""
    n_matched: int
    """Genes of the file that the model knows."""
    n_vocabulary: int
    """Genes the model knows at all."""
    matched: np.ndarray
    """(n_genes,) bool."""


class Tokenizer(Protocol):
    """Turns rows of counts into tokens; NumPy only, no torch, no state but the bound genes."""

    def bind(self, genes: Genes) -> Coverage:
        """Learn the columns of a file; called once per file before ``encode``."""

    def encode(self, rows: csr_matrix, cells: np.ndarray, draw: int = 0) -> Tokens:
        """Turn cells into tokens.

        Parameters
        ----------
        rows : (n, n_genes) scipy CSR float32
            Sorted indices, no explicit zeros, columns as bound; must not be modified.
        cells : (n,) str
            Cell names; randomness may depend on them, never on position or on other cells.
        draw : int
            Number of the random draw.
        """


class CellModel(Protocol):
    """What ``factory(options, weights, seed)`` returns.

    ``options`` is an instance of the spec's options class; ``weights`` a
    :class:`~scdrugmap.modelkit.published.Weights`, the same whether the folder is as published or
    imported, or None for random tensors over a synthetic vocabulary; ``seed`` an int for random
    tensors and per-cell draws. See :class:`SequenceModel` for defaults.
    """

    traits: Traits
    tokenizer: Tokenizer
    module: nn.Module
    """``forward(batch) -> (B, D)``, differentiable; its trunk of repeated blocks is ``layers``."""
    input_module: str
    """Name of the submodule whose output an explanation differentiates."""

    def collate(self, tokens: Tokens) -> dict[str, Tensor]:
        """Make the batch that ``module`` takes, on the CPU."""

    def cost(self, tokens: Tokens) -> np.ndarray:
        """(n,) int64 cost of each cell; cells of equal cost batch well together."""


@dataclass
class SequenceModel:
    """A :class:`CellModel` whose batches are padded sequences; most models need nothing else."""

    traits: Traits
    tokenizer: Tokenizer
    module: nn.Module
    input_module: str
    padding: dict[str, float | int] = field(default_factory=dict)
    """Token fields that the network takes and the value padding gets."""
    gene_module: nn.Module | None = None
    """``forward(batch) -> (B, G, D')``, a vector per gene; for models with the capability GENES,
    and only with the options that it needs."""
    gene_names: tuple[str, ...] = ()
    """Names of the G genes, of the spec's ``gene_id``."""

    def collate(self, tokens: Tokens) -> dict[str, Tensor]:
        """Pad to the longest cell; see :func:`scdrugmap.modelkit.pad`."""
        from scdrugmap.modelkit.padding import pad

        return pad(tokens, self.padding)

    def cost(self, tokens: Tokens) -> np.ndarray:
        """(n,) int64 number of tokens of each cell."""
        return tokens.lengths
