"""The network: what is held and read, adapters, and what a predictor made with it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from scdrugmap.data.cells import open_cells
from scdrugmap.data.labels import LabelMap
from scdrugmap.errors import ResourceError, UsageError
from scdrugmap.evaluation.design import read_design
from scdrugmap.evaluation.splits import make_split
from scdrugmap.model.load import load_model
from scdrugmap.model.lora import adapter_state, add_adapters
from scdrugmap.model.recompute import recomputed_layers
from scdrugmap.testing import synthetic_adata
from scdrugmap.text.contract import Asking, Question
from scdrugmap.text.fit import ask_model
from scdrugmap.text.scorer import Prompting
from scdrugmap.train.card import model_card
from scdrugmap.train.predict import predict_cells
from scdrugmap.train.train import train_predictor
from scdrugmap_plugin_llama3 import LLAMA3_8B, SPEC, Options
from scdrugmap_plugin_llama3.model import Llama, _config

from .conftest import CHECKPOINT, INPUT, Cells, embed, encode, load

N_PARAMETERS = 8_030_261_248
"""Of Meta-Llama-3-8B with its head: 32 x 218,112,000 + 2 x 525,336,576 + 4,096."""

N_ADAPTER_PARAMETERS = 6_815_744
"""Of adapters of rank 8 on q, k, v and o of all layers."""


def test_published_sizes_give_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        network = Llama(_config(LLAMA3_8B), pool="mean", n_begin=1, pad=0)
        assert SPEC.lora is not None
        head = network.embed_tokens.weight.numel()
        assert sum(p.numel() for p in network.parameters()) + head == N_PARAMETERS
        add_adapters(network, SPEC.lora)
        trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert trainable == N_ADAPTER_PARAMETERS


def test_weights_held_in_bfloat16_give_nearly_the_same(
    cells: Cells, golden: dict[str, np.ndarray]
) -> None:
    loaded = load(load_in="bfloat16")
    module = loaded.model.module
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
    assert module.rotary_emb.inv_freq.dtype == torch.float32
    found = embed(loaded, cells)
    assert found.dtype == np.float32
    error = np.abs(found - golden["embedding"]).max()
    # transformers in bfloat16 differs from float32 by 0.022; cells differ by 0.17.
    assert 1e-4 < error < 0.05
    assert loaded.identity() != load().identity()


def test_answers_of_weights_held_in_bfloat16_are_nearly_the_same(
    questions: list[Question], golden: dict[str, np.ndarray]
) -> None:
    answers = load(load_in="bfloat16", calibrate="false").model.classify(
        questions, Asking(device="cpu")
    )
    log_odds = [np.log(a.p_sensitive / (1 - a.p_sensitive)) for a in answers]
    expected = golden["answer_logprob"][:, 0] - golden["answer_logprob"][:, 1]
    # Each log-probability of transformers in bfloat16 differs by up to 0.14.
    np.testing.assert_allclose(log_odds, expected, rtol=0, atol=0.28)


def test_quantised_weights_are_refused_on_a_processor(cells: Cells) -> None:
    loaded = load()
    loaded.model.module.is_quantized = True
    with pytest.raises(UsageError, match="quantised weights work on a CUDA GPU only, not on cpu"):
        embed(loaded, cells)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
@pytest.mark.parametrize("load_in", ["8bit", "4bit"])
def test_quantised_weights_are_refused_without_a_gpu(load_in: str) -> None:
    with pytest.raises(ResourceError, match=f"load_in={load_in} works on a CUDA GPU only"):
        load(load_in=load_in)


def test_layer_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="layer=-4, but the checkpoint has 3 layers"):
        load(layer="-4")


def test_text_is_never_longer_than_the_positions() -> None:
    model = load(max_tokens="100000").model
    assert model.traits.max_tokens == model.module.config.max_position_embeddings == 1024
    assert (
        load_model("llama3", settings={"variant": "tiny"}, weights="random").model.traits.dim == 32
    )


def test_begin_token_is_all_that_mean_no_bos_leaves_out(cells: Cells) -> None:
    loaded = load()
    tokens = encode(loaded, cells).take(np.array([7]))
    batch = loaded.model.collate(tokens)
    with torch.inference_mode():
        states = loaded.model.module.states(batch["id"])[0]
        without = load(pool="mean_no_bos").model.module(batch)[0]
    torch.testing.assert_close(without, states[1:].mean(0), rtol=0, atol=1e-6)


def test_adapters_on_bfloat16_weights_learn_in_float32(cells: Cells) -> None:
    loaded = load(load_in="bfloat16")
    module = loaded.model.module
    assert SPEC.lora is not None
    names = add_adapters(module, SPEC.lora)
    assert len(names) == 4 * 3
    assert {tensor.dtype for tensor in adapter_state(module).values()} == {torch.float32}
    batch = loaded.model.collate(encode(loaded, cells).take(np.arange(4)))
    before = module(batch)
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], 1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        module(batch).square().sum().backward()
        optimizer.step()
    assert (module(batch) - before).abs().max() > 1e-4


def test_gradients_with_recomputed_layers_are_the_same(cells: Cells) -> None:
    loaded = load()
    module = loaded.model.module
    assert SPEC.lora is not None
    add_adapters(module, SPEC.lora)
    batch = loaded.model.collate(encode(loaded, cells).take(np.arange(3)))

    def gradients() -> list[torch.Tensor]:
        module.zero_grad()
        module(batch).square().sum().backward()
        return [p.grad.clone() for p in module.parameters() if p.grad is not None]

    plain = gradients()
    with recomputed_layers(module):
        again = gradients()
    assert len(plain) == len(again) == 2 * 4 * 3
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(one, other)


def test_predictor_is_named_as_its_licence_asks(tmp_path: Any) -> None:
    synthetic_adata(48, 300).write_h5ad(tmp_path / "cohort.h5ad")
    design = read_design(
        [tmp_path / "cohort.h5ad"],
        label="response",
        labels=LabelMap.parse(),
        group="patient",
        cell_arguments={},
    )
    splits = make_split(design, "pooled-group", folds=2).table
    loaded = load_model("llama3", options=Options(top_k=10), weights=CHECKPOINT)
    with open_cells(tmp_path / "cohort.h5ad") as cells:
        predictor = train_predictor([cells], splits, fold=0, model=loaded, device="cpu", quiet=True)
    card = model_card(predictor.info)
    assert predictor.info.title.startswith("Llama 3")
    assert "\n# Llama 3" in card
    assert 'license: "Meta Llama 3 Community License"' in card
    assert "Built with Meta Llama 3" in card
    assert predictor.info.options["template"].startswith("names:1:")


def test_licence_is_said_before_cells_are_predicted(
    cells: Cells, capsys: pytest.CaptureFixture[str]
) -> None:
    prompting = Prompting(Asking(device="cpu"))
    settings = {"question_top_k": "5"}
    predictor = ask_model("llama3", prompting=prompting, settings=settings, weights=CHECKPOINT)
    with open_cells(INPUT) as opened:
        found = predict_cells(predictor, opened)
    assert (found.cells["state"] == "answered").all()
    said = capsys.readouterr().err
    assert "Acceptable Use Policy" in said
    assert "may be part of what the model was trained on" in model_card(predictor.info)
