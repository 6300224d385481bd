"""Reading checkpoints as the authors ship them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from scdrugmap.errors import WeightsError
from scdrugmap.model.load import load_model
from scdrugmap.modelkit import PublishedFolder, Weights
from scdrugmap_plugin_cellplm import SPEC
from scdrugmap_plugin_cellplm.weights import COUNTS, REQUIRED, read_published

from .conftest import CHECKPOINTS, FOLDER

Tensors = dict[str, Any]

VAE, GMVAE = CHECKPOINTS["vae"], CHECKPOINTS["gmvae"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the golden checkpoints to spoil."""
    return shutil.copytree(FOLDER, tmp_path / "ckpt")


def read(folder: Path, variant: str = VAE) -> Weights:
    return read_published(PublishedFolder(folder), SPEC.variant(variant))


def edit_tensors(
    folder: Path, change: Callable[[Tensors], object], variant: str = VAE, wrap: bool = True
) -> None:
    path = folder / f"{variant}.best.ckpt"
    changed = change(torch.load(path, weights_only=True)["model_state_dict"])
    torch.save({"model_state_dict": changed} if wrap else changed, path)


def edit_config(folder: Path, change: Callable[[Any], Any], variant: str = VAE) -> None:
    path = folder / f"{variant}.config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text("utf-8")))), "utf-8")


def test_sizes_are_those_of_the_configuration() -> None:
    assert read(FOLDER, GMVAE).config == {
        "dim": 32,
        "n_heads": 8,
        "n_layers": 2,
        "out_dim": 20,
        "n_clusters": 16,
        "latent": "gmvae",
        "dropout": 0.2,
    }
    assert read(FOLDER).config["dim"] == 16
    assert len(read(FOLDER).vocabulary) == 420


@pytest.mark.parametrize("variant", [VAE, GMVAE])
def test_only_the_embedding_path_is_kept(variant: str) -> None:
    tensors = read(FOLDER, variant).tensors
    assert not [name for name in tensors if name.startswith(("decoder", "pe_enc", "norm0"))]
    module = load_model("cellplm", settings={"variant": variant}, weights=FOLDER).model.module
    assert tensors.keys() == module.state_dict().keys()


def test_a_prefix_of_parallel_training_is_removed(folder: Path) -> None:
    expected = read(FOLDER).tensors
    edit_tensors(folder, lambda tensors: {f"module.{k}": v for k, v in tensors.items()})
    found = read(folder).tensors
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_tensor_with_and_without_the_prefix_is_an_error(folder: Path) -> None:
    name = "pre_latent_norm.norm.bias"
    edit_tensors(folder, lambda tensors: {**tensors, f"module.{name}": tensors[name]})
    with pytest.raises(WeightsError, match=r"with and without 'module\.'"):
        read(folder)


def test_entries_beside_the_tensors_and_after_the_embedding_do_not_matter(folder: Path) -> None:
    expected = read(FOLDER).tensors.keys()
    edit_tensors(
        folder,
        lambda tensors: {
            "model_state_dict": {**tensors, "head.weight": torch.zeros(3)},
            "epoch": 7,
            "optimizer": [torch.zeros(2)],
        },
        wrap=False,
    )
    assert read(folder).tensors.keys() == expected


@pytest.mark.parametrize(
    "name", ["embedder.other.weight", "encoder.layers.0.norm3.bias", "latent.layers.1.hid_3.weight"]
)
def test_unknown_tensors_on_the_path_of_the_embedding_are_an_error(folder: Path, name: str) -> None:
    edit_tensors(folder, lambda tensors: {**tensors, name: torch.zeros(3)})
    with pytest.raises(WeightsError, match=f"1 tensors are not part of this model: {name}"):
        read(folder)


def test_missing_tensors_are_an_error_that_lists_them(folder: Path) -> None:
    gone = "encoder.layers.1.self_attn.key_projection.bias"
    edit_tensors(folder, lambda tensors: {k: v for k, v in tensors.items() if k != gone})
    with pytest.raises(WeightsError, match=r"1 tensors are missing: layers\.1\.attention\.k_proj"):
        load_model("cellplm", weights=folder)


def test_fewer_layers_than_the_file_holds_are_an_error(folder: Path) -> None:
    edit_config(folder, lambda config: {**config, "enc_layers": 2})
    with pytest.raises(WeightsError, match=r"16 tensors do not belong here: layers\.2\."):
        load_model("cellplm", weights=folder)


def test_a_wrong_shape_is_an_error_with_both_shapes(folder: Path) -> None:
    key = "encoder.layers.0._ff_block.0.weight"
    edit_tensors(folder, lambda tensors: {**tensors, key: torch.zeros(32, 15)})
    with pytest.raises(WeightsError, match=r"is \(32, 15\), expected \(32, 16\)"):
        load_model("cellplm", weights=folder)


def test_a_value_that_is_not_finite_is_an_error_naming_the_tensor(folder: Path) -> None:
    def spoil(tensors: Tensors) -> Tensors:
        tensors["embedder.feat_enc.emb"][3, 4] = torch.nan
        return tensors

    edit_tensors(folder, spoil)
    with pytest.raises(WeightsError, match=r"embedder\.genes\.embedding\.weight holds NaN"):
        load_model("cellplm", weights=folder)


