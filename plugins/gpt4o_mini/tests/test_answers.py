"""Replies are validated whatever the server promises; probabilities come from the right token."""

from __future__ import annotations

import math
from typing import Any

import pytest

from scdrugmap_plugin_gpt4o_mini.answers import probability, read_digits, read_one, read_several


def token(text: str, logprob: float = -0.1, **others: float) -> dict[str, Any]:
    """Make a token; `others` are further alternatives with their probabilities."""
    top = [{"token": text, "logprob": logprob, "bytes": list(text.encode())}]
    top += [
        {"token": name, "logprob": math.log(p), "bytes": list(name.encode())}
        for name, p in others.items()
    ]
    return {**top[0], "top_logprobs": top}


def reply(text: Any, tokens: list[dict] | None = None, **choice: Any) -> dict[str, Any]:
    logprobs = None if tokens is None else {"content": tokens}
    message = {"role": "assistant", "content": text}
    return {
        "model": "m",
        "system_fingerprint": "f",
        "choices": [{"finish_reason": "stop", "message": message, "logprobs": logprobs, **choice}],
    }


def test_probability_is_read_where_the_label_begins_not_where_its_word_stands_elsewhere() -> None:
    tokens = [
        token('{"'),
        token("label"),
        token('":"'),
        token("res", math.log(0.6), sens=0.3, un=0.1),
    ]
    tokens += [token("istant", -0.01, itive=0.9), token('"}')]
    answer = read_one(reply('{"label":"resistant"}', tokens), schema=True)
    assert answer.state == "answered"
    assert answer.p_sensitive == pytest.approx(0.3 / 0.9)
    assert answer.answer_mass == pytest.approx(1.0)
    assert answer.flag == ""


def test_quote_may_be_glued_to_the_label() -> None:
    tokens = [
        token('{"label"'),
        token(':"s', math.log(0.5), **{':"r': 0.4, ': "': 0.1}),
        token('ensitive"}'),
    ]
    answer = read_one(reply('{"label":"sensitive"}', tokens), schema=True)
    assert answer.p_sensitive == pytest.approx(0.5 / 0.9)
    assert answer.answer_mass == pytest.approx(0.9)


def test_white_space_that_the_server_trims_from_the_message_does_not_shift_the_place() -> None:
    tokens = [
        token(" \n"),
        token('{\n "label" :\n'),
        token(' "'),
        token("sens", math.log(0.7), res=0.3),
    ]
    tokens += [token('itive"\n}')]
    answer = read_one(reply('{\n "label" :\n "sensitive"\n}', tokens), schema=True)
    assert answer.p_sensitive == pytest.approx(0.7)


def test_alternative_that_begins_two_labels_or_none_counts_for_none() -> None:
    p, mass, flag = probability(
        "sensitive", [("sens", 0.6), ("res", 0.2), ('"', 0.1), ("maybe", 0.05), ("", 0.05)]
    )
    assert (p, mass, flag) == (pytest.approx(0.75), pytest.approx(0.8), "")


def test_label_that_is_not_listed_is_bounded_and_flagged() -> None:
    p, mass, flag = probability("sensitive", [("sens", 0.9), ("un", 0.02)])
    assert p == pytest.approx(0.9 / (0.9 + 0.08))
    assert mass == pytest.approx(0.92)
    assert flag == "p_censored"


def test_bound_above_all_that_is_known_of_the_other_label_leaves_only_the_label() -> None:
    p, mass, flag = probability("resistant", [("res", 0.01), ("x", 0.2)])
    assert (p, flag) == (0.0, "p_hard")
    assert mass == pytest.approx(0.01)


def test_small_mass_of_both_labels_is_flagged() -> None:
    p, mass, flag = probability("sensitive", [("s", 0.2), ("r", 0.1), ("x", 0.7)])
    assert (p, mass, flag) == (pytest.approx(2 / 3), pytest.approx(0.3), "p_censored")


@pytest.mark.parametrize("tokens", [None, [], [{"token": "{", "logprob": None}], [None, 3]])
def test_without_log_probabilities_p_is_the_label(tokens: Any) -> None:
    answer = read_one(reply('{"label": "resistant"}', tokens), schema=True)
    assert (answer.state, answer.p_sensitive, answer.flag) == ("answered", 0.0, "p_hard")
    assert math.isnan(answer.answer_mass)


def test_token_that_was_taken_counts_even_if_it_is_not_among_the_most_likely() -> None:
    place = token("res", math.log(0.05), sens=0.5, x=0.2)
    place["top_logprobs"] = place["top_logprobs"][1:]
    answer = read_one(
        reply('{"label":"resistant"}', [token('{"label":"'), place, token('istant"}')]), schema=True
    )
    assert answer.p_sensitive == pytest.approx(0.5 / 0.55)


