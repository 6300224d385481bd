"""Reading folders as the authors and their users ship them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from scdrugmap.data.cells import open_cells
from scdrugmap.errors import UsageError, WeightsError
from scdrugmap.model.embed import embed_cells
from scdrugmap.model.load import load_model
from scdrugmap.modelkit import PublishedFolder, Weights
from scdrugmap.weights import import_weights
from scdrugmap_plugin_tgpt import SPEC
from scdrugmap_plugin_tgpt.weights import SIZES, read_published

from .conftest import CHECKPOINT, GOLDEN

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the golden checkpoint to spoil."""
    return shutil.copytree(CHECKPOINT, tmp_path / "checkpoint")


def read(folder: Path) -> Weights:
    return read_published(PublishedFolder(folder), SPEC.variant())


def embed(weights: Path) -> np.ndarray:
    with open_cells(GOLDEN / "input.h5ad") as cells:
        return embed_cells(
            cells, load_model("tgpt", weights=weights), device="cpu", quiet=True
        ).values


def tensors_of(folder: Path) -> Tensors:
    return torch.load(folder / "pytorch_model.bin", weights_only=True)


def edit_tensors(folder: Path, change: Callable[[Tensors], Any]) -> None:
    edited = folder / "edited.bin"  # tensors read before are still mapped to the old file
    torch.save(change(tensors_of(folder)), edited)
    edited.replace(folder / "pytorch_model.bin")


def edit_json(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    path = folder / name
    path.write_text(json.dumps(change(json.loads(path.read_text("utf-8")))), "utf-8")


def edit_vocabulary(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    def edit(content: dict[str, Any]) -> dict[str, Any]:
        return {
            **content,
            "model": {**content["model"], "vocab": change(content["model"]["vocab"])},
        }

    edit_json(folder, "tokenizer.json", edit)


def assert_same(found: Weights, expected: Weights) -> None:
    assert found.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(found.tensors[key], expected.tensors[key]) for key in expected.tensors)


def test_sizes_come_from_the_folder(folder: Path) -> None:
    assert read(folder).config == {
        "dim": 48,
        "n_heads": 4,
        "n_layers": 2,
        "n_positions": 96,
        "hidden": 192,
        "dropout": 0.1,
    }


def test_imported_weights_embed_identically(folder: Path, tmp_path: Path) -> None:
    imported = import_weights(SPEC, folder, output=tmp_path / "imported")
    np.testing.assert_array_equal(embed(imported), embed(CHECKPOINT))


def test_files_of_the_body_alone_are_read(folder: Path) -> None:
    expected = read(folder)
    edit_tensors(
        folder,
        lambda tensors: {
            name.removeprefix("transformer."): tensor
            for name, tensor in tensors.items()
            if name != "lm_head.weight"
        },
    )
    assert_same(read(folder), expected)


def test_files_of_current_releases_without_masks_are_read(folder: Path) -> None:
    expected = read(folder)
    masks = (".attn.bias", ".attn.masked_bias")
    edit_tensors(folder, lambda t: {k: v for k, v in t.items() if not k.endswith(masks)})
    assert_same(read(folder), expected)


def test_safetensors_are_read_in_place_of_the_pickle(folder: Path) -> None:
    expected = read(folder)
    tensors = {name: tensor.clone() for name, tensor in tensors_of(folder).items()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "pytorch_model.bin").unlink()
    found = read(folder)
    assert found.source.endswith("model.safetensors")
    assert_same(found, expected)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "pytorch_model.bin"])
def test_a_missing_file_is_an_error_that_names_it(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=name):
        read(folder)


def test_a_pickle_with_code_is_refused_and_not_run(folder: Path, tmp_path: Path) -> None:
    trace = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (trace,))

    edit_tensors(folder, lambda tensors: {**tensors, "transformer.extra": Payload()})
    with pytest.raises(WeightsError, match="nothing in it was run"):
        read(folder)
    assert not trace.exists()


def test_tensors_of_another_model_are_an_error_that_lists_them(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: {**tensors, "score.weight": torch.zeros(3)})
    with pytest.raises(WeightsError, match=r"1 tensors are not part of this model: score\.weight"):
        read(folder)


def test_missing_tensors_are_an_error_that_lists_them(folder: Path) -> None:
    gone = "transformer.h.1.mlp.c_proj.bias"
    edit_tensors(folder, lambda tensors: {k: v for k, v in tensors.items() if k != gone})
    with pytest.raises(WeightsError, match=r"missing: layers\.1\.feed_forward\.linear2\.bias"):
        load_model("tgpt", weights=folder)


def test_a_file_without_word_vectors_is_an_error(folder: Path) -> None:
    edit_tensors(folder, lambda t: {k: v for k, v in t.items() if "wte" not in k})
    with pytest.raises(WeightsError, match=r"a tensor is missing: embedding\.tokens\.weight"):
        read(folder)


def test_a_wrong_shape_is_an_error_with_both_shapes(folder: Path) -> None:
    key = "transformer.h.0.attn.c_proj.weight"
    edit_tensors(folder, lambda tensors: {**tensors, key: torch.zeros(48, 47)})
    with pytest.raises(WeightsError, match=r"is \(47, 48\), expected \(48, 48\)"):
        load_model("tgpt", weights=folder)


def test_a_fused_projection_that_is_no_three_parts_is_an_error(folder: Path) -> None:
    key = "transformer.h.0.attn.c_attn.weight"
    edit_tensors(folder, lambda tensors: {**tensors, key: torch.zeros(48, 145)})
    with pytest.raises(WeightsError, match=r"c_attn\.weight has 145 rows, not 3 equal parts"):
        read(folder)


