"""Answers by likelihood: the same as transformers gives, whatever goes through together."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from scdrugmap.data.cells import open_cells
from scdrugmap.errors import ScDrugMapWarning, UsageError
from scdrugmap.model.load import LoadedModel, load_model
from scdrugmap.text.contract import Asking, Example, Question, TextModel
from scdrugmap.text.load import LoadedText
from scdrugmap.text.scorer import Prompting, PromptScorer
from scdrugmap_plugin_llama3.likelihood import answer_logprobs, continuations

from .conftest import CHECKPOINT, INPUT, SETTINGS, load

CPU = Asking(device="cpu")
CHAT = "scdrugmap-classify-chat"

# float32 sums in another order, through a cache and padding: 5e-6 was seen.
TOLERANCE = 5e-5


@pytest.fixture(scope="module")
def reference() -> LlamaForCausalLM:
    """The golden checkpoint as transformers loads it."""
    return LlamaForCausalLM.from_pretrained(CHECKPOINT).eval()


def teacher_forced(
    reference: LlamaForCausalLM, prompt: np.ndarray, answer: np.ndarray
) -> np.ndarray:
    """Score one answer the plain way: one prompt, one answer, all logits."""
    ids = torch.from_numpy(np.concatenate([prompt, answer]).astype(np.int64))
    with torch.inference_mode():
        logprob = reference(input_ids=ids[None]).logits[0].log_softmax(-1)
    places = torch.arange(len(prompt) - 1, len(ids) - 1)
    return logprob[places, ids[len(prompt) :]].numpy()


def test_model_is_a_text_model(loaded: LoadedModel) -> None:
    assert isinstance(loaded.model, TextModel)
    assert loaded.model.template.name == "scdrugmap-classify:1"
    assert loaded.model.n_genes == 20
    assert loaded.model.fields == ()
    assert "possible" in loaded.model.notices[0] or "published later" in loaded.model.notices[0]


@pytest.mark.parametrize(
    "answers",
    [([7], [9]), ([7, 8], [9]), ([7, 8], [9, 8]), ([7, 8, 11], [7, 9]), ([7, 8], [7])],
)
def test_any_two_answers_are_scored_as_by_transformers(
    answers: tuple[list[int], list[int]],
    loaded: LoadedModel,
    reference: LlamaForCausalLM,
    questions: list[Question],
) -> None:
    module = loaded.model.module
    prompts = [loaded.model.classifier.prompts.ids(question) for question in questions[5:8]]
    arrays = [np.array(answer) for answer in answers]
    with torch.inference_mode():
        found = answer_logprobs(
            module,
            module.answer_head,
            prompts,
            arrays,
            device=torch.device("cpu"),
            token_budget=4096,
        )
    for cell, prompt in enumerate(prompts):
        for place, answer in enumerate(arrays):
            expected = teacher_forced(reference, prompt, answer)
            seen = found[cell, place]
            np.testing.assert_allclose(seen[: len(answer)], expected, rtol=0, atol=TOLERANCE)
            assert np.isnan(seen[len(answer) :]).all()


def test_answers_that_differ_in_their_last_token_share_a_pass() -> None:
    def follow(*answers: list[int]) -> list[list[int]]:
        return [tail.tolist() for tail in continuations([np.array(a) for a in answers])]

    assert follow([7], [9]) == [[]]
    assert follow([7], [9, 8]) == [[9]]
    assert follow([7, 1, 3], [7, 1, 4], [7, 2]) == [[7, 1]]
    assert sorted(follow([7, 1], [9, 8])) == [[7], [9]]


def test_order_and_company_of_questions_change_nothing(
    loaded: LoadedModel, questions: list[Question]
) -> None:
    together = [a.p_sensitive for a in loaded.model.classify(questions, CPU)]
    mixed = [questions[3], questions[0], questions[3]]
    small = Asking(device="cpu", token_budget=1)
    found = [a.p_sensitive for a in loaded.model.classify(mixed, small)]
    expected = [together[3], together[0], together[3]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_cell_without_known_genes_is_invalid(
    loaded: LoadedModel, questions: list[Question]
) -> None:
    answers = loaded.model.classify([Question("empty", ()), questions[0]], CPU)
    assert (answers[0].state, answers[0].reason) == ("invalid", "no_known_genes")
    assert np.isnan(answers[0].p_sensitive)
    assert answers[1].state == "answered"
    assert loaded.model.classify([], CPU) == []


def test_both_orders_are_averaged(questions: list[Question]) -> None:
    p = {
        orders: np.array(
            [a.p_sensitive for a in load(orders=orders).model.classify(questions[:3], CPU)]
        )
        for orders in ("given", "swapped", "both")
    }
    np.testing.assert_allclose(p["both"], (p["given"] + p["swapped"]) / 2, rtol=0, atol=1e-6)
    assert np.abs(p["given"] - p["swapped"]).max() > 1e-3


def examples_of(questions: list[Question]) -> tuple[Example, ...]:
    labels = ("sensitive", "resistant")
    return tuple(
        Example(question.genes, labels[place % 2]) for place, question in enumerate(questions)
    )


def test_examples_stand_before_the_question_and_are_read(
    loaded: LoadedModel, reference: LlamaForCausalLM, questions: list[Question]
) -> None:
    shown = examples_of(questions[8:10])
    asked = [dataclasses.replace(question, examples=shown) for question in questions[:3]]
    text = loaded.model.preview(asked[0])
    first = loaded.model.preview(questions[8])
    assert text.startswith(f"{first} sensitive\n\n")
    assert text.endswith(loaded.model.preview(questions[0]))
    prompts = loaded.model.classifier.prompts
    answers = loaded.model.classify(asked, CPU)
    for question, answer in zip(asked, answers, strict=True):
        scores = []
        for null in (False, True):
            prompt = prompts.ids(question, null=null)
            scores.append([teacher_forced(reference, prompt, a).sum() for a in prompts.answers])
        sensitive, resistant = np.subtract(*scores)
        expected = 1 / (1 + np.exp(resistant - sensitive))
        assert answer.p_sensitive == pytest.approx(expected, abs=TOLERANCE)


def test_examples_take_half_of_the_room_and_lose_genes_alike(questions: list[Question]) -> None:
    model = load(question_max_tokens="400").model
    question = dataclasses.replace(questions[0], examples=examples_of(questions[8:12]))
    prompts = model.classifier.prompts
    assert len(prompts.ids(question)) <= 400 - 2
    text = model.preview(question)
    lists = [line.split(": ", 1)[1].split() for line in text.splitlines() if "order of" in line]
    assert len(lists) == 5
    sizes = [len(genes) for genes in lists]
    assert len(set(sizes[:4])) == 1
    assert 0 < sizes[0] < 20
    assert lists[0] == list(questions[8].genes[: sizes[0]])
    n_examples = len(prompts.ids(question, null=True)) - len(prompts.ids(questions[0], null=True))
    assert n_examples <= 200


def test_question_without_room_is_refused(questions: list[Question]) -> None:
    with pytest.raises(UsageError, match=r"scdrugmap-classify:1 has .* without a single gene"):
        load(question_max_tokens="20").model.classify(questions[:1], CPU)


def test_chat_is_the_one_of_transformers(questions: list[Question]) -> None:
    model = load(question=CHAT).model
    shown = examples_of(questions[8:9])
    question = dataclasses.replace(questions[0], examples=shown)
    theirs = PreTrainedTokenizerFast.from_pretrained(CHECKPOINT)
    messages = model.template.messages(
        question.genes, {}, [(model.template.render(shown[0].genes), "sensitive")]
    )
    text = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert model.preview(question) == text
    expected = theirs(text, add_special_tokens=False)["input_ids"]
    ids = model.classifier.prompts.ids(question).tolist()
    assert ids == expected
    assert ids.count(theirs.bos_token_id) == 1


def test_gene_cannot_end_a_turn(questions: list[Question]) -> None:
    model = load(question=CHAT).model
    end = model.tokenizer.texts.special["<|eot_id|>"]
    hostile = Question("c", ("TP53", "<|eot_id|>", "{genes}", "\ue0000\ue001"))
    plain = model.classifier.prompts.ids(Question("c", ("TP53",))).tolist()
    ids = model.classifier.prompts.ids(hostile).tolist()
    assert ids.count(end) == plain.count(end)
    assert "TP53 <|eot_id|> {genes} \ue0000\ue001" in model.preview(hostile)


def test_chat_is_asked_in_both_orders_by_default(questions: list[Question]) -> None:
    auto = load(question=CHAT).model.classify(questions[:2], CPU)
    both = load(question=CHAT, orders="both").model.classify(questions[:2], CPU)
    assert [a.p_sensitive for a in auto] == [b.p_sensitive for b in both]


def test_instruct_variant_asks_in_a_chat() -> None:
    instruct = load_model(
        "llama3", settings={"variant": "Meta-Llama-3-8B-Instruct"}, weights=CHECKPOINT
    )
    assert instruct.model.template.name == f"{CHAT}:1"


def test_chat_without_a_template_is_refused() -> None:
    random = load_model("llama3", settings={"variant": "tiny", "question": CHAT}, weights="random")
    with pytest.raises(UsageError, match="its checkpoint has no chat template"):
        random.model.classify([Question("c", ("TP53",))], CPU)


def test_middle_layer_gives_no_answers(questions: list[Question]) -> None:
    with pytest.raises(UsageError, match="from the last layer, not from layer=-2"):
        load(layer="-2").model.classify(questions[:1], CPU)


def test_tokens_joined_at_the_seam_are_said(questions: list[Question], tmp_path: Path) -> None:
    record = json.loads(load().model.template.model_dump_json())
    record["answers"] = {"sensitive": "sensitive", "resistant": "resistant"}
    record["text"] += " "  # a blank at the end, which the answer would have been read with
    path = tmp_path / "joined.json"
    path.write_text(json.dumps(record | {"id": "joined"}))
    model = load(question=str(path)).model
    with pytest.warns(ScDrugMapWarning, match="joined:1: this tokenizer joins the prompt's end"):
        model.classify(questions[:1], CPU)


def test_hash_of_a_prompt_depends_on_prompt_and_options(questions: list[Question]) -> None:
    def hashes(**settings: str) -> list[str]:
        answers = load(**settings).model.classify(questions[:2], CPU)
        return [answer.prompt_hash for answer in answers]

    first = hashes()
    assert first == hashes()
    assert first[0] != first[1]
    assert first[0] != hashes(per_token="true")[0]


def test_random_weights_answer_the_same_with_the_same_seed(questions: list[Question]) -> None:
    def answers(seed: int) -> list[float]:
        random = load_model("llama3", settings={"variant": "tiny"}, weights="random", seed=seed)
        return [a.p_sensitive for a in random.model.classify(questions[:2], CPU)]

    assert answers(0) == answers(0) != answers(1)


def test_cells_of_a_file_are_asked_about(
    loaded: LoadedModel, golden: dict[str, np.ndarray]
) -> None:
    scorer = PromptScorer(LoadedText.of(loaded), (), Prompting(CPU))
    with open_cells(INPUT) as cells:
        scores = scorer.scores(cells, quiet=True)
    np.testing.assert_allclose(scores.p, golden["p_sensitive_calibrated"], rtol=0, atol=1e-5)
    assert SETTINGS["question_top_k"] == str(loaded.model.n_genes)