@pytest.mark.parametrize(
    ("text", "choice", "state", "reason"),
    [
        ('{"label": "unsure"}', {}, "abstained", "unsure"),
        ('{"label": "sens', {"finish_reason": "length"}, "invalid", "length"),
        ("", {"finish_reason": "content_filter"}, "invalid", "filtered"),
        ("", {}, "invalid", "empty"),
        (None, {}, "invalid", "empty"),
        ("sensitive", {}, "invalid", "not_valid"),
        ('{"label": "Sensitive"}', {}, "invalid", "not_valid"),
        ('{"label": "maybe"}', {}, "invalid", "not_valid"),
        ('{"label": "sensitive", "p": 1}', {}, "invalid", "not_valid"),
        ('[{"label": "sensitive"}]', {}, "invalid", "not_valid"),
        ('{"label": "sensitive"} and more', {}, "invalid", "not_valid"),
        ('{"label": 1}', {}, "invalid", "not_valid"),
    ],
)
def test_every_reply_is_an_answer_an_abstention_or_invalid(
    text: Any, choice: dict, state: str, reason: str
) -> None:
    answer = read_one(reply(text, **choice), schema=True)
    assert (answer.state, answer.reason) == (state, reason)
    assert math.isnan(answer.p_sensitive)
    assert answer.raw == (text or "")


def test_refusal_is_an_abstention() -> None:
    message = {"role": "assistant", "content": None, "refusal": "I cannot"}
    answer = read_one(reply("", message=message), schema=True)
    assert (answer.state, answer.reason) == ("abstained", "refused")


@pytest.mark.parametrize(
    "strange", [{}, {"choices": []}, {"choices": [None]}, {"choices": [{"message": "hi"}]}]
)
def test_reply_of_another_shape_is_invalid(strange: dict) -> None:
    assert read_one(strange, schema=True).state == "invalid"


@pytest.mark.parametrize("text", ["sensitive", " Sensitive.\n", '"sensitive"'])
def test_single_word_is_read_where_there_is_no_schema(text: str) -> None:
    tokens = [token(" "), token(text.strip()[:4], math.log(0.8), res=0.2), token("itive")]
    answer = read_one(reply(text, tokens), schema=False)
    assert answer.state == "answered"
    assert read_one(reply("It is sensitive"), schema=False).state == "invalid"


def test_several_answers_are_matched_by_id_each_with_its_own_probability() -> None:
    text = '{"cells":[{"id":"c02","label":"sensitive"},{"id":"c01","label":"resistant"}]}'
    tokens = [
        token('{"cells":[{"id":"c02","label":"'),
        token("sens", math.log(0.9), res=0.1),
        token('itive"},{"id":"c01","label":"'),
        token("res", math.log(0.8), sens=0.2),
        token('istant"}]}'),
    ]
    answers = read_several(reply(text, tokens), ["c01", "c02"])
    assert answers["c02"].p_sensitive == pytest.approx(0.9)
    assert answers["c01"].p_sensitive == pytest.approx(0.2)


def test_repeated_and_missing_ids_make_their_cells_invalid_and_no_others() -> None:
    items = [("c01", "sensitive"), ("c01", "resistant"), ("c03", "resistant")]
    text = ",".join(f'{{"id":"{name}","label":"{label}"}}' for name, label in items)
    answers = read_several(reply(f'{{"cells":[{text}]}}'), ["c01", "c02", "c03"])
    assert [answers[name].state for name in ("c01", "c02", "c03")] == [
        "invalid",
        "invalid",
        "answered",
    ]
    assert answers["c01"].reason == "wrong_ids"


def test_unknown_id_makes_all_cells_of_the_request_invalid() -> None:
    text = '{"cells":[{"id":"c01","label":"sensitive"},{"id":"c09","label":"resistant"}]}'
    answers = read_several(reply(text), ["c01", "c02"])
    assert {answer.reason for answer in answers.values()} == {"wrong_ids"}


@pytest.mark.parametrize(
    ("text", "p"),
    [
        ("{res:1,0,1}", [1, 0, 1]),
        ("Here you are: {res:0,0,0}.", [0, 0, 0]),
        ("{res:1,0}", None),
        ("{res:1,0,1,1}", None),
        ("{res:10,1}", None),
        ("{res:1,0,}", None),
        ("1,0,1", None),
    ],
)
def test_row_of_digits_counts_only_with_exactly_one_digit_per_cell(text: str, p: Any) -> None:
    answers = read_digits(reply(text), 3)
    if p is None:
        assert {(a.state, a.reason) for a in answers} == {("invalid", "not_valid")}
    else:
        assert [answer.p_sensitive for answer in answers] == p
        assert {answer.flag for answer in answers} == {"p_hard"}
