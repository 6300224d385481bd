"""Reading repositories as the authors and their users ship them."""

from __future__ import annotations

import json
import os
import pickle
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
from scdrugmap.model.verify import verify_weights
from scdrugmap.modelkit import PublishedFolder, Weights
from scdrugmap.weights import import_weights, open_weights
from scdrugmap_plugin_geneformer import SPEC
from scdrugmap_plugin_geneformer.weights import CONFIG, read_published

from .conftest import V1, V2, Cells, Generation, embed

Tensors = dict[str, torch.Tensor]
MODEL = "Geneformer-V2-104M"
TOKENS = "geneformer/token_dictionary_gc104M.pkl"
MEDIANS = "geneformer/gene_median_dictionary_gc104M.pkl"
MAPPING = "geneformer/ensembl_mapping_dict_gc104M.pkl"
SYMBOLS = "geneformer/gene_name_id_dict_gc104M.pkl"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the golden V2 repository to spoil."""
    return shutil.copytree(V2.repository, tmp_path / "repository")


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A copy of the golden V1 repository to spoil."""
    return shutil.copytree(V1.repository, tmp_path / "first")


def read(folder: Path, variant: str = "V2-104M") -> Weights:
    return read_published(PublishedFolder(folder), SPEC.variant(variant))


def same(left: Weights, right: Weights) -> bool:
    return (
        left.config == right.config
        and left.vocabulary == right.vocabulary
        and left.tensors.keys() == right.tensors.keys()
        and all(torch.equal(left.tensors[key], right.tensors[key]) for key in left.tensors)
    )


def edit_pickle(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path.write_bytes(pickle.dumps(change(pickle.loads(path.read_bytes()))))


def edit_config(repository: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = repository / MODEL / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text("utf-8")))), "utf-8")


def edit_tensors(repository: Path, change: Callable[[Tensors], Tensors]) -> None:
    path = repository / MODEL / "model.safetensors"
    save_file(change({key: value.clone() for key, value in load_file(path).items()}), path)


@pytest.mark.parametrize("generation", [V1, V2], ids=["V1", "V2"])
def test_repository_and_model_folder_give_the_same_weights_of_the_same_digest(
    generation: Generation,
) -> None:
    whole, of_whole = open_weights(SPEC, generation.repository, variant=generation.variant)
    own, of_own = open_weights(SPEC, generation.folder, variant=generation.variant)
    assert same(whole, own)
    assert of_whole.digest == of_own.digest
    assert len(of_own.files) == 6


def test_a_relative_model_folder_finds_what_is_beside_it(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository / MODEL)
    assert same(read(Path()), read(V2.repository))


def test_dictionaries_may_lie_in_the_model_folder(repository: Path) -> None:
    for path in (repository / "geneformer").iterdir():
        shutil.move(path, repository / MODEL / path.name)
    assert same(read(repository / MODEL), read(V2.repository))
    assert same(read(repository), read(V2.repository))


def test_dictionaries_as_json_are_read(repository: Path) -> None:
    for path in list((repository / "geneformer").iterdir()):
        name = path.name.replace("_gc104M.pkl", ".json")
        (path.parent / name).write_text(json.dumps(pickle.loads(path.read_bytes())), "utf-8")
        path.unlink()
    assert same(read(repository), read(V2.repository))


def test_old_layout_of_the_first_generation_is_read(first: Path) -> None:
    dictionaries = first / "geneformer" / "gene_dictionaries_30m"
    (dictionaries / "ensembl_mapping_dict_gc30M.pkl").unlink()  # there was none
    for path in dictionaries.iterdir():
        path.rename(first / "geneformer" / path.name.replace("_gc30M", ""))
    for path in (first / "Geneformer-V1-10M").iterdir():
        path.rename(first / path.name)
    found, expected = read(first, "V1-10M"), read(V1.repository, "V1-10M")
    assert found.vocabulary["mapping"] == {}
    for name in ("tokens", "medians", "symbols"):
        assert found.vocabulary[name] == expected.vocabulary[name]
    assert found.tensors.keys() == expected.tensors.keys()


def test_fine_tuned_classifier_is_read_from_its_folder_and_from_the_repository(first: Path) -> None:
    variant = SPEC.variants[5].name
    folder = first / "fine_tuned_models" / f"Geneformer-{variant}"
    folder.parent.mkdir()
    (first / "Geneformer-V1-10M").rename(folder)
    path = folder / "pytorch_model.bin"
    tensors = torch.load(path, weights_only=True)
    tensors = {key: value for key, value in tensors.items() if not key.startswith("cls.")}
    tensors |= {
        "bert.pooler.dense.weight": torch.zeros(32, 32),
        "bert.pooler.dense.bias": torch.zeros(32),
        "classifier.weight": torch.zeros(3, 32),
        "classifier.bias": torch.zeros(3),
    }
    torch.save(tensors, path)
    expected = read(V1.repository, "V1-10M")
    assert same(read(first, variant), expected)
    assert same(read(folder, variant), expected)


