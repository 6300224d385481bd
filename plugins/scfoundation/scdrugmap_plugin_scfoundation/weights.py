"""Published scFoundation folders (``models.ckpt`` and the gene list) to our names.

The checkpoint holds three networks of one architecture: for cells (``cell``), for read depth
(``rde``) and for genes (``gene``). The decoder is read for the third only: the vectors of cells that
the others are used for do without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scdrugmap.errors import WeightsError
from scdrugmap.modelkit import KeyMap, PublishedFolder, Weights
from scdrugmap.plugin import Variant
from scdrugmap_plugin_scfoundation import CHECKPOINT, GENES
from scdrugmap_plugin_scfoundation.tokenizer import N_DEPTHS

if TYPE_CHECKING:
    from torch import Tensor

MODELS = ("cell", "rde", "gene")

ARCHITECTURE = "mae_autobin"

ENCODER = {"hidden_dim": "dim", "heads": "n_heads", "depth": "n_layers"}
"""Field of the encoder's configuration: ours."""

DECODER = {
    "hidden_dim": "decoder_dim",
    "heads": "decoder_heads",
    "dim_head": "decoder_head_dim",
    "depth": "decoder_layers",
}
"""Field of the decoder's configuration: ours."""

_BINS, _POSITIONS = "tokens.value.bins.weight", "tokens.position.weight"
_LAYER = r"model\.encoder\.transformer_encoder\.(\d+)\."
_OURS = r"layers.\1."

KEYS = KeyMap(
    [
        (r"model\.token_emb\.mlp\.(weight|bias)", r"tokens.value.linear1.\1"),
        (r"model\.token_emb\.mlp2\.(weight|bias)", r"tokens.value.linear2.\1"),
        (r"model\.token_emb\.emb\.weight", _BINS),
        (r"model\.pos_emb\.weight", _POSITIONS),
        (
            _LAYER + r"self_attn\.in_proj_(weight|bias)",
            tuple(_OURS + rf"attention.{part}_proj.\2" for part in "qkv"),
        ),
        (_LAYER + r"self_attn\.out_proj\.(weight|bias)", _OURS + r"attention.out_proj.\2"),
        (_LAYER + r"(linear1|linear2)\.(weight|bias)", _OURS + r"feed_forward.\2.\3"),
        (_LAYER + r"(norm1|norm2)\.(weight|bias)", _OURS + r"\2.\3"),
        (r"model\.encoder\.norm\.(weight|bias)", r"norm.\1"),
        # Values 102 and 103, which no logarithm of counts reaches: masks of training, and padding.
        (r"model\.token_emb\.emb_(?:mask|pad)\.weight", None),
        # The decoder: see below.
        (r"model\.(?:decoder|decoder_embed|norm|to_final)\..*", None),
    ]
)

_DECODER = r"model\.decoder\.performer\.net\.layers\.(\d+)\."

DECODER_KEYS = KeyMap(
    [
        (r"model\.decoder_embed\.(weight|bias)", r"embed.\1"),
        (_DECODER + r"0\.norm\.(weight|bias)", _OURS + r"norm1.\2"),
        (
            _DECODER + r"0\.fn\.fast_attention\.projection_matrix",
            _OURS + "attention.projection",
        ),
        (_DECODER + r"0\.fn\.to_([qkv])\.(weight|bias)", _OURS + r"attention.\2_proj.\3"),
        (_DECODER + r"0\.fn\.to_out\.(weight|bias)", _OURS + r"attention.out_proj.\2"),
        (_DECODER + r"1\.norm\.(weight|bias)", _OURS + r"norm2.\2"),
        (_DECODER + r"1\.fn\.fn\.w([12])\.(weight|bias)", _OURS + r"feed_forward.linear\2.\3"),
        (r"model\.decoder\.norm\.(weight|bias)", r"norm1.\1"),
        (r"model\.norm\.(weight|bias)", r"norm2.\1"),
        (r"model\.to_final\.(weight|bias)", r"final.\1"),
        # Steps since the projections were last drawn; here they are never drawn again.
        (r"model\.decoder\.performer\.calls_since_last_redraw", None),
        (r"model\.(?:encoder|token_emb|pos_emb)\..*", None),
    ]
)