@pytest.mark.parametrize(
    "content", [[torch.zeros(3)], {"state_dict": {"a": torch.zeros(3)}}, torch.zeros(3)]
)
def test_a_file_of_another_form_is_an_error(folder: Path, content: object) -> None:
    edit_tensors(folder, lambda _: content, wrap=False)
    with pytest.raises(WeightsError, match="holds no model_state_dict"):
        read(folder)


class Payload:
    """Something that a careless reader would run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_in_the_file_is_not_run(folder: Path, tmp_path: Path) -> None:
    victim = tmp_path / "was-run"
    edit_tensors(folder, lambda tensors: {**tensors, "head.x": Payload(victim)})
    with pytest.raises(WeightsError, match="nothing in it was run"):
        read(folder)
    assert not victim.exists()


def test_the_folder_of_the_other_checkpoint_is_named_with_the_option_that_reads_it(
    folder: Path,
) -> None:
    for name in (f"{VAE}.config.json", f"{VAE}.best.ckpt"):
        (folder / name).unlink()
    with pytest.raises(WeightsError, match=f"holds {GMVAE}, not {VAE}") as caught:
        load_model("cellplm", weights=folder)
    assert f"variant={GMVAE}" in caught.value.hint


def test_a_renamed_checkpoint_is_an_error(folder: Path) -> None:
    for end in ("config.json", "best.ckpt"):
        shutil.copy(folder / f"{GMVAE}.{end}", folder / f"{VAE}.{end}")
    with pytest.raises(WeightsError, match=f"latent_mod is 'gmvae'; {VAE} has 'vae'"):
        read(folder)


def test_a_configuration_with_the_tensors_of_the_other_checkpoint_is_an_error(folder: Path) -> None:
    shutil.copy(folder / f"{GMVAE}.best.ckpt", folder / f"{VAE}.best.ckpt")
    edit_config(folder, lambda config: {**config, "enc_hid": 32, "enc_layers": 2})
    with pytest.raises(WeightsError, match=r"tensors are missing: latent\.weight, latent\.bias"):
        load_model("cellplm", weights=folder)


@pytest.mark.parametrize("end", ["config.json", "best.ckpt"])
def test_a_missing_file_is_named(folder: Path, end: str) -> None:
    (folder / f"{VAE}.{end}").unlink()
    (folder / f"{GMVAE}.config.json").unlink()
    with pytest.raises(WeightsError, match=rf"{VAE}\.{end} is missing"):
        read(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("enc_mod", "performer"),
        ("norm", "batchnorm"),
        ("cat_pe", True),
        ("input_covariate", True),
        ("dsbn", True),
    ],
)
def test_configurations_of_another_network_are_an_error(
    folder: Path, field: str, value: object
) -> None:
    assert field in REQUIRED
    edit_config(folder, lambda config: {**config, field: value})
    with pytest.raises(WeightsError, match=f"{field} is {value!r}; only"):
        read(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"enc_hid": "16"}, "enc_hid is '16', not a positive number"),
        ({"enc_layers": True}, "enc_layers is True, not a positive number"),
        ({"post_latent_dim": 0}, "post_latent_dim is 0, not a positive number"),
        ({"model_dropout": 1.5}, "model_dropout is 1.5, not a number from 0 to 1"),
        ({"model_dropout": None}, "model_dropout is None, not a number from 0 to 1"),
        ({"enc_head": 3}, "enc_hid 16 cannot be split into 3 parts"),
        ({"enc_hid": 6, "enc_head": 2}, "enc_hid 6 cannot be split into 4 parts"),
        ({"gene_list": {}}, "gene_list is no list of names"),
        ({"gene_list": []}, "gene_list is no list of names"),
        ({"gene_list": ["ENSG1", 2]}, "gene_list is no list of names"),
        ({"gene_list": ["ENSG1", "ENSG1"]}, "gene_list names 1 genes twice"),
        ({"gene_list": ["ENSG1"]}, "has 420 rows, but .* lists 1 genes"),
    ],
)
def test_impossible_configurations_are_an_error(
    folder: Path, change: dict[str, Any], message: str
) -> None:
    edit_config(folder, lambda config: {**config, **change})
    with pytest.raises(WeightsError, match=message):
        read(folder)


@pytest.mark.parametrize(
    "field",
    [
        *(field for field in COUNTS if field not in ("enc_head", "num_clusters")),
        "model_dropout",
        "latent_mod",
        "gene_list",
    ],
)
def test_a_configuration_without_a_size_is_an_error(folder: Path, field: str) -> None:
    edit_config(folder, lambda config: {k: v for k, v in config.items() if k != field})
    with pytest.raises(WeightsError, match=f"does not say {field}"):
        read(folder)


def test_a_configuration_that_is_no_object_is_an_error(folder: Path) -> None:
    edit_config(folder, list)
    with pytest.raises(WeightsError, match="holds a list, not an object"):
        read(folder)


def test_heads_are_eight_unless_stated(folder: Path) -> None:
    assert read(folder).config["n_heads"] == 8
    edit_config(folder, lambda config: {**config, "enc_head": 4})
    assert read(folder).config["n_heads"] == 4