@pytest.mark.parametrize("generation", [V1, V2], ids=["V1", "V2"])
def test_import_gives_the_same_weights_and_the_identical_embedding(
    generation: Generation, tmp_path: Path, cells: Cells
) -> None:
    folder = import_weights(
        SPEC, generation.folder, variant=generation.variant, output=tmp_path / "imported"
    )
    published, imported = generation.load(), load_model("geneformer", weights=folder)
    assert published.weights.digest == imported.weights.digest
    assert same(
        open_weights(SPEC, generation.repository, variant=generation.variant)[0],
        open_weights(SPEC, folder)[0],
    )
    np.testing.assert_array_equal(embed(published, cells), embed(imported, cells))


@pytest.mark.parametrize("generation", [V1, V2], ids=["V1", "V2"])
def test_verify_shows_all_files_of_a_model_folder(generation: Generation) -> None:
    found = verify_weights(SPEC, generation.folder, variant=generation.variant)
    assert len(found.files) == 6
    assert found.config["generation"] == int(generation.name[1])


def test_numbers_of_numpy_become_plain_ones() -> None:
    vocabulary = read(V1.repository, "V1-10M").vocabulary
    assert {type(token) for token in vocabulary["tokens"].values()} == {int}
    assert {type(median) for median in vocabulary["medians"].values()} == {float}


def test_a_model_of_the_other_generation_is_refused_with_its_variant() -> None:
    with pytest.raises(
        WeightsError, match=r"Geneformer-V2-104M with config\.json is missing"
    ) as err:
        read(V1.repository)
    assert "variant=V1-10M" in err.value.hint
    with pytest.raises(WeightsError, match=r"no token_dictionary_gc104M\.pkl") as err:
        read(V1.folder)
    assert "other generation" in err.value.hint


def test_a_model_of_other_published_sizes_is_refused_with_its_variant(repository: Path) -> None:
    sizes = SPEC.variant("V2-316M").sizes
    edit_config(repository, lambda c: {**c, **{f: sizes[ours] for f, ours in CONFIG.items()}})
    with pytest.raises(WeightsError, match=r"is of V2-316M \(width 1152, 18 layers\)") as err:
        read(repository / MODEL)
    assert "variant=V2-316M" in err.value.hint


def test_dictionaries_of_the_other_generation_are_refused(repository: Path) -> None:
    dictionaries = V1.repository / "geneformer" / "gene_dictionaries_30m"
    for path in dictionaries.iterdir():
        name = path.name.replace("gc30M", "gc104M")
        shutil.copyfile(path, repository / "geneformer" / name)
    with pytest.raises(WeightsError, match=r"has 332 tokens, config\.json says 338"):
        read(repository)
    edit_config(repository, lambda config: {**config, "vocab_size": 332})
    with pytest.raises(WeightsError, match="lacks <cls>, <eos>: it is not of generation 2"):
        read(repository)


def test_first_generation_with_cls_is_refused(first: Path) -> None:
    path = first / "geneformer" / "gene_dictionaries_30m" / "token_dictionary_gc30M.pkl"
    edit_pickle(
        path, lambda tokens: {"<cls>" if t == 9 else name: int(t) for name, t in tokens.items()}
    )
    with pytest.raises(WeightsError, match="has <cls>: it is not of generation 1"):
        read(first, "V1-10M")


@pytest.mark.parametrize("key", ["other.weight", "bert.encoder.layer.0.crossattention.self.query"])
def test_tensors_of_another_model_are_an_error_that_lists_them(repository: Path, key: str) -> None:
    edit_tensors(repository, lambda tensors: {**tensors, key: torch.zeros(3)})
    with pytest.raises(WeightsError, match=f"1 tensors are not part of this model: {key}"):
        read(repository)


@pytest.mark.parametrize("layer", [1, 2], ids=["a layer that is read", "the unread last layer"])
def test_missing_tensors_are_an_error_that_lists_them(repository: Path, layer: int) -> None:
    gone = f"bert.encoder.layer.{layer}.output.LayerNorm.bias"
    edit_tensors(repository, lambda tensors: {k: v for k, v in tensors.items() if k != gone})
    with pytest.raises(WeightsError, match=rf"1 tensors are missing: layers\.{layer}\.norm2\.bias"):
        load_model("geneformer", weights=repository)


def test_a_wrong_shape_is_an_error_with_both_shapes(repository: Path) -> None:
    key = "bert.encoder.layer.0.intermediate.dense.weight"
    edit_tensors(repository, lambda tensors: {**tensors, key: torch.zeros(96, 47)})
    with pytest.raises(WeightsError, match=r"is \(96, 47\), expected \(96, 48\)"):
        load_model("geneformer", weights=repository)