def read_published(folder: PublishedFolder, variant: Variant) -> Weights:
    """Read a folder as the authors ship it.

    Raises
    ------
    WeightsError
        A file is missing or damaged, or does not fit the other or the architecture.
    """
    genes = _genes(folder)
    source = f"{folder}/{CHECKPOINT}"
    published = folder.torch(CHECKPOINT)
    configs: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    for model in MODELS:
        content = _part(published, model, source)
        where = f"{source}, model {model}"
        configs[model] = _config(_part(content, "config", where), where)
        of_model = KEYS.apply(_part(content, "state_dict", where), where)
        positions = of_model.get(_POSITIONS)
        n_rows = len(genes) + N_DEPTHS + 1
        if positions is not None and len(positions) != n_rows:
            raise WeightsError(
                f"{where}: pos_emb.weight has {len(positions)} rows; the {len(genes)} genes of "
                f"{GENES}, two depths and padding make {n_rows}",
                hint="both files must be of the same release",
            )
        if _BINS in of_model:  # the shares of the bins are multiplied with it from the left
            of_model[_BINS] = of_model[_BINS].mT.contiguous()
        tensors.update({f"{model}.{key}": tensor for key, tensor in of_model.items()})
        if model == "gene":
            configs[model] |= _decoder_config(_part(content, "config", where), where)
            decoder = DECODER_KEYS.apply(_part(content, "state_dict", where), where)
            tensors.update({f"decoder.{key}": tensor for key, tensor in decoder.items()})
    return Weights(configs, genes, tensors, source)


def _part(content: Any, name: str, where: str) -> Mapping[str, Any]:
    """Return an entry, which must be a dictionary, of what must be one, too."""
    if not isinstance(content, Mapping) or name not in content:
        there = ", ".join(map(str, content)) if isinstance(content, Mapping) else "no dictionary"
        raise WeightsError(
            f"{where}: {name} is missing (there is: {there[:200] or 'nothing'})",
            hint=f"{CHECKPOINT} as published holds gene, cell and rde, each with config and "
            "state_dict",
        )
    part = content[name]
    if not isinstance(part, Mapping):
        raise WeightsError(f"{where}: {name} is a {type(part).__name__}, not a dictionary")
    return part


def _config(published: Mapping[str, Any], where: str) -> dict[str, int | float]:
    kind = published.get("model")
    if kind != ARCHITECTURE:
        raise WeightsError(f"{where}: model is {kind!r}; only {ARCHITECTURE!r} is supported")
    network = _part(_part(published, "model_config", where), ARCHITECTURE, where)
    encoder = _part(network, "encoder", where)
    kind = encoder.get("module_type")
    if kind != "transformer":
        raise WeightsError(f"{where}: the encoder is a {kind!r}; only 'transformer' is supported")
    config: dict[str, int | float] = {
        ours: _whole(encoder, name, where) for name, ours in ENCODER.items()
    }
    if config["dim"] % config["n_heads"]:
        raise WeightsError(
            f"{where}: hidden_dim {config['dim']} is no multiple of heads {config['n_heads']}"
        )
    alpha = network.get("bin_alpha")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise WeightsError(f"{where}: bin_alpha is {alpha!r}, not a number")
    return {**config, "n_bins": _whole(network, "bin_num", where), "bin_alpha": float(alpha)}


def _decoder_config(published: Mapping[str, Any], where: str) -> dict[str, int]:
    network = _part(_part(published, "model_config", where), ARCHITECTURE, where)
    decoder = _part(network, "decoder", where)
    kind = decoder.get("module_type")
    if kind != "performer":
        raise WeightsError(f"{where}: the decoder is a {kind!r}; only 'performer' is supported")
    return {ours: _whole(decoder, name, where) for name, ours in DECODER.items()}


def _whole(config: Mapping[str, Any], name: str, where: str) -> int:
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise WeightsError(f"{where}: {name} is {value!r}, not a whole number above 0")
    return value


def _genes(folder: PublishedFolder) -> dict[str, int]:
    """Read the gene list: name to row, in the order of the file, which is not the alphabet's."""
    lines = folder.text(GENES).splitlines()
    where = f"{folder}/{GENES}"
    if not lines or lines[0].split("\t") != ["gene_name", "index"]:
        raise WeightsError(
            f"{where} begins with {lines[0][:80] if lines else 'nothing'!r}, not with "
            "gene_name and index, tab-separated"
        )
    genes: dict[str, int] = {}
    for row, line in enumerate(lines[1:]):
        name, _, index = line.partition("\t")
        if not name or index != str(row):
            raise WeightsError(f"{where}: line {row + 2} is {line[:80]!r}, not a gene and {row}")
        if name in genes:
            raise WeightsError(f"{where}: line {row + 2}: {name} occurs twice")
        genes[name] = row
    return genes
