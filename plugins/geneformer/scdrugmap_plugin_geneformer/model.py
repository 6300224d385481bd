"""The network of Geneformer (Theodoris et al., Nature 2023): a BERT encoder over ranked genes.

A token is the sum of a gene's vector and that of its rank. The embedding of a cell is the state of
``<cls>`` (V2) or the mean over its genes, in the second-to-last layer unless told otherwise.

Letters: B cells, T tokens, Q read positions, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from scdrugmap.errors import UsageError
from scdrugmap.modelkit import (
    PostNormLayer,
    SequenceModel,
    Traits,
    load_strict,
    pad,
    pool_mean,
    seeded,
    synthetic_vocabulary,
)
from scdrugmap_plugin_geneformer import SPEC, Options
from scdrugmap_plugin_geneformer.tokenizer import CLS, PAD, SPECIALS, Tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from scdrugmap.modelkit import Tokens, Weights

N_TYPES = 2
"""Kinds of segments of BERT; only the first is used."""

SPREAD = 0.02
"""Standard deviation of random tensors (``initializer_range`` of all published checkpoints)."""


class Embeddings(nn.Module):
    """A vector per gene and rank."""

    def __init__(
        self, n_tokens: int, pad: int, *, dim: int, n_positions: int, dropout: float, eps: float
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(n_tokens, dim, padding_idx=pad)
        self.positions = nn.Embedding(n_positions, dim)
        self.types = nn.Embedding(N_TYPES, dim)
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) token ids to (B, T, D)."""
        ranks = torch.arange(ids.shape[1], device=ids.device)  # (T,)
        place = self.positions(ranks) + self.types(torch.zeros_like(ranks))  # (T, D)
        return self.dropout(self.norm(self.words(ids) + place))


class Geneformer(nn.Module):
    """The encoder of Geneformer without its pre-training head.

    Parameters
    ----------
    n_tokens : int
        Genes and special tokens.
    pad : int
        Token id of padding.
    uncounted : sequence of int
        Tokens that the mean over a cell leaves out; empty: it counts all positions.
    emb_mode : {"cls", "cell"}
        Read the first position, or average.
    dim, hidden, n_heads, n_layers, n_positions, dropout, attention_dropout, eps
        Sizes, see ``VARIANTS``; `hidden` is the width between the two feed-forward layers.
    """

    def __init__(
        self,
        n_tokens: int,
        pad: int,
        *,
        uncounted: Sequence[int],
        emb_mode: str,
        dim: int,
        hidden: int,
        n_heads: int,
        n_layers: int,
        n_positions: int,
        dropout: float,
        attention_dropout: float,
        eps: float,
    ) -> None:
        super().__init__()
        self.uncounted = tuple(uncounted)
        self.emb_mode = emb_mode
        self.embeddings = Embeddings(
            n_tokens, pad, dim=dim, n_positions=n_positions, dropout=dropout, eps=eps
        )
        self.layers = nn.ModuleList(
            PostNormLayer(
                dim,
                n_heads,
                hidden,
                F.relu,
                dropout,
                attention_dropout=attention_dropout,
                inner_dropout=0.0,
                eps=eps,
            )
            for _ in range(n_layers)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all tensors as the original does."""
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                nn.init.normal_(part.weight, 0.0, SPREAD)
            if isinstance(part, nn.Linear):
                nn.init.zeros_(part.bias)
        with torch.no_grad():
            self.embeddings.words.weight[self.embeddings.words.padding_idx] = 0

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Embed cells.

        Parameters
        ----------
        batch : dict
            ``id`` (B, T) int and, where cells differ in length, ``keep`` (B, T) bool.

        Returns
        -------
        (B, D) float
        """
        if self.emb_mode == "cls":
            return self.states(batch, positions=1)[:, 0]  # (B, D)
        counted = torch.ones_like(batch["id"], dtype=torch.bool)  # (B, T)
        for token in self.uncounted:
            counted &= batch["id"] != token
        return pool_mean(self.states(batch), counted)

    def states(self, batch: dict[str, Tensor], positions: int | None = None) -> Tensor:
        """Return the last states of the first `positions` tokens, or of all: (B, Q, D)."""
        keep = batch.get("keep")
        x = self.embeddings(batch["id"])  # (B, T, D)
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            x = layer(x, keep, positions if number == last else None)
        return x


@dataclass
class FullLengthModel(SequenceModel):
    """Pads every cell to the longest sequence, and lets the network see the padding."""

    def collate(self, tokens: Tokens) -> dict[str, Tensor]:
        """Pad to ``traits.max_tokens``; no mask."""
        ids = pad(tokens, self.padding)["id"]
        width = self.traits.max_tokens or ids.shape[1]
        return {"id": F.pad(ids, (0, width - ids.shape[1]), value=self.padding["id"])}

    def cost(self, tokens: Tokens) -> np.ndarray:
        """(n,) int64, the same for all cells."""
        return np.full(tokens.n_cells, self.traits.max_tokens, np.int64)


def build(options: Options, weights: Weights | None, seed: int) -> SequenceModel:
    """Make the model: from weights, or random over the genes of the packaged table."""
    vocabulary: Mapping[str, Any]
    if weights is None:
        config: dict[str, Any] = dict(SPEC.variant(options.variant).sizes)
        vocabulary = _random_vocabulary(config["generation"])
    else:
        config, vocabulary = dict(weights.config), weights.vocabulary
    specials = {name: vocabulary["tokens"][name] for name in SPECIALS[config.pop("generation")]}
    legacy = options.padding == "legacy"
    with seeded(seed):
        module = Geneformer(
            len(vocabulary["tokens"]),
            specials[PAD],
            uncounted=() if legacy else tuple(specials.values()),
            emb_mode=_mode(options, has_cls=CLS in specials),
            **config,
        )
    if weights is not None:
        load_strict(module, weights.tensors, weights.source)
    if options.emb_layer == -1:
        module.layers = module.layers[:-1]
    tokenizer = Tokenizer(vocabulary, config["n_positions"])
    return (FullLengthModel if legacy else SequenceModel)(
        traits=Traits(
            dim=config["dim"],
            max_tokens=config["n_positions"],
            vocabulary_size=len(tokenizer.genes),
        ),
        tokenizer=tokenizer,
        module=module.eval(),
        input_module="embeddings",
        padding={"id": specials[PAD]},
    )


def _mode(options: Options, *, has_cls: bool) -> str:
    if options.emb_mode == "auto":
        return "cls" if has_cls else "cell"
    if options.emb_mode == "cls" and not has_cls:
        raise UsageError(
            "geneformer: emb_mode=cls, but models of the first generation (V1) have no <cls>",
            hint="leave emb_mode out, or say emb_mode=cell",
        )
    return options.emb_mode


def _random_vocabulary(generation: int) -> dict[str, Any]:
    genes = synthetic_vocabulary("ensembl")
    names = (*SPECIALS[generation], *genes)
    return {
        "tokens": {name: token for token, name in enumerate(names)},
        "medians": dict.fromkeys(genes, 1.0),
        "mapping": {},
        "symbols": {},
    }
