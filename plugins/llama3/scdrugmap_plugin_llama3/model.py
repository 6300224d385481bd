"""LLaMA (Touvron et al. 2023; Llama 3: AI@Meta 2024) over texts of ranked genes.

The network is that of transformers, read at its last hidden states. The embedding of a cell is
their mean over all tokens of its text, the begin token included.

Padding stands on the right and attention looks to the left only, so no real token ever sees it and
no mask is needed; positions count from the first token on.

Letters: B cells, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaModel
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from scdrugmap.errors import UsageError, WeightsError
from scdrugmap.modelkit import (
    SequenceModel,
    Traits,
    load_strict,
    load_template,
    pool_mean,
    seeded,
    synthetic_vocabulary,
)
from scdrugmap_plugin_llama3 import SPEC, Options
from scdrugmap_plugin_llama3.classify import RANDOM_SOURCE, Classifier
from scdrugmap_plugin_llama3.prompts import Chat, Prompts
from scdrugmap_plugin_llama3.quantized import quantize, require_quantization
from scdrugmap_plugin_llama3.texts import BytePairs, Words
from scdrugmap_plugin_llama3.tokenizer import CellTokenizer
from scdrugmap_plugin_llama3.weights import HEAD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from scdrugmap.modelkit import Template, Weights
    from scdrugmap.text.contract import Answer, Asking, Question
    from scdrugmap_plugin_llama3.texts import TextIds

CONTAMINATION = (
    "llama3: public datasets, their papers and tables may be part of what the model was trained on "
    "(Llama 3: texts up to March 2023); look at datasets published later apart"
)

RANDOM_BEGIN, RANDOM_END = 0, 1
"""Ids of the special tokens where there is no published tokenizer."""


class Llama(LlamaModel):
    """The body of transformers' Llama, with a cell's embedding as its output.

    Parameters
    ----------
    config : LlamaConfig
    pool : {"mean", "mean_no_bos", "last"}
    n_begin : int
        Tokens before the text.
    pad : int
        Id that fills a batch up.
    """

    def __init__(self, config: LlamaConfig, *, pool: str, n_begin: int, pad: int) -> None:
        super().__init__(config)
        self.pool, self.n_begin, self.pad = pool, n_begin, pad
        self.is_cut = self.is_quantized = False
        self.answer_head: Tensor | None = None
        """(V, D) of the checkpoint's own head; no parameter, as embeddings do not use it."""

    def reset_parameters(self) -> None:
        """Draw all tensors anew, the head included: the untrained control."""
        spread = float(self.config.initializer_range)
        with torch.no_grad():
            for part in self.modules():
                if isinstance(part, nn.Linear | nn.Embedding):
                    part.weight.normal_(0.0, spread)
            for name, parameter in self.named_parameters():
                if parameter.ndim == 1:
                    parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            if self.answer_head is not None:
                self.answer_head = torch.empty_like(self.answer_head).normal_(0.0, spread)

    def cut(self, layer: int) -> None:
        """Keep the layers up to one counted from the end; -1: all, and the final norm.

        Raises
        ------
        UsageError
            There are not so many layers.
        """
        if layer == -1:
            return
        n_kept = len(self.layers) + 1 + layer
        if n_kept < 1:
            raise UsageError(
                f"llama3: layer={layer}, but the checkpoint has {len(self.layers)} layers",
                hint=f"layer is between -{len(self.layers)} and -1",
            )
        self.layers = self.layers[:n_kept]
        self.norm = nn.Identity()  # type: ignore[assignment]
        self.is_cut = True

    def read(self, ids: Tensor, *, cache: Any = None, keep_cache: bool = False) -> Any:
        """Run the body of transformers.

        Parameters
        ----------
        ids : (B, T) int
            Padded on the right.
        cache : Cache, optional
            Of what stands before them.
        keep_cache : bool
            Return one.

        Returns
        -------
        BaseModelOutputWithPast
            ``last_hidden_state`` (B, T, D) and, if asked for, ``past_key_values``.
        """
        if self.is_quantized and ids.device.type != "cuda":
            raise UsageError(
                f"llama3: quantised weights work on a CUDA GPU only, not on {ids.device.type}",
                hint="leave --device out, or use load_in=bfloat16",
            )
        return super().forward(
            input_ids=ids, past_key_values=cache, use_cache=keep_cache or cache is not None
        )

    def states(self, ids: Tensor) -> Tensor:
        """(B, T) token ids to the hidden states that are read, (B, T, D)."""
        hidden: Tensor = self.read(ids).last_hidden_state
        return hidden

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Embed cells.

        Parameters
        ----------
        batch : dict
            ``id`` (B, T) int and, where cells differ in length, ``keep`` (B, T) bool.

        Returns
        -------
        (B, D) float32
        """
        hidden, keep = self.states(batch["id"]).float(), batch.get("keep")
        if self.pool == "last":
            if keep is None:
                return hidden[:, -1]
            cells = torch.arange(len(hidden), device=hidden.device)
            return hidden[cells, keep.sum(1) - 1]
        first = self.n_begin if self.pool == "mean_no_bos" else 0
        return pool_mean(hidden[:, first:], None if keep is None else keep[:, first:])


@dataclass
class LlamaCells(SequenceModel):
    """LLaMA as an embedding model that also answers questions about cells."""

    classifier: Classifier | None = None

    @property
    def template(self) -> Template:
        """Template of the questions."""
        return self._classifier.prompts.template

    @property
    def n_genes(self) -> int:
        """Most genes of a question."""
        return self._classifier.n_genes

    @property
    def fields(self) -> tuple[str, ...]:
        """Facts that the questions' template shows."""
        return tuple(self.template.fields)

    @property
    def notices(self) -> tuple[str, ...]:
        """What a user must know of the answers."""
        return (CONTAMINATION,)

    def classify(self, questions: Sequence[Question], asking: Asking) -> list[Answer]:
        """Answer every question by the likelihood of the two answers, in the order given.

        Raises
        ------
        ResourceError
            A single question does not fit into memory.
        UsageError
            A middle layer is read, or a question does not fit into the longest text.
        WeightsError
            The checkpoint has no head.
        """
        return self._classifier.classify(questions, asking)

    def preview(self, question: Question) -> str:
        """Return the prompt of a question, exactly as it is read."""
        return self._classifier.prompts.text(question)

    @property
    def _classifier(self) -> Classifier:
        if self.classifier is None:
            raise UsageError(
                "llama3: this model asks no questions: its checkpoint has no chat template",
                hint="use an Instruct checkpoint, or question=scdrugmap-classify",
            )
        return self.classifier


