"""What fine-tuning is made of: steps, held-out groups, stored tokens, rates, files and options."""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)  # the toy models are imported by name

from toy_models import SPEC  # noqa: E402

from scdrugmap import api  # noqa: E402
from scdrugmap.data.cells import open_cells  # noqa: E402
from scdrugmap.errors import DataError, ScDrugMapWarning, UsageError  # noqa: E402
from scdrugmap.model import token_store  # noqa: E402
from scdrugmap.model.embed import EmbeddingJob  # noqa: E402
from scdrugmap.model.load import load_model  # noqa: E402
from scdrugmap.run.store import Store  # noqa: E402
from scdrugmap.testing import synthetic_adata  # noqa: E402
from scdrugmap.train.archive import Archive, write_archive  # noqa: E402
from scdrugmap.train.gather import Chosen  # noqa: E402
from scdrugmap.train.holdout import hold_out_groups  # noqa: E402
from scdrugmap.train.optimizer import rate_share  # noqa: E402
from scdrugmap.train.predictor import Predictor  # noqa: E402
from scdrugmap.train.settings import FineTuning, read_tuning  # noqa: E402
from scdrugmap.train.steps import Plan  # noqa: E402
from scdrugmap.train.tensors import dump_tensors, load_tensors  # noqa: E402


def plan(n: int = 50, groups: np.ndarray | None = None, step_cells: int = 8) -> Plan:
    return Plan(np.random.default_rng(0).integers(5, 90, n), groups, step_cells, 3)


@pytest.mark.parametrize("groups", [None, np.arange(50) % 4])
def test_every_cell_is_in_one_step_of_an_epoch(groups: np.ndarray | None) -> None:
    for epoch in range(2):
        steps = plan(groups=groups).epoch(epoch)
        cells = np.concatenate([batch for step in steps for batch in step])
        assert sorted(cells) == list(range(50))
        assert max(sum(map(len, step)) for step in steps) <= 8


def test_epochs_differ_and_are_found_again() -> None:
    first, second, again = plan().epoch(0), plan().epoch(1), plan().epoch(0)
    assert [list(step[0]) for step in first] != [list(step[0]) for step in second]
    assert [list(step[0]) for step in first] == [list(step[0]) for step in again]


def test_sequences_never_mix_groups_and_a_step_has_several() -> None:
    groups = np.repeat(np.arange(4), [20, 20, 7, 3])
    steps = plan(groups=groups, step_cells=16).epoch(0)
    assert all(len(set(groups[batch])) == 1 for step in steps for batch in step)
    assert all(len(batch) <= 4 for step in steps for batch in step)
    assert len(steps[0]) >= 4


def test_batches_fit_the_budget_and_no_process_is_idle() -> None:
    made = plan()
    step = made.epoch(0)[0]
    tight = made.batches(step, 100, exact_above=None)
    assert all(len(b) == 1 or made.cost[b].max() * len(b) <= 100 for b in tight)
    shared = made.batches(step, 10_000, exact_above=None, at_least=3)
    assert len(shared) == 3
    assert sorted(np.concatenate(shared)) == sorted(step[0])


def chosen_of(labels: dict[str, str]) -> list[Chosen]:
    names = [group for group in labels for _ in range(3)]
    table = pd.DataFrame({"group": names, "label": [labels[name] for name in names]})
    return [Chosen(None, np.arange(len(table)), table)]  # type: ignore[arg-type]


def test_whole_groups_of_both_labels_are_held_out() -> None:
    labels = {f"g{n}": ("sensitive", "resistant")[n % 2] for n in range(10)}
    trained, aside = hold_out_groups(chosen_of(labels), 0.2, 0)
    left, held = set(trained[0].groups), set(aside[0].groups)
    assert not left & held
    assert left | held == set(labels)
    assert {labels[group] for group in held} == {"sensitive", "resistant"}
    assert len(held) == 2
    others = {
        tuple(sorted(set(hold_out_groups(chosen_of(labels), 0.2, s)[1][0].groups)))
        for s in range(9)
    }
    assert len(others) > 1


def test_label_with_one_group_leaves_nothing_held_out() -> None:
    chosen = chosen_of({"a": "sensitive", "b": "resistant", "c": "resistant"})
    trained, aside = hold_out_groups(chosen, 0.2, 0)
    assert aside == []
    assert len(trained[0].index) == 9


def test_stored_tokens_are_those_of_the_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_store, "TOKEN_CELLS", 16)
    monkeypatch.setattr(token_store, "_WINDOW_CELLS", 5)
    store = Store(tmp_path / "cache", quiet=True)
    index = np.array([3, 4, 17, 40, 41])
    wanted = np.array([4, 0, 2])
    with open_cells(synthetic_adata(48, 60), name="cohort") as cells:
        loaded = load_model(SPEC)
        job = EmbeddingJob(cells, loaded, store=store, device="cpu", min_genes=1, quiet=True)
        found = token_store.store_tokens(job, index)
        expected = loaded.model.tokenizer.encode(cells.rows(index), cells.names[index])
    assert len(list(store.entries("tokens"))) == 3  # 0-15, 16-31, 32-47
    np.testing.assert_array_equal(found.cost, loaded.model.cost(expected))
    taken, same = found.take(wanted), expected.take(wanted)
    np.testing.assert_array_equal(taken.start, same.start)
    assert set(taken.flat) == set(same.flat) - {"column"}
    for name, values in taken.flat.items():
        assert values.dtype == same.flat[name].dtype
        np.testing.assert_array_equal(values, same.flat[name])
    np.testing.assert_array_equal(taken.usable, same.usable)
    joined = token_store.CellTokens.concatenate([found, found.subset(wanted)])
    np.testing.assert_array_equal(
        joined.take(np.array([5])).flat["gene"], same.take(np.array([0])).flat["gene"]
    )


