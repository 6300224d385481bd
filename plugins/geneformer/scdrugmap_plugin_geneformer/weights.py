"""Published Geneformer folders (a model's own, and the dictionaries beside it) to our names."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scdrugmap.errors import WeightsError
from scdrugmap.modelkit import KeyMap, PublishedFolder, Weights
from scdrugmap_plugin_geneformer import (
    CORPUS,
    DICTIONARIES,
    DICTIONARY_FOLDERS,
    FOLDERS,
    SPEC,
)
from scdrugmap_plugin_geneformer.tokenizer import CLS, SPECIALS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scdrugmap.plugin import Variant

CONFIG = {
    # field of config.json: ours
    "hidden_size": "dim",
    "intermediate_size": "hidden",
    "num_attention_heads": "n_heads",
    "num_hidden_layers": "n_layers",
    "max_position_embeddings": "n_positions",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "layer_norm_eps": "eps",
}
SIZES = ("dim", "hidden", "n_heads", "n_layers", "n_positions")
"""What tells published checkpoints apart."""

# What this architecture cannot do without.
REQUIRED = {
    "model_type": "bert",
    "hidden_act": "relu",
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
}

_LAYER, _OURS = r"bert\.encoder\.layer\.(\d+)\.", r"layers.\1."

KEYS = KeyMap(
    [
        (r"bert\.embeddings\.(word|position)_embeddings\.weight", r"embeddings.\1s.weight"),
        (r"bert\.embeddings\.token_type_embeddings\.weight", "embeddings.types.weight"),
        (r"bert\.embeddings\.LayerNorm\.(weight|bias)", r"embeddings.norm.\1"),
        *(
            (
                _LAYER + rf"attention\.self\.{theirs}\.(weight|bias)",
                _OURS + rf"attention.{theirs[0]}_proj.\2",
            )
            for theirs in ("query", "key", "value")
        ),
        (_LAYER + r"attention\.output\.dense\.(weight|bias)", _OURS + r"attention.out_proj.\2"),
        (_LAYER + r"attention\.output\.LayerNorm\.(weight|bias)", _OURS + r"norm1.\2"),
        (_LAYER + r"intermediate\.dense\.(weight|bias)", _OURS + r"feed_forward.linear1.\2"),
        (_LAYER + r"output\.dense\.(weight|bias)", _OURS + r"feed_forward.linear2.\2"),
        (_LAYER + r"output\.LayerNorm\.(weight|bias)", _OURS + r"norm2.\2"),
        # 0 to T - 1 in old files, and the heads of pre-training and of classifiers.
        (r"bert\.embeddings\.position_ids", None),
        (r"cls\.predictions\..*", None),
        (r"(?:bert\.pooler\.dense|classifier)\.(?:weight|bias)", None),
    ]
)


def read_published(folder: PublishedFolder, variant: Variant) -> Weights:
    """Read the authors' repository, or one model's folder of it.

    The dictionaries may lie in the model's folder, or up to two folders above it, there or in
    ``geneformer/``.

    Raises
    ------
    WeightsError
        A file is missing or damaged, or does not fit the others, the variant or the architecture.
    """
    generation = int(variant.sizes["generation"])
    model = _model_folder(folder, variant)
    home, place, ending = _dictionaries(folder, model, generation)
    # The files are named from where the dictionaries are, whichever folder was given.
    files = PublishedFolder(home, folder.opened)
    own = model.relative_to(home).as_posix() + "/"
    own = "" if own == "./" else own
    config, n_tokens = _config(files, own + "config.json", variant)
    vocabulary = _vocabulary(files, place, ending)
    _check_generation(files, vocabulary["tokens"], n_tokens, place, ending, variant)
    name = own + PublishedFolder(model).first("model.safetensors", "pytorch_model.bin")
    published = files.safetensors(name) if name.endswith(".safetensors") else files.torch(name)
    source = f"{files}/{name}"
    if not isinstance(published, dict):
        raise WeightsError(f"{source} holds a {type(published).__name__}, not tensors")
    tensors = KEYS.apply(published, source)
    return Weights({**config, "generation": generation}, vocabulary, tensors, source)


def _model_folder(folder: PublishedFolder, variant: Variant) -> Path:
    """Return the folder of the variant's ``config.json``."""
    root = folder.root.resolve()
    for name in FOLDERS[variant.name]:
        if (root / name / "config.json").is_file():
            return root / name
    if (root / "config.json").is_file():
        return root
    there = [other for other, names in FOLDERS.items() if any((root / n).is_dir() for n in names)]
    raise WeightsError(
        f"{folder}: {' or '.join(FOLDERS[variant.name])} with config.json is missing",
        hint=f"it holds variant {', '.join(there)}: choose it (variant={there[0]})"
        if there
        else "name the repository's folder, or that of one model",
    )


