"""The network of UCE (Rosen et al. 2023): a post-norm transformer encoder over drawn genes.

A token is a protein's vector, made narrower by a small encoder, plus a sinusoidal code of its place
in the sentence. The embedding of a cell is the decoded last state of ``<cls>``, of length 1.

Letters: B cells, R sentences, T tokens, Q queried positions, D width, P width of protein vectors,
E width of the embedding.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from scdrugmap.errors import UsageError, WeightsError
from scdrugmap.modelkit import (
    PostNormLayer,
    SequenceModel,
    Tokens,
    Traits,
    load_strict,
    pad,
    seeded,
    synthetic_vocabulary,
)
from scdrugmap_plugin_uce import SIZES, SPEC, Options, protein_file
from scdrugmap_plugin_uce.tokenizer import CLS, N_SPECIALS, PAD, Genome, Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from scdrugmap.modelkit import Weights

SYNTHETIC_CHROMOSOMES = 24
"""Equal stretches of the packaged gene table that stand in for chromosomes."""

TABLE = "tokens.weight"

_LEAST_NORM = 1e-12


class TokenEncoder(nn.Module):
    """Makes protein vectors as wide as the network.

    It depends on the token alone, so the network holds a table of its results instead.
    """

    def __init__(self, protein_dim: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(protein_dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, proteins: Tensor) -> Tensor:
        """(..., P) to (..., D)."""
        return self.norm(F.gelu(self.linear(F.normalize(proteins, dim=-1, eps=_LEAST_NORM))))


class DecoderBlock(nn.Module):
    """Linear layer, normalisation, activation, dropout."""

    def __init__(self, width: int, out: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(width, out)
        self.norm = nn.LayerNorm(out)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., out)."""
        return self.dropout(F.gelu(self.norm(self.linear(x))))


