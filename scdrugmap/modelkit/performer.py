"""Attention that is linear in the tokens (FAVOR+, Choromanski et al. 2021, the Performer).

The softmax kernel is estimated from random features of queries and keys. Keys are summed up once
per head; each query then reads that sum. Tokens go through in tiles, so that the features, by far
the largest arrays, never exist for all tokens at once.

Letters: B cells, T tokens, t tokens of a tile, D width, H heads, d width of a head, M features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import nn

from scdrugmap.modelkit.layers import FeedForward

if TYPE_CHECKING:
    from torch import Tensor

Stabilizer = Literal["cell", "batch"]

FLOOR = 1e-4
"""Added to every feature after the exponential; with it, the largest key matters."""

CPU_TILE, GPU_TILE = 700_000, 2**26
"""Features of a tile: what a processor keeps in its cache, and what fills a graphics card."""


class FavorAttention(nn.Module):
    """Multi-head self-attention through random features of the softmax kernel.

    The projection onto features is a buffer: weights are adapted to the one they were trained
    with, so it is saved with them and never drawn again.

    Parameters
    ----------
    dim, n_heads, head_dim, n_features : int
        D, H, d and M; H d need not be D.
    stabilizer : {"cell", "batch"}
        Over what the maximum is taken that is subtracted from the exponents of the keys: over all
        heads, tokens and features of a cell, or of all cells of the batch, as some originals do;
        a cell's result then depends on the others.
    bias : bool
        Whether queries, keys and values have one.
    """

    projection: Tensor

    def __init__(
        self,
        dim: int,
        n_heads: int,
        head_dim: int,
        n_features: int,
        stabilizer: Stabilizer = "cell",
        *,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.n_heads, self.head_dim = n_heads, head_dim
        self.stabilizer = stabilizer
        inner = n_heads * head_dim
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(dim, inner, bias) for _ in "qkv")
        self.out_proj = nn.Linear(inner, dim)
        self.register_buffer("projection", torch.empty(n_features, head_dim))  # (M, d)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the projection: orthogonal rows with the lengths of Gaussian ones."""
        n_features, d = self.projection.shape
        blocks = [_random_rotation(d) for _ in range(-(-n_features // d))]
        lengths = torch.randn(n_features, d).norm(dim=1, keepdim=True)  # (M, 1)
        self.projection.copy_(torch.cat(blocks)[:n_features] * lengths)

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """(B, T, D) to (B, T, D); `weight` as :meth:`summarise` takes it."""
        tiles = x.split(self.tile(x), 1)
        context = self.summarise(tiles, weight)
        return torch.cat([self.read(part, context) for part in tiles], 1)

    def tile(self, x: Tensor) -> int:
        """Return how many tokens of `x` (B, T, D) to take at once."""
        most = CPU_TILE if x.device.type == "cpu" else GPU_TILE
        return max(1, most // (len(x) * self.n_heads * len(self.projection)))

    def summarise(self, tiles: Iterable[Tensor], weight: Tensor | None = None) -> Tensor:
        """Sum keys and values up.

        The exponentials are kept relative to the largest exponent so far and scaled down when a
        larger one comes; the result is that of a maximum known beforehand.

        Parameters
        ----------
        tiles : iterable of (B, t, D) float
        weight : (B, T, 2) float, optional
            How much the value of each key counts, and the key itself in the denominator; None: 1
            and 1. A token of weight (n, n) stands for n equal ones, (0, n) for n without a value,
            and (0, 0) for none. All take part in the maximum: one of (0, 0) must equal another.

        Returns
        -------
        (B, H, M, d + 1) float32 or float64
            Sum over keys of feature times value; in the last column, of the features.
        """
        summed: tuple[Tensor, Tensor, Tensor] | None = None
        start = 0
        for x in tiles:
            k, v = _wide(self._heads(self.k_proj(x))), _wide(self._heads(self.v_proj(x)))
            with torch.autocast(x.device.type, enabled=False):
                exponent, offset = self._exponents(k)  # (B, H, t, M), (B, H, t, 1)
                if weight is None:
                    v = F.pad(v, (0, 1), value=1.0)  # (B, H, t, d + 1)
                else:
                    part = weight[:, None, start : start + x.shape[1]]  # (B, 1, t, 2)
                    of_key = part[..., 1:].expand(-1, self.n_heads, -1, -1)  # (B, H, t, 1)
                    v = torch.cat([v * part[..., :1], of_key], -1)  # (B, H, t, d + 1)
                    start += x.shape[1]
                peak = exponent.amax((1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
                if self.stabilizer == "batch":
                    peak = peak.amax(0, keepdim=True)
                if summed is not None:
                    peak = torch.maximum(summed[0], peak)
                total = torch.sub(exponent, offset + peak).exp_().mT @ v  # (B, H, M, d + 1)
                values = v.sum(2, keepdim=True)  # (B, H, 1, d + 1)
                if summed is not None:
                    total = summed[1] * torch.exp(summed[0] - peak) + total
                    values = summed[2] + values
                summed = peak, total, values
        if summed is None:
            raise ValueError("there are no keys to sum up")
        _, total, values = summed
        return total + FLOOR * values

    def read(self, x: Tensor, context: Tensor) -> Tensor:
        """Attend from some tokens to all that were summed up.

        Parameters
        ----------
        x : (B, t, D) float
        context : (B, H, M, d + 1) float
            From :meth:`summarise`.

        Returns
        -------
        (B, t, D) float
        """
        q = _wide(self._heads(self.q_proj(x)))  # (B, H, t, d)
        with torch.autocast(x.device.type, enabled=False):
            exponent, offset = self._exponents(q)
            offset = offset + exponent.amax(-1, keepdim=True)
            y = torch.sub(exponent, offset).exp_() @ context  # (B, H, t, d + 1)
            y = y + FLOOR * context.sum(2, keepdim=True)
            y = y[..., :-1] / y[..., -1:]  # (B, H, t, d)
        return self.out_proj(y.transpose(1, 2).flatten(2).to(x.dtype))

    def _heads(self, x: Tensor) -> Tensor:
        """(B, t, H d) to (B, H, t, d)."""
        return x.unflatten(-1, (self.n_heads, self.head_dim)).transpose(1, 2)

    def _exponents(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, t, d) to the exponents (B, H, t, M), and what each token takes off them."""
        scale = self.head_dim**-0.25
        exponent = F.linear(x, scale * self.projection.to(x.dtype))
        return exponent, x.square().sum(-1, keepdim=True) * (scale**2 / 2)


class PerformerLayer(nn.Module):
    """Layer with :class:`FavorAttention` that normalises what enters each block.

    Parameters
    ----------
    dim, n_heads, head_dim, n_features, stabilizer, bias
        See :class:`FavorAttention`.
    hidden : int
        Width between the two feed-forward layers.
    activation : callable
    """

    def __init__(
        self,
        dim: int,
        n_heads: int,
        head_dim: int,
        n_features: int,
        hidden: int,
        activation: Callable[[Tensor], Tensor],
        stabilizer: Stabilizer = "cell",
        *,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = FavorAttention(dim, n_heads, head_dim, n_features, stabilizer, bias=bias)
        self.feed_forward = FeedForward(dim, hidden, activation)

    def forward(
        self, x: Tensor, weight: Tensor | None = None, *, rows: slice | None = None
    ) -> Tensor:
        """Transform all tokens, or only some, which read the others all the same.

        Parameters
        ----------
        x : (B, T, D) float
        weight : (B, T, 2) float, optional
            See :meth:`FavorAttention.summarise`.
        rows : slice, optional
            Q of the tokens; None: all T.

        Returns
        -------
        (B, Q, D) float
        """
        tiles = x.split(self.attention.tile(x), 1)
        context = self.attention.summarise((self.norm1(part) for part in tiles), weight)
        if rows is not None:
            return self._transform(x[:, rows], context)
        return torch.cat([self._transform(part, context) for part in tiles], 1)

    def _transform(self, x: Tensor, context: Tensor) -> Tensor:
        x = x + self.attention.read(self.norm1(x), context)
        return x + self.feed_forward(self.norm2(x))


def _wide(x: Tensor) -> Tensor:
    """Return at least float32: features near the floor mean nothing with fewer digits."""
    return x if x.dtype == torch.float64 else x.float()


def _random_rotation(d: int) -> Tensor:
    """Draw an orthogonal matrix, (d, d), from the uniform distribution."""
    q, r = torch.linalg.qr(torch.randn(d, d))
    # The factorisation picks signs by its own rule: without this, rows cover half of the sphere.
    return q * r.diagonal().sign()
