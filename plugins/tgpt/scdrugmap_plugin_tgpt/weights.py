"""Published tGPT folders (``config.json``, ``tokenizer.json``, a GPT-2 file) to our names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scdrugmap.errors import WeightsError
from scdrugmap.modelkit import KeyMap, PublishedFolder, Weights
from scdrugmap.plugin import Variant
from scdrugmap_plugin_tgpt.tokenizer import SPECIALS

if TYPE_CHECKING:
    from torch import Tensor

SIZES = {
    # field of config.json: ours
    "n_embd": "dim",
    "n_head": "n_heads",
    "n_layer": "n_layers",
    "n_positions": "n_positions",
}

# What the network takes for granted; a field that is not there has this value.
REQUIRED = {
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}

DROPOUTS = ("attn_pdrop", "embd_pdrop", "resid_pdrop")

_LAYER, _OURS = r"(?:transformer\.)?h\.(\d+)\.", r"layers.\1."

KEYS = KeyMap(
    [
        (r"(?:transformer\.)?wte\.weight", "embedding.tokens.weight"),
        (r"(?:transformer\.)?wpe\.weight", "embedding.positions.weight"),
        (_LAYER + r"ln_([12])\.(weight|bias)", _OURS + r"norm\2.\3"),
        # Rows of q, k and v, in this order, once the matrix is turned.
        (
            _LAYER + r"attn\.c_attn\.(weight|bias)",
            tuple(_OURS + rf"attention.{part}_proj.\2" for part in "qkv"),
        ),
        (_LAYER + r"attn\.c_proj\.(weight|bias)", _OURS + r"attention.out_proj.\2"),
        (_LAYER + r"mlp\.c_fc\.(weight|bias)", _OURS + r"feed_forward.linear1.\2"),
        (_LAYER + r"mlp\.c_proj\.(weight|bias)", _OURS + r"feed_forward.linear2.\2"),
        (r"(?:transformer\.)?ln_f\.(weight|bias)", r"norm.\1"),
        # The causal mask, which older releases stored, and the head, which is wte once more.
        (_LAYER + r"attn\.(?:masked_)?bias", None),
        (r"lm_head\.weight", None),
    ]
)

_TURNED = re.compile(r".*\.(?:c_attn|c_proj|c_fc)\.weight")
"""GPT-2 stores these matrices as (in, out)."""


def read_published(folder: PublishedFolder, variant: Variant) -> Weights:
    """Read a folder as the authors ship it, or with the tensors as safetensors.

    Raises
    ------
    WeightsError
        A file is missing or damaged, or does not fit the others or the architecture.
    """
    config, n_tokens = _config(folder)
    vocabulary = _vocabulary(folder)
    if len(vocabulary) != n_tokens:
        raise WeightsError(
            f"{folder}: tokenizer.json has {len(vocabulary)} tokens, "
            f"but vocab_size of config.json is {n_tokens}",
            hint="all files must come from the same folder",
        )
    name = folder.first("model.safetensors", "pytorch_model.bin")
    source = f"{folder}/{name}"
    safe = name.endswith(".safetensors")
    published = folder.safetensors(name) if safe else folder.torch(name)
    if not isinstance(published, dict):
        raise WeightsError(f"{source} holds a {type(published).__name__}, not tensors by name")
    turned = {
        key: tensor.T if _TURNED.fullmatch(str(key)) and _is_matrix(tensor) else tensor
        for key, tensor in published.items()
    }
    tensors = KEYS.apply(turned, source)
    _check_sizes(tensors, config, n_tokens, source)
    return Weights(config, vocabulary, tensors, source)


def _is_matrix(tensor: Any) -> bool:
    return getattr(tensor, "ndim", 0) == 2  # the key map refuses what is no tensor


def _config(folder: PublishedFolder) -> tuple[dict[str, Any], int]:
    """Return our sizes, and the size of the vocabulary."""
    given, where = folder.json("config.json"), f"{folder}/config.json"
    if not isinstance(given, dict):
        raise WeightsError(f"{where} holds a {type(given).__name__}, not an object")
    for name, value in REQUIRED.items():
        if given.get(name, value) != value:
            raise WeightsError(f"{where}: {name} is {given[name]!r}; only {value!r} is supported")
    for name in (*SIZES, "vocab_size"):
        if name not in given:
            raise WeightsError(f"{where} does not say {name}")
        _require_count(given[name], name, where)
    config: dict[str, Any] = {ours: given[name] for name, ours in SIZES.items()}
    hidden = given.get("n_inner")
    if hidden is not None:
        _require_count(hidden, "n_inner", where)
    config["hidden"] = 4 * given["n_embd"] if hidden is None else hidden
    if config["dim"] % config["n_heads"]:
        raise WeightsError(
            f"{where}: n_embd {config['dim']} cannot be split into n_head {config['n_heads']}"
        )
    config["dropout"] = _dropout(given, where)
    return config, given["vocab_size"]


def _require_count(value: object, name: str, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise WeightsError(f"{where}: {name} is {value!r}, not a whole number from 1")


def _dropout(given: Mapping[str, Any], where: str) -> float:
    values = [given.get(name, 0.1) for name in DROPOUTS]  # 0.1 is GPT-2's default
    first = values[0]
    if isinstance(first, bool) or not isinstance(first, int | float) or not 0 <= first < 1:
        raise WeightsError(f"{where}: {DROPOUTS[0]} is {first!r}, not a number from 0 to below 1")
    if values != [first] * len(values):
        shown = ", ".join(f"{name} {value!r}" for name, value in zip(DROPOUTS, values, strict=True))
        raise WeightsError(f"{where}: {shown}; only one value for all is supported")
    return float(first)


def _vocabulary(folder: PublishedFolder) -> dict[str, int]:
    content, where = folder.json("tokenizer.json"), f"{folder}/tokenizer.json"
    model = content.get("model") if isinstance(content, dict) else None
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(model, dict) or not isinstance(vocabulary, dict):
        raise WeightsError(f"{where} holds no model with a vocab")
    kind = model.get("type", "WordLevel")
    if kind != "WordLevel":
        raise WeightsError(
            f"{where}: the tokenizer is a {kind}; that of tGPT is a WordLevel",
            hint="is this the folder of another GPT-2?",
        )
    missing = [name for name in SPECIALS if name not in vocabulary]
    if missing:
        raise WeightsError(f"{where}: the vocabulary lacks {', '.join(missing)}")
    if sorted(map(repr, vocabulary.values())) != sorted(map(repr, range(len(vocabulary)))):
        raise WeightsError(f"{where}: the token ids are not 0 to {len(vocabulary) - 1}, each once")
    return vocabulary


def _check_sizes(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], n_tokens: int, source: str
) -> None:
    """Compare with the configuration before a network of its sizes is made."""
    dim = config["dim"]
    expected = {
        "embedding.tokens.weight": (n_tokens, dim),
        "embedding.positions.weight": (config["n_positions"], dim),
        "layers.0.feed_forward.linear1.weight": (config["hidden"], dim),
    }
    for name, shape in expected.items():
        if name not in tensors:
            raise WeightsError(f"{source}: a tensor is missing: {name}")
        if tuple(tensors[name].shape) != shape:
            raise WeightsError(
                f"{source}: {name} is {tuple(tensors[name].shape)}, "
                f"but config.json makes it {shape}",
                hint="all files must come from the same folder",
            )
    layers = {name.split(".")[1] for name in tensors if name.startswith("layers.")}
    if len(layers) != config["n_layers"]:
        raise WeightsError(
            f"{source} has {len(layers)} layers, but n_layer of config.json is {config['n_layers']}",
            hint="all files must come from the same folder",
        )
