"""Reading folders as the authors ship them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from scdrugmap.errors import WeightsError
from scdrugmap.model.load import load_model
from scdrugmap.model.verify import verify_weights
from scdrugmap.modelkit import PublishedFolder, Weights
from scdrugmap.testing import Cells, Payload, edit_saved, embed
from scdrugmap.weights import import_weights
from scdrugmap_plugin_scbert import CHECKPOINT as FILE
from scdrugmap_plugin_scbert import SPEC
from scdrugmap_plugin_scbert.weights import read_published

from .conftest import CHECKPOINT, original

GENES = "panglao_10000.h5ad"
QUERY = "performer.net.layers.0.0.fn.to_q.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the golden checkpoint to spoil."""
    return shutil.copytree(CHECKPOINT, tmp_path / "checkpoint")


def read(folder: Path) -> Weights:
    return read_published(PublishedFolder(folder), SPEC.variant())


def edit(folder: Path, change: Callable[[Any], Any]) -> None:
    """Change the content of the checkpoint, in place or by returning another."""
    edit_saved(folder / FILE, change)


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the named tensors, in place."""

    def change_tensors(content: Any) -> None:
        change(content["model_state_dict"])

    edit(folder, change_tensors)


def list_genes(folder: Path, name: str, text: str) -> None:
    """Put another list of genes in the place of the published one."""
    (folder / GENES).unlink()
    (folder / name).write_text(text)


def test_imported_weights_give_the_identical_embedding(tmp_path: Path, cells: Cells) -> None:
    imported = import_weights(SPEC, CHECKPOINT, output=tmp_path / "imported")
    np.testing.assert_array_equal(embed(original(imported), cells), embed(original(), cells))


def test_sizes_come_from_the_tensors() -> None:
    assert read(CHECKPOINT).config == {
        "dim": 40,
        "n_heads": 4,
        "head_dim": 64,
        "n_features": 266,
        "n_layers": 2,
        "hidden": 160,
    }


def test_verify_looks_at_checkpoint_and_list() -> None:
    assert set(verify_weights(SPEC, CHECKPOINT).files) == {FILE, GENES}


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["model_state_dict"],
        lambda content: {f"module.{k}": v for k, v in content["model_state_dict"].items()},
        lambda content: {k: v.float() for k, v in content["model_state_dict"].items()},
    ],
    ids=["flat", "of several devices", "positions in 32 bits"],
)
def test_copies_of_other_forms_give_the_identical_embedding(
    folder: Path, cells: Cells, change: Callable[[Any], Any]
) -> None:
    edit(folder, change)
    np.testing.assert_array_equal(embed(original(folder), cells), embed(original(), cells))


def test_a_fine_tuned_checkpoint_is_read_without_its_head(folder: Path, cells: Cells) -> None:
    def tuned(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["to_out.weight"], tensors["to_out.bias"]
        tensors["to_out.conv1.weight"] = torch.zeros(1, 1, 1, 40)
        tensors["to_out.fc1.weight"] = torch.zeros(512, 241)

    edit_tensors(folder, tuned)
    np.testing.assert_array_equal(embed(original(folder), cells), embed(original(), cells))


@pytest.mark.parametrize("name", ["genes.txt", "vocab.json", "list.json", "panglao_human.h5ad"])
def test_all_forms_of_the_gene_list_are_read(folder: Path, name: str) -> None:
    genes = list(read(CHECKPOINT).vocabulary)
    if name == "genes.txt":
        list_genes(folder, name, "\r\n".join(genes))
    elif name == "vocab.json":
        places = {gene: place for place, gene in reversed(list(enumerate(genes)))}
        list_genes(folder, name, json.dumps(places))
    elif name == "list.json":
        list_genes(folder, "vocab.json", json.dumps(genes))
    else:
        (folder / GENES).rename(folder / name)
    assert list(read(folder).vocabulary) == genes


def test_the_order_of_the_list_is_that_of_the_file() -> None:
    with h5py.File(CHECKPOINT / GENES) as file:
        names = [name.decode() for name in file["var/_index"][:]]
    assert read(CHECKPOINT).vocabulary == {name: place for place, name in enumerate(names)}


def test_a_missing_checkpoint_is_an_error_that_names_it(folder: Path) -> None:
    (folder / FILE).unlink()
    with pytest.raises(WeightsError, match=f"{FILE} is missing"):
        read(folder)


def test_a_missing_gene_list_is_an_error_that_says_what_helps(folder: Path) -> None:
    (folder / GENES).unlink()
    with pytest.raises(WeightsError, match="the order of the genes is not known") as caught:
        read(folder)
    assert "genes.txt" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("genes.txt", "TP53\nEGFR\n", "has 241 rows; the 2 genes of genes.txt"),
        ("genes.txt", "TP53\n\nEGFR\n", "gene 2 is '', not a name"),
        ("genes.txt", "TP53\nEGFR\nTP53\n", "TP53 occurs twice"),
        ("vocab.json", "3", "holds a int, not genes by position"),
        ("vocab.json", '["TP53", 4]', "gene 2 is 4, not a name"),
        ("vocab.json", '{"TP53": 0, "EGFR": 2}', "positions are not 0 to 1, each once"),
        ("vocab.json", '{"TP53": 0, "EGFR": "1"}', "positions are not 0 to 1, each once"),
        ("panglao_human.h5ad", "no HDF5", "panglao_human.h5ad"),
    ],
)
def test_a_wrong_gene_list_is_an_error(folder: Path, name: str, text: str, message: str) -> None:
    list_genes(folder, name, text)
    with pytest.raises(WeightsError, match=message):
        read(folder)


def test_a_file_of_cells_without_genes_is_an_error(folder: Path) -> None:
    with h5py.File(folder / GENES, "w") as file:
        file["X"] = np.zeros((2, 3))
    with pytest.raises(WeightsError, match="has no var"):
        read(folder)


def test_a_file_that_holds_no_dictionary_is_refused(folder: Path) -> None:
    edit(folder, lambda content: [1, 2])
    with pytest.raises(WeightsError, match="holds a list, not named tensors"):
        read(folder)


def test_tensors_of_another_model_are_an_error_that_lists_them(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.update({"x.y": torch.zeros(3)}))
    with pytest.raises(WeightsError, match=r"1 tensors are not part of this model: x\.y"):
        read(folder)


def test_missing_tensors_are_an_error_that_lists_them(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.pop("norm.bias"))
    with pytest.raises(WeightsError, match=r"1 tensors are missing: norm\.bias"):
        load_model("scbert", weights=folder)


def test_a_checkpoint_without_the_tensors_that_give_sizes_is_an_error(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.pop(QUERY))
    with pytest.raises(WeightsError, match=r"layers\.0\.attention\.q_proj\.weight is missing"):
        read(folder)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((256,), r"is \(256,\), not a matrix"), ((250, 40), "has 250 rows, no multiple of the 64")],
)
def test_sizes_that_make_no_network_are_an_error(
    folder: Path, shape: tuple[int, ...], message: str
) -> None:
    edit_tensors(folder, lambda tensors: tensors.update({QUERY: torch.zeros(shape)}))
    with pytest.raises(WeightsError, match=message):
        read(folder)


def test_a_wrong_shape_is_an_error_with_both_shapes(folder: Path) -> None:
    edit_tensors(folder, lambda t: t.update({"token_emb.weight": torch.zeros(8, 40)}))
    with pytest.raises(WeightsError, match=r"is \(8, 40\), expected \(7, 40\)"):
        load_model("scbert", weights=folder)


def test_a_value_that_is_not_finite_is_an_error_naming_the_tensor(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors["norm.weight"].fill_(torch.nan))
    with pytest.raises(WeightsError, match=r"norm\.weight holds NaN"):
        load_model("scbert", weights=folder)


def test_a_checkpoint_with_code_is_refused_and_not_run(folder: Path, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    edit(folder, lambda content: {**content, "extra": Payload(trace)})
    with pytest.raises(WeightsError, match="nothing in it was run"):
        read(folder)
    assert not trace.exists()
