"""Fine-tuning: what is learnt, that it acts, and that nothing but the settings decides it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)  # the toy models are imported by name

from toy_models import GROUP_SPEC, SPEC  # noqa: E402

from scdrugmap.data.cells import Cells, open_cells  # noqa: E402
from scdrugmap.data.labels import LabelMap  # noqa: E402
from scdrugmap.errors import DataError, PluginError, ResourceError, UsageError  # noqa: E402
from scdrugmap.evaluation.design import read_design  # noqa: E402
from scdrugmap.evaluation.splits import make_split  # noqa: E402
from scdrugmap.model.load import load_model  # noqa: E402
from scdrugmap.modelkit import Attention  # noqa: E402
from scdrugmap.registry import get_registry  # noqa: E402
from scdrugmap.run.store import Store  # noqa: E402
from scdrugmap.specs import Capability, ModelSpec  # noqa: E402
from scdrugmap.testing import synthetic_adata  # noqa: E402
from scdrugmap.train.checkpoint import Checkpoint  # noqa: E402
from scdrugmap.train.frozen import Embedder  # noqa: E402
from scdrugmap.train.gather import Chosen, choose_cells  # noqa: E402
from scdrugmap.train.predict import predict_cells  # noqa: E402
from scdrugmap.train.predictor import Predictor  # noqa: E402
from scdrugmap.train.settings import FineTuning  # noqa: E402
from scdrugmap.train.train import train_predictor  # noqa: E402
from scdrugmap.train.tuned import TunedFit, fit_tuned  # noqa: E402

SLOW = {"celllm", "scbert", "uce"}
PLUGINS = [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
    for name, spec in sorted(get_registry().models.items())
    if Capability.FINETUNE in spec.capabilities
]
EXACT = FineTuning(dropout=0.0, epochs=2, batch_size=8, learning_rate=1e-2)
"""No dropout before the adapters; the toys have some of their own."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cohort") / "cohort.h5ad"
    synthetic_adata(48, 200).write_h5ad(path)
    return path


@pytest.fixture
def cells(path: Path) -> Iterator[Cells]:
    with open_cells(path) as opened:
        yield opened


def split_of(path: Path, **options: Any) -> pd.DataFrame:
    design = read_design(
        [path], label="response", labels=LabelMap.parse(), group="patient", cell_arguments={}
    )
    return make_split(design, "pooled-group", **{"folds": 2, **options}).table


@pytest.fixture(scope="module")
def splits(path: Path) -> pd.DataFrame:
    return split_of(path)


def fit(
    chosen: list[Chosen],
    settings: FineTuning = EXACT,
    *,
    strategy: str = "lora",
    spec: ModelSpec = SPEC,
    fault: str = "",
    head: Any = "logistic",
    validation: list[Chosen] | None = None,
    checkpoint: Checkpoint | None = None,
    dropout: bool = True,
    **how: Any,
) -> TunedFit:
    loaded = load_model(spec, settings={"fault": fault})
    for part in () if dropout else loaded.model.module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
        elif isinstance(part, Attention):
            part.dropout = 0.0
    embedder = Embedder(loaded, min_genes=1, device="cpu", **how)
    return fit_tuned(
        embedder,
        strategy,
        head,
        chosen,
        validation or [],
        settings,
        0,
        checkpoint=checkpoint,
        quiet=True,
    )


@pytest.fixture
def chosen(cells: Cells, splits: pd.DataFrame) -> list[Chosen]:
    return choose_cells([cells], splits, 0, "train")


def tensors(found: TunedFit) -> dict[str, bytes]:
    return found.scorer.files()


def learnt(found: TunedFit) -> np.ndarray:
    """All numbers of adapters, network and head as one vector."""
    from scdrugmap.train.tensors import load_tensors

    files = [load_tensors(data, name) for name, data in sorted(tensors(found).items())]
    return np.concatenate([t.ravel() for file in files for _, t in sorted(file.items())])


