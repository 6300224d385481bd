"""A chat endpoint as a text model: questions become requests, replies become answers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from scdrugmap.errors import UsageError
from scdrugmap.modelkit.templates import load_template
from scdrugmap_plugin_gpt4o_mini.endpoint import Place
from scdrugmap_plugin_gpt4o_mini.plan import Plan
from scdrugmap_plugin_gpt4o_mini.prompts import Capabilities, asks_for_digits, readable
from scdrugmap_plugin_gpt4o_mini.run import Run

if TYPE_CHECKING:
    from scdrugmap.modelkit.templates import Template
    from scdrugmap.text.contract import Answer, Asking, Question
    from scdrugmap_plugin_gpt4o_mini import Options

_GENES = 50  # of a template that does not say
_DRUG = "drug"


class ChatModel:
    """A model behind a chat endpoint; a :class:`scdrugmap.text.contract.RemoteTextModel`.

    Parameters
    ----------
    options : Options

    Raises
    ------
    UsageError
        The template is not for chats or does not tell a fact, or the address cannot be used.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.template: Template = load_template(options.template)
        if self.template.kind != "chat":
            raise UsageError(
                f"template {self.template.name} is of kind {self.template.kind}; gpt4o_mini needs "
                "one of kind chat",
                hint="use --set template=chat-classify",
            )
        unknown = sorted(set(options.fields or ()) - set(self.template.fields))
        if unknown:
            raise UsageError(
                f"template {self.template.name} tells no {', '.join(unknown)}",
                hint=f"fields it can tell: {', '.join(self.template.fields) or 'none'}",
            )
        self.place = Place.parse(options.base_url)

    @property
    def n_genes(self) -> int:
        """Most genes of a cell in a prompt."""
        return self.options.top_k or self.template.top_k or _GENES

    @property
    def fields(self) -> tuple[str, ...]:
        """Facts that are sent."""
        if self.options.fields is not None:
            return self.options.fields
        return tuple(name for name in (_DRUG,) if name in self.template.fields)

    @property
    def notices(self) -> tuple[str, ...]:
        """What a user must know of its answers."""
        said = []
        if self.options.cells_per_request > 1:
            said.append(
                f"{self.options.cells_per_request} cells share a request, so they influence each "
                "other's answers"
            )
        if asks_for_digits(self.template):
            said.append(
                "the paper's code drops cells with an invalid answer, and their labels; here they "
                "count"
            )
        return (*said, "public datasets and their papers may be known to the model")

    def preview(self, question: Question) -> str:
        """Return the messages of a question, as they would be sent to an able endpoint."""
        plan = Plan(self.place, self.options, self.template, Capabilities(), [question])
        return readable(plan.request((0,), alone=True).body["messages"])

    def forecast(self, questions: Sequence[Question], asking: Asking) -> list[str]:
        """Say what would be sent where and what it would cost; sends nothing."""
        return self._run(questions, asking).forecast().lines()

    def classify(self, questions: Sequence[Question], asking: Asking) -> list[Answer]:
        """Answer every question; see :meth:`scdrugmap.text.contract.TextModel.classify`."""
        self.place.check_allowed(asking)
        self.place.find_key(asking)
        with closing(self._run(questions, asking)) as run:
            return run.answers()

    def _run(self, questions: Sequence[Question], asking: Asking) -> Run:
        return Run(self.place, self.options, self.template, questions, asking)


def build(options: Options) -> ChatModel:
    """Make the text model; nothing is sent."""
    return ChatModel(options)
