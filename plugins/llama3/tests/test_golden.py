"""The plugin computes what transformers computes, text by text and cell by cell."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from scdrugmap.data.cells import open_cells
from scdrugmap.model.embed import embed_cells
from scdrugmap.model.load import LoadedModel
from scdrugmap.modelkit import load_template
from scdrugmap.text.contract import Asking, Question
from scdrugmap_plugin_llama3.likelihood import answer_logprobs
from scdrugmap_plugin_llama3.weights import KEYS

from .conftest import GOLDEN, INPUT, Cells, embed, encode, load

# float32 sums in another order: padded batches and SDPA differ from single cells and plain
# attention by up to 1.2e-6 in embeddings and 5e-6 in log-probabilities.
TOLERANCE = 1e-5
# States of single tokens are up to 8 in size, and nothing averages their rounding.
STATE_TOLERANCE = 3e-5
LOGPROB_TOLERANCE = 5e-5

CPU = Asking(device="cpu")


def test_packaged_templates_say_what_the_golden_ones_say() -> None:
    limits = {"top_k", "max_tokens"}  # defaults that the golden data lower
    for expected in json.loads((GOLDEN / "templates.json").read_text())["templates"]:
        ours = load_template(f"{expected['id']}:{expected['version']}").model_dump()
        for field in expected.keys() - limits:
            assert ours[field] == expected[field], (expected["id"], field)


def test_tokens_are_exact(loaded: LoadedModel, cells: Cells, golden: dict[str, np.ndarray]) -> None:
    tokens = encode(loaded, cells)
    lengths = golden["embed_attention_mask"].sum(1)
    np.testing.assert_array_equal(tokens.lengths, lengths)
    for cell in range(tokens.n_cells):
        ids = tokens.flat["id"][tokens.start[cell] : tokens.start[cell + 1]]
        np.testing.assert_array_equal(ids, golden["embed_input_ids"][cell, : lengths[cell]])
    batch = loaded.model.collate(tokens)
    width = batch["id"].shape[1]
    np.testing.assert_array_equal(batch["id"], golden["embed_input_ids"][:, :width])
    np.testing.assert_array_equal(batch["keep"], golden["embed_attention_mask"][:, :width] == 1)


def test_tokens_know_their_genes(
    loaded: LoadedModel, cells: Cells, golden: dict[str, np.ndarray]
) -> None:
    tokens = encode(loaded, cells)
    genes = cells[1]
    for cell in range(tokens.n_cells):
        columns = tokens.flat["column"][tokens.start[cell] : tokens.start[cell + 1]]
        assert columns[0] == -1  # the begin token
        names = list(dict.fromkeys(genes.published[columns[1:]]))
        assert " ".join(names) == golden["embed_text"][cell]
        assert len(names) == golden["embed_n_genes"][cell]


@pytest.mark.parametrize(
    ("pool", "name"),
    [
        ("mean", "embedding"),
        ("mean_no_bos", "embedding_no_bos"),
        ("last", "embedding_last_token"),
    ],
)
def test_embeddings_agree(
    pool: str, name: str, cells: Cells, golden: dict[str, np.ndarray]
) -> None:
    found = embed(load(pool=pool), cells)
    tolerance = STATE_TOLERANCE if pool == "last" else TOLERANCE
    np.testing.assert_allclose(found, golden[name], rtol=0, atol=tolerance)


def test_embeddings_agree_through_the_whole_pipeline(
    loaded: LoadedModel, golden: dict[str, np.ndarray]
) -> None:
    with open_cells(INPUT) as opened:
        embedded = embed_cells(opened, loaded, device="cpu", quiet=True)
    np.testing.assert_allclose(embedded.values, golden["embedding"], rtol=0, atol=TOLERANCE)


def test_float64_run_agrees(cells: Cells, golden: dict[str, np.ndarray]) -> None:
    loaded = load()
    module = loaded.model.module.double()
    module.set_attn_implementation("eager")  # as the golden data; SDPA differs by 2e-7
    tokens = encode(loaded, cells)
    with torch.inference_mode():
        for cell in range(tokens.n_cells):
            batch = loaded.model.collate(tokens.take(np.array([cell])))
            found = module.states(batch["id"])[0].mean(0)
            expected = golden["embedding_f64"][cell]
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layer", [-1, -2, -3])
def test_hidden_states_of_each_layer_agree(
    layer: int, cells: Cells, golden: dict[str, np.ndarray]
) -> None:
    loaded = load(layer=str(layer))
    batch = loaded.model.collate(encode(loaded, cells).take(np.array([0])))
    with torch.inference_mode():
        states = loaded.model.module.states(batch["id"])[0]
    expected = golden["hidden_states_cell0"][layer]
    np.testing.assert_allclose(states, expected, rtol=0, atol=STATE_TOLERANCE)


def test_text_of_the_paper_agrees(cells: Cells, golden: dict[str, np.ndarray]) -> None:
    loaded = load(template="paper-llama", top_k="none", max_tokens="320")
    tokens = encode(loaded, cells)
    np.testing.assert_array_equal(
        tokens.flat["id"].reshape(tokens.n_cells, -1), golden["paper_input_ids"]
    )
    assert loaded.model.traits.gene_order_matters
    found = embed(loaded, cells)
    np.testing.assert_allclose(found, golden["paper_embedding"], rtol=0, atol=TOLERANCE)


def test_prompts_are_exact(
    loaded: LoadedModel, questions: list[Question], golden: dict[str, np.ndarray]
) -> None:
    prompts = loaded.model.classifier.prompts
    for cell, question in enumerate(questions):
        assert loaded.model.preview(question) == golden["prompt_text"][cell]
        ids = golden["prompt_input_ids"][cell][golden["prompt_attention_mask"][cell] == 1]
        np.testing.assert_array_equal(prompts.ids(question), ids)
        assert len(question.genes) == golden["prompt_n_genes"][cell]
    np.testing.assert_array_equal(prompts.ids(questions[0], null=True), golden["null_input_ids"])
    for answer, ids in zip(prompts.answers, golden["answer_input_ids"], strict=True):
        np.testing.assert_array_equal(answer, ids[ids >= 0])


@pytest.mark.parametrize("min_shared", [1, 10_000])
@pytest.mark.parametrize("budget", [1, 700, 100_000])
def test_answers_have_the_golden_log_probabilities(
    budget: int,
    min_shared: int,
    loaded: LoadedModel,
    questions: list[Question],
    golden: dict[str, np.ndarray],
) -> None:
    prompts, module = loaded.model.classifier.prompts, loaded.model.module
    ids = [prompts.ids(question) for question in questions]
    with torch.inference_mode():
        found = answer_logprobs(
            module,
            module.answer_head,
            [*ids, prompts.ids(questions[0], null=True)],
            prompts.answers,
            device=torch.device("cpu"),
            token_budget=budget,
            min_shared=min_shared,
        )
    expected = golden["answer_token_logprob"][:, :, : found.shape[2]]
    np.testing.assert_allclose(found[:-1], expected, rtol=0, atol=LOGPROB_TOLERANCE)
    sums = np.nansum(found, axis=2)
    np.testing.assert_allclose(
        sums,
        [*golden["answer_logprob"], golden["answer_logprob_null"]],
        rtol=0,
        atol=LOGPROB_TOLERANCE,
    )


def test_logits_behind_the_prompt_agree(
    loaded: LoadedModel, questions: list[Question], golden: dict[str, np.ndarray]
) -> None:
    module = loaded.model.module
    for cell, question in enumerate(questions[:4]):
        ids = loaded.model.classifier.prompts.ids(question).astype(np.int64)
        with torch.inference_mode():
            last = module.states(torch.from_numpy(ids[None]))[0, -1]
            logits = module.answer_head @ last
        np.testing.assert_allclose(logits, golden["next_token_logits"][cell], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "p_sensitive_calibrated"),
        ({"calibrate": "false"}, "p_sensitive"),
        ({"calibrate": "false", "per_token": "true"}, "p_sensitive_per_token"),
    ],
)
def test_probabilities_agree(
    settings: dict[str, str],
    name: str,
    questions: list[Question],
    golden: dict[str, np.ndarray],
) -> None:
    answers = load(**settings).model.classify(questions, CPU)
    found = [answer.p_sensitive for answer in answers]
    np.testing.assert_allclose(found, golden[name], rtol=0, atol=TOLERANCE)
    mass = np.exp(golden["answer_logprob"]).sum(1)
    np.testing.assert_allclose([answer.answer_mass for answer in answers], mass, rtol=1e-4)
    assert {answer.state for answer in answers} == {"answered"}


def test_gradients_agree(cells: Cells, golden: dict[str, np.ndarray]) -> None:
    loaded = load()
    module = loaded.model.module
    embedded = module(loaded.model.collate(encode(loaded, cells)))
    loss = (embedded * torch.from_numpy(golden["grad_target"])).sum() / len(embedded)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(golden["grad_loss"]), rel=1e-3)
    gradients = {name: value.grad for name, value in module.named_parameters()}
    for theirs, expected in zip(golden["grad_names"], golden["grad_norms"], strict=True):
        (name,) = KEYS.apply({str(theirs): torch.zeros(1)}, "golden")
        assert float(gradients[name].norm()) == pytest.approx(float(expected), rel=1e-3), name