@pytest.mark.parametrize("name", PLUGINS)
def test_adapters_of_every_plugin_learn_act_and_are_found_again(name: str, tmp_path: Path) -> None:
    synthetic_adata(16, 120).write_h5ad(tmp_path / "small.h5ad")
    splits = split_of(tmp_path / "small.h5ad")
    loaded = load_model(name, settings={"variant": "tiny"}, weights="random")
    before = {key: value.clone() for key, value in loaded.model.module.state_dict().items()}
    settings = FineTuning(max_steps=2, batch_size=4, patience=0, learning_rate=1e-3)
    how: dict[str, Any] = {"device": "cpu", "min_genes": 1, "quiet": True, "sample": "patient"}
    with open_cells(tmp_path / "small.h5ad") as cells:
        made = train_predictor(
            [cells], splits, fold=0, model=loaded, strategy="lora", tuning=settings, **how
        )
        first = predict_cells(made, cells, **how).cells["p_sensitive"]
        made.save(tmp_path / "predictor.zip")
        again = predict_cells(Predictor.load(tmp_path / "predictor.zip"), cells, **how).cells
    tuning = made.info.tuning
    assert tuning is not None
    assert len(tuning.adapted) > 1
    assert tuning.effect > 0
    assert tuning.cells_per_s > 0
    assert tuning.peak_bytes > 0
    assert set(made.files) == {"head.safetensors", "adapters.safetensors"}
    np.testing.assert_array_equal(again["p_sensitive"], first)
    unchanged = loaded.model.module.state_dict()
    assert all(torch.equal(before[key], unchanged[key]) for key in before)


def test_the_whole_network_is_trained_stored_and_found_again(
    cells: Cells, splits: pd.DataFrame, tmp_path: Path
) -> None:
    loaded = load_model("scgpt", settings={"variant": "tiny"}, weights="random")
    settings = FineTuning(max_steps=3, batch_size=8)
    how: dict[str, Any] = {"device": "cpu", "min_genes": 1, "quiet": True}
    made = train_predictor(
        [cells], splits, fold=0, model=loaded, strategy="full", tuning=settings, head="mlp", **how
    )
    made.save(tmp_path / "predictor.zip")
    again = Predictor.load(tmp_path / "predictor.zip")
    assert set(again.files) == {"head.safetensors", "network.safetensors"}
    np.testing.assert_array_equal(
        predict_cells(again, cells, **how).cells["p_sensitive"],
        predict_cells(made, cells, **how).cells["p_sensitive"],
    )
    assert again.domain() is not None


def test_training_lowers_the_loss(chosen: list[Chosen]) -> None:
    settings = EXACT.model_copy(update={"epochs": 12, "patience": 0})
    history = fit(chosen, settings, strategy="full", head="mlp", dropout=False).info.history
    assert history[-1].loss < 0.6 * history[0].loss


def test_same_training_gives_the_same_tensors_and_another_seed_others(chosen: list[Chosen]) -> None:
    first = fit(chosen)
    torch.rand(3)  # the global generator decides nothing
    assert tensors(fit(chosen)) == tensors(first)
    loaded = load_model(SPEC)
    other = fit_tuned(
        Embedder(loaded, min_genes=1), "lora", "logistic", chosen, [], EXACT, 1, quiet=True
    )
    assert tensors(other) != tensors(first)


def test_batches_are_halved_until_they_fit_the_memory(
    chosen: list[Chosen], capsys: pytest.CaptureFixture[str]
) -> None:
    def little_memory(module: torch.nn.Module, inputs: tuple[dict[str, torch.Tensor]]) -> None:
        if module.training and len(inputs[0]["gene"]) > 3:
            raise RuntimeError("out of memory")

    loaded = load_model(SPEC)
    loaded.model.module.register_forward_pre_hook(little_memory)
    embedder = Embedder(loaded, min_genes=1, device="cpu")
    found = fit_tuned(embedder, "lora", "logistic", chosen, [], EXACT, 0)
    assert found.info.token_budget < 4096
    assert found.info.n_steps == 2 * found.info.steps_per_epoch
    assert "too many for the memory of cpu; going on with" in capsys.readouterr().err


