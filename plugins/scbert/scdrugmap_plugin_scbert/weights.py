"""Published scBERT folders (``panglao_pretrain.pth`` and the order of the genes) to our names.

The checkpoint does not hold its sizes; they are read off its tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scdrugmap.errors import DataError, WeightsError
from scdrugmap.modelkit import KeyMap, PublishedFolder, Weights
from scdrugmap.plugin import Variant
from scdrugmap_plugin_scbert import CHECKPOINT, GENE_LISTS

if TYPE_CHECKING:
    from torch import Tensor

_LAYER = r"(?:module\.)?performer\.net\.layers\.(\d+)\."
_ATTENTION = _LAYER + r"0\.fn\."
_OURS = r"layers.\1."
_POSITIONS = "tokens.position.weight"

KEYS = KeyMap(
    [
        (r"(?:module\.)?token_emb\.weight", "tokens.level.weight"),
        (r"(?:module\.)?pos_emb\.emb\.weight", _POSITIONS),
        (_LAYER + r"0\.norm\.(weight|bias)", _OURS + r"norm1.\2"),
        (
            _ATTENTION + r"fast_attention\.projection_matrix",
            _OURS + "attention.projection",
        ),
        (_ATTENTION + r"to_([qkv])\.weight", _OURS + r"attention.\2_proj.weight"),
        (_ATTENTION + r"to_out\.(weight|bias)", _OURS + r"attention.out_proj.\2"),
        (_LAYER + r"1\.norm\.(weight|bias)", _OURS + r"norm2.\2"),
        (_LAYER + r"1\.fn\.fn\.w([12])\.(weight|bias)", _OURS + r"feed_forward.linear\2.\3"),
        (r"(?:module\.)?norm\.(weight|bias)", r"norm.\1"),
        # Heads of pre-training and of the cell types: not part of a cell's embedding.
        (r"(?:module\.)?to_out\..*", None),
        # Steps since the projections were last drawn; here they are never drawn again.
        (r"(?:module\.)?performer\.calls_since_last_redraw", None),
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
    config = _config(tensors, source)
    tensors[_POSITIONS] = tensors[_POSITIONS].float()  # published in 64 bits
    name, genes = _genes(folder)
    n_rows = len(tensors[_POSITIONS])
    if n_rows != len(genes) + 1:
        raise WeightsError(
            f"{source}: pos_emb.emb.weight has {n_rows} rows; the {len(genes)} genes of {name} and "
            f"the closing token make {len(genes) + 1}",
            hint="the list must be that of pre-training: all of its genes, in its order",
        )
    return Weights(config, {gene: place for place, gene in enumerate(genes)}, tensors, source)


def _config(tensors: Mapping[str, Tensor], source: str) -> dict[str, int]:
    """Read the sizes off the tensors."""
    _, dim = _shape(tensors, _POSITIONS, source)
    inner, _ = _shape(tensors, "layers.0.attention.q_proj.weight", source)
    n_features, head_dim = _shape(tensors, "layers.0.attention.projection", source)
    hidden, _ = _shape(tensors, "layers.0.feed_forward.linear1.weight", source)
    if inner % head_dim:
        raise WeightsError(
            f"{source}: to_q.weight has {inner} rows, no multiple of the {head_dim} columns of "
            "projection_matrix"
        )
    numbers = {int(name.split(".")[1]) for name in tensors if name.startswith("layers.")}
    return {
        "dim": dim,
        "n_heads": inner // head_dim,
        "head_dim": head_dim,
        "n_features": n_features,
        "n_layers": len(numbers),
        "hidden": hidden,
    }


def _shape(tensors: Mapping[str, Tensor], name: str, source: str) -> tuple[int, int]:
    """Return the shape of a matrix."""
    if name not in tensors:
        raise WeightsError(
            f"{source}: {name} is missing",
            hint=f"{CHECKPOINT} as published holds it in model_state_dict",
        )
    shape = tuple(tensors[name].shape)
    if len(shape) != 2 or 0 in shape:
        raise WeightsError(f"{source}: {name} is {shape}, not a matrix")
    return shape[0], shape[1]


def _genes(folder: PublishedFolder) -> tuple[str, list[str]]:
    """Read the first list of genes that is there: its file name, and the genes in its order."""
    try:
        name = folder.first(*GENE_LISTS)
    except WeightsError as err:
        raise WeightsError(
            f"{err.message}: the order of the genes is not known",
            hint=f"{CHECKPOINT} does not hold it; fetch {GENE_LISTS[0]} from the authors, or write "
            f"the genes of pre-training in their order to {GENE_LISTS[-1]}, one a line",
        ) from err
    where = f"{folder}/{name}"
    if name.endswith(".h5ad"):
        genes: Sequence[Any] = _names_of(folder, name)
    elif name.endswith(".json"):
        genes = _ordered(folder.json(name), where)
    else:
        genes = folder.text(name).splitlines()
    seen: set[str] = set()
    for place, gene in enumerate(genes):
        if not isinstance(gene, str) or not gene.strip():
            raise WeightsError(f"{where}: gene {place + 1} is {gene!r}, not a name")
        if gene in seen:
            raise WeightsError(f"{where}: {gene} occurs twice")
        seen.add(gene)
    return name, list(genes)


def _names_of(folder: PublishedFolder, name: str) -> list[str]:
    """Read the names of the columns of an h5ad file, and nothing else of it."""
    from scdrugmap.data.frames import read_frame
    from scdrugmap.data.inspect import open_scanned, scan

    try:
        found = scan(folder.path(name))
        if "var" not in found:
            raise WeightsError(f"{folder}/{name} has no var, the table of its genes")
        with open_scanned(found) as file:
            return [str(gene) for gene in read_frame(file["var"], "var", name).index]
    except DataError as err:
        raise WeightsError(f"{folder}: {err.message}", hint=err.hint) from err


def _ordered(content: Any, where: str) -> Sequence[Any]:
    """Return the genes of a list, or of a dictionary of their positions."""
    if isinstance(content, list):
        return content
    if not isinstance(content, dict):
        raise WeightsError(f"{where} holds a {type(content).__name__}, not genes by position")
    places = content.values()
    whole = all(type(place) is int for place in places)
    if not whole or sorted(places) != list(range(len(content))):
        raise WeightsError(f"{where}: positions are not 0 to {len(content) - 1}, each once")
    return sorted(content, key=content.__getitem__)