class UCE(nn.Module):
    """The network of UCE without its pre-training head, over a table of encoded tokens.

    Parameters
    ----------
    n_tokens : int
        Special tokens, genes and chromosomes.
    dim, n_heads, hidden, decoder_dim, out_dim, n_layers, n_positions, dropout
        Sizes, see ``SIZES``; `hidden` is the width between two feed-forward layers.
    n_samples : int
        Sentences per cell.
    masked : bool
        False: padding is not masked; attention to it is raised by 1, as in the original.
    """

    positions: Tensor

    def __init__(
        self,
        n_tokens: int,
        *,
        dim: int,
        n_heads: int,
        hidden: int,
        decoder_dim: int,
        out_dim: int,
        n_layers: int,
        n_positions: int,
        dropout: float,
        n_samples: int = 1,
        masked: bool = True,
    ) -> None:
        super().__init__()
        self.n_samples = n_samples
        self.masked = masked
        self.scale = math.sqrt(dim)
        self.tokens = nn.Embedding(n_tokens, dim)
        self.register_buffer("positions", sinusoids(n_positions, dim))
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            PostNormLayer(dim, n_heads, hidden, F.relu, dropout) for _ in range(n_layers)
        )
        self.decoder = nn.Sequential(
            DecoderBlock(dim, decoder_dim, dropout),
            DecoderBlock(decoder_dim, out_dim, dropout),
            DecoderBlock(out_dim, out_dim, dropout),
            nn.Linear(out_dim, out_dim),
        )

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Embed cells.

        Parameters
        ----------
        batch : dict
            ``id`` (R, T) int, the sentences of each cell one after the other, and, where they
            differ in length, ``keep`` (R, T) bool; ``<cls>`` stands first.

        Returns
        -------
        (B, E) float
            Of length 1.
        """
        decoded = self.decoder(self.states(batch, positions=1)[:, 0])  # (R, E)
        unit = F.normalize(decoded, dim=-1, eps=_LEAST_NORM)
        if self.n_samples == 1:
            return unit
        mean = unit.unflatten(0, (-1, self.n_samples)).mean(1)  # (B, E)
        return F.normalize(mean, dim=-1, eps=_LEAST_NORM)

    def states(self, batch: dict[str, Tensor], positions: int | None = None) -> Tensor:
        """Return the last states of the first `positions` tokens, or of all: (R, Q, D)."""
        ids, keep = batch["id"], batch.get("keep")
        x = self.tokens(ids) * self.scale + self.positions[: ids.shape[1]]  # (R, T, D)
        x = self.dropout(x)
        if keep is not None and not self.masked:
            keep = (~keep).to(x.dtype)  # numbers are added to the scores of attention
        *first, last = self.layers
        for layer in first:
            x = layer(x, keep)
        return last(x, keep, positions)


def sinusoids(n_positions: int, dim: int) -> Tensor:
    """Return the code of each position (Vaswani et al. 2017): (n_positions, dim) float32."""
    position = torch.arange(n_positions, dtype=torch.float32).unsqueeze(1)
    angle = position * torch.exp(torch.arange(0, dim, 2) * (-math.log(10000.0) / dim))
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :dim]


class Sentences(SequenceModel):
    """A model whose cells have several sentences each, which are padded one by one."""

    def collate(self, tokens: Tokens) -> dict[str, Tensor]:
        """Pad to the longest sentence."""
        ids = tokens.flat["id"]
        start = np.append(np.flatnonzero(ids == CLS), len(ids)).astype(np.int64)
        return pad(Tokens(start, {"id": ids}, {}), self.padding)


def build(options: Options, weights: Weights | None, seed: int) -> SequenceModel:
    """Make the model: from weights, or random over the genes of the packaged table.

    Raises
    ------
    UsageError
        The options contradict each other or the sizes of the network.
    WeightsError
        The weights do not have the species, or do not fit.
    """
    tensors: dict[str, Tensor] = {}
    config: dict[str, Any]
    if weights is None:
        config = dict(SPEC.variant(options.variant).sizes)
        genome, n_tokens = _synthetic_genome()
    else:
        config = {"n_heads": SIZES["n_heads"], **weights.config}
        genome, table = _of_species(weights, options.species)
        n_tokens, tensors = len(table), {**weights.tensors, TABLE: table}
    config["n_heads"] = options.nhead or config["n_heads"]
    tokenizer = Tokenizer(genome, options, seed)
    longest = _longest(options, len(tokenizer.chromosomes), config)
    with seeded(seed):
        module = UCE(
            n_tokens,
            n_samples=options.n_samples,
            masked=options.padding == "mask",
            **config,
        )
    if weights is not None:
        load_strict(module, tensors, weights.source)
    return Sentences(
        traits=Traits(
            dim=config["out_dim"],
            max_tokens=options.n_samples * longest,
            stochastic=True,
            gene_order_matters=options.sampler == "legacy",
            vocabulary_size=len(tokenizer.genes),
        ),
        tokenizer=tokenizer,
        module=module.eval(),
        input_module="tokens",
        padding={"id": PAD},
    )


def _longest(options: Options, n_chromosomes: int, config: dict[str, Any]) -> int:
    """Return the tokens of the longest sentence, after a look at the options."""
    dim, n_heads = config["dim"], config["n_heads"]
    if dim % n_heads:
        raise UsageError(
            f"uce: a network {dim} wide cannot have {n_heads} attention heads",
            hint="set nhead to the number that it was trained with",
        )
    limit = min(options.pad_length, config["n_positions"])
    shortest = 1 + options.sample_size + 2  # <cls>, genes, and one chromosome's two tokens
    if shortest > limit:
        raise UsageError(
            f"uce: sample_size={options.sample_size} makes sentences of at least {shortest:,} "
            f"tokens; at most {limit:,} are read",
            hint="lower sample_size, or raise pad_length",
        )
    return min(limit, 1 + options.sample_size + 2 * min(n_chromosomes, options.sample_size))


def _synthetic_genome() -> tuple[Genome, int]:
    symbols = tuple(name.upper() for name in synthetic_vocabulary("symbol"))
    place = np.arange(len(symbols))
    chromosomes = place * SYNTHETIC_CHROMOSOMES // len(symbols)
    return (
        Genome(symbols, chromosomes, place),
        N_SPECIALS + len(symbols) + SYNTHETIC_CHROMOSOMES,
    )


def _of_species(weights: Weights, species: str) -> tuple[Genome, Tensor]:
    """Return a species' genes, and the rows of the token table that are read for it."""
    known = weights.vocabulary["species"]
    if species not in known:
        raise WeightsError(
            f"{weights.source}: no genes of {species} (there are: {', '.join(known)})",
            hint=f"add {protein_file(species)} to the published folder, and import it again",
        )
    genes = known[species]
    genome = Genome(
        tuple(genes["symbols"]),
        np.array(genes["chromosomes"], np.int64),
        np.array(genes["starts"], np.int64),
    )
    table, first = weights.tensors[TABLE], N_SPECIALS
    n_genes = [len(entry["symbols"]) for entry in known.values()]
    n_chromosomes = len(table) - N_SPECIALS - sum(n_genes)
    first += sum(n_genes[: list(known).index(species)])
    parts = [table[:N_SPECIALS], table[first : first + len(genome.symbols)]]
    return genome, torch.cat([*parts, table[len(table) - n_chromosomes :]])
