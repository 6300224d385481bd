"""The settings of the paper's authors per model, as data, and where this project departs from them.

Read in the public code of the paper (GitHub QSong-github/scDrugMap, commit e3a44b9): heads,
schedules, adapters and limits of its two modes, frozen embeddings and LoRA.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scdrugmap.train.settings import FineTuning

SEED = 24
"""The authors' only seed."""

HEAD = "mlp"
"""Linear(D, 512), ReLU, Linear(512, 512), ReLU, Linear(512, 2), in both modes."""

LEARNING_RATE, WEIGHT_DECAY = 1e-4, 0.01
RANK, ALPHA, DROPOUT = 8, 8.0, 0.05

_QKV = r"(q_proj|k_proj|v_proj)"


@dataclass(frozen=True)
class LoraSettings:
    """How the authors trained the adapters of one model.

    Attributes
    ----------
    published : str
        Their name for the adapted layers.
    targets : str
        The same layers here, as a regular expression that ends the name of a module.
    batch_size : int or None
        Cells of a step; None: as many as the model takes by itself.
    epochs : int
    deviations : tuple of str
        What is done otherwise here, and why.
    """

    published: str
    targets: str
    batch_size: int | None
    epochs: int
    deviations: tuple[str, ...] = ()


_OUT_PROJ = (
    "the authors' adapters on out_proj are bypassed by the attention of their code and change "
    "nothing; here they act"
)

LORA: dict[str, LoraSettings] = {
    "tgpt": LoraSettings(
        "c_attn",
        _QKV,
        128,
        2,
        ("the mean leaves padding out, and attention is masked; theirs has neither",),
    ),
    "geneformer": LoraSettings(
        "query, key, value",
        _QKV,
        10,
        3,
        (
            "starts from the pretrained model; theirs from a classifier of cardiomyopathy",
            "the mean leaves padding out, and attention is masked; theirs has neither",
        ),
    ),
    "scbert": LoraSettings(
        "to_q, to_k, to_v",
        _QKV,
        3,
        3,
        ("genes are cut by the model's own rule; theirs takes the first 6,000 columns",),
    ),
    "celllm": LoraSettings("to_q, to_k, to_v", _QKV, 10, 3),
    "cellplm": LoraSettings(
        "query_projection, key_projection, value_projection",
        _QKV,
        None,
        3,
        (
            (
                "a step has the model's own number of cells instead of 1: alone in its batch a cell "
                "sees no other, and adapters of the attention cannot learn"
            ),
            "genes are cut by the model's own rule; theirs takes the first 2,048 columns",
        ),
    ),
    "scgpt": LoraSettings(
        "out_proj",
        r"out_proj",
        256,
        3,
        (
            f"{_OUT_PROJ} (theirs act only where flash-attn is installed)",
            (
                "genes are sampled by the model's own rule; theirs takes the first 1,200 non-zero "
                "columns"
            ),
        ),
    ),
    "uce": LoraSettings(
        "out_proj",
        r"out_proj",
        80,
        3,
        (_OUT_PROJ, "every cell is read; theirs replaces the first of each file by the second"),
    ),
    "scfoundation": LoraSettings(
        "out_proj",
        r"out_proj",
        1,
        3,
        (
            _OUT_PROJ,
            (
                "genes are cut by the model's own rule; theirs takes the first 100 positions, which "
                "drops the two tokens that the embedding reads"
            ),
        ),
    ),
}
"""By model."""

_FROZEN_DEVIATIONS = {
    "llama3": (
        (
            "the head is trained for 10 epochs of batches of 128 like all others; theirs for one epoch "
            "of single cells"
        ),
        (
            "the text names the highest genes; theirs all genes in the order of columns, cut at 4,096 "
            "tokens"
        ),
    ),
}

_COMMON = (
    "predictions are made in eval mode; theirs with dropout on",
    "the cells of a fold are the same for all models; theirs differ from model to model",
)


def tuning(model: str, targets: str | None) -> FineTuning:
    """Return the authors' settings of LoRA for a model.

    Parameters
    ----------
    model : str
        One without published settings takes the authors' rates, three epochs and its own layers.
    targets : str or None
        Layers that the model adapts by default; the prefix of its names is taken from here.
    """
    known = LORA.get(model)
    return FineTuning(
        targets=None if known is None else _prefixed(known.targets, targets),
        r=RANK,
        alpha=ALPHA,
        dropout=DROPOUT,
        epochs=3 if known is None else known.epochs,
        batch_size=None if known is None else known.batch_size,
        learning_rate=LEARNING_RATE,
        head_learning_rate=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        warmup=0,
        schedule="constant",
        clip_norm=0,
        patience=0,
    )


def _prefixed(layers: str, targets: str | None) -> str:
    """Put what stands before the names of layers in a model's own expression before others."""
    prefix = "" if targets is None else targets.rpartition(r"\.")[0]
    return rf"{prefix}\.{layers}" if prefix else rf".*\.{layers}"


def deviations(
    rows: Iterable[tuple[str, str]], *, folds: int, seeds: tuple[int, ...], head: str
) -> tuple[str, ...]:
    """Say where a run departs from what the authors did, one line each.

    Parameters
    ----------
    rows : iterable of (model, strategy)
    folds : int
    seeds : tuple of int
    head : {"logistic", "mlp"}
    """
    said = list(_COMMON)
    said.append(
        f"random cells in {folds} folds; the legend of the paper's figure says 10 folds, the "
        "authors' code has one split of 80 to 20"
    )
    if seeds != (SEED,):
        said.append(f"trained with the seeds {', '.join(map(str, seeds))}; theirs is {SEED}")
    if head != HEAD:
        said.append(f"the head is {head}; theirs is a network of three layers")
    for model, strategy in rows:
        if strategy == "frozen":
            said += [f"{model}: {text}" for text in _FROZEN_DEVIATIONS.get(model, ())]
        elif strategy == "lora" and model in LORA:
            said += [f"{model} lora: {text}" for text in LORA[model].deviations]
        elif strategy == "lora":
            said.append(f"{model} lora: the authors' code has no settings for it")
        elif strategy == "full":
            said.append(f"{model} full: the authors did not train whole networks")
    return tuple(dict.fromkeys(said))
