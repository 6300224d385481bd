"""The network of CellPLM (Wen et al. 2024): a transformer whose sequence is a list of cells.

A cell is one vector: the sum of its genes' vectors, weighted by log counts. The cells of a sample
attend to each other (Flowformer, Wu et al., ICML 2022: linear in their number), so an embedding
depends on the cells that are sent together. There is neither position nor mask nor padding.

Letters: B cells of a batch, G genes that many of them express, S sequences, N cells of a sequence, D width,
H heads, d = D/H, K clusters, E width of the embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from scdrugmap.modelkit import (
    FeedForward,
    SequenceModel,
    Tokens,
    Traits,
    load_strict,
    seeded,
    synthetic_vocabulary,
)
from scdrugmap_plugin_cellplm import MIXTURE, SPEC, Options
from scdrugmap_plugin_cellplm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from scdrugmap.modelkit import Weights

NORM_GROUPS = 4
"""Groups of features that are normalised together; no published file states them."""

JOINT_WIDTH = 512
"""Width of the layer that joins state and cluster, whatever the sizes of the rest."""

ATTENTION_DROPOUT = 0.01

DENSE_SHARE = 1 / 16
"""Genes that a larger share of a batch's cells express are summed by a dense product, the others
one by one; at this share both take the same time on a processor. Speed only."""

_LEAST = 1e-6


class GeneEncoder(nn.Module):
    """Sums the vectors of a cell's genes."""

    def __init__(self, n_genes: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(n_genes, dim, mode="sum")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the vectors as the original does."""
        nn.init.normal_(self.embedding.weight, std=0.005)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return (B, D) of the batch that :meth:`Samples.collate` makes."""
        dtype = self.embedding.weight.dtype
        table = self.embedding(batch["gene"].unsqueeze(1))  # (G, D)
        values = table.new_zeros(len(batch["start"]), len(table))  # (B, G)
        values[batch["row"], batch["place"]] = batch["value"].to(dtype)
        rare = self.embedding(batch["rare"], batch["start"], batch["rare_value"].to(dtype))
        return values @ table + rare


class Embedder(nn.Module):
    """Makes of a sum of genes what the encoder reads."""

    def __init__(self, n_genes: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.genes = GeneEncoder(n_genes, dim)
        self.linear = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.GroupNorm(NORM_GROUPS, dim)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return (B, D) of a batch."""
        return self.norm(self.dropout(F.relu(self.linear(self.genes(batch)))))


class FlowAttention(nn.Module):
    """Attention as conserved flow between cells, in time linear in their number."""

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(dim, dim) for _ in range(4)
        )
        self.dropout = nn.Dropout(ATTENTION_DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """(S, N, D) to (S, N, D)."""
        q, k, v = (self._heads(part(x)) for part in (self.q_proj, self.k_proj, self.v_proj))
        with torch.autocast(x.device.type, enabled=False):
            y = flow(q.sigmoid(), k.sigmoid(), v)  # (S, H, N, d)
        return self.dropout(self.out_proj(y.transpose(1, 2).flatten(2)))

    def _heads(self, x: Tensor) -> Tensor:
        # Half precision does not suffice for inverse sums over thousands of cells.
        full = x.to(torch.promote_types(x.dtype, torch.float32))
        return full.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # (S, H, N, d)


def flow(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Let flow from sources `k`, `v` into sinks `q`, each of unit capacity.

    Parameters
    ----------
    q, k : (S, H, N, d) float
        Positive.
    v : (S, H, N, d) float

    Returns
    -------
    (S, H, N, d) float
    """
    incoming = 1 / _dot(q, k.sum(2, keepdim=True))  # (S, H, N, 1)
    outgoing = 1 / _dot(k, q.sum(2, keepdim=True))
    sinks = _dot(q, (k * outgoing).sum(2, keepdim=True))
    sources = _dot(k, (q * incoming).sum(2, keepdim=True)).clamp(-1, 1)
    allocation = sinks.sigmoid()
    competition = sources.softmax(2) * q.shape[2]
    content = k.transpose(2, 3) @ (v * competition)  # (S, H, d, d)
    return (q * incoming) @ content * allocation


def _dot(a: Tensor, total: Tensor) -> Tensor:
    return ((a + _LEAST) * (total + _LEAST)).sum(-1, keepdim=True)


class FlowLayer(nn.Module):
    """A layer of the encoder; it normalises what enters each block."""

    def __init__(self, dim: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = FlowAttention(dim, n_heads)
        self.feed_forward = FeedForward(dim, 2 * dim, F.gelu, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(S, N, D) to (S, N, D)."""
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


class Clusters(nn.Module):
    """Latent space of a mixture: each cell is embedded as a member of one cluster, or of all.

    Parameters
    ----------
    dim, out_dim, n_clusters : int
    expected : bool
        Average over the clusters instead of choosing one.
    """

    def __init__(self, dim: int, out_dim: int, n_clusters: int, *, expected: bool) -> None:
        super().__init__()
        self.expected = expected
        self.logits = nn.Linear(dim, n_clusters)
        self.joint = nn.Linear(dim + n_clusters, JOINT_WIDTH)
        self.mean = nn.Linear(JOINT_WIDTH, out_dim)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Embed states.

        Parameters
        ----------
        x : (B, D) float
        noise : (B, K) float, optional
            Added to the logits before the largest is chosen.

        Returns
        -------
        (B, E) float
        """
        logits = self.logits(x)  # (B, K)
        soft = (logits if noise is None else logits + noise).softmax(-1)
        if self.expected:
            one_hot = torch.eye(soft.shape[1], dtype=x.dtype, device=x.device)
            # The last layer is linear, so it may follow the average.
            parts = [
                share.unsqueeze(-1) * self._join(x, cluster.expand(len(x), -1))
                for share, cluster in zip(soft.unbind(1), one_hot, strict=True)
            ]
            return self.mean(torch.stack(parts).sum(0))
        hard = F.one_hot(soft.argmax(-1), soft.shape[1])
        # Value of the choice, gradient of the probabilities, as in the original.
        return self.mean(self._join(x, hard + (soft - soft.detach())))

    def _join(self, x: Tensor, cluster: Tensor) -> Tensor:
        return F.relu(self.joint(torch.cat([x, cluster.to(x.dtype)], -1)))  # (B, JOINT_WIDTH)


class CellPLM(nn.Module):
    """The network of CellPLM without what only its pre-training needs.

    Parameters
    ----------
    n_genes : int
    dim, n_heads, n_layers, out_dim, n_clusters, latent, dropout
        Sizes, see ``SIZES``.
    context : int, optional
        Most cells of a sequence; None: a batch is one sequence.
    expected : bool
        See :class:`Clusters`.
    """

    def __init__(
        self,
        n_genes: int,
        *,
        dim: int,
        n_heads: int,
        n_layers: int,
        out_dim: int,
        n_clusters: int,
        latent: str,
        dropout: float,
        context: int | None = None,
        expected: bool = False,
    ) -> None:
        super().__init__()
        self.context = context
        self.embedder = Embedder(n_genes, dim, dropout)
        self.layers = nn.ModuleList(FlowLayer(dim, n_heads, dropout) for _ in range(n_layers))
        self.norm = nn.LayerNorm(dim)
        self.latent = (
            Clusters(dim, out_dim, n_clusters, expected=expected)
            if latent == MIXTURE
            else nn.Linear(dim, out_dim)
        )

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Embed the cells of one sample.

        Parameters
        ----------
        batch : dict
            Of :meth:`Samples.collate`.

        Returns
        -------
        (B, E) float
        """
        x = self.states(batch)
        if isinstance(self.latent, Clusters):
            return self.latent(x, batch.get("noise"))
        return self.latent(x)

    def states(self, batch: dict[str, Tensor]) -> Tensor:
        """Return what the latent space reads: (B, D)."""
        return self.norm(self.encode(self.embedder(batch)))

    def encode(self, x: Tensor) -> Tensor:
        """Let cells see each other, within windows if there are any: (B, D) to (B, D)."""
        size = min(self.context or len(x), len(x))
        whole = len(x) // size * size
        windows = [x[:whole].unflatten(0, (-1, size)), x[whole:].unsqueeze(0)]
        encoded = []
        for window in windows if whole < len(x) else windows[:1]:
            for layer in self.layers:
                window = layer(window)  # (S, N, D)
            encoded.append(window.flatten(0, 1))
        return torch.cat(encoded)


class Samples(SequenceModel):
    """A model whose batches are samples of cells."""

    def collate(self, tokens: Tokens) -> dict[str, Tensor]:
        """Part genes that many of these cells express from rare ones.

        Parameters
        ----------
        tokens : Tokens
            B cells.

        Returns
        -------
        dict of str to tensor
            ``gene`` (G,), the frequent genes; per token of theirs ``row``, ``place`` (in
            ``gene``) and ``value``; per other token ``rare`` (the gene) and ``rare_value``, those
            of a cell from ``start`` (B,) on; ``noise`` (B, K) where clusters are drawn.
        """
        ids, value, n_cells = tokens.flat["id"], tokens.flat["value"], tokens.n_cells
        count = np.bincount(ids, minlength=self.traits.vocabulary_size)
        is_frequent = count > n_cells * DENSE_SHARE
        frequent = is_frequent.take(ids)
        rare = ~frequent
        batch = {
            "gene": np.flatnonzero(is_frequent),
            "row": np.repeat(np.arange(n_cells), tokens.lengths)[frequent],
            "place": (np.cumsum(is_frequent) - 1).take(ids[frequent]),
            "value": value[frequent],
            "rare": ids[rare].astype(np.int64),
            "rare_value": value[rare],
            "start": np.concatenate([[0], np.cumsum(rare)])[tokens.start[:-1]],
        }
        if "noise" in tokens.cell:
            batch["noise"] = tokens.cell["noise"]
        return {name: torch.from_numpy(array) for name, array in batch.items()}


def build(options: Options, weights: Weights | None, seed: int) -> SequenceModel:
    """Make the model: from weights, or random over the genes of the packaged table."""
    config: dict[str, Any]
    if weights is None:
        config = dict(SPEC.variant(options.variant).sizes)
        names = synthetic_vocabulary("ensembl")
        vocabulary = {name: token for token, name in enumerate(names)}
    else:
        config, vocabulary = dict(weights.config), dict(weights.vocabulary)
    has_clusters = config["latent"] == MIXTURE
    n_draws = config["n_clusters"] if has_clusters and options.cluster == "sampled" else 0
    with seeded(seed):
        module = CellPLM(
            len(vocabulary),
            context=options.context,
            expected=options.cluster == "expected",
            **config,
        )
    if weights is not None:
        load_strict(module, weights.tensors, weights.source)
    return Samples(
        traits=Traits(
            dim=config["out_dim"],
            max_tokens=options.max_genes,
            stochastic=n_draws > 0,
            gene_order_matters=options.max_genes is not None,
            vocabulary_size=len(vocabulary),
        ),
        tokenizer=Tokenizer(vocabulary, options.max_genes, n_draws, seed),
        module=module.eval(),
        input_module="embedder.genes",
    )
