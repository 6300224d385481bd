"""The network of scBERT (Yang et al. 2022): a Performer over all genes of its list.

A token is the sum of a vector of its expression level and a fixed vector of its gene (gene2vec).

Letters: B cells, T tokens, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from scdrugmap.modelkit import (
    PerformerLayer,
    SequenceModel,
    Traits,
    load_strict,
    pool_mean,
    seeded,
    synthetic_vocabulary,
)
from scdrugmap_plugin_scbert import SPEC, Options
from scdrugmap_plugin_scbert.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from scdrugmap.modelkit import Weights

N_LEVELS = 7
"""Expression levels 0 to 5, and the mask of pre-training, which has a vector but is never read."""


class TokenEncoder(nn.Module):
    """Sum of the vectors of a token's level and of its position, which stands for its gene.

    Parameters
    ----------
    n_positions : int
        Genes, and the closing token.
    dim : int
    """

    def __init__(self, n_positions: int, dim: int) -> None:
        super().__init__()
        self.level = nn.Embedding(N_LEVELS, dim)
        self.position = nn.Embedding(n_positions, dim).requires_grad_(False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Give the closing token no position, as in the published weights."""
        with torch.no_grad():
            self.position.weight[-1] = 0.0

    def forward(self, levels: Tensor) -> Tensor:
        """(B, T) levels to (B, T, D)."""
        positions = torch.arange(levels.shape[1], device=levels.device)
        return self.level(levels.int()) + self.position(positions)


class ScBert(nn.Module):
    """The network of scBERT without its head.

    Parameters
    ----------
    n_positions : int
        Genes, and the closing token.
    dim, n_heads, head_dim, n_features, n_layers, hidden
        Sizes, see ``SIZES``.
    pool : {"mean", "last", "max"}
    stabilizer : {"cell", "batch"}
    """

    def __init__(
        self,
        n_positions: int,
        *,
        dim: int,
        n_heads: int,
        head_dim: int,
        n_features: int,
        n_layers: int,
        hidden: int,
        pool: Literal["mean", "last", "max"] = "mean",
        stabilizer: Literal["cell", "batch"] = "cell",
    ) -> None:
        super().__init__()
        self.pool = pool
        self.tokens = TokenEncoder(n_positions, dim)
        self.layers = nn.ModuleList(
            PerformerLayer(dim, n_heads, head_dim, n_features, hidden, F.gelu, stabilizer)
            for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Embed cells: ``level`` (B, T) to (B, D)."""
        x = self.states(batch, rows=slice(-1, None) if self.pool == "last" else None)
        if self.pool == "max":
            return x.amax(1)
        return pool_mean(x)

    def states(self, batch: dict[str, Tensor], *, rows: slice | None = None) -> Tensor:
        """Return the last states of all tokens, (B, T, D), or of some of them."""
        x = self.tokens(batch["level"])
        *first, last = self.layers
        for layer in first:
            x = layer(x)
        return self.norm(last(x, rows=rows))


def build(options: Options, weights: Weights | None, seed: int) -> SequenceModel:
    """Make the model: from weights, or random over the genes of the packaged table."""
    config: dict[str, Any]
    if weights is None:
        config = dict(SPEC.variant(options.variant).sizes)
        genes = {name: place for place, name in enumerate(synthetic_vocabulary("symbol"))}
    else:
        config, genes = dict(weights.config), dict(weights.vocabulary)
    with seeded(seed):
        module = ScBert(len(genes) + 1, pool=options.pool, stabilizer=options.stabilizer, **config)
    if weights is not None:
        load_strict(module, weights.tensors, weights.source)
    return SequenceModel(
        traits=Traits(dim=config["dim"], max_tokens=len(genes) + 1, vocabulary_size=len(genes)),
        tokenizer=Tokenizer(genes),
        module=module.eval(),
        input_module="tokens",
        padding={"level": 0},
    )
