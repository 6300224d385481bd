"""What a reply says: validated answers, and probabilities from the tokens they were written with.

The server's word is not trusted: it may ignore the schema, cut the text, or repeat an id under a
correct grammar, all of it with status 200.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from scdrugmap.text.contract import P_CENSORED, P_HARD, Answer, Flag

Word = Literal["sensitive", "resistant", "unsure"]
WORDS: tuple[Word, ...] = ("sensitive", "resistant", "unsure")

_LEAST_MASS = 0.5
_AROUND = " \t\r\n\":{},.'"  # what stands around a label inside of a token
_DIGITS = re.compile(r"\{res:([01](?:,[01])*)\}")
_BEFORE_LABEL = re.compile(r'"label"\s*:\s*"')

CUT, FILTERED, EMPTY, NOT_VALID, NO_REPLY = "length", "filtered", "empty", "not_valid", "no_reply"
TOO_LONG, REFUSED, UNSURE, WRONG_IDS = "too_long", "refused", "unsure", "wrong_ids"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class One(_Strict):
    """The answer on one cell."""

    label: Word


class Item(_Strict):
    """One of several answers."""

    id: str
    label: Word


class Several(_Strict):
    """The answers on the cells of a request."""

    cells: list[Item]


@dataclass(frozen=True)
class Spoken:
    """A reply taken apart.

    Attributes
    ----------
    text : str
        What was written; empty if nothing.
    problem : str
        Why it cannot be an answer; empty if it can.
    refused : bool
        The model declined.
    tokens : list of dict
        ``token``, ``bytes``, ``logprob``, ``top_logprobs`` of each token; empty: not given.
    served_by : str
    """

    text: str
    problem: str
    refused: bool
    tokens: list[dict[str, Any]]
    served_by: str


def spoken(reply: dict[str, Any]) -> Spoken:
    """Take a chat completion apart; anything may be missing or of another type."""
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else {}
    choice = choice if isinstance(choice, dict) else {}
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    content = message.get("content")
    text = content if isinstance(content, str) else ""
    finish = choice.get("finish_reason")
    problem = ""
    if finish == "length":
        problem = CUT
    elif finish == "content_filter":
        problem = FILTERED
    elif not text.strip():
        problem = EMPTY
    logprobs = choice.get("logprobs")
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    served = (reply.get("model"), reply.get("system_fingerprint"))
    return Spoken(
        text,
        problem,
        bool(message.get("refusal")),
        [token for token in tokens if isinstance(token, dict)] if isinstance(tokens, list) else [],
        " ".join(str(part) for part in served if part),
    )


def read_one(reply: dict[str, Any], *, schema: bool) -> Answer:
    """Read the answer on one cell.

    Parameters
    ----------
    reply : dict
        The chat completion.
    schema : bool
        The answer is an object with ``label``; else it is a single word.
    """
    said = spoken(reply)
    if said.refused:
        return _not_answered("abstained", REFUSED, said)
    if said.problem:
        return _not_answered("invalid", said.problem, said)
    try:
        word = One.model_validate_json(said.text).label if schema else _word(said.text)
    except ValidationError:
        return _not_answered("invalid", NOT_VALID, said)
    return _answer(word, _places(said.tokens, schema=schema), 0, 1, said)


def read_several(reply: dict[str, Any], ids: Sequence[str]) -> dict[str, Answer]:
    """Read the answers on several cells, matched by id.

    Missing, repeated and unknown ids make the cells they concern invalid.

    Returns
    -------
    dict
        One answer per id of `ids`.
    """
    said = spoken(reply)
    if said.refused:
        return {name: _not_answered("abstained", REFUSED, said) for name in ids}
    try:
        items = [] if said.problem else Several.model_validate_json(said.text).cells
        problem = said.problem
    except ValidationError:
        items, problem = [], NOT_VALID
    times = Counter(item.id for item in items)
    if set(times) - set(ids):  # an unknown id: nobody knows which cell was meant
        items, problem = [], WRONG_IDS
    answers = {name: _not_answered("invalid", problem or WRONG_IDS, said) for name in ids}
    places = _places(said.tokens, schema=True)
    for number, item in enumerate(items):
        if times[item.id] == 1:
            answers[item.id] = _answer(item.label, places, number, len(items), said)
    return answers


def read_digits(reply: dict[str, Any], n: int) -> list[Answer]:
    """Read a row of `n` digits as the paper asks for it: ``{res:1,0,...}``, 1 is sensitive.

    The paper's code drops the cells of a request with another number of digits, and their labels
    with them; here they are invalid.
    """
    said = spoken(reply)
    if said.refused:
        return [_not_answered("abstained", REFUSED, said)] * n
    found = None if said.problem else _DIGITS.search(said.text)
    digits = found[1].split(",") if found else []
    if len(digits) != n:
        return [_not_answered("invalid", said.problem or NOT_VALID, said)] * n
    return [
        Answer("answered", float(digit), flag=P_HARD, raw=said.text, served_by=said.served_by)
        for digit in digits
    ]


def _word(text: str) -> Word:
    """Read a one-word answer.

    Raises
    ------
    ValidationError
        It is none of the words.
    """
    return One.model_validate({"label": text.strip(_AROUND).lower()}).label


def _not_answered(state: Literal["abstained", "invalid"], reason: str, said: Spoken) -> Answer:
    return Answer(state, reason=reason, raw=said.text, served_by=said.served_by)


def _answer(word: Word, places: list[int], number: int, n: int, said: Spoken) -> Answer:
    """Answer with the probability of the label that stands at ``places[number]``."""
    alternatives: list[tuple[str, float]] = []
    if len(places) == n:  # otherwise nobody knows which label stands where
        alternatives = _alternatives(said.tokens[places[number]])
    p, mass, flag = probability(word, alternatives)
    if word == "unsure":
        return Answer(
            "abstained",
            reason=UNSURE,
            answer_mass=mass,
            raw=said.text,
            served_by=said.served_by,
        )
    return Answer(
        "answered", p, answer_mass=mass, flag=flag, raw=said.text, served_by=said.served_by
    )


def _places(tokens: list[dict[str, Any]], *, schema: bool) -> list[int]:
    """Return the tokens in which the labels begin, found by character offset.

    Tokens are no words: the quote may be glued to the label, white space and key names may be
    split anywhere. Offsets are those of the joined tokens, since servers trim the message.
    """
    starts, text = [], ""
    for token in tokens:
        starts.append(len(text))
        text += _text(token)
    if schema:
        offsets = [found.end() for found in _BEFORE_LABEL.finditer(text)]
    else:
        bare = text.lstrip(_AROUND)
        offsets = [len(text) - len(bare)] if bare else []
    places = []
    for offset in offsets:
        inside = [
            place
            for place, start in enumerate(starts)
            if start <= offset < start + len(_text(tokens[place]))
        ]
        places += inside[:1]
    return places


def _text(token: dict[str, Any]) -> str:
    """Return the text of a token; half a character becomes one replacement character."""
    text = token.get("token")
    return text if isinstance(text, str) else ""


def _alternatives(token: dict[str, Any]) -> list[tuple[str, float]]:
    """Return text and probability of what was given at a place, the token taken among it."""
    listed = token.get("top_logprobs")
    if not isinstance(listed, list) or not listed:
        return []
    found: dict[tuple[str, str], float] = {}  # bytes too: half characters look alike as text
    for item in (token, *listed):
        value = item.get("logprob") if isinstance(item, dict) else None
        if isinstance(value, (int, float)) and not math.isnan(value) and value <= 0:
            found[_text(item), str(item.get("bytes"))] = math.exp(value)
    return [(text, p) for (text, _), p in found.items()]


def probability(word: Word, alternatives: Sequence[tuple[str, float]]) -> tuple[float, float, Flag]:
    """Return p_sensitive from the alternatives at the place where the label begins.

    Parameters
    ----------
    word : str
        The label that was written.
    alternatives : sequence of (str, float)
        Text of a token and its probability; empty: not given.

    Returns
    -------
    p : float
        ``m(sensitive) / (m(sensitive) + m(resistant))``, each m the sum over the alternatives
        that begin this label and no other.
    mass : float
        Sum over all three labels; NaN if nothing was given.
    flag : str
        ``p_censored`` if a label was not among the alternatives (then 1 - their sum bounds it) or
        the mass is below one half; ``p_hard`` if p is the label itself, because nothing was given
        or the bound of one label exceeds all that is known of the other and so says nothing.
    """
    masses: dict[str, float] = dict.fromkeys(WORDS, 0.0)
    seen = set()
    for text, p in alternatives:
        bare = text.strip(_AROUND)
        fits = [label for label in WORDS if bare and label.startswith(bare)]
        if len(fits) == 1:
            masses[fits[0]] += p
            seen.add(fits[0])
    mass = sum(masses.values()) if alternatives else math.nan
    sensitive, resistant = masses["sensitive"], masses["resistant"]
    flag: Flag = ""
    if len({"sensitive", "resistant"} & seen) == 1:
        bound = max(0.0, 1.0 - sum(p for _, p in alternatives))
        if bound > sensitive + resistant:
            return float(word == "sensitive"), mass, P_HARD
        sensitive = sensitive if "sensitive" in seen else bound
        resistant = resistant if "resistant" in seen else bound
        flag = P_CENSORED
    elif mass < _LEAST_MASS:
        flag = P_CENSORED
    if sensitive + resistant <= 0 or not {"sensitive", "resistant"} & seen:
        return float(word == "sensitive"), mass, P_HARD
    return sensitive / (sensitive + resistant), mass, flag
