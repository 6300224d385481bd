"""The decoder of scFoundation: a vector for every gene of a cell, expressed or not.

It reads the encoder's states of the expressed genes, and for all others the vector of the value
zero, each with the vector of its gene.

Letters: B cells, T tokens, G genes, D width of the encoder, d of the decoder.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import nn

from scdrugmap.modelkit import PerformerLayer
from scdrugmap_plugin_scfoundation.tokenizer import N_DEPTHS

if TYPE_CHECKING:
    from torch import Tensor

    from scdrugmap_plugin_scfoundation.model import ScFoundation


class Decoder(nn.Module):
    """The decoder's own layers.

    Parameters
    ----------
    dim : int
        D.
    decoder_dim, decoder_heads, decoder_head_dim, decoder_layers : int
    """

    def __init__(
        self,
        dim: int,
        *,
        decoder_dim: int,
        decoder_heads: int,
        decoder_head_dim: int,
        decoder_layers: int,
    ) -> None:
        super().__init__()
        # As many random features as the original draws for heads of this width.
        n_features = int(decoder_head_dim * math.log(decoder_head_dim))
        self.embed = nn.Linear(dim, decoder_dim)
        self.layers = nn.ModuleList(
            PerformerLayer(
                decoder_dim,
                decoder_heads,
                decoder_head_dim,
                n_features,
                4 * decoder_dim,
                F.gelu,
                bias=True,
            )
            for _ in range(decoder_layers)
        )
        self.norm1, self.norm2 = nn.LayerNorm(decoder_dim), nn.LayerNorm(decoder_dim)
        self.final = nn.Linear(decoder_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, G + 2, D) to (B, G + 2, d)."""
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x)
        return self.norm2(self.norm1(x))


class GeneNetwork(nn.Module):
    """Encoder and decoder: one vector per gene of the model.

    Parameters
    ----------
    encoder : ScFoundation
    decoder : Decoder
    n_genes : int
        G; the depths have the two ids behind the genes, padding the one behind those.
    """

    def __init__(self, encoder: ScFoundation, decoder: Decoder, n_genes: int) -> None:
        super().__init__()
        self.encoder, self.decoder, self.n_genes = encoder, decoder, n_genes

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """(B, T) tokens as the encoder takes them to (B, G, d)."""
        x = self.encoder.states(batch)  # (B, T, D)
        zero = self.encoder.tokens.value(x.new_zeros(1, 1))  # (1, 1, D)
        n_places = self.n_genes + N_DEPTHS
        # One place more for padding, which all lands there and is cut off.
        full = zero.repeat(len(x), n_places + 1, 1)
        full = full.scatter(1, batch["id"].long().unsqueeze(-1).expand_as(x), x)
        full = full[:, :n_places] + self.encoder.tokens.position.weight[:n_places]
        return self.decoder(full)[:, : self.n_genes]

    def expression(self, batch: dict[str, Tensor]) -> Tensor:
        """(B, T) tokens to the expression that the network expects of each gene, (B, G)."""
        found: Tensor = self.decoder.final(self(batch))
        return found.squeeze(-1)