def build(options: Options, weights: Weights | None, seed: int) -> LlamaCells:
    """Make the model: from a checkpoint, or random over the genes of the packaged table."""
    require_quantization(options.load_in)
    genes = synthetic_vocabulary("symbol")
    texts: TextIds
    if weights is None:
        texts = Words(genes, first=RANDOM_END + 1)
        sizes = dict(SPEC.variant(options.variant).sizes)
        sizes["vocab_size"] = max(texts.n_ids, int(sizes.get("vocab_size", 0)))
        config = _config({**sizes, "bos_token_id": RANDOM_BEGIN, "eos_token_id": RANDOM_END})
    else:
        texts = BytePairs(weights.vocabulary["tokenizer"], weights.source)
        config = _config(weights.config)
        if texts.n_ids > config.vocab_size:
            raise WeightsError(
                f"{weights.source}: tokenizer.json has {texts.n_ids:,} ids, the network "
                f"{config.vocab_size:,}",
                hint="are tokenizer and network of one checkpoint?",
            )
    begin = () if config.bos_token_id is None else (int(config.bos_token_id),)
    pad = config.eos_token_id if isinstance(config.eos_token_id, int) else 0
    module = _network(config, options, weights, seed, n_begin=len(begin), pad=pad)
    template = load_template(options.template)
    limit = config.max_position_embeddings
    longest = min(options.max_tokens or template.max_tokens or limit, limit)
    tokenizer = CellTokenizer(
        texts, template, begin, options.top_k or template.top_k, longest, len(genes)
    )
    return LlamaCells(
        traits=Traits(
            dim=config.hidden_size,
            max_tokens=longest,
            gene_order_matters=template.order == "columns",
            vocabulary_size=len(genes),
        ),
        tokenizer=tokenizer,
        module=module.eval(),
        input_module="embed_tokens",
        padding={"id": pad},
        classifier=_classifier(options, module, texts, begin, limit, weights, seed),
    )


def _config(sizes: Mapping[str, Any]) -> LlamaConfig:
    """Make transformers' configuration, which also reads the older names of fields."""
    given = {name: value for name, value in sizes.items() if value is not None}
    config = LlamaConfig.from_dict({"model_type": "llama", **given})
    config._attn_implementation = "sdpa"
    return config


def _network(
    config: LlamaConfig,
    options: Options,
    weights: Weights | None,
    seed: int,
    *,
    n_begin: int,
    pad: int,
) -> Llama:
    how: dict[str, Any] = {"pool": options.pool, "n_begin": n_begin, "pad": pad}
    dtype = torch.float32 if options.load_in == "float32" else torch.bfloat16
    if weights is None:
        with seeded(seed):
            module = Llama(config, **how)
    else:
        tensors = dict(weights.tensors)
        head = tensors.pop(HEAD, None)
        # Without memory first: nothing is drawn only to be replaced.
        with torch.device("meta"):
            module = Llama(config, **how)
        _held_in(module, dtype).to_empty(device="cpu")
        load_strict(module, tensors, weights.source)
        if head is not None and tuple(head.shape) != (config.vocab_size, config.hidden_size):
            raise WeightsError(
                f"{weights.source}: {HEAD} is {tuple(head.shape)}, expected "
                f"{(config.vocab_size, config.hidden_size)}"
            )
        module.answer_head = head
    if config.tie_word_embeddings:
        module.answer_head = None
    _held_in(module, dtype)
    module.rotary_emb = LlamaRotaryEmbedding(config)  # its buffers stay float32
    module.cut(options.layer)
    quantize(module, options.load_in)
    return module


def _held_in(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    return module.to(dtype)


def _classifier(
    options: Options,
    module: Llama,
    texts: TextIds,
    begin: tuple[int, ...],
    limit: int,
    weights: Weights | None,
    seed: int,
) -> Classifier | None:
    """Return what answers questions; None where the question is a chat and there is none."""
    template = load_template(options.question)
    chat = None
    source = weights.vocabulary.get("chat_template") if weights is not None else None
    if source and isinstance(texts, BytePairs):
        names = {number: name for name, number in texts.special.items()}
        first = names.get(begin[0], "") if begin else ""
        chat = Chat(source, texts, first, names.get(module.pad, ""))
    if template.kind == "chat" and chat is None:
        return None
    return Classifier(
        network=module,
        prompts=Prompts(
            texts,
            template,
            begin,
            chat,
            min(options.question_max_tokens or template.max_tokens or limit, limit),
        ),
        options=options,
        source=weights.source if weights is not None else RANDOM_SOURCE,
        seed=seed,
    )
