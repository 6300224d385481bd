"""The network of scGPT (Cui et al., Nature Methods 2024): a post-norm transformer encoder.

A token is the sum of a gene's vector and a vector of its binned value; there is no positional code.
The embedding of a cell is the last state of ``<cls>``.

Letters: B cells, T tokens, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import nn

from scdrugmap.modelkit import (
    PostNormLayer,
    SequenceModel,
    Traits,
    load_strict,
    seeded,
    synthetic_vocabulary,
)
from scdrugmap_plugin_scgpt import SPEC, Options
from scdrugmap_plugin_scgpt.tokenizer import PAD, SPECIALS, Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from scdrugmap.modelkit import Weights

MAX_VALUE = 512
"""Larger values are cut (``max_value`` of the original's value encoder)."""

PAD_VALUE = -2.0
"""Value of padding and of ``<cls>`` in all published checkpoints."""


class GeneEncoder(nn.Module):
    """A vector per gene."""

    def __init__(self, n_tokens: int, dim: int, pad: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_tokens, dim, padding_idx=pad)
        self.norm = nn.LayerNorm(dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the vectors as the original does."""
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) token ids to (B, T, D)."""
        return self.norm(self.embedding(ids))


class ValueEncoder(nn.Module):
    """A vector per binned value, read as a number."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(1, dim)
        self.linear2 = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, values: Tensor) -> Tensor:
        """(B, T) values to (B, T, D)."""
        x = values.clamp(max=MAX_VALUE).unsqueeze(-1)  # (B, T, 1)
        return self.dropout(self.norm(self.linear2(F.relu(self.linear1(x)))))


class ScGPT(nn.Module):
    """The encoder of scGPT without its pre-training heads.

    Parameters
    ----------
    n_tokens : int
        Genes and special tokens.
    pad : int
        Token id of padding.
    dim, n_heads, hidden, n_layers, dropout
        Sizes, see ``SIZES``; `hidden` is the width between the two feed-forward layers.
    normalize : bool
        Scale embeddings to length 1.
    """

    def __init__(
        self,
        n_tokens: int,
        pad: int,
        *,
        dim: int,
        n_heads: int,
        hidden: int,
        n_layers: int,
        dropout: float,
        normalize: bool,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.gene_encoder = GeneEncoder(n_tokens, dim, pad)
        self.value_encoder = ValueEncoder(dim, dropout)
        self.layers = nn.ModuleList(
            PostNormLayer(dim, n_heads, hidden, F.relu, dropout) for _ in range(n_layers)
        )

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Embed cells.

        Parameters
        ----------
        batch : dict
            ``id`` (B, T) int, ``value`` (B, T) float and, where cells differ in length, ``keep``
            (B, T) bool; ``<cls>`` stands first.

        Returns
        -------
        (B, D) float
        """
        cls = self.states(batch, positions=1)[:, 0]  # (B, D)
        return F.normalize(cls, dim=-1) if self.normalize else cls

    def states(self, batch: dict[str, Tensor], positions: int | None = None) -> Tensor:
        """Return the last states of the first `positions` tokens, or of all: (B, Q, D)."""
        keep = batch.get("keep")
        x = self.gene_encoder(batch["id"]) + self.value_encoder(batch["value"])  # (B, T, D)
        *first, last = self.layers
        for layer in first:
            x = layer(x, keep)
        return last(x, keep, positions)


def build(options: Options, weights: Weights | None, seed: int) -> SequenceModel:
    """Make the model: from weights, or random over the genes of the packaged table."""
    config: dict[str, Any]
    if weights is None:
        config = dict(SPEC.variant(options.variant).sizes)
        names = (*synthetic_vocabulary("symbol"), *SPECIALS)
        vocabulary = {name: token for token, name in enumerate(names)}
    else:
        config, vocabulary = dict(weights.config), dict(weights.vocabulary)
    pad_value = config.pop("pad_value", PAD_VALUE)
    with seeded(seed):
        module = ScGPT(len(vocabulary), vocabulary[PAD], normalize=options.normalize, **config)
    if weights is not None:
        load_strict(module, weights.tensors, weights.source)
    tokenizer = Tokenizer(vocabulary, pad_value, options, seed)
    may_sample = options.overlong == "sample" and len(tokenizer.genes) >= options.max_length
    return SequenceModel(
        traits=Traits(
            dim=config["dim"],
            max_tokens=options.max_length,
            stochastic=may_sample or options.bins == "legacy",
            gene_order_matters=options.overlong == "first",
            vocabulary_size=len(tokenizer.genes),
        ),
        tokenizer=tokenizer,
        module=module.eval(),
        input_module="gene_encoder",
        padding={"id": vocabulary[PAD], "value": pad_value},
    )
