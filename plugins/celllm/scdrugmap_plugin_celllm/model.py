"""The encoder of CellLM (Zhao et al. 2023): a Performer over the expressed genes of a cell.

A token is the sum of a vector of its expression level and a fixed vector of its gene (gene2vec).
Padding has no value, but is a key as any other: its number weighs in the denominator of attention.

Letters: B cells, T tokens, Q of them that are returned, D width.
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
from scdrugmap_plugin_celllm import SPEC, Options
from scdrugmap_plugin_celllm.tokenizer import N_SPECIALS, Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from scdrugmap.modelkit import Weights


class TokenEncoder(nn.Module):
    """Sum of the vectors of a token's level and of its gene.

    Parameters
    ----------
    n_genes : int
        CLS and padding have the two positions behind the genes.
    n_levels, dim : int
    """

    def __init__(self, n_genes: int, n_levels: int, dim: int) -> None:
        super().__init__()
        self.level = nn.Embedding(n_levels, dim)
        self.gene = nn.Embedding(n_genes + N_SPECIALS, dim).requires_grad_(False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Give CLS and padding the positions that they have in the original."""
        with torch.no_grad():
            self.gene.weight[-2], self.gene.weight[-1] = 1.0, 0.0

    def forward(self, levels: Tensor, genes: Tensor) -> Tensor:
        """(B, T) levels and gene positions to (B, T, D)."""
        return self.level(levels.int()) + self.gene(genes)


class CellLM(nn.Module):
    """The encoder of CellLM without the head of pre-training.

    Parameters
    ----------
    n_genes : int
    dim, n_heads, head_dim, n_features, n_layers, hidden, n_levels
        Sizes, see ``SIZES``; the last level is that of padding.
    pool : {"cls", "mean"}
    key_max : {"cell", "batch"}
    """

    def __init__(
        self,
        n_genes: int,
        *,
        dim: int,
        n_heads: int,
        head_dim: int,
        n_features: int,
        n_layers: int,
        hidden: int,
        n_levels: int,
        pool: Literal["cls", "mean"] = "cls",
        key_max: Literal["cell", "batch"] = "cell",
    ) -> None:
        super().__init__()
        self.pool = pool
        self.pad_level = n_levels - 1
        self.tokens = TokenEncoder(n_genes, n_levels, dim)
        self.layers = nn.ModuleList(
            PerformerLayer(dim, n_heads, head_dim, n_features, hidden, F.gelu, key_max)
            for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Embed cells.

        Parameters
        ----------
        batch : dict
            ``level``, ``gene`` and ``count`` (B, T) int; CLS stands first.

        Returns
        -------
        (B, D) float
        """
        if self.pool == "cls":
            return self.states(batch, rows=slice(1))[:, 0]
        return pool_mean(self.states(batch), batch["level"] != self.pad_level)

    def states(self, batch: dict[str, Tensor], *, rows: slice | None = None) -> Tensor:
        """Return the last states of all tokens, or of some of them: (B, Q, D)."""
        x = self.tokens(batch["level"], batch["gene"])  # (B, T, D)
        has_value = batch["level"] != self.pad_level
        weight = torch.stack([has_value, batch["count"]], -1).float()  # (B, T, 2)
        *first, last = self.layers
        for layer in first:
            x = layer(x, weight)
        return self.norm(last(x, weight, rows=rows))


def build(options: Options, weights: Weights | None, seed: int) -> SequenceModel:
    """Make the model: from weights, or random over the genes of the packaged table."""
    config: dict[str, Any]
    if weights is None:
        config = dict(SPEC.variant(options.variant).sizes)
        genes = {name: place for place, name in enumerate(synthetic_vocabulary("symbol"))}
    else:
        config, genes = dict(weights.config), dict(weights.vocabulary)
    published = config.pop("max_seq_len")
    tokenizer = Tokenizer(
        genes, config["n_levels"], options.max_seq_len or published, options.input
    )
    with seeded(seed):
        module = CellLM(len(genes), pool=options.pool, key_max=options.key_max, **config)
    if weights is not None:
        load_strict(module, weights.tensors, weights.source)
    return SequenceModel(
        traits=Traits(
            dim=config["dim"],
            max_tokens=min(tokenizer.max_seq_len, len(genes) + N_SPECIALS),
            vocabulary_size=len(genes),
        ),
        tokenizer=tokenizer,
        module=module.eval(),
        input_module="tokens",
        # More padding of a shorter cell equals what it has, so that its largest key stays.
        padding={"level": tokenizer.pad_level, "gene": tokenizer.pad, "count": 0},
    )
