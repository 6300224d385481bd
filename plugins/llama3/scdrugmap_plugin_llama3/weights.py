"""Published checkpoints of the Llama architecture to our names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scdrugmap.errors import WeightsError
from scdrugmap.modelkit import KeyMap, PublishedFolder, Weights
from scdrugmap_plugin_llama3 import INDEX

if TYPE_CHECKING:
    from torch import Tensor

    from scdrugmap.plugin import Variant

SINGLE = "model.safetensors"
HEAD = "lm_head.weight"

_LAYER = r"(?:model\.)?(layers\.\d+\."

KEYS = KeyMap(
    [
        (r"(?:model\.)?(embed_tokens\.weight|norm\.weight)", r"\1"),
        (_LAYER + r"self_attn\.[qkvo]_proj\.(?:weight|bias))", r"\1"),
        (_LAYER + r"mlp\.(?:gate|up|down)_proj\.(?:weight|bias))", r"\1"),
        (_LAYER + r"(?:input|post_attention)_layernorm\.weight)", r"\1"),
        # The head that embeddings do not use and answers need.
        (r"lm_head\.weight", HEAD),
        # Computed from the configuration; old files hold it.
        (_LAYER + r"self_attn\.rotary_emb\.inv_freq)", None),
    ]
)

SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "vocab_size",
)
"""What a configuration must say, positive integers."""

DEFAULTS: dict[str, Any] = {
    # field: what it is where the file does not say
    "num_key_value_heads": None,
    "head_dim": None,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "rope_parameters": None,
    "attention_bias": False,
    "mlp_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": None,
}


def read_published(folder: PublishedFolder, variant: Variant) -> Weights:
    """Read a checkpoint as transformers writes it: one safetensors file, or shards and their index.

    The variant decides nothing: sizes are those of ``config.json``.

    Raises
    ------
    WeightsError
        A file is missing or damaged, of another architecture or layout, or not complete.
    """
    _refuse_other_layouts(folder)
    config = _config(folder)
    vocabulary = {
        "tokenizer": _object(folder, "tokenizer.json"),
        "chat_template": _chat_template(folder),
    }
    published = _shards(folder) if (folder.root / INDEX).is_file() else folder.safetensors(SINGLE)
    source = str(folder)
    return Weights(config, vocabulary, KEYS.apply(published, source), source)


def _refuse_other_layouts(folder: PublishedFolder) -> None:
    """Say what is there where it is not what we read; no pickle is opened."""
    meta = folder.names("consolidated*.pth") or folder.names("original/consolidated*.pth")
    if (folder.root / "config.json").is_file():
        tensors = [INDEX, SINGLE]
        if not any((folder.root / name).is_file() for name in tensors):
            bins = folder.names("*.bin") or meta
            raise WeightsError(
                f"{folder}: neither {SINGLE} nor {INDEX} is there"
                + (f" ({', '.join(bins[:4])} is not read)" if bins else ""),
                hint="fetch the safetensors files of the checkpoint",
            )
        if not (folder.root / "tokenizer.json").is_file():
            raise WeightsError(
                f"{folder}: tokenizer.json is missing"
                + (
                    " (tokenizer.model is not read)"
                    if (folder.root / "tokenizer.model").is_file()
                    else ""
                ),
                hint="fetch tokenizer.json of the checkpoint",
            )
    elif meta:
        raise WeightsError(
            f"{folder} is Meta's own layout ({meta[0]}), which is not read; nothing was opened",
            hint="fetch the files beside original/: config.json, tokenizer.json and "
            "model-*.safetensors with their index",
        )


def _object(folder: PublishedFolder, name: str) -> dict[str, Any]:
    content = folder.json(name)
    if not isinstance(content, dict):
        raise WeightsError(f"{folder}/{name} holds a {type(content).__name__}, not an object")
    return content


def _config(folder: PublishedFolder) -> dict[str, Any]:
    content = _object(folder, "config.json")
    where = f"{folder}/config.json"
    kind = content.get("model_type")
    if kind != "llama":
        raise WeightsError(
            f"{where}: model_type is {kind!r}; only 'llama' is supported",
            hint="is this the folder of another model?",
        )
    if content.get("hidden_act", "silu") != "silu":
        raise WeightsError(f"{where}: hidden_act is {content['hidden_act']!r}; expected 'silu'")
    if content.get("quantization_config") is not None:
        raise WeightsError(
            f"{where}: the checkpoint is quantised already",
            hint="fetch the one in 16 bits; load_in=4bit or 8bit makes it smaller",
        )
    for size in SIZES:
        value = content.get(size)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise WeightsError(f"{where}: {size} is {value!r}, not a positive integer")
    config = {size: content[size] for size in SIZES}
    config |= {name: content.get(name, default) for name, default in DEFAULTS.items()}
    eos = config["eos_token_id"]
    config["eos_token_id"] = eos[0] if isinstance(eos, list) and eos else eos
    for name in ("bos_token_id", "eos_token_id"):
        token = config[name]
        if token is not None and (not isinstance(token, int) or token >= config["vocab_size"]):
            raise WeightsError(
                f"{where}: {name} is {token!r}; vocab_size is {config['vocab_size']:,}"
            )
    return config


def _chat_template(folder: PublishedFolder) -> str | None:
    """Return the chat template, from its own file or from the tokenizer's settings."""
    if (folder.root / "chat_template.jinja").is_file():
        return folder.text("chat_template.jinja")
    if not (folder.root / "tokenizer_config.json").is_file():
        return None
    template = _object(folder, "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):  # several by name
        named = {item.get("name"): item.get("template") for item in template if item}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _shards(folder: PublishedFolder) -> dict[str, Tensor]:
    """Read all shards of an index; every tensor must be where the index says, and none be missing."""
    index = _object(folder, INDEX)
    where = f"{folder}/{INDEX}"
    places = index.get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(p, str) for p in places.values()):
        raise WeightsError(f"{where} has no weight_map of names to files")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        found = folder.safetensors(name)
        listed = {key for key, place in places.items() if place == name}
        if listed != found.keys():
            wrong = sorted(listed ^ found.keys())
            raise WeightsError(
                f"{folder}/{name}: {len(wrong)} tensors are not as {INDEX} lists them: "
                f"{', '.join(wrong[:4])}",
                hint="fetch the index and all shards of one version again",
            )
        tensors |= found
    total = index.get("metadata", {}).get("total_size")
    seen = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if total is not None and int(total) != seen:
        raise WeightsError(
            f"{where} says {int(total):,} bytes of tensors, the shards hold {seen:,}",
            hint="fetch the index and all shards of one version again",
        )
    return tensors
