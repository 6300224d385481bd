"""Published CellLM folders (checkpoint, ``cellLM.json`` and the order of the genes) to our names.

The sizes are read off the tensors, and the configuration must agree with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scdrugmap.errors import WeightsError
from scdrugmap.modelkit import (
    KeyMap,
    PublishedFolder,
    Weights,
    matrix_shape,
    performer_rules,
    performer_sizes,
    read_gene_list,
)
from scdrugmap.plugin import Variant
from scdrugmap_plugin_celllm import CHECKPOINTS, CONFIG, GENE_LISTS
from scdrugmap_plugin_celllm.tokenizer import N_SPECIALS

_PREFIX = r"(?:module\.)?(?:encoder\.)?"
_LEVELS, _GENES = "tokens.level.weight", "tokens.gene.weight"

KEYS = KeyMap(
    [
        (_PREFIX + r"token_emb\.weight", _LEVELS),
        (_PREFIX + r"pos_emb\.emb\.weight", _GENES),
        *performer_rules(_PREFIX),
        (_PREFIX + r"norm\.(weight|bias)", r"norm.\1"),
        # Heads of pre-training and of tasks: not part of a cell's embedding.
        (_PREFIX + r"to_out\..*", None),
        (r"(?:module\.)?(?:conv|pred_head)\..*", None),
    ]
)

DECLARED = {
    "num_tokens": "n_levels",
    "dim": "dim",
    "depth": "n_layers",
    "heads": "n_heads",
    "gene_num": "n_genes",
}
"""Fields of the configuration that repeat a size of the tensors."""

LEAST = {"num_tokens": N_SPECIALS + 1}
"""Smallest sizes of which a network can be made, where it is not 1."""

AS_BUILT = {
    "g2v_position_emb": True,
    "local_attn_heads": 0,
    "causal": False,
    "reversible": False,
    "ff_glu": False,
    "generalized_attention": False,
    "use_scalenorm": False,
    "use_rezero": False,
    "cross_attend": False,
    "no_projection": False,
    "tie_embed": False,
    "qkv_bias": False,
    "emb_dropout": 0,
    "ff_dropout": 0,
    "attn_dropout": 0,
}
"""Arguments of the original's constructor that make another network if they are not these."""


def read_published(folder: PublishedFolder, variant: Variant) -> Weights:
    """Read a folder as the authors ship it, with the list of genes beside it.

    Raises
    ------
    WeightsError
        A file is missing or damaged, or does not fit the others or the architecture.
    """
    structure = _structure(folder)
    checkpoint = _checkpoint(folder)
    source = f"{folder}/{checkpoint}"
    content = folder.torch(checkpoint)
    state = content.get("model_state_dict") if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping):
        raise WeightsError(
            f"{source} holds no dictionary model_state_dict of tensors",
            hint="is this the checkpoint as its authors publish it?",
        )
    tensors = KEYS.apply(state, source)
    name, genes = read_gene_list(
        folder,
        GENE_LISTS,
        f"no file of the authors names them: write the symbols to {GENE_LISTS[0]}, one a line, in "
        f"the order of gene2vec, which is that of the columns of {GENE_LISTS[1]}",
    )
    n_rows, _ = matrix_shape(tensors, _GENES, source)
    if n_rows != len(genes) + N_SPECIALS:
        raise WeightsError(
            f"{source}: pos_emb.emb.weight has {n_rows} rows; the {len(genes)} genes of {name}, CLS "
            f"and padding make {len(genes) + N_SPECIALS}",
            hint="the list must be that of pre-training: all of its genes, in its order",
        )
    n_levels, _ = matrix_shape(tensors, _LEVELS, source)
    config = {**performer_sizes(tensors, source), "n_levels": n_levels}
    _require_declared(structure, {**config, "n_genes": len(genes)}, folder, checkpoint)
    tensors[_GENES] = tensors[_GENES].float()  # published in 64 bits
    config["max_seq_len"] = _whole(structure, "max_seq_len", folder, 2)
    return Weights(config, {gene: place for place, gene in enumerate(genes)}, tensors, source)


def _checkpoint(folder: PublishedFolder) -> str:
    """Return the one checkpoint of the folder; several cannot be told apart by the configuration."""
    there = [name for name in CHECKPOINTS if name in folder.names("*.pth")]
    if len(there) > 1:
        raise WeightsError(
            f"{folder} holds several checkpoints: {', '.join(there)}",
            hint="give each a folder of its own",
        )
    return folder.first(*CHECKPOINTS)


def _structure(folder: PublishedFolder) -> Mapping[str, Any]:
    """Return the part of the configuration that says what network it is."""
    part = folder.json(CONFIG)
    for name in ("network", "structure"):
        part = part.get(name) if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping):
        raise WeightsError(f"{folder}/{CONFIG}: network.structure is missing")
    if part.get("name", "celllm") != "celllm":
        raise WeightsError(f"{folder}/{CONFIG} describes {part['name']!r}, not 'celllm'")
    for name, expected in AS_BUILT.items():
        if part.get(name, expected) != expected:
            raise WeightsError(
                f"{folder}/{CONFIG}: {name} is {part[name]!r}; only {expected!r} is supported"
            )
    return part


def _require_declared(
    structure: Mapping[str, Any], sizes: Mapping[str, int], folder: PublishedFolder, checkpoint: str
) -> None:
    """Raise unless the configuration names the sizes that the tensors have."""
    for name, ours in DECLARED.items():
        declared = _whole(structure, name, folder, LEAST.get(name, 1))
        if declared != sizes[ours]:
            raise WeightsError(
                f"{folder}: {CONFIG} says {name} {declared}, but {checkpoint} has {sizes[ours]}",
                hint="both files must be of the same release",
            )


def _whole(structure: Mapping[str, Any], name: str, folder: PublishedFolder, least: int = 1) -> int:
    value = structure.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise WeightsError(
            f"{folder}/{CONFIG}: {name} is {value!r}, not a whole number of at least {least}"
        )
    return value
