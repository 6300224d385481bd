"""Reading checkpoints as they are published, and refusing what they are not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from scdrugmap.errors import WeightsError
from scdrugmap.model.load import load_model
from scdrugmap.modelkit import PublishedFolder, Weights
from scdrugmap.text.contract import Asking, Question
from scdrugmap.weights import how_to_get, import_weights, open_weights
from scdrugmap_plugin_llama3 import BASE, CUSTOM, INDEX, SPEC
from scdrugmap_plugin_llama3.weights import SINGLE, read_published

from .conftest import CHECKPOINT, SETTINGS, Cells, embed, load

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the golden checkpoint to spoil."""
    return shutil.copytree(CHECKPOINT, tmp_path / "checkpoint")


def read(folder: Path) -> Weights:
    return read_published(PublishedFolder(folder), SPEC.variant(BASE))


def change_json(path: Path, **fields: Any) -> None:
    content = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**content, **fields}), "utf-8")


def change_tensors(folder: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file(tensors, folder / SINGLE)


def cut_into_shards(folder: Path) -> dict[str, Any]:
    """Write the golden checkpoint as two shards; return the index."""
    tensors = load_file(folder / SINGLE)
    names = sorted(tensors)
    places = {name: f"model-0000{1 + (n % 2)}-of-00002.safetensors" for n, name in enumerate(names)}
    for place in set(places.values()):
        part = {name: tensors[name] for name in names if places[name] == place}
        save_file(part, folder / place)
    (folder / SINGLE).unlink()
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / INDEX).write_text(json.dumps(index), "utf-8")
    return index


def test_shards_are_read_like_a_single_file(folder: Path, cells: Cells) -> None:
    cut_into_shards(folder)
    one, many = read(CHECKPOINT), read(folder)
    assert one.tensors.keys() == many.tensors.keys()
    assert all(torch.equal(one.tensors[name], many.tensors[name]) for name in one.tensors)
    np.testing.assert_array_equal(embed(load(folder), cells), embed(load(), cells))


def test_embedding_works_without_the_head_and_answers_do_not(folder: Path, cells: Cells) -> None:
    change_tensors(folder, lambda tensors: tensors.pop("lm_head.weight"))
    loaded = load(folder)
    np.testing.assert_array_equal(embed(loaded, cells), embed(load(), cells))
    with pytest.raises(WeightsError, match=r"lm_head.weight is missing: .* cannot answer"):
        loaded.model.classify([Question("c", ("TP53",))], Asking(device="cpu"))