def _dictionaries(folder: PublishedFolder, model: Path, generation: int) -> tuple[Path, str, str]:
    """Find the token dictionary: the folder to start from, the way from there, the name's end."""
    named, plain = f"_{CORPUS[generation]}.pkl", (".pkl", ".json")
    for home in _homes(folder, model):
        for place in (f"{DICTIONARY_FOLDERS[generation]}/", "geneformer/", ""):
            for ending in (named, *plain):
                if (home / f"{place}{DICTIONARIES[0]}{ending}").is_file():
                    return home, place, ending
    raise WeightsError(
        f"{model}: no {DICTIONARIES[0]}{named}, neither in it nor in "
        f"{DICTIONARY_FOLDERS[generation]} beside it",
        hint="fetch the dictionaries too and keep the folders of the repository; if this is a "
        "model of the other generation, choose its variant (`scdrugmap models show geneformer`)",
    )


def _homes(folder: PublishedFolder, model: Path) -> Iterator[Path]:
    """Yield the model's folder and those above it, up to the one that was given, or two."""
    root = folder.root.resolve()
    for home in (model, *model.parents[:2]):
        yield home
        if home == root != model:
            return


def _config(files: PublishedFolder, name: str, variant: Variant) -> tuple[dict[str, Any], int]:
    """Read the sizes and the number of tokens."""
    content = files.json(name)
    where = f"{files}/{name}"
    if not isinstance(content, dict):
        raise WeightsError(f"{where} holds a {type(content).__name__}, not an object")
    for field, value in REQUIRED.items():
        if content.get(field, value) != value:
            raise WeightsError(
                f"{where}: {field} is {content[field]!r}; only {value!r} is supported"
            )
    fields = (*CONFIG, "vocab_size")
    missing = [field for field in fields if field not in content]
    if missing:
        raise WeightsError(f"{where} does not say {', '.join(missing)}")
    for field in fields:
        if isinstance(content[field], bool) or not isinstance(content[field], int | float):
            raise WeightsError(f"{where}: {field} is {content[field]!r}, not a number")
    config = {ours: content[field] for field, ours in CONFIG.items()}
    for other in SPEC.variants:
        if _same_sizes(config, other) and not _same_sizes(config, variant):
            raise WeightsError(
                f"{where} is of {other.name} (width {config['dim']}, {config['n_layers']} "
                f"layers), not of {variant.name}",
                hint=f"choose variant={other.name}, or another folder",
            )
    return config, int(content["vocab_size"])


def _same_sizes(config: dict[str, Any], variant: Variant) -> bool:
    return all(config[size] == variant.sizes[size] for size in SIZES)


def _vocabulary(files: PublishedFolder, place: str, ending: str) -> dict[str, Any]:
    """Read the four dictionaries; the last two may be missing in old repositories."""
    tokens_name, medians_name, *others = (f"{place}{name}{ending}" for name in DICTIONARIES)
    tokens = _read(files, tokens_name)
    if sorted(map(repr, tokens.values())) != sorted(map(repr, range(len(tokens)))):
        raise WeightsError(
            f"{files}/{tokens_name}: the token ids are not 0 to {len(tokens) - 1}, each once"
        )
    medians = {gene: m for gene, m in _read(files, medians_name).items() if gene in tokens}
    for gene, median in medians.items():
        number = isinstance(median, int | float) and not isinstance(median, bool)
        if not number or not (0 < median < math.inf):
            raise WeightsError(
                f"{files}/{medians_name}: the median of {gene} is {median!r}, not positive"
            )
    mapping, symbols = (
        {
            str(other): gene
            for other, gene in (_read(files, name) if (files.root / name).exists() else {}).items()
            if isinstance(gene, str) and gene in medians and other != gene
        }
        for name in others
    )
    return {"tokens": tokens, "medians": medians, "mapping": mapping, "symbols": symbols}


def _read(files: PublishedFolder, name: str) -> dict[str, Any]:
    content = files.json(name) if name.endswith(".json") else files.pickle(name)
    if not isinstance(content, dict):
        raise WeightsError(f"{files}/{name} holds a {type(content).__name__}, not a dictionary")
    return content


def _check_generation(
    files: PublishedFolder,
    tokens: dict[str, int],
    n_tokens: int,
    place: str,
    ending: str,
    variant: Variant,
) -> None:
    """Refuse dictionaries of the other generation: they would run, and mean nothing."""
    where = f"{files}/{place}{DICTIONARIES[0]}{ending}"
    if len(tokens) != n_tokens:
        raise WeightsError(
            f"{where} has {len(tokens):,} tokens, config.json says {n_tokens:,}: they are of "
            "different models",
            hint="choose the variant of this folder (`scdrugmap models show geneformer`), and "
            "keep the dictionaries of each generation in their own folder",
        )
    generation = int(variant.sizes["generation"])
    missing = [name for name in SPECIALS[generation] if name not in tokens]
    if missing or (generation == 1 and CLS in tokens):
        raise WeightsError(
            f"{where} {'lacks ' + ', '.join(missing) if missing else f'has {CLS}'}: it is not of "
            f"generation {generation}, as {variant.name} is",
            hint="choose the variant of this folder (`scdrugmap models show geneformer`)",
        )
