"""The encoder of scFoundation (Hao et al. 2024; xTrimoGene, Gong et al. 2023).

A token is the sum of a vector of its value and a vector of its gene. The value chooses softly among
learnt bins. Only expressed genes are tokens; the decoder, which fills in the others, is built for
vectors of genes only.

Letters: B cells, T tokens, D width, N bins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from scdrugmap.modelkit import (
    PostNormLayer,
    SequenceModel,
    Traits,
    load_strict,
    pool_mean,
    seeded,
    synthetic_vocabulary,
)
from scdrugmap_plugin_scfoundation import SPEC, Options
from scdrugmap_plugin_scfoundation.decoder import Decoder, GeneNetwork
from scdrugmap_plugin_scfoundation.tokenizer import N_DEPTHS, Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from scdrugmap.modelkit import Weights

SLOPE = 0.1
"""Slope of the leaky rectifier below zero."""

DECODER = "decoder"
"""Prefix of the tensors of the decoder, which is read for the network ``gene`` alone."""

DROPOUT = 0.1
"""Dropout while training: what torch's encoder layer takes by default."""


class ValueEncoder(nn.Module):
    """A vector per value, mixed from those of learnt bins.

    Parameters
    ----------
    dim, n_bins : int
    bin_alpha : float
        Weight of the first layer's output in the scores of the bins.
    """

    def __init__(self, dim: int, n_bins: int, bin_alpha: float) -> None:
        super().__init__()
        self.bin_alpha = bin_alpha
        self.linear1 = nn.Linear(1, n_bins)
        self.linear2 = nn.Linear(n_bins, n_bins)
        self.bins = nn.Linear(n_bins, dim, bias=False)

    def forward(self, values: Tensor) -> Tensor:
        """(B, T) values to (B, T, D)."""
        x = F.leaky_relu(self.linear1(values.unsqueeze(-1)), SLOPE)  # (B, T, N)
        share = torch.softmax(self.bin_alpha * x + self.linear2(x), -1)
        return self.bins(share)  # (B, T, D)


class TokenEncoder(nn.Module):
    """Sum of the vectors of a token's value and of its gene or depth."""

    def __init__(self, n_tokens: int, dim: int, n_bins: int, bin_alpha: float) -> None:
        super().__init__()
        self.value = ValueEncoder(dim, n_bins, bin_alpha)
        self.position = nn.Embedding(n_tokens, dim)

    def forward(self, ids: Tensor, values: Tensor) -> Tensor:
        """(B, T) token ids and values to (B, T, D)."""
        return self.value(values) + self.position(ids)


class ScFoundation(nn.Module):
    """The encoder of scFoundation.

    Parameters
    ----------
    n_tokens : int
        Genes, T, S, and padding.
    dim, n_heads, n_layers, n_bins, bin_alpha
        Sizes, see ``SIZES``.
    pool : {"all", "max"}
    """

    def __init__(
        self,
        n_tokens: int,
        *,
        dim: int,
        n_heads: int,
        n_layers: int,
        n_bins: int,
        bin_alpha: float,
        pool: str,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.tokens = TokenEncoder(n_tokens, dim, n_bins, bin_alpha)
        self.layers = nn.ModuleList(
            PostNormLayer(dim, n_heads, 4 * dim, F.relu, DROPOUT) for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Embed cells.

        Parameters
        ----------
        batch : dict
            ``id`` (B, T) int, ``value`` (B, T) float and, where cells differ in length, ``keep``
            (B, T) bool; S and T stand first.

        Returns
        -------
        (B, 4 D) float, or (B, D) with the pool ``max``
        """
        keep = batch.get("keep")
        x = self.states(batch)  # (B, T, D)
        if self.pool == "max":
            return pool_max(x, keep)
        genes = x[:, N_DEPTHS:]  # (B, T - 2, D)
        keep = None if keep is None else keep[:, N_DEPTHS:]
        parts = [x[:, 0], x[:, 1], pool_max(genes, keep), pool_mean(genes, keep)]
        return torch.cat(parts, -1)  # (B, 4 D)

    def states(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the last states of all tokens: (B, T, D)."""
        x = self.tokens(batch["id"], batch["value"])
        for layer in self.layers:
            x = layer(x, batch.get("keep"))
        return self.norm(x)


def pool_max(hidden: Tensor, keep: Tensor | None = None) -> Tensor:
    """Return the largest of each component over the kept positions: (B, T, D) to (B, D)."""
    if keep is not None:
        hidden = hidden.masked_fill(~keep.unsqueeze(-1), -torch.inf)
    return hidden.amax(1)


def build(options: Options, weights: Weights | None, seed: int) -> SequenceModel:
    """Make the model: from weights, or random over the genes of the packaged table."""
    config: dict[str, Any]
    if weights is None:
        config = dict(SPEC.variant(options.variant).sizes)
        genes = {name: token for token, name in enumerate(synthetic_vocabulary("symbol"))}
    else:
        config, genes = dict(weights.config[options.model]), dict(weights.vocabulary)
    tokenizer = Tokenizer(genes, options)
    padding = len(genes) + N_DEPTHS
    decoder_sizes = {key: config.pop(key) for key in list(config) if key.startswith("decoder_")}
    with seeded(seed):
        module = ScFoundation(padding + 1, pool=options.pool, **config)
        gene_module = None
        if options.model == "gene":
            decoder = Decoder(config["dim"], **decoder_sizes)
            gene_module = GeneNetwork(module, decoder, len(genes)).eval()
    if weights is not None:
        load_part(module, weights, options.model)
        if gene_module is not None:
            load_part(gene_module.decoder, weights, DECODER)
    n_genes = min(len(genes), options.max_genes or len(genes))
    return SequenceModel(
        traits=Traits(
            dim=config["dim"] * (4 if options.pool == "all" else 1),
            max_tokens=n_genes + N_DEPTHS,
            vocabulary_size=len(genes),
        ),
        tokenizer=tokenizer,
        module=module.eval(),
        input_module="tokens",
        padding={"id": padding, "value": 0.0},
        gene_module=gene_module,
        gene_names=tuple(genes),
    )


def load_part(module: nn.Module, weights: Weights, name: str) -> None:
    """Load the tensors of one of the published networks, strictly."""
    prefix = f"{name}."
    chosen = {
        key.removeprefix(prefix): tensor
        for key, tensor in weights.tensors.items()
        if key.startswith(prefix)
    }
    load_strict(module, chosen, f"{weights.source}, model {name}")