def test_body_without_its_prefix_is_read(folder: Path, cells: Cells) -> None:
    tensors = load_file(folder / SINGLE)
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    bare["layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)
    save_file(bare, folder / SINGLE)
    np.testing.assert_array_equal(embed(load(folder), cells), embed(load(), cells))


def test_tied_head_is_that_of_the_words(folder: Path) -> None:
    change_json(folder / "config.json", tie_word_embeddings=True)
    tied = load(folder).model
    change_tensors(folder, lambda tensors: tensors.pop("lm_head.weight"))
    question = [Question("c", ("TP53", "EGFR"))]
    first = tied.classify(question, Asking(device="cpu"))[0].p_sensitive
    second = load(folder).model.classify(question, Asking(device="cpu"))[0].p_sensitive
    assert first == second


def test_import_gives_the_same_model(folder: Path, tmp_path: Path, cells: Cells) -> None:
    target = import_weights(SPEC, folder, output=tmp_path / "imported")
    np.testing.assert_array_equal(embed(load(target), cells), embed(load(), cells))
    _, published = open_weights(SPEC, folder)
    _, imported = open_weights(SPEC, target)
    assert imported.digest == published.digest
    assert set(published.files) == {
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
    }
    question = [Question("c", ("TP53", "EGFR"))]
    answers = [
        load(path).model.classify(question, Asking(device="cpu")) for path in (folder, target)
    ]
    assert answers[0][0].p_sensitive == answers[1][0].p_sensitive


def test_licence_is_said_and_recorded() -> None:
    _, record = open_weights(SPEC, CHECKPOINT)
    assert record.licence == "Meta Llama 3 Community License"
    assert any("Built with Meta Llama 3" in notice for notice in record.notices)
    assert "Acceptable Use Policy" in record.notice
    assert "needs a login there" in how_to_get(SPEC)
    _, other = open_weights(SPEC, CHECKPOINT, variant=CUSTOM)
    assert not other.notice
    assert other.licence.startswith("that of the checkpoint")


def test_untrained_control_draws_body_and_head_anew(cells: Cells) -> None:
    drawn = load_model("llama3", settings=SETTINGS, weights=CHECKPOINT, randomize=1)
    plain = load()
    assert not np.allclose(embed(drawn, cells), embed(plain, cells))
    head, trained = drawn.model.module.answer_head, plain.model.module.answer_head
    assert head.shape == trained.shape
    assert not torch.equal(head, trained)
    assert float(drawn.model.module.norm.weight.detach().std()) == 0


def test_other_spelling_of_positions_is_read(folder: Path, cells: Cells) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    theta = content.pop("rope_theta")
    content.pop("rope_scaling")
    rope = {"rope_theta": theta, "rope_type": "default"}
    path.write_text(json.dumps({**content, "rope_parameters": rope}))
    np.testing.assert_array_equal(embed(load(folder), cells), embed(load(), cells))


def test_scaled_positions_are_those_of_transformers(folder: Path, cells: Cells) -> None:
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    change_json(folder / "config.json", rope_scaling=scaling)
    from transformers import LlamaModel

    theirs = LlamaModel.from_pretrained(folder).eval()
    loaded = load(folder)
    ours = loaded.model.module
    torch.testing.assert_close(ours.rotary_emb.inv_freq, theirs.rotary_emb.inv_freq)
    ids = torch.arange(1, 100)[None]
    with torch.inference_mode():
        expected = theirs(input_ids=ids).last_hidden_state
        torch.testing.assert_close(ours.states(ids), expected, rtol=0, atol=3e-5)


def spoil_config(**fields: Any) -> Callable[[Path], None]:
    return lambda folder: change_json(folder / "config.json", **fields)


def spoil_tensors(change: Callable[[Tensors], object]) -> Callable[[Path], None]:
    return lambda folder: change_tensors(folder, change)


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def meta_layout(folder: Path) -> None:
    for path in list(folder.iterdir()):
        path.unlink()
    (folder / "original").mkdir()
    (folder / "original" / "consolidated.00.pth").write_bytes(b"never opened")
    (folder / "original" / "params.json").write_text("{}")


def pickled_tensors(folder: Path) -> None:
    (folder / SINGLE).rename(folder / "pytorch_model.bin")


def lost_shard(folder: Path) -> None:
    cut_into_shards(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def cut_index(folder: Path) -> None:
    index = cut_into_shards(folder)
    index["weight_map"].popitem()
    (folder / INDEX).write_text(json.dumps(index), "utf-8")


def other_total(folder: Path) -> None:
    index = cut_into_shards(folder)
    index["metadata"]["total_size"] += 2
    (folder / INDEX).write_text(json.dumps(index), "utf-8")


def shard_outside(folder: Path) -> None:
    index = cut_into_shards(folder)
    name = next(iter(index["weight_map"]))
    index["weight_map"][name] = "../elsewhere.safetensors"
    (folder.parent / "elsewhere.safetensors").write_bytes(b"")
    (folder / INDEX).write_text(json.dumps(index), "utf-8")


def sentencepiece_only(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"")


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_tensors(lambda t: t.pop(NORM)), r"1 tensors are missing: norm.weight"),
        (
            spoil_tensors(lambda t: t.update({"score.weight": torch.zeros(2, 48)})),
            "1 tensors are not part of this model: score.weight",
        ),
        (
            spoil_tensors(lambda t: t.update({NORM: torch.ones(47)})),
            r"norm.weight is \(47,\), expected \(48,\)",
        ),
        (
            spoil_tensors(lambda t: t.update({"lm_head.weight": torch.ones(656, 47)})),
            r"lm_head.weight is \(656, 47\), expected \(656, 48\)",
        ),
        (
            spoil_tensors(lambda t: t.update({NORM: torch.full((48,), torch.nan)})),
            "norm.weight holds NaN",
        ),
        (spoil_config(model_type="mistral"), "model_type is 'mistral'; only 'llama'"),
        (spoil_config(hidden_act="gelu"), "hidden_act is 'gelu'; expected 'silu'"),
        (spoil_config(num_hidden_layers=4), "9 tensors are missing: layers.3"),
        (spoil_config(hidden_size=0), "hidden_size is 0, not a positive integer"),
        (spoil_config(vocab_size=600), "bos_token_id is 640; vocab_size is 600"),
        (spoil_config(quantization_config={"bits": 4}), "is quantised already"),
        (remove("config.json"), "config.json is missing"),
        (remove("tokenizer.json"), "tokenizer.json is missing"),
        (sentencepiece_only, r"tokenizer.json is missing \(tokenizer.model is not read\)"),
        (remove(SINGLE), "neither model.safetensors nor model.safetensors.index.json"),
        (pickled_tensors, r"\(pytorch_model.bin is not read\)"),
        (meta_layout, "is Meta's own layout .*consolidated.00.pth.*; nothing was opened"),
        (lost_shard, "model-00002-of-00002.safetensors is missing"),
        (cut_index, "1 tensors are not as model.safetensors.index.json lists them"),
        (other_total, "bytes of tensors, the shards hold"),
        (shard_outside, "leads out of the folder"),
        (
            lambda folder: (folder / "tokenizer.json").write_text('{"version": "1.0"}'),
            "tokenizer.json is no tokenizer",
        ),
    ],
)
def test_what_is_no_complete_checkpoint_is_refused(
    spoil: Callable[[Path], None], message: str, folder: Path
) -> None:
    spoil(folder)
    with pytest.raises(WeightsError, match=message):
        load(folder)
