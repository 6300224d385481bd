from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from scdrugmap.errors import PluginError
from scdrugmap.specs import (
    Capability,
    CommandSpec,
    EstimatorSpec,
    LoraDefaults,
    ModelOptions,
    ModelSpec,
    Options,
    Variant,
    WeightFile,
    WeightSet,
    load_object,
)

CODE = """
from test_specs import spec
print(spec().model_dump_json())
"""


def weights(name: str = "published") -> WeightSet:
    return WeightSet(
        name=name, files=(WeightFile(path="model.pt"),), licence="MIT", homepage="https://x.org"
    )


def spec(**changes: Any) -> ModelSpec:
    given: dict[str, Any] = {
        "name": "toy",
        "title": "Toy",
        "contract": 1,
        "numerics": 1,
        "gene_id": "symbol",
        "species": ("human",),
        "accepts": {"counts", "lognorm"},
        "capabilities": {Capability.EMBED, Capability.FINETUNE},
        "options": ModelOptions,
        "variants": (Variant(name="published", sizes={"dim": 64}), Variant(name="tiny", sizes={})),
        "weights": (weights(),),
        "lora": LoraDefaults(targets="q_proj"),
        "citation": "none",
        "code_licence": "MIT",
        "homepage": "https://x.org",
        "factory": "toy.model:build",
    }
    return ModelSpec(**{**given, **changes})


def test_a_spec_survives_json() -> None:
    again = ModelSpec.model_validate_json(spec().model_dump_json())
    assert again == spec()
    assert again.options is ModelOptions


def test_json_of_a_spec_is_the_same_in_every_process() -> None:
    printed = {
        subprocess.run(
            [sys.executable, "-c", CODE],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parent)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("0", "1", "2")
    }
    assert printed == {spec().model_dump_json()}


def test_sets_stay_sets_in_python() -> None:
    assert spec().accepts == frozenset({"counts", "lognorm"})
    assert isinstance(spec().capabilities, frozenset)


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        spec().name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "Toy"}, "name"),
        ({"name": "toy-1"}, "name"),
        ({"numerics": 0}, "numerics"),
        ({"gene_id": "entrez"}, "gene_id"),
        ({"accepts": {"tpm"}}, "accepts"),
        ({"capabilities": {"fly"}}, "capabilities"),
        ({"factory": "toy.model.build"}, "factory"),
        ({"variants": ()}, "variants"),
        ({"min_genes": 0}, "min_genes"),
        ({"options": int}, "options"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_field_is_refused_by_name(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        spec(**changes)
    assert caught.value.errors()[0]["loc"][0] == field


def test_two_variants_or_weights_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="tiny is there twice"):
        spec(variants=(Variant(name="tiny", sizes={}), Variant(name="tiny", sizes={})))
    with pytest.raises(ValidationError, match="published is there twice"):
        spec(weights=(weights(), weights()))


@pytest.mark.parametrize(("contract", "who"), [(2, "scdrugmap"), (0, "the plugin")])
def test_fields_of_a_foreign_contract_name_the_contract(contract: int, who: str) -> None:
    with pytest.raises(PluginError) as caught:
        spec(contract=contract, colour="red")
    assert caught.value.message == (
        f"toy is written for contract {contract}; this scdrugmap speaks 1: update {who}"
    )


def test_require_names_what_the_model_can() -> None:
    spec().require(Capability.EMBED)
    with pytest.raises(PluginError, match=r"toy cannot classify \(it can: embed, finetune\)"):
        spec().require(Capability.CLASSIFY)


def test_the_first_variant_is_the_default() -> None:
    assert spec().variant().name == "published"
    assert spec().variant("tiny").name == "tiny"
    with pytest.raises(PluginError, match="no variant 'huge'") as caught:
        spec().variant("huge")
    assert caught.value.hint == "it has: published, tiny"


def test_a_model_without_weight_sets_needs_none() -> None:
    assert spec().needs_weights
    assert not spec(weights=()).needs_weights


def test_options_refuse_unknown_names_and_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        ModelOptions(colour="red")
    with pytest.raises(ValidationError, match="frozen"):
        ModelOptions().variant = "tiny"  # type: ignore[misc]


def test_names_of_estimators_and_commands_may_hold_a_dash() -> None:
    given = {"title": "", "contract": 1, "numerics": 1, "factory": "a:b"}
    assert EstimatorSpec(name="hvg-logreg", **given).options is Options
    assert CommandSpec(name="say-hello", help="", factory="a:b").name == "say-hello"


def test_load_object_finds_nested_names() -> None:
    assert load_object("scdrugmap.specs:ModelSpec") is ModelSpec
    assert load_object("scdrugmap.specs:Capability.EMBED") is Capability.EMBED


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("no_such_package.model:build", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("scdrugmap.specs:build", "AttributeError"),
        ("scdrugmap.specs", "AttributeError"),
        ("raises_at_import:build", "RuntimeError: not today"),
        ("does_not_parse:build", "SyntaxError"),
    ],
)
def test_an_object_that_cannot_be_loaded_is_a_plugin_error(
    path: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raises_at_import.py").write_text("raise RuntimeError('not\\ntoday')\n")
    (tmp_path / "does_not_parse.py").write_text("def\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError) as caught:
        load_object(path)
    assert caught.value.message.startswith(f"{path} cannot be loaded: {reason}")
    assert "\n" not in caught.value.message


def test_options_named_by_a_path_that_leads_nowhere_are_a_plugin_error() -> None:
    text = spec().model_dump_json().replace("scdrugmap.specs:ModelOptions", "nowhere:Options")
    with pytest.raises(PluginError, match="nowhere:Options cannot be loaded"):
        ModelSpec.model_validate_json(text)
