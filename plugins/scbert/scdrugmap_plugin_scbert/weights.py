"""Published scBERT folders (``panglao_pretrain.pth`` and the order of the genes) to our names.

The checkpoint does not hold its sizes; they are read off its tensors.
"""

from __future__ import annotations

from collections.abc import Mapping

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
from scdrugmap_plugin_scbert import CHECKPOINT, GENE_LISTS

_PREFIX = r"(?:module\.)?"
_POSITIONS = "tokens.position.weight"

KEYS = KeyMap(
    [
        (_PREFIX + r"token_emb\.weight", "tokens.level.weight"),
        (_PREFIX + r"pos_emb\.emb\.weight", _POSITIONS),
        *performer_rules(_PREFIX),
        (_PREFIX + r"norm\.(weight|bias)", r"norm.\1"),
        # Heads of pre-training and of the cell types: not part of a cell's embedding.
        (_PREFIX + r"to_out\..*", None),
    ]
)


def read_published(folder: PublishedFolder, variant: Variant) -> Weights:
    """Read a folder as the authors ship it.

    Raises
    ------
    WeightsError
        A file is missing or damaged, or does not fit the other or the architecture.
    """
    source = f"{folder}/{CHECKPOINT}"
    content = folder.torch(CHECKPOINT)
    # Copies by others hold the tensors alone.
    state = content.get("model_state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping):
        raise WeightsError(f"{source} holds a {type(state).__name__}, not named tensors")
    tensors = KEYS.apply(state, source)
    config = performer_sizes(tensors, source)
    n_rows, _ = matrix_shape(tensors, _POSITIONS, source)
    tensors[_POSITIONS] = tensors[_POSITIONS].float()  # published in 64 bits
    name, genes = read_gene_list(
        folder,
        GENE_LISTS,
        f"{CHECKPOINT} does not hold it; fetch {GENE_LISTS[0]} from the authors, or write the "
        f"genes of pre-training in their order to {GENE_LISTS[-1]}, one a line",
    )
    if n_rows != len(genes) + 1:
        raise WeightsError(
            f"{source}: pos_emb.emb.weight has {n_rows} rows; the {len(genes)} genes of {name} and "
            f"the closing token make {len(genes) + 1}",
            hint="the list must be that of pre-training: all of its genes, in its order",
        )
    return Weights(config, {gene: place for place, gene in enumerate(genes)}, tensors, source)
