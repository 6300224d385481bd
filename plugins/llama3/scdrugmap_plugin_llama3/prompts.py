"""Questions to token ids: the prompt of a cell, its examples, and the answers that are scored."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from scdrugmap.errors import ScDrugMapWarning, UsageError
from scdrugmap.modelkit import most_genes
from scdrugmap_plugin_llama3.texts import BytePairs, as_ids

if TYPE_CHECKING:
    from scdrugmap.modelkit import Template
    from scdrugmap.text.contract import Example, Label, Question
    from scdrugmap_plugin_llama3.texts import TextIds

LABELS: tuple[Label, ...] = ("sensitive", "resistant")
"""Order of the answers in all arrays."""

EXAMPLES_SHARE = 0.5
"""Most of the budget that examples may take."""

_DATE = (
    "26 Jul 2024"  # what newer chat templates show as today, fixed so that prompts are repeatable
)
_MARK = "\ue000{}\ue001"  # private use: stands for a message's text while the chat is written
_MARKED = re.compile("\ue000(\\d+)\ue001")


class Chat:
    """The chat template of a checkpoint, with messages that cannot end a turn.

    Parameters
    ----------
    template : str
        Jinja source, run in the sandbox of transformers.
    texts : BytePairs
    begin, end : str
        Texts of the begin and end tokens, which templates may name.
    """

    def __init__(self, template: str, texts: BytePairs, begin: str, end: str) -> None:
        self._template, self._texts = template, texts
        self._begin, self._end = begin, end
        longest_first = sorted(texts.special, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def text(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return the chat as it is read, with the header of the answer at its end."""
        return self._filled(self._written(messages), messages)

    def ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Return the token ids of a chat: control tokens only where the template puts them.

        A template writes its own begin token, so none is added.
        """
        written = self._written(messages)
        found: list[int] = []
        start = 0
        for special in self._special.finditer(written):
            found += self._texts.ids(self._filled(written[start : special.start()], messages))
            found.append(self._texts.special[special[0]])
            start = special.end()
        return found + self._texts.ids(self._filled(written[start:], messages))

    @staticmethod
    def _filled(text: str, messages: Sequence[Mapping[str, str]]) -> str:
        return _MARKED.sub(lambda mark: messages[int(mark[1])]["content"].strip(), text)

    def _written(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Run the chat template on marks that stand for the messages' texts."""
        from jinja2 import TemplateError

        marked = [
            {"role": message["role"], "content": _MARK.format(number)}
            for number, message in enumerate(messages)
        ]
        try:
            return str(
                self._writer.apply_chat_template(
                    marked, tokenize=False, add_generation_prompt=True, date_string=_DATE
                )
            )
        except TemplateError as err:
            raise UsageError(
                f"the chat template of this checkpoint refuses the question: {err}",
                hint="use a question of kind completion (question=scdrugmap-classify)",
            ) from err

    @cached_property
    def _writer(self) -> Any:
        """A tokenizer that only writes: transformers runs the templates in its sandbox."""
        from tokenizers import Tokenizer, models
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.BPE()),
            chat_template=self._template,
            bos_token=self._begin or None,
            eos_token=self._end or None,
        )


