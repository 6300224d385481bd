"""Reading folders as the authors and their users ship them."""

from __future__ import annotations

import csv
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scdrugmap.errors import ScDrugMapWarning, WeightsError
from scdrugmap.model.load import load_model
from scdrugmap.model.verify import verify_weights
from scdrugmap.modelkit import PublishedFolder, Weights
from scdrugmap.weights import import_weights
from scdrugmap_plugin_uce import CHECKPOINTS, SPEC, SPECIES, protein_file
from scdrugmap_plugin_uce.weights import read_published

from .conftest import FOLDER, SIZES, encode, original

Tensors = dict[str, torch.Tensor]
CHECKPOINT = CHECKPOINTS["4-layer"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the golden folder to spoil."""
    return shutil.copytree(FOLDER, tmp_path / "model_files")


def read(folder: Path, variant: str = "") -> Weights:
    return read_published(PublishedFolder(folder), SPEC.variant(variant))


def edit_tensors(folder: Path, change: Callable[[Tensors], Any], name: str = CHECKPOINT) -> None:
    path = folder / name
    torch.save(change(torch.load(path, weights_only=True)), path)


def edit_places(folder: Path, change: Callable[[list[dict[str, str]]], Any]) -> None:
    """Change the rows of species_chrom.csv, in place or by returning others."""
    path = folder / "species_chrom.csv"
    with path.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    rows = change(rows) or rows
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def embed(weights: Path, cells: Any, **settings: str) -> np.ndarray:
    loaded = original(weights, **settings)
    with torch.inference_mode():
        return loaded.model.module(loaded.model.collate(encode(loaded, cells))).numpy()


def test_imported_weights_give_the_identical_embedding(tmp_path: Path, cells: Any) -> None:
    imported = import_weights(SPEC, FOLDER, output=tmp_path / "imported")
    np.testing.assert_array_equal(embed(imported, cells), embed(FOLDER, cells))


def test_import_keeps_no_vectors_of_proteins(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    imported = import_weights(SPEC, FOLDER, output=tmp_path / "imported")
    tensors = load_file(imported / "model.safetensors")
    assert tensors["tokens.weight"].shape == (4 + 23 + 280 + 60 + 59, 40)
    assert not any(tensor.shape[-1] == 48 for tensor in tensors.values())


def test_every_species_whose_file_is_there_can_be_chosen(folder: Path) -> None:
    sizes = {
        species: load_model(
            "uce", settings={**SIZES, "species": species}, weights=folder
        ).model.traits.vocabulary_size
        for species in ("frog", "human", "mouse")
    }
    assert sizes == {"frog": 23, "human": 280, "mouse": 60}


def test_rows_of_each_species_come_from_its_own_block(folder: Path) -> None:
    published = torch.load(folder / CHECKPOINT, weights_only=True)
    everything = load_model("uce", settings={**SIZES, "species": "mouse"}, weights=folder)
    (folder / protein_file("frog")).unlink()
    (folder / protein_file("human")).unlink()
    alone = load_model("uce", settings={**SIZES, "species": "mouse"}, weights=folder)
    found = alone.model.module.tokens.weight
    torch.testing.assert_close(everything.model.module.tokens.weight, found, rtol=0, atol=1e-6)
    encoder_input = torch.nn.functional.normalize(published["pe_embedding.weight"][307:367], dim=1)
    linear = encoder_input @ published["encoder.0.weight"].T + published["encoder.0.bias"]
    expected = torch.nn.functional.layer_norm(
        torch.nn.functional.gelu(linear),
        (40,),
        published["encoder.2.weight"],
        published["encoder.2.bias"],
    )
    torch.testing.assert_close(found[4:64].detach(), expected, rtol=0, atol=1e-5)


def test_embedding_does_not_depend_on_the_species_that_are_there(folder: Path, cells: Any) -> None:
    expected = embed(folder, cells)
    for species in ("frog", "mouse"):
        (folder / protein_file(species)).unlink()
    np.testing.assert_allclose(embed(folder, cells), expected, rtol=0, atol=1e-6)


def test_a_species_that_is_not_there_is_an_error_naming_the_file(folder: Path) -> None:
    (folder / protein_file("mouse")).unlink()
    with pytest.raises(
        WeightsError, match=r"no genes of mouse \(there are: frog, human\)"
    ) as error:
        load_model("uce", settings={**SIZES, "species": "mouse"}, weights=folder)
    assert protein_file("mouse") in error.value.hint


def test_a_folder_without_any_species_is_an_error(folder: Path) -> None:
    shutil.rmtree(folder / "protein_embeddings")
    with pytest.raises(WeightsError, match="there is no list of genes of any species"):
        read(folder)


@pytest.mark.parametrize("name", [CHECKPOINT, "species_chrom.csv", "species_offsets.pkl"])
def test_a_missing_file_is_an_error_naming_it(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=f"{name} is missing"):
        read(folder)


def test_the_other_checkpoint_is_an_error_naming_its_variant(folder: Path) -> None:
    (folder / CHECKPOINT).rename(folder / CHECKPOINTS["33-layer"])
    with pytest.raises(
        WeightsError, match=r"4layer_model\.torch is missing; there is 33l"
    ) as error:
        read(folder)
    assert "33-layer" in error.value.hint
    assert read(folder, "33-layer").config["n_layers"] == 2


def grown(n_layers: int) -> Callable[[Tensors], Tensors]:
    """Repeat the first layer."""
    first = "transformer_encoder.layers.0."
    return lambda tensors: {
        **tensors,
        **{
            key.replace(".0.", f".{layer}.", 1): tensor.clone()
            for layer in range(n_layers)
            for key, tensor in tensors.items()
            if key.startswith(first)
        },
    }


@pytest.mark.parametrize(("variant", "n_layers"), [("4-layer", 33), ("33-layer", 4)])
def test_a_checkpoint_under_the_name_of_the_other_is_an_error(
    folder: Path, variant: str, n_layers: int
) -> None:
    edit_tensors(folder, grown(n_layers))
    (folder / CHECKPOINT).rename(folder / CHECKPOINTS[variant])
    with pytest.raises(WeightsError, match=f"has {n_layers} layers: it is the {n_layers}-layer"):
        read(folder, variant)


def test_tensors_of_another_model_are_an_error_that_lists_them(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: {**tensors, "other.weight": torch.zeros(3)})
    with pytest.raises(WeightsError, match=r"1 tensors are not part of this model: other\.weight"):
        read(folder)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("transformer_encoder.layers.1.norm2.bias", r"missing: layers\.1\.norm2\.bias"),
        ("encoder.2.bias", r"missing: norm\.bias"),
        ("decoder.2.1.weight", r"missing: decoder\.2\.norm\.weight"),
        ("pe_embedding.weight", "are missing or do not fit: pe_embedding"),
        ("pos_encoder.pe", "are missing or do not fit: pe_embedding"),
    ],
)
def test_missing_tensors_are_an_error_that_lists_them(
    folder: Path, gone: str, message: str
) -> None:
    edit_tensors(folder, lambda tensors: {k: v for k, v in tensors.items() if k != gone})
    with pytest.raises(WeightsError, match=message):
        load_model("uce", weights=folder)


def test_the_head_of_pre_training_may_be_left_out(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: {k: v for k, v in tensors.items() if "binary" not in k})
    assert read(folder).tensors.keys() == read(FOLDER).tensors.keys()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("decoder.3.bias", torch.zeros(7), r"decoder\.3\.bias is \(7,\), expected \(24,\)"),
        ("encoder.0.bias", torch.zeros(7), r"linear\.bias is \(7,\), expected \(40,\)"),
        ("pos_encoder.pe", torch.zeros(1536, 2, 40), r"positions is \(1536, 2, 40\)"),
        ("encoder.0.weight", torch.zeros(40, 47), "are missing or do not fit"),
        ("decoder.3.bias", torch.full((24,), torch.nan), r"decoder\.3\.bias holds NaN"),
        ("pe_embedding.weight", torch.full((426, 48), torch.nan), r"tokens\.weight holds NaN"),
    ],
)
def test_a_tensor_that_does_not_fit_is_an_error_naming_it(
    folder: Path, key: str, value: torch.Tensor, message: str
) -> None:
    edit_tensors(folder, lambda tensors: {**tensors, key: value})
    with pytest.raises(WeightsError, match=message):
        load_model("uce", weights=folder)


def test_a_checkpoint_without_tensors_by_name_is_an_error(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: list(tensors.values()))
    with pytest.raises(WeightsError, match="holds a list, not tensors"):
        read(folder)


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("payload-ran"),)


@pytest.mark.parametrize("name", ["species_offsets.pkl", CHECKPOINT, protein_file("human")])
def test_code_in_a_pickle_is_refused_and_not_run(
    folder: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = {"human": Payload()}
    if name.endswith(".pkl"):
        (folder / name).write_bytes(pickle.dumps(content))
    else:
        torch.save(content, folder / name)
    with pytest.raises(WeightsError, match="nothing in it was run"):
        read(folder)
    assert not Path("payload-ran").exists()


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([4, 27], "holds a list, not a dictionary"),
        ({"human": "27"}, "human begins at '27', not at 4 to 367"),
        ({"human": 3}, "human begins at 3, not at 4 to 367"),
        ({"human": 367}, "human begins at 367"),
        ({"human": True}, "human begins at True"),
        ({"human": 27, "mouse": 27}, "two species begin at the same row"),
        ({"frog": 4, "human": 28, "mouse": 307}, "lists 23 genes; .* leaves 24 rows for frog"),
    ],
)
def test_offsets_that_do_not_fit_are_an_error(folder: Path, offsets: object, message: str) -> None:
    (folder / "species_offsets.pkl").write_bytes(pickle.dumps(offsets))
    with pytest.raises(WeightsError, match=message):
        read(folder)


def test_genes_of_another_release_are_an_error_with_both_numbers(folder: Path) -> None:
    def shorter(vectors: Tensors) -> Tensors:
        return dict(list(vectors.items())[1:])

    edit_tensors(folder, shorter, protein_file("human"))
    with pytest.raises(WeightsError, match=r"lists 279 genes; .* leaves 280 rows for human"):
        read(folder)


@pytest.mark.parametrize("content", [torch.zeros(3), {7: torch.zeros(3)}])
def test_a_protein_file_without_symbols_is_an_error(folder: Path, content: object) -> None:
    torch.save(content, folder / protein_file("human"))
    with pytest.raises(WeightsError, match="holds no vectors by gene symbol"):
        read(folder)


def test_columns_are_found_by_name(folder: Path) -> None:
    expected = read(folder).vocabulary
    edit_places(folder, lambda rows: [dict(reversed(row.items())) for row in rows])
    assert read(folder).vocabulary == expected


def test_a_table_without_a_column_is_an_error(folder: Path) -> None:
    edit_places(folder, lambda rows: [{k: v for k, v in r.items() if k != "start"} for r in rows])
    with pytest.raises(WeightsError, match="has no column start"):
        read(folder)


def test_a_start_that_is_no_number_is_an_error_with_its_line(folder: Path) -> None:
    edit_places(folder, lambda rows: rows[5].update(start="x"))
    with pytest.raises(WeightsError, match="line 7: start is 'x', not a number"):
        read(folder)


def test_a_table_of_one_species_alone_is_an_error(folder: Path) -> None:
    # All chromosome numbers would shift, and every sentence be wrong without a sign of it.
    edit_places(folder, lambda rows: [row for row in rows if row["species"] == "human"])
    with pytest.raises(WeightsError, match=r"has no genes of frog, mouse, which species_offsets"):
        read(folder)


@pytest.mark.parametrize("change", ["no row", "no chromosome", "NA"])
def test_genes_without_a_chromosome_are_left_out_with_a_warning(folder: Path, change: str) -> None:
    def spoil(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        if change == "no row":
            return rows[1:]
        rows[0]["chromosome"] = "" if change == "no chromosome" else "NA"
        return rows

    gone = "VPREB3"
    edit_places(folder, spoil)
    with pytest.warns(ScDrugMapWarning, match="1 of 280 genes of human have no chromosome"):
        model = load_model("uce", settings=SIZES, weights=folder).model
    assert model.traits.vocabulary_size == 279
    assert gone not in model.tokenizer.genes


def test_more_chromosomes_than_rows_are_an_error(folder: Path) -> None:
    edit_places(folder, lambda rows: rows[0].update(chromosome="new"))
    with pytest.raises(WeightsError, match="has 60 chromosomes; the token table has room for 59"):
        read(folder)


def test_the_redundant_token_file_is_not_needed(folder: Path) -> None:
    expected = read(folder)
    (folder / "all_tokens.torch").unlink()
    found = read(folder)
    assert found.vocabulary == expected.vocabulary
    assert torch.equal(found.tensors["tokens.weight"], expected.tensors["tokens.weight"])


def test_a_token_file_of_other_species_is_an_error(folder: Path) -> None:
    torch.save(torch.zeros(500, 48), folder / "all_tokens.torch")
    with pytest.raises(WeightsError, match="no table of fewer rows than the checkpoint's 426"):
        read(folder)


def test_verify_reports_the_golden_folder() -> None:
    found = verify_weights(SPEC, FOLDER)
    assert (found.dim, found.n_vocabulary) == (24, 280)
    assert found.cells["least_distance"] > 0


def test_all_species_have_their_file_and_their_option() -> None:
    assert set(SPEC.species) == set(SPECIES)
    field = SPEC.options.model_fields["species"]
    assert set(field.annotation.__args__) == set(SPECIES)