def test_cell_that_does_not_fit_the_memory_ends_the_training(chosen: list[Chosen]) -> None:
    def no_memory(module: torch.nn.Module, inputs: object) -> None:
        if module.training:
            raise RuntimeError("out of memory")

    loaded = load_model(SPEC)
    loaded.model.module.register_forward_pre_hook(no_memory)
    embedder = Embedder(loaded, min_genes=1, device="cpu")
    with pytest.raises(ResourceError, match="does not fit into the memory") as caught:
        fit_tuned(embedder, "lora", "logistic", chosen, [], EXACT, 0, quiet=True)
    assert "--gradient-checkpointing" in caught.value.hint


@pytest.mark.parametrize("spec", [SPEC, GROUP_SPEC], ids=["single", "grouped"])
def test_token_budget_decides_no_result(chosen: list[Chosen], spec: ModelSpec) -> None:
    wide, narrow = (
        fit(chosen, spec=spec, token_budget=budget, dropout=False, sample="patient")
        for budget in (10_000, 70)
    )
    # AdamW divides by the gradient's size: rounding of small gradients is seen in full steps.
    np.testing.assert_allclose(learnt(wide), learnt(narrow), rtol=2e-3, atol=5e-4)


def test_gradient_checkpointing_decides_no_result(chosen: list[Chosen]) -> None:
    plain = EXACT.model_copy(update={"dropout": 0.3})
    again = plain.model_copy(update={"gradient_checkpointing": True})
    np.testing.assert_allclose(
        learnt(fit(chosen, plain)), learnt(fit(chosen, again)), rtol=1e-4, atol=1e-6
    )


def test_network_without_layers_cannot_be_checkpointed(chosen: list[Chosen]) -> None:
    settings = FineTuning(gradient_checkpointing=True, targets=r"blocks\..*q_proj")
    with pytest.raises(PluginError, match="no list of layers"):
        fit(chosen, settings, fault="no_layers")


def test_adapter_without_effect_stops_the_training(chosen: list[Chosen]) -> None:
    with pytest.raises(PluginError, match=r"layers\.0\..* has no effect: it got no gradient"):
        fit(chosen, fault="reads_weight")


def test_named_targets_that_match_nothing_are_an_error_of_usage(chosen: list[Chosen]) -> None:
    with pytest.raises(UsageError, match=r"--lora-targets: .*match none of the"):
        fit(chosen, FineTuning(targets="nothing"))


def test_cells_that_see_each_other_need_a_column_of_samples(chosen: list[Chosen]) -> None:
    with pytest.raises(UsageError, match="no column of samples is named") as caught:
        fit(chosen, spec=GROUP_SPEC)
    assert "--sample" in caught.value.hint


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_learning_rate_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite number"):
        FineTuning(learning_rate=value)


def test_named_targets_and_sizes_are_used(chosen: list[Chosen]) -> None:
    settings = FineTuning(targets=r"layers\.1\.attention\.v_proj", r=3, alpha=6, max_steps=3)
    info = fit(chosen, settings).info
    assert info.adapted == ("layers.1.attention.v_proj",)
    assert info.lora is not None
    assert (info.lora.r, info.lora.alpha, info.lora.dropout) == (3, 6, 0.05)


def test_training_that_changes_nothing_is_an_error(chosen: list[Chosen]) -> None:
    settings = FineTuning(max_steps=1, learning_rate=1e-12, warmup=0)
    with pytest.raises(PluginError, match="the adapters did not change the output"):
        fit(chosen, settings)


def test_loss_that_is_not_finite_stops_the_training(chosen: list[Chosen]) -> None:
    settings = EXACT.model_copy(update={"learning_rate": 1e30, "clip_norm": 0.0, "epochs": 9})
    with pytest.raises(PluginError, match=r"the loss of step \d+ is|not finite"):
        fit(chosen, settings, strategy="full")


def test_step_out_of_all_bounds_is_not_blamed_on_the_model(chosen: list[Chosen]) -> None:
    settings = EXACT.model_copy(update={"learning_rate": float("inf"), "evaluate_every": 1})
    with pytest.raises(PluginError, match="tensors that train are not finite") as caught:
        fit(chosen, settings)
    assert "lower --learning-rate" in caught.value.hint