def test_something_else_under_a_tensor_name_is_an_error(folder: Path) -> None:
    key = "transformer.h.0.mlp.c_fc.weight"
    edit_tensors(folder, lambda tensors: {**tensors, key: 7})
    with pytest.raises(WeightsError, match=r"c_fc\.weight is a int, not a tensor"):
        read(folder)


def test_a_value_that_is_not_finite_is_an_error_naming_the_tensor(folder: Path) -> None:
    key = "transformer.ln_f.bias"
    edit_tensors(folder, lambda tensors: {**tensors, key: torch.full((48,), torch.inf)})
    with pytest.raises(WeightsError, match=r"norm\.bias holds NaN or infinite"):
        load_model("tgpt", weights=folder)


def test_a_model_file_without_tensors_by_name_is_an_error(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: list(tensors.values()))
    with pytest.raises(WeightsError, match="holds a list, not tensors by name"):
        read(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layer": 3}, r"has 2 layers, but n_layer of config\.json is 3"),
        ({"n_layer": 10**9}, r"has 2 layers, but n_layer of config\.json is 1000000000"),
        ({"n_positions": 1024}, r"is \(96, 48\), but config\.json makes it \(1024, 48\)"),
        ({"n_embd": 64}, r"is \(284, 48\), but config\.json makes it \(284, 64\)"),
        ({"n_inner": 96}, r"is \(192, 48\), but config\.json makes it \(96, 48\)"),
        ({"vocab_size": 21150}, r"has 284 tokens, but vocab_size of config\.json is 21150"),
    ],
)
def test_a_configuration_of_another_checkpoint_is_an_error(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    edit_json(folder, "config.json", lambda config: {**config, **changes})
    with pytest.raises(WeightsError, match=message):
        read(folder)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model_type", "bert", "model_type is 'bert'; only 'gpt2' is supported"),
        ("activation_function", "relu", "only 'gelu_new' is supported"),
        ("layer_norm_epsilon", 1e-12, "only 1e-05 is supported"),
        ("n_embd", "48", "n_embd is '48', not a whole number from 1"),
        ("n_layer", True, "n_layer is True, not a whole number from 1"),
        ("n_inner", 0, "n_inner is 0, not a whole number from 1"),
        ("n_head", 5, "n_embd 48 cannot be split into n_head 5"),
        ("attn_pdrop", "none", "attn_pdrop is 'none', not a number"),
        ("embd_pdrop", 0.2, "embd_pdrop 0.2, resid_pdrop 0.1; only one value for all"),
    ],
)
def test_a_configuration_of_another_architecture_is_an_error(
    folder: Path, field: str, value: object, message: str
) -> None:
    edit_json(folder, "config.json", lambda config: {**config, field: value})
    with pytest.raises(WeightsError, match=message):
        read(folder)


@pytest.mark.parametrize("field", [*SIZES, "vocab_size"])
def test_a_configuration_without_a_size_is_an_error(folder: Path, field: str) -> None:
    edit_json(folder, "config.json", lambda c: {k: v for k, v in c.items() if k != field})
    with pytest.raises(WeightsError, match=f"does not say {field}"):
        read(folder)


def test_obsolete_fields_of_the_configuration_are_ignored(folder: Path) -> None:
    edit_json(folder, "config.json", lambda c: {**c, "n_ctx": 1, "gradient_checkpointing": True})
    assert read(folder).config == read(CHECKPOINT).config


def test_a_configuration_that_is_no_object_is_an_error(folder: Path) -> None:
    edit_json(folder, "config.json", list)
    with pytest.raises(WeightsError, match="holds a list, not an object"):
        read(folder)


def test_the_tokenizer_of_another_gpt2_is_an_error(folder: Path) -> None:
    edit_json(folder, "tokenizer.json", lambda c: {**c, "model": {**c["model"], "type": "BPE"}})
    with pytest.raises(WeightsError, match="the tokenizer is a BPE; that of tGPT is a WordLevel"):
        read(folder)


@pytest.mark.parametrize("content", [[], {}, {"model": None}, {"model": {"vocab": ["a"]}}])
def test_a_tokenizer_without_a_vocabulary_is_an_error(folder: Path, content: object) -> None:
    edit_json(folder, "tokenizer.json", lambda _: content)
    with pytest.raises(WeightsError, match="holds no model with a vocab"):
        read(folder)


def test_a_vocabulary_without_its_special_tokens_is_an_error(folder: Path) -> None:
    edit_vocabulary(folder, lambda v: {("<s>" if k == "</b>" else k): n for k, n in v.items()})
    with pytest.raises(WeightsError, match="the vocabulary lacks </b>"):
        read(folder)


@pytest.mark.parametrize("token", [7, 9999, "x", None, 1.5, True])
def test_token_ids_that_are_not_a_numbering_are_an_error(folder: Path, token: object) -> None:
    edit_vocabulary(folder, lambda v: {k: token if n == 8 else n for k, n in v.items()})
    with pytest.raises(WeightsError, match="the token ids are not 0 to 283, each once"):
        read(folder)


def test_more_tokens_than_the_published_network_has_positions_are_refused() -> None:
    with pytest.raises(UsageError, match="max_length is 97, but the network has 96 positions"):
        load_model("tgpt", settings={"max_length": "97"}, weights=CHECKPOINT)
