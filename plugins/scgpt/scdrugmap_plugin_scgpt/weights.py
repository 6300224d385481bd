"""Published scGPT folders (``args.json``, ``vocab.json``, ``best_model.pt``) to our names."""

from __future__ import annotations

from typing import Any

from scdrugmap.errors import WeightsError
from scdrugmap.modelkit import KeyMap, PublishedFolder, Weights
from scdrugmap.plugin import Variant
from scdrugmap_plugin_scgpt.tokenizer import SPECIALS

CONFIG = {
    # field of args.json: ours
    "embsize": "dim",
    "nheads": "n_heads",
    "d_hid": "hidden",
    "nlayers": "n_layers",
    "dropout": "dropout",
    "pad_value": "pad_value",
}

# What the cell embedding of this architecture cannot do without, and what it cannot do.
REQUIRED = {"input_style": "binned", "input_emb_style": "continuous", "pad_token": "<pad>"}

_LAYER, _OURS = r"transformer_encoder\.layers\.(\d+)\.", r"layers.\1."
_ATTENTION = _LAYER + r"self_attn\.(?:_impl\.)?"  # `_impl` in files of later flash-attn releases

UNUSED = (
    "flag_encoder",
    "decoder",
    "mvc_decoder",
    "cls_decoder",
    "grad_reverse_discriminator",
    "batch_encoder",
    "dsbn",
    "bn",
)

KEYS = KeyMap(
    [
        (r"encoder\.embedding\.weight", "gene_encoder.embedding.weight"),
        (r"encoder\.enc_norm\.(weight|bias)", r"gene_encoder.norm.\1"),
        (r"value_encoder\.(linear1|linear2|norm)\.(weight|bias)", r"value_encoder.\1.\2"),
        # Rows of q, k and v, in this order: `Wqkv` of flash-attn, `in_proj_` of torch.
        (
            _ATTENTION + r"(?:Wqkv\.|in_proj_)(weight|bias)",
            tuple(_OURS + rf"attention.{part}_proj.\2" for part in "qkv"),
        ),
        (_ATTENTION + r"out_proj\.(weight|bias)", _OURS + r"attention.out_proj.\2"),
        (_LAYER + r"(linear1|linear2)\.(weight|bias)", _OURS + r"feed_forward.\2.\3"),
        (_LAYER + r"(norm1|norm2)\.(weight|bias)", _OURS + r"\2.\3"),
        # Heads of pre-training and fine-tuning, and batch corrections: not part of an embedding.
        (rf"(?:{'|'.join(UNUSED)})\..*", None),
    ]
)


def read_published(folder: PublishedFolder, variant: Variant) -> Weights:
    """Read a folder as the authors ship it; all variants have the same layout.

    Raises
    ------
    WeightsError
        A file is missing or damaged, or does not fit the others or the architecture.
    """
    config = _config(folder)
    vocabulary = _vocabulary(folder)
    published = folder.torch("best_model.pt")
    if not isinstance(published, dict):
        raise WeightsError(
            f"{folder}/best_model.pt holds a {type(published).__name__}, not tensors"
        )
    source = f"{folder}/best_model.pt"
    tensors = KEYS.apply(published, source)
    table = tensors.get("gene_encoder.embedding.weight")
    if table is not None and len(table) != len(vocabulary):
        # The original leaves the whole table random in this case.
        raise WeightsError(
            f"{source}: encoder.embedding.weight has {len(table)} rows, "
            f"but vocab.json makes {len(vocabulary)} tokens",
            hint="both files must come from the same folder of the model zoo",
        )
    return Weights(config, vocabulary, tensors, source)


def _config(folder: PublishedFolder) -> dict[str, Any]:
    args = folder.json("args.json")
    where = f"{folder}/args.json"
    if not isinstance(args, dict):
        raise WeightsError(f"{where} holds a {type(args).__name__}, not an object")
    for name, value in REQUIRED.items():
        if args.get(name, value) != value:
            raise WeightsError(f"{where}: {name} is {args[name]!r}; only {value!r} is supported")
    missing = [name for name in CONFIG if name not in args]
    if missing:
        raise WeightsError(f"{where} does not say {', '.join(missing)}")
    for name in CONFIG:
        if isinstance(args[name], bool) or not isinstance(args[name], int | float):
            raise WeightsError(f"{where}: {name} is {args[name]!r}, not a number")
    return {ours: args[name] for name, ours in CONFIG.items()}


def _vocabulary(folder: PublishedFolder) -> dict[str, int]:
    vocabulary = folder.json("vocab.json")
    where = f"{folder}/vocab.json"
    if not isinstance(vocabulary, dict):
        raise WeightsError(f"{where} holds a {type(vocabulary).__name__}, not an object")
    for special in SPECIALS:
        vocabulary.setdefault(special, len(vocabulary))
    if sorted(map(repr, vocabulary.values())) != sorted(map(repr, range(len(vocabulary)))):
        raise WeightsError(f"{where}: the token ids are not 0 to {len(vocabulary) - 1}, each once")
    return vocabulary