def test_class_weights_change_what_is_learnt(chosen: list[Chosen]) -> None:
    uneven = [part.take(np.arange(len(part.index)) % 3 != 0) for part in chosen]
    uneven = [part.take((part.y > 0) | (np.arange(len(part.y)) % 2 == 0)) for part in uneven]
    weighted = EXACT.model_copy(update={"class_weights": True})
    assert tensors(fit(uneven)) != tensors(fit(uneven, weighted))


def test_best_state_is_kept_and_training_stops_early(chosen: list[Chosen]) -> None:
    settings = EXACT.model_copy(
        update={"epochs": 40, "patience": 2, "learning_rate": 0.3, "head_learning_rate": 0.3}
    )
    info = fit(chosen, settings).info
    losses = [row.validation_loss for row in info.history]
    best = int(np.argmin(losses))
    assert info.stopped_early
    assert info.best_step == info.history[best].step
    assert len(losses) == best + 1 + settings.patience
    assert info.stopped_by == "training groups"


def test_kept_state_has_the_loss_that_was_reported(chosen: list[Chosen]) -> None:
    settings = EXACT.model_copy(update={"epochs": 6, "patience": 1, "learning_rate": 0.3})
    found = fit(chosen, settings)
    reported = min(row.validation_loss or 0 for row in found.info.history)
    held_out = {part.cells.name for part in chosen}
    assert held_out == {"cohort"}
    from scdrugmap.train.holdout import hold_out_groups

    _, aside = hold_out_groups(chosen, settings.hold_out, 0)
    losses = []
    for part in aside:
        p = found.scorer.scores(part.cells, index=part.index, quiet=True).p
        loss = -np.log(np.where(part.y > 0, p, 1 - p))
        losses += [loss[part.groups == group].mean() for group in sorted(set(part.groups))]
    assert np.mean(losses) == pytest.approx(reported, rel=1e-4)


def test_validation_cells_of_the_split_tell_when_to_stop(path: Path, cells: Cells) -> None:
    splits = split_of(path, validation=True)
    training = choose_cells([cells], splits, 0, "train")
    validation = choose_cells([cells], splits, 0, "validation")
    both = len({y for part in validation for y in part.y}) == 2
    info = fit(training, validation=validation).info
    assert info.stopped_by == ("validation cells" if both else "training groups")


def test_without_patience_nothing_is_held_out(chosen: list[Chosen]) -> None:
    found = fit(chosen, EXACT.model_copy(update={"patience": 0}))
    assert found.info.n_held_out_cells == 0
    assert found.info.best_step == found.info.n_steps
    assert "nothing told when to stop" in found.notices[0]


def test_cells_without_known_genes_are_left_out(tmp_path: Path) -> None:
    adata = synthetic_adata(48, 200)
    for cell in (0, 9):
        adata.X.data[adata.X.indptr[cell] : adata.X.indptr[cell + 1]] = 0
    adata.X.eliminate_zeros()
    adata.write_h5ad(tmp_path / "cohort.h5ad")
    splits = split_of(tmp_path / "cohort.h5ad")
    with open_cells(tmp_path / "cohort.h5ad") as cells:
        chosen = choose_cells([cells], splits, 0, "train")
        found = fit(chosen)
        bad = {cells.names[0], cells.names[9]} & set(cells.names[chosen[0].index])
        used = sum(len(part.index) for part in found.used)
        assert used == len(chosen[0].index) - len(bad)
        assert bad


def test_model_that_cannot_be_tuned_is_refused(cells: Cells, splits: pd.DataFrame) -> None:
    with pytest.raises(PluginError, match="randproj cannot finetune"):
        train_predictor(
            [cells], splits, fold=0, model=load_model("randproj"), strategy="lora", quiet=True
        )


