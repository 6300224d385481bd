"""Network blocks that several models share.

Letters: B cells, T tokens, Q queried positions, D width, H heads, d = D/H.
Every parameter is used by calling its module, so that low-rank adapters always act.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class Attention(nn.Module):
    """Multi-head self-attention with separate projections.

    Parameters
    ----------
    dim : int
        Width D.
    n_heads : int
        Number of heads H; divides `dim`.
    dropout : float
        Dropout of the attention weights while training.
    causal : bool
        Each position attends to itself and those before it. Padding at the end then changes
        nothing before it, so that `keep` is not needed, nor taken.
    """

    def __init__(
        self, dim: int, n_heads: int, dropout: float = 0.0, *, causal: bool = False
    ) -> None:
        super().__init__()
        if dim % n_heads:
            raise ValueError(f"width {dim} cannot be split into {n_heads} heads")
        self.n_heads = n_heads
        self.dropout = dropout
        self.causal = causal
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(dim, dim) for _ in range(4)
        )

    def forward(self, x: Tensor, keep: Tensor | None = None, query: Tensor | None = None) -> Tensor:
        """Attend from `query` (default: all positions) to `x`.

        Parameters
        ----------
        x : (B, T, D) float
        keep : (B, T) bool or float, optional
            True for positions that may be attended to; numbers are added to the scores; None: all.
        query : (B, Q, D) float, optional
            The first Q positions of `x`, if the attention is causal.

        Returns
        -------
        (B, Q, D) float
        """
        q = self._heads(self.q_proj(x if query is None else query))  # (B, H, Q, d)
        k, v = self._heads(self.k_proj(x)), self._heads(self.v_proj(x))  # 2 x (B, H, T, d)
        mask = None if keep is None else keep[:, None, None, :]  # (B, 1, 1, T)
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=self.causal)
        return self.out_proj(y.transpose(1, 2).flatten(2))  # (B, Q, D)

    def _heads(self, x: Tensor) -> Tensor:
        B, T, D = x.shape
        return x.view(B, T, self.n_heads, D // self.n_heads).transpose(1, 2)  # (B, H, T, d)


class FeedForward(nn.Module):
    """Two linear layers with an activation between them, applied to each position."""

    def __init__(
        self, dim: int, hidden: int, activation: Callable[[Tensor], Tensor], dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.activation = activation
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


class PostNormLayer(nn.Module):
    """Transformer encoder layer that normalises after each residual sum (Vaswani et al. 2017).

    Parameters
    ----------
    dim, n_heads, hidden : int
        Width, heads, and width between the two feed-forward layers.
    activation : callable
    dropout : float
        Dropout of what is added to the residual, and of the two below unless they are given.
    attention_dropout, inner_dropout : float, optional
        Dropout of the attention weights, and between the two feed-forward layers.
    eps : float
        Added to the variance by the normalisations.
    """

    def __init__(
        self,
        dim: int,
        n_heads: int,
        hidden: int,
        activation: Callable[[Tensor], Tensor],
        dropout: float = 0.0,
        *,
        attention_dropout: float | None = None,
        inner_dropout: float | None = None,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        of_attention = dropout if attention_dropout is None else attention_dropout
        inner = dropout if inner_dropout is None else inner_dropout
        self.attention = Attention(dim, n_heads, of_attention)
        self.feed_forward = FeedForward(dim, hidden, activation, inner)
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=eps), nn.LayerNorm(dim, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, keep: Tensor | None = None, positions: int | None = None
    ) -> Tensor:
        """Transform all positions, or only the first `positions` of them.

        The last layer of a model that reads position 0 needs no other: keys and values come from
        all positions, queries and the feed-forward part only from the first.

        Parameters
        ----------
        x : (B, T, D) float
        keep : (B, T) bool, optional
        positions : int, optional
            Q; None: all T.

        Returns
        -------
        (B, Q, D) float
        """
        query = x if positions is None else x[:, :positions]  # (B, Q, D)
        y = self.norm1(query + self.dropout(self.attention(x, keep, query)))
        return self.norm2(y + self.dropout(self.feed_forward(y)))


class PreNormLayer(nn.Module):
    """Transformer layer that normalises what enters each block (Radford et al. 2019, GPT-2).

    Parameters
    ----------
    dim, n_heads, hidden : int
        Width D, heads H, and the width between the two feed-forward layers.
    activation : callable
    dropout : float
        Of the attention weights and of what each block adds, while training.
    causal : bool
        See :class:`Attention`.
    """

    def __init__(
        self,
        dim: int,
        n_heads: int,
        hidden: int,
        activation: Callable[[Tensor], Tensor],
        dropout: float = 0.0,
        *,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, n_heads, dropout, causal=causal)
        self.feed_forward = FeedForward(dim, hidden, activation)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B, T, D) to (B, T, D); `keep` (B, T) as :class:`Attention` takes it."""
        x = x + self.dropout(self.attention(self.norm1(x), keep))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


def pool_mean(hidden: Tensor, keep: Tensor | None = None) -> Tensor:
    """Average the states of each cell.

    Parameters
    ----------
    hidden : (B, T, D) float
        Last hidden states.
    keep : (B, T) bool, optional
        False for padding and special tokens; None: all positions count.

    Returns
    -------
    (B, D) float
        Every cell has at least one kept position: cells without a usable gene never get here.
    """
    if keep is None:
        return hidden.mean(1)
    weight = keep.unsqueeze(-1).to(hidden.dtype)  # (B, T, 1)
    return (hidden * weight).sum(1) / weight.sum(1)
