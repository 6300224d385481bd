"""Reading folders as the authors ship them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scdrugmap.errors import WeightsError
from scdrugmap.model.load import load_model
from scdrugmap.model.verify import verify_weights
from scdrugmap.modelkit import PublishedFolder, Weights
from scdrugmap.testing import Cells, Payload, edit_saved, embed
from scdrugmap.weights import import_weights
from scdrugmap_plugin_scfoundation import CHECKPOINT as FILE
from scdrugmap_plugin_scfoundation import GENES, SPEC
from scdrugmap_plugin_scfoundation.weights import read_published

from .conftest import CHECKPOINT, original


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the golden checkpoint to spoil."""
    return shutil.copytree(CHECKPOINT, tmp_path / "checkpoint")


def read(folder: Path) -> Weights:
    return read_published(PublishedFolder(folder), SPEC.variant())


def edit(folder: Path, change: Callable[[Any], Any]) -> None:
    """Change the content of the checkpoint, in place or by returning another."""
    edit_saved(folder / FILE, change)


def edit_network(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the configuration of the network, in place."""

    def change_network(content: Any) -> None:
        change(content["cell"]["config"]["model_config"]["mae_autobin"])

    edit(folder, change_network)


def without(content: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != name}


@pytest.mark.parametrize("model", ["cell", "rde", "gene"])
def test_imported_weights_give_the_identical_embedding(
    tmp_path: Path, cells: Cells, model: str
) -> None:
    imported = import_weights(SPEC, CHECKPOINT, output=tmp_path / "imported")
    np.testing.assert_array_equal(
        embed(original(imported, model=model), cells), embed(original(model=model), cells)
    )


def test_import_keeps_the_three_encoders_and_one_decoder(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    imported = import_weights(SPEC, CHECKPOINT, output=tmp_path / "imported")
    names = list(load_file(imported / "model.safetensors"))
    assert {name.split(".")[0] for name in names} == {"cell", "rde", "gene", "decoder"}


def test_sizes_come_from_the_file(folder: Path) -> None:
    edit_network(folder, lambda config: config.update(bin_alpha=0.5))
    # The networks of the file share one configuration.
    expected = {"dim": 32, "n_heads": 4, "n_layers": 2, "n_bins": 12, "bin_alpha": 0.5}
    decoder = {
        "decoder_dim": 24,
        "decoder_heads": 2,
        "decoder_head_dim": 12,
        "decoder_layers": 2,
    }
    assert read(folder).config == {
        "cell": expected,
        "rde": expected,
        "gene": {**expected, **decoder},
    }


def test_bin_alpha_acts(folder: Path, cells: Cells) -> None:
    edit_network(folder, lambda config: config.update(bin_alpha=0.5))
    assert np.abs(embed(original(folder), cells) - embed(original(), cells)).max() > 1e-3


def test_verify_looks_at_both_files() -> None:
    assert set(verify_weights(SPEC, CHECKPOINT).files) == {FILE, GENES}


@pytest.mark.parametrize("name", [FILE, GENES])
def test_a_missing_file_is_an_error_that_names_it(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=f"{name} is missing"):
        read(folder)


@pytest.mark.parametrize("model", ["cell", "rde"])
def test_a_missing_network_is_an_error_that_names_it(folder: Path, model: str) -> None:
    edit(folder, lambda content: without(content, model))
    with pytest.raises(WeightsError, match=rf"{model} is missing \(there is: gene, "):
        read(folder)


@pytest.mark.parametrize("part", ["config", "state_dict"])
def test_a_network_without_a_part_is_an_error(folder: Path, part: str) -> None:
    edit(folder, lambda content: {**content, "rde": without(content["rde"], part)})
    with pytest.raises(WeightsError, match=f"model rde: {part} is missing"):
        read(folder)


def test_a_file_of_bare_tensors_is_refused(folder: Path) -> None:
    edit(folder, lambda content: content["cell"]["state_dict"])
    with pytest.raises(WeightsError, match=r"cell is missing .there is: model\.token_emb"):
        read(folder)


def test_a_file_that_holds_no_dictionary_is_refused(folder: Path) -> None:
    edit(folder, lambda content: [1, 2])
    with pytest.raises(WeightsError, match=r"cell is missing .there is: no dictionary"):
        read(folder)


def test_a_part_that_is_no_dictionary_is_refused(folder: Path) -> None:
    edit(folder, lambda content: {**content, "cell": 3})
    with pytest.raises(WeightsError, match="cell is a int, not a dictionary"):
        read(folder)


def test_tensors_of_another_model_are_an_error_that_lists_them(folder: Path) -> None:
    edit(folder, lambda content: content["rde"]["state_dict"].update({"x.y": torch.zeros(3)}))
    with pytest.raises(WeightsError, match=r"1 tensors are not part of this model: x\.y"):
        read(folder)


def test_missing_tensors_are_an_error_that_lists_them(folder: Path) -> None:
    def spoil(content: Any) -> None:
        del content["cell"]["state_dict"]["model.encoder.norm.bias"]

    edit(folder, spoil)
    with pytest.raises(WeightsError, match=r"model cell: 1 tensors are missing: norm\.bias"):
        load_model("scfoundation", weights=folder)


def test_a_wrong_shape_is_an_error_with_both_shapes(folder: Path) -> None:
    key = "model.token_emb.emb.weight"
    edit(folder, lambda content: content["cell"]["state_dict"].update({key: torch.zeros(11, 32)}))
    with pytest.raises(WeightsError, match=r"is \(32, 11\), expected \(32, 12\)"):
        load_model("scfoundation", weights=folder)


def test_a_value_that_is_not_finite_is_an_error_naming_the_tensor(folder: Path) -> None:
    def spoil(content: Any) -> None:
        content["cell"]["state_dict"]["model.pos_emb.weight"][3, 4] = torch.nan

    edit(folder, spoil)
    with pytest.raises(WeightsError, match=r"tokens\.position\.weight holds NaN"):
        load_model("scfoundation", weights=folder)


def test_a_checkpoint_with_code_is_refused_and_not_run(folder: Path, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    edit(folder, lambda content: {**content, "extra": Payload(trace)})
    with pytest.raises(WeightsError, match="nothing in it was run"):
        read(folder)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bin_num": "12"}, "bin_num is '12', not a whole number above 0"),
        ({"bin_alpha": None}, "bin_alpha is None, not a number"),
        ({"encoder": {}}, "the encoder is a None; only 'transformer' is supported"),
    ],
)
def test_a_network_of_another_form_is_an_error(
    folder: Path, change: dict[str, Any], message: str
) -> None:
    edit_network(folder, lambda config: config.update(change))
    with pytest.raises(WeightsError, match=message):
        read(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"module_type": "performer"}, "the encoder is a 'performer'"),
        ({"depth": 0}, "depth is 0, not a whole number above 0"),
        ({"heads": 5}, "hidden_dim 32 is no multiple of heads 5"),
    ],
)
def test_an_encoder_of_another_form_is_an_error(
    folder: Path, change: dict[str, Any], message: str
) -> None:
    edit_network(folder, lambda config: config["encoder"].update(change))
    with pytest.raises(WeightsError, match=message):
        read(folder)


def test_another_architecture_is_refused(folder: Path) -> None:
    edit(folder, lambda content: content["cell"]["config"].update(model="mae"))
    with pytest.raises(WeightsError, match="model is 'mae'; only 'mae_autobin' is supported"):
        read(folder)


def edit_genes(folder: Path, change: Callable[[list[str]], list[str]]) -> None:
    path = folder / GENES
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def test_the_list_of_another_release_is_refused(folder: Path) -> None:
    edit_genes(folder, lambda lines: lines[:-1])
    with pytest.raises(WeightsError, match="has 423 rows; the 419 genes of"):
        read(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [], "begins with"),
        (lambda lines: lines[1:], "begins with 'ABCB1"),
        (lambda lines: [*lines[:3], *lines[4:]], r"line 4 is '\w+.t3', not a gene and 2"),
        (lambda lines: [*lines[:3], "\t2", *lines[4:]], "line 4 is"),
        (lambda lines: [*lines[:3], "ABCB1\t2", *lines[4:]], "line 4: ABCB1 occurs twice"),
    ],
    ids=["empty", "no header", "a row missing", "no name", "twice"],
)
def test_a_damaged_list_is_an_error_with_its_line(
    folder: Path, change: Callable[[list[str]], list[str]], message: str
) -> None:
    edit_genes(folder, change)
    with pytest.raises(WeightsError, match=message):
        read(folder)


def test_the_order_of_the_list_is_kept(folder: Path) -> None:
    lines = (CHECKPOINT / GENES).read_text().splitlines()[1:]
    assert list(read(folder).vocabulary) == [line.split("\t")[0] for line in lines]


def test_windows_line_ends_are_read(folder: Path) -> None:
    path = folder / GENES
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert read(folder).vocabulary == read(CHECKPOINT).vocabulary
