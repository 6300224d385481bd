"""Requests: the messages of a template, the form of the answer, and what the server can do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from scdrugmap.text.budget import Usage, estimated_tokens, most_tokens
from scdrugmap_plugin_gpt4o_mini.answers import WORDS

if TYPE_CHECKING:
    from scdrugmap.modelkit.templates import Template
    from scdrugmap.text.contract import Question
    from scdrugmap_plugin_gpt4o_mini import Options

# Raise `numerics` of the spec when one of these texts changes: they are part of what is asked.
WORD_FORM = "Answer with one of these words and nothing else."
ONE_FORM = 'Answer with JSON of the form {"label": "unsure"}.'
SEVERAL_FORM = (
    "You are shown several cells, each with an id; judge each one on its own. Answer with JSON of "
    'the form {"cells": [{"id": "c01", "label": "unsure"}]} that has every id exactly once.'
)

DIGITS_FORM = (
    "Judge from what you know of biology whether tumour cells are sensitive or resistant to drug "
    "treatment. Each of the {n} lines below lists the genes that one cell expresses most, the highest "
    "first. Answer 1 for sensitive and 0 for resistant, for all cells in the order of the lines, in "
    "the form {{res:1,0,...}} with exactly {n} digits and nothing else."
)
"""What the paper asks, in other words; its answer is a row of digits."""

_TOKENS_PER_ANSWER = 8  # {"label": "sensitive"}
_TOKENS_PER_DIGIT = 4  # and its comma, with room for the braces
_TOKENS_PER_ITEM = 24  # the most of one of several answers, id included


@dataclass(frozen=True)
class Capabilities:
    """What an endpoint does with a request; found by asking, never from the absence of an error.

    Attributes
    ----------
    schema : bool
        It keeps to a JSON schema.
    logprobs : bool
        It gives the log-probabilities of tokens and their alternatives.
    limit : str
        Name of the field for the longest answer.
    temperature, seed : bool
        It takes these fields.
    """

    schema: bool = True
    logprobs: bool = True
    limit: str = "max_tokens"
    temperature: bool = True
    seed: bool = True

    def request(
        self,
        options: Options,
        messages: list[dict[str, str]],
        n_tokens: int,
        schema: dict[str, Any] | None,
        top_logprobs: int,
    ) -> dict[str, Any]:
        """Return the body of a request, with those fields only that the endpoint knows."""
        body: dict[str, Any] = {
            "model": options.model,
            "messages": messages,
            "n": 1,
            self.limit: n_tokens,
        }
        if self.temperature:
            body["temperature"] = 0
        if self.seed:
            body["seed"] = options.seed
        if self.logprobs and top_logprobs:
            body |= {"logprobs": True, "top_logprobs": top_logprobs}
        if self.schema and schema is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": schema},
            }
        return body

    def record(self) -> dict[str, Any]:
        """Return it JSON-able."""
        return asdict(self)


def closed(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object with exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_LABEL = {"type": "string", "enum": list(WORDS)}


@dataclass(frozen=True)
class Request:
    """One request about one or more cells.

    Attributes
    ----------
    positions : tuple of int
        Which questions.
    ids : tuple of str
        What the cells are called in the request; empty: one cell, without any name.
    body : dict
        What is sent.
    likely, most : Usage
        Tokens, as estimated and as bounded.
    digits : bool
        The answer is a row of digits.
    """

    positions: tuple[int, ...]
    ids: tuple[str, ...]
    body: dict[str, Any]
    likely: Usage
    most: Usage
    digits: bool = False


def one_request(
    position: int, question: Question, template: Template, options: Options, can: Capabilities
) -> Request:
    """Ask about one cell; examples become turns of the chat."""
    examples = [
        (template.render(example.genes, example.fields), example.label)
        for example in question.examples
    ]
    if can.schema:
        answers = {label: json.dumps({"label": label}) for label in template.answers}
        template = template.model_copy(update={"answers": answers})
    messages = template.messages(question.genes, question.fields, examples)
    messages = _told(messages, ONE_FORM if can.schema else WORD_FORM)
    schema = closed({"label": _LABEL})
    body = can.request(options, messages, options.max_tokens, schema, options.top_logprobs)
    return _request((position,), (), body, [question, *question.examples], options.max_tokens)


def joint_request(
    positions: Sequence[int],
    questions: Sequence[Question],
    template: Template,
    options: Options,
    can: Capabilities,
) -> Request:
    """Ask about several cells at once; each gets an id that the answer must repeat."""
    ids = tuple(f"c{number:02d}" for number in range(1, len(questions) + 1))
    cells = "\n\n".join(
        f"Cell {name}\n{template.render(question.genes, question.fields)}"
        for name, question in zip(ids, questions, strict=True)
    )
    messages = [*template.messages((), {})[:-1], {"role": "user", "content": cells}]
    item = closed({"id": {"type": "string", "enum": list(ids)}, "label": _LABEL})
    bounds = {"minItems": len(ids), "maxItems": len(ids)}
    schema = closed({"cells": {"type": "array", "items": item, **bounds}})
    n_tokens = max(options.max_tokens, _TOKENS_PER_ITEM * len(ids))
    body = can.request(
        options, _told(messages, SEVERAL_FORM), n_tokens, schema, options.top_logprobs
    )
    return _request(tuple(positions), ids, body, questions, n_tokens)


def digits_request(
    positions: Sequence[int],
    questions: Sequence[Question],
    template: Template,
    options: Options,
    can: Capabilities,
) -> Request:
    """Ask as the paper does: one message, one line per cell, a row of digits as the answer."""
    lines = "\n".join(template.render(question.genes, question.fields) for question in questions)
    messages = [{"role": "user", "content": f"{DIGITS_FORM.format(n=len(questions))}\n\n{lines}"}]
    n_tokens = max(options.max_tokens, _TOKENS_PER_DIGIT * len(questions))
    body = can.request(options, messages, n_tokens, None, 0)
    return replace(_request(tuple(positions), (), body, questions, n_tokens), digits=True)


def asks_for_digits(template: Template) -> bool:
    """Tell whether the answers of a template are 1 and 0."""
    return dict(template.answers) == {"sensitive": "1", "resistant": "0"}


def _told(messages: list[dict[str, str]], form: str) -> list[dict[str, str]]:
    """Say in the first message what an answer looks like."""
    first, *rest = messages
    return [{**first, "content": f"{first['content']} {form}".strip()}, *rest]


def _request(
    positions: tuple[int, ...],
    ids: tuple[str, ...],
    body: dict[str, Any],
    shown: Sequence[Any],
    n_tokens: int,
) -> Request:
    texts = [message["content"] for message in body["messages"]]
    genes = [gene for item in shown for gene in item.genes]
    likely = estimated_tokens(texts, len(genes), sum(len(gene) + 1 for gene in genes))
    schema = json.dumps(body.get("response_format", ""))
    return Request(
        positions,
        ids,
        body,
        Usage(likely, _TOKENS_PER_ANSWER * len(positions)),
        Usage(most_tokens([*texts, schema]), n_tokens),
    )


def readable(messages: list[dict[str, str]]) -> str:
    """Return messages as a person reads them."""
    return "\n".join(f"[{message['role']}]\n{message['content']}" for message in messages)
