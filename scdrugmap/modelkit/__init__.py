"""What a model plugin builds on: tokens, gene binding, per-cell randomness, network blocks.

Names are loaded on first use, so that a tokenizer (NumPy only) does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdrugmap.lazy import lazy_names

if TYPE_CHECKING:
    from scdrugmap.data.genes import Genes
    from scdrugmap.model.batching import default_budget, plan_batches
    from scdrugmap.model.device import (
        arithmetic,
        free_memory,
        is_out_of_memory,
        resolve_device,
        resolve_precision,
    )
    from scdrugmap.modelkit.binding import bind_genes, synthetic_vocabulary
    from scdrugmap.modelkit.columns import columns_of, known_values
    from scdrugmap.modelkit.contract import CellModel, Coverage, SequenceModel, Tokenizer, Traits
    from scdrugmap.modelkit.gene_list import read_gene_list
    from scdrugmap.modelkit.keys import KeyMap, load_strict, randomize, seeded
    from scdrugmap.modelkit.layers import (
        Attention,
        FeedForward,
        PostNormLayer,
        PreNormLayer,
        pool_mean,
    )
    from scdrugmap.modelkit.padding import pad
    from scdrugmap.modelkit.performer import FavorAttention, PerformerLayer
    from scdrugmap.modelkit.performer_keys import matrix_shape, performer_rules, performer_sizes
    from scdrugmap.modelkit.published import PublishedFolder, Weights
    from scdrugmap.modelkit.randomness import cell_keys, generator, sample_tokens, token_keys
    from scdrugmap.modelkit.ranking import NamedGenes, rank_tokens
    from scdrugmap.modelkit.templates import Template, load_template, most_genes, pin_template
    from scdrugmap.modelkit.tokens import Tokens

_NAMES = {
    "Genes": "scdrugmap.data.genes",
    "default_budget": "scdrugmap.model.batching",
    "plan_batches": "scdrugmap.model.batching",
    "arithmetic": "scdrugmap.model.device",
    "free_memory": "scdrugmap.model.device",
    "is_out_of_memory": "scdrugmap.model.device",
    "resolve_device": "scdrugmap.model.device",
    "resolve_precision": "scdrugmap.model.device",
    "bind_genes": "scdrugmap.modelkit.binding",
    "synthetic_vocabulary": "scdrugmap.modelkit.binding",
    "CellModel": "scdrugmap.modelkit.contract",
    "Coverage": "scdrugmap.modelkit.contract",
    "SequenceModel": "scdrugmap.modelkit.contract",
    "Tokenizer": "scdrugmap.modelkit.contract",
    "Traits": "scdrugmap.modelkit.contract",
    "read_gene_list": "scdrugmap.modelkit.gene_list",
    "KeyMap": "scdrugmap.modelkit.keys",
    "load_strict": "scdrugmap.modelkit.keys",
    "randomize": "scdrugmap.modelkit.keys",
    "seeded": "scdrugmap.modelkit.keys",
    "columns_of": "scdrugmap.modelkit.columns",
    "known_values": "scdrugmap.modelkit.columns",
    "Attention": "scdrugmap.modelkit.layers",
    "FeedForward": "scdrugmap.modelkit.layers",
    "PostNormLayer": "scdrugmap.modelkit.layers",
    "PreNormLayer": "scdrugmap.modelkit.layers",
    "pool_mean": "scdrugmap.modelkit.layers",
    "pad": "scdrugmap.modelkit.padding",
    "FavorAttention": "scdrugmap.modelkit.performer",
    "PerformerLayer": "scdrugmap.modelkit.performer",
    "matrix_shape": "scdrugmap.modelkit.performer_keys",
    "performer_rules": "scdrugmap.modelkit.performer_keys",
    "performer_sizes": "scdrugmap.modelkit.performer_keys",
    "PublishedFolder": "scdrugmap.modelkit.published",
    "Weights": "scdrugmap.modelkit.published",
    "cell_keys": "scdrugmap.modelkit.randomness",
    "generator": "scdrugmap.modelkit.randomness",
    "sample_tokens": "scdrugmap.modelkit.randomness",
    "token_keys": "scdrugmap.modelkit.randomness",
    "NamedGenes": "scdrugmap.modelkit.ranking",
    "rank_tokens": "scdrugmap.modelkit.ranking",
    "Template": "scdrugmap.modelkit.templates",
    "load_template": "scdrugmap.modelkit.templates",
    "most_genes": "scdrugmap.modelkit.templates",
    "pin_template": "scdrugmap.modelkit.templates",
    "Tokens": "scdrugmap.modelkit.tokens",
}

__all__ = [
    "Attention",
    "CellModel",
    "Coverage",
    "FavorAttention",
    "FeedForward",
    "Genes",
    "KeyMap",
    "NamedGenes",
    "PerformerLayer",
    "PostNormLayer",
    "PreNormLayer",
    "PublishedFolder",
    "SequenceModel",
    "Template",
    "Tokenizer",
    "Tokens",
    "Traits",
    "Weights",
    "arithmetic",
    "bind_genes",
    "cell_keys",
    "columns_of",
    "default_budget",
    "free_memory",
    "generator",
    "is_out_of_memory",
    "known_values",
    "load_strict",
    "load_template",
    "matrix_shape",
    "most_genes",
    "pad",
    "performer_rules",
    "performer_sizes",
    "pin_template",
    "plan_batches",
    "pool_mean",
    "randomize",
    "rank_tokens",
    "read_gene_list",
    "resolve_device",
    "resolve_precision",
    "sample_tokens",
    "seeded",
    "synthetic_vocabulary",
    "token_keys",
]

__getattr__, __dir__ = lazy_names(__name__, _NAMES)
