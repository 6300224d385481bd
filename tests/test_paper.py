"""The same steps for every model under sound protocols, the authors' settings under the paper's."""

from __future__ import annotations

import re
from typing import Any

import pytest

from scdrugmap.config import BenchmarkConfig, make_config
from scdrugmap.registry import get_registry
from scdrugmap.run import paper
from scdrugmap.run.budget import job_tuning
from scdrugmap.run.entries import Entry
from scdrugmap.specs import ModelSpec
from scdrugmap.train.settings import FineTuning


def config_of(**fields: Any) -> BenchmarkConfig:
    values = {"data": "a.h5ad", "label": "response", "group": "patient", "models": "scgpt,cellplm"}
    return make_config({**values, "models": ("scgpt", "cellplm"), **fields}).resolved()


def tuning(config: BenchmarkConfig, model: str, strategy: str, family: Any) -> FineTuning:
    found = job_tuning(config, Entry(model, model, "model", strategy), family, 1000)
    assert found is not None
    return found


def test_every_model_has_the_same_steps_and_the_same_rule_to_stop() -> None:
    config = config_of(tuning={"epochs": 3, "patience": 2})
    budgets = {
        (found.max_steps, found.evaluate_every, found.patience)
        for model in ("scgpt", "cellplm")
        for strategy in ("lora", "full")
        for found in [tuning(config, model, strategy, "sound")]
    }
    assert budgets == {(3 * 32, 32, 2)}  # 1,000 cells are 32 steps of 32 cells


def test_epochs_never_end_a_training_before_its_steps() -> None:
    found = tuning(config_of(tuning={"max_steps": 7}), "scgpt", "lora", "sound")
    assert (found.max_steps, found.epochs, found.evaluate_every) == (7, 7, 7)


def test_what_differs_for_one_model_is_not_its_budget() -> None:
    config = config_of(overrides={"scgpt": {"tuning": {"r": 4, "learning_rate": 0.01}}})
    one, other = (tuning(config, model, "lora", "sound") for model in ("scgpt", "cellplm"))
    assert (one.r, one.learning_rate) == (4, 0.01)
    assert other.r is None
    assert one.max_steps == other.max_steps
    from scdrugmap.errors import UsageError

    with pytest.raises(UsageError, match=r"overrides\.scgpt\.tuning\.epochs"):
        config_of(overrides={"scgpt": {"tuning": {"epochs": 9}}})


def test_whole_networks_have_no_adapters() -> None:
    found = tuning(config_of(tuning={"r": 4}), "scgpt", "full", "sound")
    assert found.r is None
    found = tuning(config_of(), "scgpt", "full", "paper")
    assert (found.r, found.learning_rate, found.patience) == (None, None, 0)


def test_estimators_and_frozen_models_are_not_fine_tuned() -> None:
    assert job_tuning(config_of(), Entry("scgpt", "scgpt", "model", "frozen"), "sound", 9) is None


@pytest.mark.parametrize(
    ("model", "batch_size", "epochs"),
    [
        ("tgpt", 128, 2),
        ("geneformer", 10, 3),
        ("scbert", 3, 3),
        ("scgpt", 256, 3),
        ("uce", 80, 3),
        ("scfoundation", 1, 3),
        ("cellplm", None, 3),
        ("llama3", None, 3),
    ],
)
def test_the_authors_settings_per_model(model: str, batch_size: int | None, epochs: int) -> None:
    found = tuning(config_of(), model, "lora", "paper")
    assert (found.batch_size, found.epochs) == (batch_size, epochs)
    assert (found.r, found.alpha, found.dropout) == (8, 8, 0.05)
    assert (found.learning_rate, found.head_learning_rate, found.weight_decay) == (1e-4, 1e-4, 0.01)
    assert (found.warmup, found.schedule, found.clip_norm) == (0, "constant", 0)
    assert (found.patience, found.max_steps) == (0, None)


def test_their_layers_are_layers_of_the_models_here() -> None:
    for name in paper.LORA:
        spec = get_registry().models.get(name)
        assert isinstance(spec, ModelSpec), name
        assert spec.lora is not None
        wanted = tuning(config_of(), name, "lora", "paper").targets
        assert wanted is not None
        layers = ("q_proj", "k_proj", "v_proj", "out_proj")
        names = [f"layers.0.attention.{layer}" for layer in layers]
        chosen = [name for name in names if re.fullmatch(wanted, name)]
        expected = ["out_proj"] if "out_proj" in paper.LORA[name].published else layers[:3]
        assert chosen == [f"layers.0.attention.{layer}" for layer in expected]


def test_deviations_are_listed_for_what_runs() -> None:
    said = paper.deviations([("scgpt", "lora"), ("uce", "full")], folds=5, seeds=(0, 1), head="mlp")
    text = "\n".join(said)
    assert "eval mode" in text
    assert "5 folds" in text
    assert "seeds 0, 1; theirs is 24" in text
    assert "scgpt lora: the authors' adapters on out_proj are bypassed" in text
    assert "uce full: the authors did not train whole networks" in text
    assert "geneformer" not in text
    assert "the head is" not in text
    assert "the head is logistic" in "\n".join(
        paper.deviations([], folds=10, seeds=(24,), head="logistic")
    )
