"""Which cells share a request, in which order requests are sent, and what each depends on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scdrugmap.errors import UsageError
from scdrugmap.files import hash_json
from scdrugmap_plugin_gpt4o_mini.prompts import (
    Capabilities,
    Request,
    asks_for_digits,
    digits_request,
    joint_request,
    one_request,
)

if TYPE_CHECKING:
    from scdrugmap.modelkit.templates import Template
    from scdrugmap.text.contract import Question
    from scdrugmap_plugin_gpt4o_mini import Options
    from scdrugmap_plugin_gpt4o_mini.endpoint import Place

_CONTRACT = 1

Chunk = tuple[int, ...]
"""Positions of the questions that share a request."""


@dataclass(frozen=True)
class Plan:
    """The requests about some cells; each is made when it is needed, since it has some kilobytes.

    Attributes
    ----------
    place : Place
    options : Options
    template : Template
    can : Capabilities
    questions : sequence of Question
    """

    place: Place
    options: Options
    template: Template
    can: Capabilities
    questions: Sequence[Question]

    @property
    def joint(self) -> bool:
        """Whether cells share requests that they can also be asked about without."""
        return self.options.cells_per_request > 1 and not asks_for_digits(self.template)

    def chunks(self) -> list[Chunk]:
        """Return the requests in the order they are sent: shuffled, so that classes mix.

        Raises
        ------
        UsageError
            Cells were to share requests, and cannot.
        """
        if self.joint and not self.can.schema:
            raise UsageError(
                f"{self.place.host} keeps to no schema, so several cells cannot share a request",
                hint="use --set cells_per_request=1",
            )
        several = self.options.cells_per_request > 1 or asks_for_digits(self.template)
        if several and any(question.examples for question in self.questions):
            raise UsageError(
                "example cells are shown for one cell at a time",
                hint="use --set cells_per_request=1, and a template that asks for a label",
            )
        order = list(range(len(self.questions)))
        random.Random(self.options.seed).shuffle(order)
        size = self.options.cells_per_request
        return [tuple(order[start : start + size]) for start in range(0, len(order), size)]

    def request(self, chunk: Chunk, *, alone: bool = False) -> Request:
        """Make the request of a chunk; `alone`: as for one cell, whatever the options say."""
        chosen = [self.questions[place] for place in chunk]
        if asks_for_digits(self.template):
            return digits_request(chunk, chosen, self.template, self.options, self.can)
        if self.joint and not alone:
            return joint_request(chunk, chosen, self.template, self.options, self.can)
        return one_request(chunk[0], chosen[0], self.template, self.options, self.can)

    def identity(self, request: Request) -> dict[str, Any]:
        """Return everything that the reply depends on; no key is part of it."""
        return {
            "contract": _CONTRACT,
            "endpoint": self.place.url,
            "model": self.options.model,
            "template": self.template.key,
            "request": request.body,
        }

    def key(self, request: Request) -> str:
        """Return the hash of :meth:`identity`."""
        return hash_json(self.identity(request))
