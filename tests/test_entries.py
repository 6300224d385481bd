"""Which rows a benchmark has: models by strategy, estimators, and the controls beside them."""

from __future__ import annotations

from typing import Any

import pytest

from scdrugmap.config import BenchmarkConfig, make_config
from scdrugmap.errors import PluginError, UsageError
from scdrugmap.registry import get_registry
from scdrugmap.run.entries import Entry, list_entries, offered


def config_of(**fields: Any) -> BenchmarkConfig:
    values: dict[str, Any] = {"data": "a.h5ad", "label": "response", "group": "patient"}
    return make_config({**values, **fields}).resolved()


def entries(**fields: Any) -> dict[tuple[str, str], Entry]:
    return {(entry.name, entry.strategy): entry for entry in list_entries(config_of(**fields))[0]}


def test_controls_run_without_being_asked_for() -> None:
    found = entries(models=("scgpt",))
    assert {entry.name: entry.control for entry in found.values()} == {
        "constant": "constant",
        "stratified": "constant",
        "technical": "technical",
        "pseudobulk-logreg": "pseudobulk",
        "hvg-logreg-permuted": "permuted",
        "scgpt": "",
        "scgpt-untrained": "untrained",
    }


def test_controls_can_be_chosen_and_turned_off() -> None:
    assert set(entries(models=("scgpt",), controls=False)) == {("scgpt", "frozen")}
    found = entries(models=("scgpt",), controls=["technical"])
    assert set(found) == {("technical", "estimator"), ("scgpt", "frozen")}


def test_a_control_that_is_listed_as_a_model_is_there_once_and_marked() -> None:
    found = entries(models=("constant", "technical"), controls=["constant"])
    assert [entry.control for entry in found.values()] == ["constant", "technical", "constant"]
    assert len(found) == 3


def test_a_model_with_random_weights_is_its_own_control() -> None:
    found = entries(models=("scgpt",), weights={"scgpt": "random"}, controls=["untrained"])
    assert [(entry.name, entry.control) for entry in found.values()] == [("scgpt", "untrained")]


def test_a_model_without_weights_has_no_untrained_control() -> None:
    found = entries(models=("randproj",), controls=["untrained"])
    assert [(entry.name, entry.control) for entry in found.values()] == [("randproj", "")]


def test_controls_over_groups_need_groups_and_say_so() -> None:
    config = config_of(models=("hvg-logreg",), group=None)
    found, notices = list_entries(config)
    assert {entry.name for entry in found} == {"hvg-logreg", "constant", "stratified", "technical"}
    assert "permuted is left out" in notices[0]


def test_strategies_asked_of_all_leave_out_models_that_lack_them_and_say_why() -> None:
    config = config_of(
        models=("randproj", "scgpt"), strategies=("frozen", "lora", "full"), controls=False
    )
    found, notices = list_entries(config)
    assert [(entry.name, entry.strategy) for entry in found] == [
        ("randproj", "frozen"),
        ("scgpt", "frozen"),
        ("scgpt", "lora"),
        ("scgpt", "full"),
    ]
    assert len(notices) == 2
    assert "randproj is left out of the strategy lora: it does not declare finetune" in notices


def test_a_strategy_asked_of_one_model_that_lacks_it_ends_the_plan_with_the_reason() -> None:
    config = config_of(models=("randproj",), overrides={"randproj": {"strategies": "lora"}})
    with pytest.raises(PluginError, match="randproj does not offer the strategy lora") as caught:
        list_entries(config)
    assert "finetune" in caught.value.message
    assert caught.value.hint == "it offers frozen"


def test_a_model_with_none_of_the_strategies_ends_the_plan() -> None:
    with pytest.raises(PluginError, match="none of the strategies lora, full"):
        list_entries(config_of(models=("randproj",), strategies=("lora", "full")))


def test_strategies_of_one_model_win_over_those_of_all() -> None:
    found = entries(
        models=("randproj", "scgpt"),
        overrides={"scgpt": {"strategies": ["lora"]}},
        controls=False,
    )
    assert set(found) == {("randproj", "frozen"), ("scgpt", "lora")}


def test_a_model_whose_cells_see_each_other_is_not_fine_tuned_without_samples() -> None:
    models = ("cellplm", "scgpt")
    config = config_of(models=models, strategies=("frozen", "lora"), group=None, controls=False)
    found, notices = list_entries(config)
    assert {(entry.name, entry.strategy) for entry in found} == {
        ("cellplm", "frozen"),
        ("scgpt", "frozen"),
        ("scgpt", "lora"),
    }
    reason = "it reads the cells of a sample together, and no column of samples is named"
    assert notices == (f"cellplm is left out of the strategy lora: {reason}",)
    for fields in (
        {"strategies": ("lora",)},
        {"overrides": {"cellplm": {"strategies": ["full"]}}},
    ):
        with pytest.raises(UsageError, match="no column of samples is named") as caught:
            list_entries(config_of(models=("cellplm",), group=None, **fields))
        assert "--sample" in caught.value.hint
    assert ("cellplm", "lora") in entries(models=models, strategies=("lora",), sample="sample")


def test_text_models_are_prompted_by_default() -> None:
    spec = next(s for s in get_registry().models.values() if s.name == "gpt4o_mini")
    reasons = offered(spec)
    assert not reasons["prompt"]
    assert "no network to train" in reasons["lora"]
    found = entries(models=("gpt4o_mini",), controls=False)
    assert [(entry.kind, entry.strategy) for entry in found.values()] == [("text", "prompt")]


def test_models_can_be_trained_on_permuted_labels_too() -> None:
    found = entries(
        models=("randproj",), permuted=("pca-logreg", "randproj"), controls=["permuted"]
    )
    assert found["randproj-permuted", "frozen"].permuted
    assert found["pca-logreg-permuted", "estimator"].kind == "estimator"
    with pytest.raises(PluginError, match="embeds none"):
        list_entries(config_of(models=("randproj",), permuted=("gpt4o_mini",)))


def test_two_rows_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="is there twice"):
        config_of(models=("randproj",), strategies=("frozen", "frozen"))