def test_values_that_are_not_accepted_are_refused(tmp_path: Path) -> None:
    synthetic_adata(48, 200, values="lognorm").write_h5ad(tmp_path / "cohort.h5ad")
    splits = split_of(tmp_path / "cohort.h5ad")
    loaded = load_model("geneformer", settings={"variant": "tiny"}, weights="random")
    with (
        open_cells(tmp_path / "cohort.h5ad") as cells,
        pytest.raises(DataError, match="geneformer accepts counts only"),
    ):
        train_predictor([cells], splits, fold=0, model=loaded, strategy="lora", quiet=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "frozen", "tuning": FineTuning()}, "do nothing with --strategy frozen"),
        ({"strategy": "full", "tuning": FineTuning(r=4)}, "no adapters"),
        ({"strategy": "lora", "embeddings": [Path("x.h5ad")]}, "leave --embeddings out"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(
    cells: Cells, splits: pd.DataFrame, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        train_predictor([cells], splits, fold=0, model=load_model("randproj"), **options)
    assert message in f"{caught.value.message} {caught.value.hint}"


def test_network_too_large_for_a_predictor_is_refused(
    chosen: list[Chosen], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scdrugmap.train.trainee.MOST_NETWORK_BYTES", 1000)
    with pytest.raises(UsageError, match="at most 1,000") as caught:
        fit(chosen, strategy="full")
    assert "--strategy lora" in caught.value.hint


def test_tokens_are_written_once(chosen: list[Chosen], tmp_path: Path) -> None:
    store = Store(tmp_path / "cache", quiet=True)
    fit(chosen, store=store)
    entries = {entry.key for entry in store.entries("tokens")}
    fit(chosen, EXACT.model_copy(update={"epochs": 1}), store=store, precision="float32")
    assert {entry.key for entry in store.entries("tokens")} == entries
    assert len(entries) == 1


def test_training_without_a_cache_gives_the_same(chosen: list[Chosen], tmp_path: Path) -> None:
    kept = fit(chosen, store=Store(tmp_path / "cache", quiet=True))
    assert tensors(fit(chosen, store=Store.disabled())) == tensors(kept)


class Interrupted(BaseException):
    """Stands for a kill in the middle of a step."""


@pytest.mark.parametrize("strategy", ["lora", "full"])
def test_interrupted_training_goes_on_to_the_same_result(
    chosen: list[Chosen], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    from scdrugmap.train import finetune

    settings = EXACT.model_copy(
        update={"dropout": 0.3, "epochs": 8, "evaluate_every": 2, "patience": 50}
    )
    whole = fit(chosen, settings, strategy=strategy)
    place = tmp_path / "predictor.zip.unfinished"
    do, done = finetune.Tuner._do, 0

    def stop_at_the_seventh(self: Any, step: Any) -> float:
        nonlocal done
        done += 1
        if done == 7:
            raise Interrupted
        return do(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(finetune.Tuner, "_do", stop_at_the_seventh)
        with pytest.raises(Interrupted):
            fit(chosen, settings, strategy=strategy, checkpoint=Checkpoint(place, every_s=0))
    assert place.exists()
    resumed = fit(
        chosen, settings, strategy=strategy, checkpoint=Checkpoint(place, resume=True, every_s=0)
    )
    assert tensors(resumed) == tensors(whole)
    assert resumed.info.history == whole.info.history
    assert resumed.info.best_step == whole.info.best_step


def test_state_of_another_training_is_refused(chosen: list[Chosen], tmp_path: Path) -> None:
    place = tmp_path / "predictor.zip.unfinished"
    fit(chosen, checkpoint=Checkpoint(place, every_s=0))
    other = EXACT.model_copy(update={"batch_size": 4})
    with pytest.raises(UsageError, match=r"settings.batch_size was 8 and is 4"):
        fit(chosen, other, checkpoint=Checkpoint(place, resume=True))


def test_damaged_state_is_refused(chosen: list[Chosen], tmp_path: Path) -> None:
    place = tmp_path / "predictor.zip.unfinished"
    place.write_bytes(b"nothing of use")
    with pytest.raises(DataError, match="is damaged") as caught:
        fit(chosen, checkpoint=Checkpoint(place, resume=True))
    assert "--overwrite" in caught.value.hint


def test_unfinished_state_is_not_replaced_by_accident(tmp_path: Path) -> None:
    place = tmp_path / "predictor.zip.unfinished"
    place.write_bytes(b"hours of work")
    with pytest.raises(UsageError, match="not finished") as caught:
        Checkpoint(place)
    assert "--resume" in caught.value.hint
