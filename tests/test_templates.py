"""Templates are data with a hash; a cell's genes are put in without being cut or obeyed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scdrugmap.errors import UsageError
from scdrugmap.modelkit.templates import (
    Template,
    load_template,
    most_genes,
    packaged,
    pin_template,
)

PUBLISHED = {
    "names:1": "354f5e88d8259a6550717d7b3bb36196727930b353ec8907fcd4042f723a3bce",
    "paper-llama:1": "58eff2240e26a5a990d7b0b6ccd959d004af19a649d3a690ec010d63deb6c28b",
    "scdrugmap-classify-chat:1": "cbacca8a9fb5347bae894f48f60c41b08cca4bb3382e9438d1a6b5bf7fa13933",
    "scdrugmap-classify:1": "a88ff0a6e9347ba59a7b8a137d8540e525097e07a4d91ee90ede27ddebbc1e06",
}
"""Hashes of published records: whoever edits one must give it another version instead."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_template_is_never_edited(name: str) -> None:
    assert load_template(name).digest == PUBLISHED[name]


def test_every_packaged_record_is_named_like_its_file() -> None:
    from scdrugmap.modelkit.templates import FOLDER

    names = {f"{t.id}-{t.version}.json" for found in packaged().values() for t in found.values()}
    assert names == {path.name for path in FOLDER.glob("*.json")}


def test_genes_and_fields_are_put_in_their_places_in_one_pass() -> None:
    template = Template(
        id="mine",
        version=1,
        kind="completion",
        text="{fields}{genes}|{drug}|",
        fields={"drug": "Drug: {value}\n", "tissue": "Tissue: {value}\n"},
        answers={"sensitive": " s", "resistant": " r"},
    )
    assert (
        template.render(["A", "{drug}"], {"drug": "{genes}"}) == "Drug: {genes}\nA {drug}|{genes}|"
    )
    assert template.render(["A"]) == "A||"
    assert template.frame({"drug": "D"}) == ("Drug: D\n", "|D|")


def test_cell_without_genes_is_the_null_text() -> None:
    assert load_template("names").render([]) == ""
    template = load_template("names").model_copy(update={"null_genes": "none"})
    assert template.render([]) == "none"


def test_swapping_exchanges_the_words_of_the_question_and_not_the_answers() -> None:
    template = load_template("scdrugmap-classify")
    swapped = template.swapped()
    assert "One word: resistant or sensitive." in swapped.text
    assert swapped.answers == template.answers
    assert swapped.digest != template.digest
    assert swapped.swapped() == template


def test_examples_stand_before_the_question_with_their_answers() -> None:
    template = load_template("scdrugmap-classify")
    text = template.with_examples("Q", [("E1", "sensitive"), ("E2", "resistant")])
    assert text == "E1 sensitive\n\nE2 resistant\n\nQ"


def test_chat_has_the_question_last_and_no_answer() -> None:
    turns = load_template("scdrugmap-classify-chat").messages(["A"], {}, [("E", "resistant")])
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert turns[1]["content"] == "resistant"


@pytest.mark.parametrize(("budget", "kept"), [(99, 5), (12, 5), (11, 4), (4, 1), (2, 0)])
def test_genes_are_dropped_whole_until_the_text_fits(budget: int, kept: int) -> None:
    assert most_genes(5, lambda n: 2 + 2 * n, budget, "t:1") == kept


def test_text_that_is_too_long_without_genes_is_refused() -> None:
    with pytest.raises(UsageError, match="t:1 has 2 tokens without a single gene; at most 1"):
        most_genes(5, lambda n: 2 + 2 * n, 1, "t:1")


def test_name_of_a_packaged_template_is_pinned_to_its_hash() -> None:
    pinned = pin_template("names")
    assert pinned == f"names:1:{load_template('names').digest}"
    assert pin_template(pinned) == pinned
    with pytest.raises(UsageError, match=r"names:1 is .* here, not 000000000000"):
        load_template("names:1:" + "0" * 64)


def test_template_of_the_user_is_pinned_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"id": "mine", "version": 3, "kind": "embed", "text": "{genes}!"}))
    pinned = pin_template(str(path))
    path.unlink()
    assert load_template(pinned).render(["A"]) == "A!"
    assert pin_template(pinned) == pinned


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("nmes", "there is no template 'nmes'"),
        ("names:9", "template names has no version 9"),
        ("no/such.json", "template no/such.json: FileNotFoundError"),
        ('{"id": "a", "version": 1, "kind": "embed", "text": "x"}', "text does not name {genes}"),
        (
            '{"id": "a", "version": 1, "kind": "chat", "text": "{genes}"}',
            "answers must be given for sensitive and resistant",
        ),
        (
            '{"id": "a", "version": 1, "kind": "embed", "text": "{genes}{drug}"}',
            "drug is no field of the template",
        ),
        ("{", "is no proper JSON"),
    ],
)
def test_what_is_no_template_is_refused(value: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_template(value)