@dataclass(frozen=True)
class Prompts:
    """How questions are written for one checkpoint.

    Parameters
    ----------
    texts : TextIds
    template : Template
        Of kind ``completion`` or ``chat``.
    begin : tuple of int
        Ids before a completion.
    chat : Chat, optional
        Needed for kind ``chat``.
    max_tokens : int
        Longest prompt with its answer.
    """

    texts: TextIds
    template: Template
    begin: tuple[int, ...]
    chat: Chat | None
    max_tokens: int
    _shown: dict[str, tuple[Example, ...]] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.template.kind == "chat" and self.chat is None:
            raise UsageError(
                f"template {self.template.name} is a chat; this checkpoint has no chat template",
                hint="use an Instruct checkpoint, or question=scdrugmap-classify",
            )

    def swapped(self) -> Prompts:
        """Return the same with the two words of the question in the other order."""
        return replace(self, template=self.template.swapped(), _shown={})

    @cached_property
    def answers(self) -> tuple[np.ndarray, ...]:
        """Ids of each answer of ``LABELS``, tokenised on its own."""
        return tuple(as_ids(self.texts.ids(self.template.answers[label])) for label in LABELS)

    @property
    def _budget(self) -> int:
        return self.max_tokens - max(len(answer) for answer in self.answers)

    def text(self, question: Question) -> str:
        """Return the prompt of a question as it is read."""
        examples = self._shortened(question)
        return self._text(self._fitting(question, examples), question.fields, examples)

    def ids(self, question: Question, *, null: bool = False) -> np.ndarray:
        """Return the token ids of a prompt ((t,) int32); `null`: of the same without its genes.

        Genes are dropped from the end, whole, until prompt and answer fit; examples all show the
        same number of genes and take half of the room at most.
        """
        examples = self._shortened(question)
        names = () if null else self._fitting(question, examples)
        return as_ids(self._ids(names, question.fields, examples))

    def check_seam(self, question: Question) -> None:
        """Warn where prompt and answer read together are other tokens than read apart."""
        if self.template.kind == "chat":  # an answer follows a control token
            return
        prompt, apart = self.text(question), self.ids(question).tolist()
        for label, answer in zip(LABELS, self.answers, strict=True):
            whole = [*self.begin, *self.texts.ids(prompt + self.template.answers[label])]
            if whole != apart + answer.tolist():
                warnings.warn(
                    f"template {self.template.name}: this tokenizer joins the prompt's end with "
                    f"{self.template.answers[label]!r}; the answer is scored as tokens of its own",
                    ScDrugMapWarning,
                    stacklevel=3,
                )

    def _fitting(self, question: Question, examples: Sequence[Example]) -> tuple[str, ...]:
        genes = question.genes
        n = most_genes(
            len(genes),
            lambda n: len(self._ids(genes[:n], question.fields, examples)),
            self._budget,
            self.template.name,
        )
        return genes[:n]

    def _shortened(self, question: Question) -> tuple[Example, ...]:
        """Return the examples with as many genes each as half of the room allows."""
        examples = question.examples
        if not examples:
            return ()
        key = examples_key(question)
        if key not in self._shown:
            alone = len(self._ids((), {}, ()))
            n = most_genes(
                max(len(example.genes) for example in examples),
                lambda n: len(self._ids((), {}, _cut(examples, n))) - alone,
                int(EXAMPLES_SHARE * self._budget),
                f"{self.template.name} with {len(examples)} examples",
            )
            self._shown[key] = _cut(examples, n)
        return self._shown[key]

    def _ids(
        self, names: Sequence[str], fields: Mapping[str, str], examples: Sequence[Example]
    ) -> list[int]:
        if self.chat is not None and self.template.kind == "chat":
            return self.chat.ids(self._messages(names, fields, examples))
        return [*self.begin, *self.texts.ids(self._text(names, fields, examples))]

    def _text(
        self, names: Sequence[str], fields: Mapping[str, str], examples: Sequence[Example]
    ) -> str:
        if self.chat is not None and self.template.kind == "chat":
            return self.chat.text(self._messages(names, fields, examples))
        prompt = self.template.render(names, fields)
        return self.template.with_examples(prompt, self._rendered(examples))

    def _messages(
        self, names: Sequence[str], fields: Mapping[str, str], examples: Sequence[Example]
    ) -> list[dict[str, str]]:
        return self.template.messages(names, fields, self._rendered(examples))

    def _rendered(self, examples: Sequence[Example]) -> list[tuple[str, Label]]:
        return [(self.template.render(e.genes, e.fields), e.label) for e in examples]


def examples_key(question: Question) -> str:
    """Return a text that is equal for questions with equal examples."""
    return json.dumps([(e.genes, e.label, dict(e.fields)) for e in question.examples])


def _cut(examples: Sequence[Example], n_genes: int) -> tuple[Example, ...]:
    return tuple(replace(example, genes=example.genes[:n_genes]) for example in examples)
