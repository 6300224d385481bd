"""Models are built from options, weights and seeds; files with too few known genes are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from pydantic import Field

from scdrugmap.data.genes import Genes
from scdrugmap.errors import DataError, PluginError, UsageError, WeightsError
from scdrugmap.model.load import (
    LoadedModel,
    bind,
    code_digest,
    load_model,
    needed_genes,
    parse_options,
)
from scdrugmap.modelkit import synthetic_vocabulary
from scdrugmap.registry import get_registry
from scdrugmap.specs import Options
from scdrugmap.weights import NO_WEIGHTS, RANDOM_WEIGHTS, import_weights
from scdrugmap_plugin_scgpt import SPEC
from scdrugmap_plugin_scgpt import Options as ScGPTOptions

CHECKPOINT = Path(__file__).parents[1] / "plugins/scgpt/tests/golden/checkpoint"


def tiny(**settings: str) -> LoadedModel:
    return load_model("scgpt", settings={"variant": "tiny", **settings}, weights="random")


def output(loaded: LoadedModel) -> torch.Tensor:
    batch = {"id": torch.tensor([[1, 3, 5]]), "value": torch.tensor([[-2.0, 1, 50]])}
    with torch.inference_mode():
        return loaded.model.module(batch)


class Settings(Options):
    count: int = Field(3, ge=1, le=9, description="how many")
    share: float = 0.5
    fast: bool = False
    way: Literal["up", "down"] = "up"
    limit: int | None = None
    names: tuple[str, ...] = ()
    sizes: list[int] | None = None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {}),
        ({"count": "9"}, {"count": 9}),
        ({"share": "1e-3"}, {"share": 0.001}),
        ({"fast": "true"}, {"fast": True}),
        ({"fast": "False"}, {"fast": False}),
        ({"way": "down"}, {"way": "down"}),
        ({"limit": "5"}, {"limit": 5}),
        ({"limit": "none"}, {"limit": None}),
        ({"names": "a, b,"}, {"names": ("a", "b")}),
        ({"sizes": "1,2"}, {"sizes": [1, 2]}),
        ({"sizes": "None"}, {"sizes": None}),
    ],
)
def test_text_of_settings_becomes_values(
    settings: dict[str, str], expected: dict[str, object]
) -> None:
    assert parse_options(Settings, settings, "toy") == Settings(**expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message", "hint"),
    [
        ({"cuont": "3"}, "toy has no option 'cuont'", "did you mean count? it has: count, share"),
        ({"zzz": "3"}, "toy has no option 'zzz'", "it has: count, share"),
        ({"count": "10"}, "toy: count=10: Input should be less than or equal to 9", "count: how"),
        ({"count": "x"}, "toy: count=x: Input should be a valid integer", "count: how many"),
        ({"way": "left"}, "toy: way=left: Input should be 'up' or 'down'", ""),
        ({"sizes": "1,x"}, "toy: sizes=1,x: Input should be a valid integer", ""),
    ],
)
def test_settings_that_cannot_be_are_an_error(
    settings: dict[str, str], message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        parse_options(Settings, settings, "toy")
    assert caught.value.message.startswith(message)
    assert caught.value.hint.startswith(hint)


def test_options_without_fields_say_that_there_are_none() -> None:
    with pytest.raises(UsageError) as caught:
        parse_options(Options, {"a": "1"}, "toy")
    assert caught.value.hint == "it has none"


def test_settings_win_over_options() -> None:
    options = ScGPTOptions(variant="tiny", max_length=50, normalize=False)
    loaded = load_model("scgpt", options=options, settings={"max_length": "60"}, weights="random")
    assert loaded.options == ScGPTOptions(variant="tiny", max_length=60, normalize=False)


def test_options_of_another_model_are_a_mistake_of_the_program() -> None:
    with pytest.raises(TypeError, match="options of scgpt"):
        load_model("scgpt", options=Settings(), weights="random")  # type: ignore[arg-type]


def test_unknown_variant_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(UsageError) as caught:
        load_model("scgpt", settings={"variant": "whole_human"}, weights="random")
    assert caught.value.message == "scgpt has no variant 'whole_human'"
    assert caught.value.hint.startswith("did you mean whole-human? it has: whole-human, ")


def test_unknown_model_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(PluginError) as caught:
        load_model("scgtp")
    assert "did you mean scgpt?" in caught.value.hint


def test_random_weights_are_labelled_and_follow_the_seed() -> None:
    loaded = tiny()
    assert loaded.weights is RANDOM_WEIGHTS
    assert loaded.weights.untrained
    assert "random" in loaded.weights.label
    assert "means nothing" in loaded.weights.label
    assert torch.equal(output(loaded), output(tiny()))
    other = load_model("scgpt", settings={"variant": "tiny"}, weights="random", seed=1)
    assert not torch.equal(output(loaded), output(other))


def test_a_model_without_weights_needs_none() -> None:
    loaded = load_model("randproj")
    assert loaded.weights is NO_WEIGHTS
    assert not loaded.weights.untrained
    assert loaded.name == "randproj"


def test_published_folder_is_used_as_it_is() -> None:
    loaded = load_model("scgpt", weights=CHECKPOINT)
    assert loaded.weights.source == "published"
    assert not loaded.weights.untrained
    assert loaded.weights.licence == "not stated by the authors (their code: MIT)"
    assert loaded.weights.commercial_use is None
    assert set(loaded.weights.files) == {"args.json", "vocab.json", "best_model.pt"}
    assert loaded.model.traits.vocabulary_size == 354
    assert not loaded.model.module.training


def test_randomize_keeps_sizes_and_vocabulary_and_redraws_every_tensor() -> None:
    trained = load_model("scgpt", weights=CHECKPOINT)
    drawn, again, other = (
        load_model("scgpt", weights=CHECKPOINT, randomize=seed) for seed in (3, 3, 4)
    )
    assert drawn.model.traits == trained.model.traits
    assert torch.equal(output(drawn), output(again))
    assert not torch.equal(output(drawn), output(other))
    before = trained.model.module.state_dict()
    matrices = {name: t for name, t in drawn.model.module.state_dict().items() if t.ndim > 1}
    assert [name for name, t in matrices.items() if torch.equal(t, before[name])] == []
    assert drawn.weights.untrained
    assert "seed 3 (untrained control)" in drawn.weights.label
    assert drawn.identity() != trained.identity()
    assert drawn.identity() != other.identity()


def test_randomize_without_weights_is_an_error() -> None:
    with pytest.raises(UsageError, match="--randomize needs weights to take the sizes from"):
        load_model("scgpt", settings={"variant": "tiny"}, weights="random", randomize=1)


def test_loading_leaves_the_global_generators_alone() -> None:
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    load_model("scgpt", weights=CHECKPOINT, randomize=3)
    tiny()
    assert torch.equal(states[0], torch.random.get_rng_state())
    np.testing.assert_array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002


def test_identity_is_json_and_names_what_decides_results() -> None:
    identity = json.loads(json.dumps(tiny().identity()))
    assert identity["model"] == "scgpt"
    assert identity["weights"] == "random"
    assert identity["options"]["variant"] == "tiny"
    assert identity["seed"] == 0
    assert identity != tiny(normalize="false").identity()


def test_identity_holds_the_seed_only_where_it_acts() -> None:
    first, other = (load_model("scgpt", weights=CHECKPOINT, seed=seed) for seed in (0, 1))
    assert not first.model.traits.stochastic
    assert first.identity() == other.identity()
    drawn = [
        load_model("scgpt", settings={"bins": "legacy"}, weights=CHECKPOINT, seed=seed).identity()
        for seed in (0, 1)
    ]
    assert drawn[0] != drawn[1]


def test_identity_is_the_same_before_and_after_an_import(tmp_path: Path) -> None:
    imported = import_weights(SPEC, CHECKPOINT, output=tmp_path / "imported")
    assert (
        load_model("scgpt", weights=imported).identity()
        == load_model("scgpt", weights=CHECKPOINT).identity()
    )


def test_edited_code_of_an_editable_plugin_changes_the_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "toy_edited"
    package.mkdir()
    (package / "__init__.py").write_text("", "utf-8")
    information = tmp_path / "toy_edited-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-edited\n", "utf-8")
    (information / "direct_url.json").write_text(
        '{"url": "file:///x", "dir_info": {"editable": true}}', "utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = code_digest("toy_edited:build")
    assert code_digest("toy_edited:build") == before
    (package / "__init__.py").write_text("NEW = 1\n", "utf-8")
    code_digest.cache_clear()
    assert code_digest("toy_edited:build") != before
    shutil.rmtree(information)
    code_digest.cache_clear()
    # Released code is known by its number; what is left comes from an editable core.
    assert code_digest("toy_edited:build") == code_digest("json:load")


def vocabulary_genes(n: int, unknown: int = 0) -> Genes:
    names = list(synthetic_vocabulary("symbol")[:n])
    return Genes.from_names(names + [f"unknown{k}" for k in range(unknown)])


def test_coverage_of_a_file_is_returned() -> None:
    coverage = bind(tiny(), vocabulary_genes(600, 50), where="cells.h5ad")
    assert (coverage.n_matched, coverage.n_genes) == (600, 650)


def test_too_few_known_genes_are_an_error_with_both_numbers_and_a_way_on() -> None:
    with pytest.raises(DataError) as caught:
        bind(tiny(), vocabulary_genes(499, 1), where="cells.h5ad")
    assert "cells.h5ad: 499 of 500 genes match the scgpt vocabulary (need 500)" in (
        caught.value.message
    )
    assert caught.value.hint == "add --min-genes 499 to go on with so few"


def test_no_known_gene_is_an_error_that_asks_for_the_kind_of_names() -> None:
    genes = Genes.from_names(["foo", "bar"])
    with pytest.raises(DataError) as caught:
        bind(tiny(), genes, min_genes=0, where="cells.h5ad")
    assert "0 of 2 genes" in caught.value.message
    assert "names look like foo, bar" in caught.value.message
    assert "human" in caught.value.hint
    assert "--gene-id ensembl" in caught.value.hint


def test_min_genes_overrides() -> None:
    assert bind(tiny(), vocabulary_genes(10), min_genes=10, where="f").n_matched == 10
    with pytest.raises(DataError, match="need 11"):
        bind(tiny(), vocabulary_genes(10), min_genes=11, where="f")


def test_a_small_vocabulary_needs_a_quarter_of_its_genes() -> None:
    assert needed_genes(SPEC, 354) == 88
    assert needed_genes(SPEC, 60_000) == 500
    assert needed_genes(SPEC, 60_000, 7) == 7


def test_weights_of_a_variant_that_is_not_published_are_an_error() -> None:
    with pytest.raises(UsageError, match="variant tiny of scgpt is not published"):
        load_model("scgpt", settings={"variant": "tiny"}, weights=CHECKPOINT)


def test_missing_weights_are_an_error_that_says_what_to_do() -> None:
    with pytest.raises(WeightsError) as caught:
        load_model("scgpt")
    assert "no weights of whole-human in" in caught.value.message
    assert "scdrugmap weights import scgpt FOLDER" in caught.value.hint
    assert "--weights random" in caught.value.hint
    assert "https://github.com/bowang-lab/scGPT" in caught.value.hint


def test_the_registry_offers_scgpt() -> None:
    assert get_registry().model("scgpt") == SPEC
