"""The network of tGPT (Shen et al., iScience 2023): GPT-2, read at its last hidden states.

Tokens stand in descending order of expression, so that a position means a rank. The embedding of
a cell is the mean of the states of its genes.

Letters: B cells, T tokens, D width.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from scdrugmap.errors import UsageError
from scdrugmap.modelkit import (
    PreNormLayer,
    SequenceModel,
    Traits,
    load_strict,
    pool_mean,
    seeded,
    synthetic_vocabulary,
)
from scdrugmap_plugin_tgpt import SPEC, Options
from scdrugmap_plugin_tgpt.tokenizer import PAD, SPECIALS, Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from scdrugmap.modelkit import Weights

INITIAL_STD = 0.02
"""Spread of untrained parameters (``initializer_range`` of the published configuration)."""


class Embedding(nn.Module):
    """A vector per token and one per position.

    In training, all-zero token types came with the tokens; GPT-2 looks them up among the tokens,
    so that the vector of token 0, ``<pad>``, is part of every position and has been trained.
    """

    def __init__(
        self, n_tokens: int, n_positions: int, dim: int, dropout: float, type_token: int | None
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(n_tokens, dim)
        self.positions = nn.Embedding(n_positions, dim)
        self.dropout = nn.Dropout(dropout)
        self.type_token = type_token

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) token ids to (B, T, D)."""
        places = torch.arange(ids.shape[1], device=ids.device)
        x = self.tokens(ids) + self.positions(places)  # (B, T, D)
        if self.type_token is not None:
            x = x + self.tokens(torch.full((1,), self.type_token, device=ids.device))
        return self.dropout(x)


class TGPT(nn.Module):
    """A causal transformer over the ranked genes of a cell.

    Parameters
    ----------
    n_tokens : int
        Size of the vocabulary.
    pad : int
        Token id of padding.
    dim, n_heads, hidden, n_layers, n_positions, dropout
        Sizes, see ``SIZES``; `hidden` is the width between the two feed-forward layers.
    token_types : bool
        Add the vector of `pad` to every position.
    pool : {"genes", "all", "last"}
        What the embedding of a cell is.
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
        n_positions: int,
        dropout: float,
        token_types: bool,
        pool: Literal["genes", "all", "last"],
    ) -> None:
        super().__init__()
        self.pool = pool
        type_token = pad if token_types else None
        self.embedding = Embedding(n_tokens, n_positions, dim, dropout, type_token)
        gelu = partial(F.gelu, approximate="tanh")
        self.layers = nn.ModuleList(
            PreNormLayer(dim, n_heads, hidden, gelu, dropout, causal=True) for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all matrices as GPT-2 does: those that end a block are smaller by their number."""
        last = INITIAL_STD / math.sqrt(2 * len(self.layers))
        for name, part in self.named_modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                ends_block = name.endswith(("out_proj", "linear2"))
                nn.init.normal_(part.weight, 0.0, last if ends_block else INITIAL_STD)
            if isinstance(part, nn.Linear):
                nn.init.zeros_(part.bias)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Embed cells.

        Parameters
        ----------
        batch : dict
            ``id`` (B, T) int and, where cells differ in length, ``keep`` (B, T) bool; padding at
            the end.

        Returns
        -------
        (B, D) float
        """
        hidden, keep = self.states(batch["id"]), batch.get("keep")
        if self.pool == "all":
            return pool_mean(hidden, keep)
        if self.pool == "genes":
            return pool_mean(hidden[:, 1:], None if keep is None else keep[:, 1:])
        if keep is None:
            return hidden[:, -1]
        cells = torch.arange(len(hidden), device=hidden.device)
        return hidden[cells, keep.sum(1) - 1]

    def states(self, ids: Tensor) -> Tensor:
        """Return the last states of all positions: (B, T) token ids to (B, T, D).

        Attention is causal and padding stands at the end: no mask is needed.
        """
        x = self.embedding(ids)  # (B, T, D)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


def build(options: Options, weights: Weights | None, seed: int) -> SequenceModel:
    """Make the model: from weights, or random over the genes of the packaged table.

    Raises
    ------
    UsageError
        ``max_length`` exceeds the positions of the network.
    """
    config: dict[str, Any]
    if weights is None:
        config = dict(SPEC.variant(options.variant).sizes)
        genes = [
            name.replace("-", "_").replace(".", "_") for name in synthetic_vocabulary("symbol")
        ]
        names = dict.fromkeys((*SPECIALS, *genes))
        vocabulary = {name: token for token, name in enumerate(names)}
    else:
        config, vocabulary = dict(weights.config), dict(weights.vocabulary)
    if options.max_length > config["n_positions"]:
        raise UsageError(
            f"tgpt: max_length is {options.max_length}, "
            f"but the network has {config['n_positions']} positions"
        )
    with seeded(seed):
        module = TGPT(
            len(vocabulary),
            vocabulary[PAD],
            token_types=options.token_types,
            pool=options.pool,
            **config,
        )
    if weights is not None:
        load_strict(module, weights.tensors, weights.source)
    tokenizer = Tokenizer(vocabulary, options)
    return SequenceModel(
        traits=Traits(
            dim=config["dim"],
            max_tokens=options.max_length if options.pool == "all" else options.max_length - 1,
            gene_order_matters=options.ties == "column",
            vocabulary_size=len(tokenizer.genes),
        ),
        tokenizer=tokenizer,
        module=module.eval(),
        input_module="embedding",
        padding={"id": vocabulary[PAD]},
    )
