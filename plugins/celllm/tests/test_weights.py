"""Reading folders as the authors ship them, with the list of genes beside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from scdrugmap.errors import WeightsError
from scdrugmap.model.load import load_model
from scdrugmap.model.verify import verify_weights
from scdrugmap.modelkit import PublishedFolder, Weights
from scdrugmap.testing import Cells, Payload, edit_saved, embed
from scdrugmap.weights import import_weights
from scdrugmap_plugin_celllm import CHECKPOINTS, CONFIG, GENE_LISTS, SPEC
from scdrugmap_plugin_celllm.weights import read_published

from .conftest import CHECKPOINT, GOLDEN, original

FILE, GENES = CHECKPOINTS[0], GENE_LISTS[0]
QUERY = "performer.net.layers.0.0.fn.to_q.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the golden checkpoint to spoil."""
    return shutil.copytree(CHECKPOINT, tmp_path / "checkpoint")


def read(folder: Path) -> Weights:
    return read_published(PublishedFolder(folder), SPEC.variant())


def edit_tensors(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the named tensors, in place."""

    def change_tensors(content: Any) -> None:
        change(content["model_state_dict"])

    edit_saved(folder / FILE, change_tensors)


def edit_config(folder: Path, **fields: object) -> None:
    """Change what the configuration says of the network."""
    content = json.loads((folder / CONFIG).read_text())
    content["network"]["structure"].update(fields)
    (folder / CONFIG).write_text(json.dumps(content))


def edit_genes(folder: Path, change: Callable[[list[str]], list[str]]) -> None:
    path = folder / GENES
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def test_imported_weights_give_the_identical_embedding(tmp_path: Path, counts: Cells) -> None:
    imported = import_weights(SPEC, CHECKPOINT, output=tmp_path / "imported")
    np.testing.assert_array_equal(embed(original(imported), counts), embed(original(), counts))


@pytest.mark.parametrize("form", ["task model", "of several devices", "genes in 32 bits"])
def test_checkpoints_of_other_forms_give_the_identical_embedding(
    folder: Path, counts: Cells, form: str
) -> None:
    if form == "task model":
        shutil.copy(GOLDEN / "ctc_finetune.pth", folder / FILE)
    elif form == "of several devices":
        edit_saved(
            folder / FILE,
            lambda content: {
                "model_state_dict": {
                    f"module.{k}": v for k, v in content["model_state_dict"].items()
                }
            },
        )
    else:
        edit_tensors(folder, lambda t: t.update({k: v.float() for k, v in t.items()}))
    np.testing.assert_array_equal(embed(original(folder), counts), embed(original(), counts))


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_of_all_published_names_are_read(folder: Path, name: str) -> None:
    (folder / FILE).rename(folder / name)
    assert read(folder).source.endswith(name)


def test_several_checkpoints_are_an_error_that_names_them(folder: Path) -> None:
    shutil.copy(folder / FILE, folder / "nocls_fixed.pth")
    with pytest.raises(WeightsError, match=f"several checkpoints: {FILE}, nocls_fixed"):
        read(folder)


def test_sizes_come_from_the_tensors_and_the_length_from_the_configuration() -> None:
    assert read(CHECKPOINT).config == {
        "dim": 32,
        "n_heads": 4,
        "head_dim": 64,
        "n_features": 266,
        "n_layers": 2,
        "hidden": 128,
        "n_levels": 8,
        "max_seq_len": 160,
    }


def test_verify_looks_at_all_files() -> None:
    assert set(verify_weights(SPEC, CHECKPOINT).files) == {FILE, CONFIG, GENES}


def test_the_columns_of_the_example_cells_are_the_genes_too(folder: Path) -> None:
    genes = (folder / GENES).read_text().split()
    (folder / GENES).unlink()
    columns = pd.DataFrame(index=genes)
    anndata.AnnData(np.zeros((1, len(genes)), np.float32), var=columns).write_h5ad(
        folder / GENE_LISTS[1]
    )
    assert read(folder).vocabulary == read(CHECKPOINT).vocabulary


def test_the_order_of_the_list_is_kept() -> None:
    lines = (CHECKPOINT / GENES).read_text().split()
    assert read(CHECKPOINT).vocabulary == {gene: place for place, gene in enumerate(lines)}


@pytest.mark.parametrize("name", [FILE, CONFIG])
def test_a_missing_file_is_an_error_that_names_it(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=f"{name}.* is"):
        read(folder)


def test_a_missing_gene_list_is_an_error_that_says_how_to_make_one(folder: Path) -> None:
    (folder / GENES).unlink()
    with pytest.raises(WeightsError, match="the order of the genes is not known") as caught:
        read(folder)
    assert f"write the symbols to {GENES}" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda genes: genes[:-1], "has 402 rows; the 399 genes of celllm_genes.txt, CLS and"),
        (lambda genes: [*genes[:-1], genes[0]], "GSE1 occurs twice"),
        (lambda genes: ["", *genes[1:]], "gene 1 is '', not a name"),
    ],
    ids=["of another release", "twice", "gap"],
)
def test_a_wrong_gene_list_is_an_error(
    folder: Path, change: Callable[[list[str]], list[str]], message: str
) -> None:
    edit_genes(folder, change)
    with pytest.raises(WeightsError, match=message):
        read(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depth": 10}, rf"{CONFIG} says depth 10, but {FILE} has 2"),
        ({"heads": 16}, "says heads 16"),
        ({"dim": 512}, "says dim 512"),
        ({"num_tokens": 7}, "says num_tokens 7"),
        ({"gene_num": 19379}, "says gene_num 19379"),
        ({"gene_num": "400"}, "gene_num is '400', not a whole number of at least 1"),
        ({"num_tokens": 2}, "num_tokens is 2, not a whole number of at least 3"),
        ({"max_seq_len": 1}, "max_seq_len is 1, not a whole number of at least 2"),
        ({"max_seq_len": None}, "max_seq_len is None"),
        ({"local_attn_heads": 2}, "local_attn_heads is 2; only 0 is supported"),
        ({"g2v_position_emb": False}, "g2v_position_emb is False; only True is supported"),
        ({"ff_glu": True}, "ff_glu is True; only False is supported"),
        ({"name": "scbert"}, "describes 'scbert', not 'celllm'"),
    ],
)
def test_a_configuration_of_another_network_is_refused(
    folder: Path, fields: dict[str, object], message: str
) -> None:
    edit_config(folder, **fields)
    with pytest.raises(WeightsError, match=message):
        read(folder)


@pytest.mark.parametrize("text", ["[]", "{}", '{"network": []}', '{"network": {"structure": 3}}'])
def test_a_configuration_without_a_network_is_refused(folder: Path, text: str) -> None:
    (folder / CONFIG).write_text(text)
    with pytest.raises(WeightsError, match=r"network\.structure is missing"):
        read(folder)


def test_arguments_that_the_original_ignores_are_ignored(folder: Path) -> None:
    edit_config(folder, something="else")
    assert read(folder).config == read(CHECKPOINT).config


@pytest.mark.parametrize("content", [[1, 2], {"weights": 3}, {"model_state_dict": 3}])
def test_a_file_without_named_tensors_is_refused(folder: Path, content: object) -> None:
    edit_saved(folder / FILE, lambda _: content)
    with pytest.raises(WeightsError, match="holds no dictionary model_state_dict"):
        read(folder)


def test_tensors_of_another_model_are_an_error_that_lists_them(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.update({"x.y": torch.zeros(3)}))
    with pytest.raises(WeightsError, match=r"1 tensors are not part of this model: x\.y"):
        read(folder)


def test_missing_tensors_are_an_error_that_lists_them(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.pop("norm.bias"))
    with pytest.raises(WeightsError, match=r"1 tensors are missing: norm\.bias"):
        load_model("celllm", weights=folder)


@pytest.mark.parametrize("name", [QUERY, "pos_emb.emb.weight", "token_emb.weight"])
def test_a_missing_tensor_that_gives_a_size_is_an_error(folder: Path, name: str) -> None:
    edit_tensors(folder, lambda tensors: tensors.pop(name))
    with pytest.raises(WeightsError, match="is missing"):
        read(folder)


def test_a_wrong_shape_is_an_error_with_both_shapes(folder: Path) -> None:
    edit_tensors(folder, lambda t: t.update({"norm.weight": torch.zeros(40)}))
    with pytest.raises(WeightsError, match=r"norm\.weight is \(40,\), expected \(32,\)"):
        load_model("celllm", weights=folder)


def test_a_value_that_is_not_finite_is_an_error_naming_the_tensor(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors["norm.weight"].fill_(torch.nan))
    with pytest.raises(WeightsError, match=r"norm\.weight holds NaN"):
        load_model("celllm", weights=folder)


def test_a_checkpoint_with_code_is_refused_and_not_run(folder: Path, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    edit_saved(folder / FILE, lambda content: {**content, "extra": Payload(trace)})
    with pytest.raises(WeightsError, match="nothing in it was run"):
        read(folder)
    assert not trace.exists()