def test_rate_rises_and_falls() -> None:
    settings = FineTuning(warmup=0.2)
    rates = [rate_share(step, 20, settings) for step in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert all(after < before for before, after in itertools.pairwise(rates[4:]))
    assert rates[-1] < 0.02
    assert rate_share(19, 20, FineTuning(warmup=0.2, schedule="constant")) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [({"epoch": 3}, "epoch: Extra inputs"), ({"r": 0}, "greater than or equal to 1")],
)
def test_wrong_setting_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_tuning(given)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A file, its split, and a predictor trained from Python."""
    from scdrugmap.data.labels import LabelMap
    from scdrugmap.evaluation.design import read_design
    from scdrugmap.evaluation.splits import make_split
    from scdrugmap.evaluation.tables import write_splits

    folder = tmp_path_factory.mktemp("made")
    source, splits, target = (folder / n for n in ("cohort.h5ad", "splits.tsv", "predictor.zip"))
    synthetic_adata(48, 200).write_h5ad(source)
    design = read_design(
        [source], label="response", labels=LabelMap.parse(), group="patient", cell_arguments={}
    )
    write_splits(make_split(design, "pooled-group", folds=2).table, splits)
    api.train(
        source,
        splits,
        fold=0,
        model="tgpt",
        weights="random",
        strategy="lora",
        tuning={"max_steps": 2, "batch_size": 8, "learning_rate": 1e-3},
        min_genes=1,
        variant="tiny",
    ).save(target)
    return source, splits, target


def test_training_from_python_predicts(made: tuple[Path, Path, Path]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScDrugMapWarning)  # so few cells: many lie far away
        found = api.predict(made[0], made[2], min_genes=1)
    assert found is not None
    assert found.cells["p_sensitive"].between(0, 1).all()
    assert set(found.cells["strategy"]) == {"lora"}


def changed(source: Path, target: Path, **files: bytes | None) -> Path:
    """Write a predictor with other members."""
    archive = Archive(source.read_bytes(), "it", most_bytes=1 << 29)
    members: dict[str, bytes | None] = {name: archive.read(name) for name in archive.names}
    members |= {name.replace("_", "."): data for name, data in files.items()}
    target.write_bytes(write_archive({n: d for n, d in members.items() if d is not None}))
    return target


def test_predictor_without_its_adapters_is_refused(
    made: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    bad = changed(made[2], tmp_path / "bad.zip", adapters_safetensors=None)
    with pytest.raises(DataError, match=r"adapters.safetensors is missing"):
        Predictor.load(bad)
    bad = changed(made[2], tmp_path / "bad.zip", network_safetensors=b"")
    with pytest.raises(DataError, match=r"network\.safetensors is not of strategy lora"):
        Predictor.load(bad)


@pytest.mark.parametrize("fault", ["renamed", "cut", "missing"])
def test_adapters_of_another_network_are_refused(
    made: tuple[Path, Path, Path], tmp_path: Path, fault: str
) -> None:
    tensors = load_tensors(Predictor.load(made[2]).files["adapters.safetensors"], "it")
    first = sorted(tensors)[0]
    values = tensors.pop(first)
    if fault == "renamed":
        tensors[f"x.{first}"] = values
    elif fault == "cut":
        tensors[first] = values[:1]
    bad = changed(made[2], tmp_path / "bad.zip", adapters_safetensors=dump_tensors(tensors))
    with pytest.raises(DataError, match=r"missing|expected"):
        Predictor.load(bad).scorer(device="cpu")


def test_other_adapters_fail_the_self_test(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    from scdrugmap.errors import PluginError

    tensors = load_tensors(Predictor.load(made[2]).files["adapters.safetensors"], "it")
    louder = {name: values * 40 for name, values in tensors.items()}
    bad = changed(made[2], tmp_path / "bad.zip", adapters_safetensors=dump_tensors(louder))
    with pytest.raises(PluginError, match="self-test"):
        Predictor.load(bad).scorer(device="cpu")


def test_card_says_what_training_did(made: tuple[Path, Path, Path]) -> None:
    from scdrugmap.train.card import model_card

    card = model_card(Predictor.load(made[2]).info)
    assert "adapters of rank 8 on" in card
    assert "changed the embedding of a cell by" in card


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--lora-r", 0), "--lora-r 0: Input should be greater than or equal to 1"),
        (("--strategy", "frozen", "--epochs", 2), "do nothing with --strategy frozen"),
        (("--strategy", "frozen", "--resume"), "--resume does nothing"),
        (("--lora-targets", "nothing"), "match none of the"),
        (("--lora-targets", "("), "no regular expression"),
        (("--learning-rate", "nan"), "--learning-rate nan: Input should be a finite number"),
    ],
)
def test_wrong_options_are_refused(
    cli: Callable[..., Any],
    made: tuple[Path, Path, Path],
    tmp_path: Path,
    options: tuple[object, ...],
    message: str,
) -> None:
    strategy = () if "--strategy" in options else ("--strategy", "lora")
    done = cli(
        *("train", made[0], "--splits", made[1], "--fold", 0, "--model", "tgpt"),
        *("--weights", "random", "--set", "variant=tiny", "--min-genes", 1, "--device", "cpu"),
        *(*strategy, *options, "-o", tmp_path / "predictor.zip"),
    )
    assert done.code == 2
    assert message in done.err
    assert not list(tmp_path.iterdir())
