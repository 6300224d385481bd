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

from scdrugmap.errors import WeightsError
from scdrugmap.model.load import load_model
from scdrugmap.modelkit import PublishedFolder, Weights
from scdrugmap_plugin_scgpt import SPEC
from scdrugmap_plugin_scgpt.weights import CONFIG, read_published

from .conftest import CHECKPOINT, encode, original

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the golden checkpoint to spoil."""
    return shutil.copytree(CHECKPOINT, tmp_path / "checkpoint")


def read(folder: Path) -> Weights:
    return read_published(PublishedFolder(folder), SPEC.variant())


def edit_tensors(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    path = folder / "best_model.pt"
    torch.save(change(torch.load(path, weights_only=True)), path)


def edit_json(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    path = folder / name
    path.write_text(json.dumps(change(json.loads(path.read_text("utf-8")))), "utf-8")


def renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key.replace(old, new): value for key, value in tensors.items()}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("self_attn.Wqkv.", "self_attn._impl.Wqkv."),
        ("self_attn.", "self_attn._impl."),
        ("self_attn.Wqkv.", "self_attn.in_proj_"),
    ],
    ids=["later flash-attn", "later flash-attn with out_proj", "torch"],
)
def test_all_spellings_of_attention_give_the_same_tensors(folder: Path, old: str, new: str) -> None:
    expected = read(folder).tensors
    edit_tensors(folder, renamed(old, new))
    found = read(folder).tensors
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    "head",
    [
        "cls_decoder.out_layer.weight",
        "grad_reverse_discriminator.out_layer.bias",
        "batch_encoder.embedding.weight",
        "dsbn.bns.0.weight",
        "bn.running_mean",
    ],
)
def test_heads_that_embedding_does_not_use_are_left_out(folder: Path, head: str) -> None:
    expected = read(folder).tensors.keys()
    edit_tensors(folder, lambda tensors: {**tensors, head: torch.zeros(3)})
    assert read(folder).tensors.keys() == expected


def test_tensors_of_another_model_are_an_error_that_lists_them(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: {**tensors, "other.weight": torch.zeros(3)})
    with pytest.raises(WeightsError, match=r"1 tensors are not part of this model: other\.weight"):
        read(folder)


def test_missing_tensors_are_an_error_that_lists_them(folder: Path) -> None:
    gone = "transformer_encoder.layers.1.norm2.bias"
    edit_tensors(folder, lambda tensors: {k: v for k, v in tensors.items() if k != gone})
    with pytest.raises(WeightsError, match=r"1 tensors are missing: layers\.1\.norm2\.bias"):
        load_model("scgpt", weights=folder)


def test_a_wrong_shape_is_an_error_with_both_shapes(folder: Path) -> None:
    key = "value_encoder.linear2.weight"
    edit_tensors(folder, lambda tensors: {**tensors, key: torch.zeros(32, 31)})
    with pytest.raises(WeightsError, match=r"is \(32, 31\), expected \(32, 32\)"):
        load_model("scgpt", weights=folder)


def test_integers_in_place_of_numbers_are_an_error(folder: Path) -> None:
    key = "value_encoder.norm.bias"
    edit_tensors(folder, lambda tensors: {**tensors, key: torch.zeros(32, dtype=torch.int64)})
    with pytest.raises(WeightsError, match=r"norm\.bias is torch\.int64, expected torch\.float32"):
        load_model("scgpt", weights=folder)


def test_a_value_that_is_not_finite_is_an_error_naming_the_tensor(folder: Path) -> None:
    key = "encoder.embedding.weight"

    def spoil(tensors: Tensors) -> Tensors:
        tensors[key][3, 4] = torch.nan
        return tensors

    edit_tensors(folder, spoil)
    with pytest.raises(WeightsError, match=r"gene_encoder\.embedding\.weight holds NaN"):
        load_model("scgpt", weights=folder)


def test_missing_special_tokens_are_appended_in_the_order_of_the_original(folder: Path) -> None:
    specials = ("<pad>", "<cls>", "<eoc>")
    edit_json(
        folder,
        "vocab.json",
        lambda tokens: {k: v for k, v in sorted(tokens.items()) if k not in specials},
    )
    vocabulary = read(folder).vocabulary
    assert [vocabulary[name] for name in specials] == [354, 355, 356]


def test_a_vocabulary_of_another_length_than_the_table_is_an_error(folder: Path) -> None:
    edit_json(folder, "vocab.json", lambda tokens: {**tokens, "ONE_MORE": len(tokens)})
    with pytest.raises(WeightsError, match=r"has 357 rows, but vocab\.json makes 358 tokens"):
        read(folder)


@pytest.mark.parametrize("token", [7, 9999, "x", None, 1.5, True])
def test_token_ids_that_are_not_a_numbering_are_an_error(folder: Path, token: object) -> None:
    def spoil(tokens: dict[str, Any]) -> dict[str, Any]:
        gene = next(name for name, number in tokens.items() if number == 8)
        return {**tokens, gene: token}

    edit_json(folder, "vocab.json", spoil)
    with pytest.raises(WeightsError, match="the token ids are not 0 to 356, each once"):
        read(folder)


def test_unknown_fields_of_args_are_ignored(folder: Path) -> None:
    edit_json(folder, "args.json", lambda args: {**args, "cluster_path": "/data/x", "amp": None})
    assert read(folder).config == read(CHECKPOINT).config


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("input_emb_style", "category", "only 'continuous' is supported"),
        ("embsize", "32", "embsize is '32', not a number"),
        ("nlayers", True, "nlayers is True, not a number"),
    ],
)
def test_args_that_mean_another_architecture_are_an_error(
    folder: Path, field: str, value: object, message: str
) -> None:
    edit_json(folder, "args.json", lambda args: {**args, field: value})
    with pytest.raises(WeightsError, match=message):
        read(folder)


@pytest.mark.parametrize("field", CONFIG)
def test_args_without_a_size_are_an_error(folder: Path, field: str) -> None:
    edit_json(folder, "args.json", lambda args: {k: v for k, v in args.items() if k != field})
    with pytest.raises(WeightsError, match=f"does not say {field}"):
        read(folder)


@pytest.mark.parametrize("name", ["args.json", "vocab.json"])
def test_json_that_is_no_object_is_an_error(folder: Path, name: str) -> None:
    edit_json(folder, name, list)
    with pytest.raises(WeightsError, match="holds a list, not an object"):
        read(folder)


def test_a_model_file_without_tensors_by_name_is_an_error(folder: Path) -> None:
    torch.save([torch.zeros(3)], folder / "best_model.pt")
    with pytest.raises(WeightsError, match="holds a list, not tensors"):
        read(folder)


def test_file_without_flash_attention_embeds_the_same(folder: Path, cells: Any) -> None:
    edit_tensors(folder, renamed("self_attn.Wqkv.", "self_attn.in_proj_"))
    loaded, other = original(), load_model("scgpt", weights=folder)
    batch = loaded.model.collate(encode(loaded, cells))
    with torch.inference_mode():
        np.testing.assert_array_equal(loaded.model.module(batch), other.model.module(batch))