def test_a_value_that_is_not_finite_is_an_error_naming_the_tensor(repository: Path) -> None:
    def spoil(tensors: Tensors) -> Tensors:
        tensors["bert.embeddings.word_embeddings.weight"][3, 4] = torch.nan
        return tensors

    edit_tensors(repository, spoil)
    with pytest.raises(WeightsError, match=r"embeddings\.words\.weight holds NaN"):
        load_model("geneformer", weights=repository)


def test_more_layers_than_the_config_says_are_an_error(repository: Path) -> None:
    edit_config(repository, lambda config: {**config, "num_hidden_layers": 2})
    with pytest.raises(WeightsError, match="16 tensors do not belong here"):
        load_model("geneformer", weights=repository)


def test_a_model_file_without_tensors_by_name_is_an_error(first: Path) -> None:
    torch.save([torch.zeros(3)], first / "Geneformer-V1-10M" / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="holds a list, not tensors"):
        read(first, "V1-10M")


def test_missing_weights_file_is_an_error(repository: Path) -> None:
    (repository / MODEL / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"none of model\.safetensors, pytorch_model\.bin"):
        read(repository)


@pytest.mark.parametrize("name", [TOKENS, MEDIANS])
def test_missing_dictionaries_are_an_error(repository: Path, name: str) -> None:
    (repository / name).unlink()
    with pytest.raises(WeightsError, match=Path(name).name):
        read(repository)


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("name", [TOKENS, MEDIANS, MAPPING, SYMBOLS])
def test_code_in_a_dictionary_is_refused_and_not_run(
    repository: Path, name: str, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    edit_pickle(repository / name, lambda content: {**content, "x": Payload(f"touch {mark}")})
    with pytest.raises(WeightsError, match="nothing in it was run"):
        read(repository)
    assert not mark.exists()


def test_training_arguments_are_never_opened(repository: Path) -> None:
    (repository / MODEL / "training_args.bin").write_bytes(b"no pickle")
    assert "training_args" not in " ".join(open_weights(SPEC, repository)[1].files)


@pytest.mark.parametrize("name", [TOKENS, MEDIANS, MAPPING, SYMBOLS])
def test_a_dictionary_that_is_none_is_an_error(repository: Path, name: str) -> None:
    edit_pickle(repository / name, list)
    with pytest.raises(WeightsError, match="holds a list, not a dictionary"):
        read(repository)


@pytest.mark.parametrize("token", [7, 9999, "x", None, 1.5, True])
def test_token_ids_that_are_not_a_numbering_are_an_error(repository: Path, token: object) -> None:
    edit_pickle(
        repository / TOKENS, lambda t: {name: token if n == 8 else n for name, n in t.items()}
    )
    with pytest.raises(WeightsError, match="the token ids are not 0 to 337, each once"):
        read(repository)


@pytest.mark.parametrize("median", [0.0, -1.0, float("nan"), float("inf"), "1.0", None, True])
def test_medians_that_cannot_divide_are_an_error(repository: Path, median: object) -> None:
    edit_pickle(repository / MEDIANS, lambda medians: {**medians, next(iter(medians)): median})
    with pytest.raises(WeightsError, match=r"the median of ENSG\d+ is .*, not positive"):
        read(repository)


def test_names_that_lead_nowhere_are_left_out(repository: Path) -> None:
    expected = read(repository).vocabulary
    edit_pickle(repository / MAPPING, lambda m: {**m, "ENSG1": "ENSG2", "ENSG3": None, 4: "ENSG4"})
    assert read(repository).vocabulary == expected


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("hidden_act", "gelu", "only 'relu' is supported"),
        ("model_type", "gpt2", "only 'bert' is supported"),
        ("position_embedding_type", "relative_key", "only 'absolute' is supported"),
        ("hidden_size", "48", "hidden_size is '48', not a number"),
        ("num_hidden_layers", True, "num_hidden_layers is True, not a number"),
    ],
)
def test_config_of_another_architecture_is_an_error(
    repository: Path, field: str, value: object, message: str
) -> None:
    edit_config(repository, lambda config: {**config, field: value})
    with pytest.raises(WeightsError, match=message):
        read(repository)


@pytest.mark.parametrize("field", [*CONFIG, "vocab_size"])
def test_config_without_a_size_is_an_error(repository: Path, field: str) -> None:
    edit_config(repository, lambda c: {k: v for k, v in c.items() if k != field})
    with pytest.raises(WeightsError, match=f"does not say {field}"):
        read(repository)


def test_config_that_is_no_object_is_an_error(repository: Path) -> None:
    edit_config(repository, list)
    with pytest.raises(WeightsError, match="holds a list, not an object"):
        read(repository)


def test_an_empty_folder_is_an_error_that_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"with config\.json is missing") as err:
        read(tmp_path)
    assert "name the repository's folder" in err.value.hint
