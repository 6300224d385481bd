"""A benchmark run from end to end: what it writes, resumes, refuses, and never repeats."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from threadpoolctl import threadpool_limits

from scdrugmap.config import BenchmarkConfig, make_config, read_config
from scdrugmap.errors import DataError, ResourceError, UsageError, WeightsError
from scdrugmap.evaluation.tables import read_metrics, read_predictions, read_splits
from scdrugmap.run import journal
from scdrugmap.run.execute import parse_executor, run_benchmark
from scdrugmap.run.journal import open_folder
from scdrugmap.run.record import read_run
from scdrugmap.testing import synthetic_adata

TABLES = (
    "metrics.tsv",
    "predictions-pooled-group.tsv.gz",
    "predictions-paper-pooled.tsv.gz",
    "splits-pooled-group.tsv.gz",
    "splits-paper-pooled.tsv.gz",
    "cellmap.tsv.gz",
)


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    path = tmp_path / "cohort.h5ad"
    synthetic_adata(240, 600, n_patients=8).write_h5ad(path)
    return path


def config_of(path: Path, **fields: Any) -> BenchmarkConfig:
    values: dict[str, Any] = {
        "data": str(path),
        "label": "response",
        "group": "patient",
        "models": ("constant", "stratified", "randproj"),
        "protocols": ("pooled-group", "paper-pooled"),
        "folds": 2,
        "draws": 20,
        "controls": False,
        "seeds": (0,),
    }
    return make_config({**values, **fields})


def events(folder: Path) -> list[str]:
    lines = (folder / "history.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["event"] for line in lines]


def tables(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in TABLES}


def test_a_run_leaves_every_table_and_a_report(cohort: Path, tmp_path: Path) -> None:
    run = run_benchmark(config_of(cohort), tmp_path / "run", quiet=True)
    folder = tmp_path / "run"
    metrics = read_metrics(folder / "metrics.tsv")
    assert set(metrics["protocol"]) == {"pooled-group", "paper-pooled"}
    assert set(metrics["model"]) == {"constant", "stratified", "randproj"}
    assert run.report.read_text("utf-8").startswith("<!DOCTYPE html>")
    for protocol in ("pooled-group", "paper-pooled"):
        splits = read_splits(folder / f"splits-{protocol}.tsv.gz")
        predictions = read_predictions(folder / f"predictions-{protocol}.tsv.gz")
        test = splits[splits["role"] == "test"]
        assert len(predictions) == 3 * len(test)
        assert set(predictions["role"]) == {"test"}
    record = read_run(folder)
    assert record == run.record
    assert record.datasets[0].n_used == 240
    assert record.datasets[0].n_groups == 8
    assert {model.name: model.kind for model in record.models}["randproj"] == "model"
    assert record.protocols[1].heads == {"randproj": "mlp"}
    assert str(tmp_path) not in (folder / "run.json").read_text("utf-8")


def test_the_written_configuration_gives_the_same_run(cohort: Path, tmp_path: Path) -> None:
    run_benchmark(config_of(cohort), tmp_path / "run", quiet=True)
    again = read_config(tmp_path / "run" / "config.yaml")
    run_benchmark(again, tmp_path / "again", quiet=True)
    assert tables(tmp_path / "run") == tables(tmp_path / "again")


def test_finished_steps_are_not_repeated(cohort: Path, tmp_path: Path) -> None:
    run_benchmark(config_of(cohort), tmp_path / "run", quiet=True)
    before = tables(tmp_path / "run")
    assert events(tmp_path / "run").count("job") == 12
    run_benchmark(config_of(cohort), tmp_path / "run", quiet=True)
    assert events(tmp_path / "run").count("job") == 12
    assert events(tmp_path / "run").count("finished") == 2
    assert tables(tmp_path / "run") == before


def test_a_missing_and_a_damaged_step_are_done_again_with_the_same_bytes(
    cohort: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    run_benchmark(config_of(cohort), folder, quiet=True)
    before = tables(folder)
    parts = sorted((folder / "jobs").glob("[0-9a-f]*.tsv.gz"))
    parts[0].unlink()
    parts[1].write_bytes(parts[1].read_bytes()[:-9])
    parts[2].write_bytes(gzip.compress(b"dataset\tcell\nx\ty\n"))
    for name in TABLES:
        (folder / name).unlink()
    run_benchmark(config_of(cohort), folder, quiet=True)
    assert events(folder).count("job") == 15
    assert events(folder).count("damaged") == 2
    assert tables(folder) == before


def test_other_settings_are_refused_unless_overwritten(cohort: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    small = {"models": ("constant",), "protocols": ("pooled-group",)}
    run_benchmark(config_of(cohort, **small), folder, quiet=True)
    other = config_of(cohort, **small, split_seed=7)
    with pytest.raises(UsageError, match=r"other settings \(split_seed\)") as caught:
        run_benchmark(other, folder, quiet=True)
    assert "--overwrite" in caught.value.hint
    run_benchmark(other, folder, overwrite=True, quiet=True)
    assert events(folder).count("started") == 1
    assert read_run(folder).config["split_seed"] == 7


def test_a_folder_of_other_things_is_left_alone(cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="other things"):
        run_benchmark(config_of(cohort), tmp_path / "mine", overwrite=True, quiet=True)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    with pytest.raises(UsageError, match="is a file"):
        run_benchmark(config_of(cohort), tmp_path / "mine" / "thesis.txt", quiet=True)


def test_a_run_that_was_killed_before_its_first_file_is_gone_on_with(
    cohort: Path, tmp_path: Path
) -> None:
    config = config_of(cohort).resolved()
    for name in ("jobs", "controls"):
        (tmp_path / "run" / name).mkdir(parents=True)
    (tmp_path / "run" / ".lock").touch()
    with open_folder(tmp_path / "run", config, overwrite=False):
        assert (tmp_path / "run" / "config.yaml").is_file()


def test_a_run_that_was_killed_while_it_was_cleared_is_still_a_run(
    cohort: Path, tmp_path: Path
) -> None:
    config = config_of(cohort).resolved()
    with open_folder(tmp_path / "run", config, overwrite=False):
        pass
    journal._clear(tmp_path / "run")
    (tmp_path / "run" / "metrics.tsv").touch()  # what was not removed yet
    with open_folder(tmp_path / "run", config, overwrite=True):
        assert not (tmp_path / "run" / "metrics.tsv").exists()


def test_a_line_of_the_history_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    folder = journal.RunFolder(tmp_path)
    folder.note("started")
    with open(tmp_path / "history.jsonl", "a") as handle:
        handle.write('{"time": "20')
    folder.note("finished")
    lines = (tmp_path / "history.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(lines[n])["event"] for n in (0, 2)] == ["started", "finished"]


def test_a_second_process_in_the_folder_is_refused(cohort: Path, tmp_path: Path) -> None:
    config = config_of(cohort).resolved()
    with (
        open_folder(tmp_path / "run", config, overwrite=False),
        pytest.raises(ResourceError, match="another process"),
    ):
        run_benchmark(config, tmp_path / "run", quiet=True)


def test_a_confounded_design_runs_under_the_paper_split_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic_adata(200, 600, n_patients=2).write_h5ad(tmp_path / "two.h5ad")
    run = run_benchmark(config_of(tmp_path / "two.h5ad"), tmp_path / "run")
    assert "REFUSED pooled-group" in capsys.readouterr().err
    refused, paper = run.record.protocols
    assert (refused.name, refused.status) == ("pooled-group", "refused")
    assert refused.reason
    assert paper.status == "evaluated"
    page = run.report.read_text("utf-8")
    assert "pooled-group" in page
    assert "confounded design" in page


def test_when_every_protocol_refuses_nothing_is_written(tmp_path: Path) -> None:
    synthetic_adata(120, 600, n_patients=2).write_h5ad(tmp_path / "two.h5ad")
    config = config_of(tmp_path / "two.h5ad", protocols=("pooled-group",))
    with pytest.raises(DataError) as caught:
        run_benchmark(config, tmp_path / "run", quiet=True)
    assert caught.value.exit_code == 3
    assert not (tmp_path / "run" / "metrics.tsv").exists()


def test_missing_weights_stop_the_run_before_anything_is_trained(
    cohort: Path, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError):
        run_benchmark(config_of(cohort, models=("constant", "scgpt")), tmp_path / "run", quiet=True)
    assert "job" not in events(tmp_path / "run")


def test_an_unknown_option_stops_the_run_before_anything_is_trained(
    cohort: Path, tmp_path: Path
) -> None:
    config = config_of(cohort, settings={"constant": {"colour": "red"}})
    with pytest.raises(UsageError, match="colour"):
        run_benchmark(config, tmp_path / "run", quiet=True)
    assert "job" not in events(tmp_path / "run")


def test_random_weights_are_shown_as_untrained(cohort: Path, tmp_path: Path) -> None:
    config = config_of(
        cohort,
        models=("constant", "scgpt"),
        protocols=("pooled-group",),
        weights={"scgpt": "random"},
        settings={"scgpt": {"variant": "tiny", "max_length": 32}},
    )
    run = run_benchmark(config, tmp_path / "run", quiet=True)
    scgpt = run.record.models[1]
    assert scgpt.untrained
    assert scgpt.coverage[0].n_known > 300
    assert "untrained" in run.report.read_text("utf-8")


@pytest.fixture
def strategies(cohort: Path) -> dict[str, Any]:
    """Fields of a benchmark with every strategy of embedding models, on a tiny network."""
    return {
        "models": ("gbt", "scgpt"),
        "weights": {"scgpt": "random"},
        "settings": {"scgpt": {"variant": "tiny", "max_length": 16}},
        "strategies": ("frozen", "lora", "full"),
        "tuning": {"max_steps": 2},
        "overrides": {"scgpt": {"tuning": {"r": 2}}},
    }


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Give this process two threads, whatever the tests began with; its workers have one."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with threadpool_limits(2):
        yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("two_threads")
def test_strategies_are_rows_on_one_split_and_processes_give_the_same_bytes(
    cohort: Path, tmp_path: Path, strategies: dict[str, Any]
) -> None:
    config = config_of(cohort, **strategies)
    run = run_benchmark(config, tmp_path / "one", quiet=True)
    rows = [(model.name, model.strategy) for model in run.record.models]
    assert rows == [
        ("gbt", "estimator"),
        ("scgpt", "frozen"),
        ("scgpt", "lora"),
        ("scgpt", "full"),
    ]
    table = read_predictions(tmp_path / "one" / "predictions-pooled-group.tsv.gz")
    cells = table.groupby("strategy")["cell"].agg(lambda names: tuple(sorted(names)))
    assert len(set(cells)) == 1
    sound, paper = run.record.protocols
    assert {fold["max_steps"] for folds in sound.tuning.values() for fold in folds} == {2}
    assert sound.tuning["scgpt lora"][0]["r"] == 2
    assert [fold["max_steps"] for fold in paper.tuning["scgpt lora"]] == [None, None]
    assert paper.tuning["scgpt lora"][0]["batch_size"] == 256
    assert any("out_proj are bypassed" in text for text in paper.deviations)
    assert sound.deviations == ()
    assert not list((tmp_path / "one" / "jobs").glob("*.unfinished"))
    run_benchmark(config, tmp_path / "two", executor="processes:2", quiet=True)
    assert tables(tmp_path / "one") == tables(tmp_path / "two")


def test_all_jobs_read_one_file_of_embeddings_and_it_is_removed_at_the_end(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scdrugmap.model.job import EmbeddingJob

    planned: list[int] = []
    plan = EmbeddingJob.plan

    def counted(self: EmbeddingJob, *args: Any, **named: Any) -> Any:
        planned.append(self.cells.n_cells)
        return plan(self, *args, **named)

    monkeypatch.setattr(EmbeddingJob, "plan", counted)
    config = config_of(cohort, models=("randproj",), seeds=(0, 1), heads={"paper": "logistic"})
    run_benchmark(config, tmp_path / "run", quiet=True)
    assert planned == [240]
    assert events(tmp_path / "run").count("job") == 8
    left = {path.name for path in (tmp_path / "run" / "jobs").iterdir()}
    assert not any(name.startswith(("embeddings-", "cells.")) for name in left)


def test_permuted_labels_are_scored_on_themselves_and_kept_apart(
    cohort: Path, tmp_path: Path
) -> None:
    config = config_of(
        cohort,
        models=("constant",),
        controls=["permuted"],
        permutations=2,
        permuted=("pca-logreg",),
        protocols=("pooled-group",),
    )
    run = run_benchmark(config, tmp_path / "run", quiet=True)
    rows = run.metrics[run.metrics["model"] == "pca-logreg-permuted"]
    assert set(rows["seed"]) == {0, 1}
    controls = {path.name for path in (tmp_path / "run" / "controls").iterdir()}
    assert controls == {
        f"{table}-pooled-group-permuted-{number}.tsv.gz"
        for table in ("splits", "predictions")
        for number in (0, 1)
    }
    results = read_predictions(tmp_path / "run" / "predictions-pooled-group.tsv.gz")
    assert set(results["model"]) == {"constant"}
    record = {model.name: model for model in run.record.models}["pca-logreg-permuted"]
    assert (record.control, record.model) == ("permuted", "pca-logreg")
    ids = run.record.protocols[0].permuted
    assert len({*ids, run.record.protocols[0].split_id}) == 3
    truth = [
        read_splits(tmp_path / "run" / name).drop_duplicates("cell").set_index("cell")["label"]
        for name in (
            "splits-pooled-group.tsv.gz",
            "controls/splits-pooled-group-permuted-0.tsv.gz",
            "controls/splits-pooled-group-permuted-1.tsv.gz",
        )
    ]
    assert not all(truth[0].equals(other) for other in truth[1:])


def test_facts_of_files_and_columns_reach_splits_and_records(tmp_path: Path) -> None:
    for number in range(2):
        adata = synthetic_adata(80, 600, seed=number, n_patients=4)
        adata.obs["patient"] = [f"{number}{name}" for name in adata.obs["patient"]]
        adata.obs["site"] = ["liver" if number else "lung"] * 80
        adata.write_h5ad(tmp_path / f"set{number}.h5ad")
    config = config_of(
        tmp_path,
        data=[
            {"path": str(tmp_path / "set0.h5ad"), "cancer_type": "Melanoma"},
            {"path": str(tmp_path / "set1.h5ad"), "paper": "P33"},
        ],
        tissue="site",
        models=("constant",),
        protocols=("pooled-group", "loco"),
    )
    run = run_benchmark(config, tmp_path / "run", quiet=True)
    first, second = run.record.datasets
    assert first.facets["cancer_type"] == ("Melanoma",)
    assert second.facets["cancer_type"] == ("Acute lymphoblastic leukemia",)
    assert second.facets["collection"] == ("primary",)
    assert first.facets["tissue"] == ("lung",)
    assert set(read_splits(tmp_path / "run" / "splits-loco.tsv.gz")["target"]) == {
        "Melanoma",
        "Acute lymphoblastic leukemia",
    }


def test_drawn_cells_are_stated_in_record_and_report(cohort: Path, tmp_path: Path) -> None:
    config = config_of(cohort, models=("constant", "randproj"), max_cells=160)
    run = run_benchmark(config, tmp_path / "run", quiet=True)
    assert run.record.datasets[0].n_used == 160
    assert any("160 of 240 labelled cells were drawn" in text for text in run.record.notices)
    assert "160 of 240 labelled cells were drawn" in run.report.read_text("utf-8")


def test_several_files_are_joined_on_their_shared_genes(tmp_path: Path) -> None:
    for number, genes in enumerate((600, 640)):
        adata = synthetic_adata(160, genes, seed=number, n_patients=4)
        adata.obs["patient"] = [f"{number}{name}" for name in adata.obs["patient"]]
        adata.write_h5ad(tmp_path / f"set{number}.h5ad")
    config = config_of(
        tmp_path / "set0.h5ad",
        data=[str(tmp_path / "set0.h5ad"), str(tmp_path / "set1.h5ad")],
        models=("constant", "pca-logreg"),
        protocols=("pooled-group",),
    )
    run = run_benchmark(config, tmp_path / "run", quiet=True)
    assert set(run.metrics["dataset"]) >= {"all", "set0", "set1"}
    assert "Model by dataset" in run.report.read_text("utf-8")


def test_an_unwritable_cache_is_replaced_by_one_in_the_run_folder(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file, no folder")
    monkeypatch.setenv("SCDRUGMAP_CACHE", str(tmp_path / "cache"))
    config = config_of(cohort, models=("randproj",), protocols=("pooled-group",))
    run_benchmark(config, tmp_path / "run", quiet=True)
    assert list((tmp_path / "run" / "store" / "embedding").iterdir())


@pytest.mark.parametrize("text", ["cluster", "processes", "processes:0", "processes:x", ""])
def test_unknown_executors_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="executor"):
        parse_executor(text)


def test_executors_have_a_number_of_processes() -> None:
    assert (parse_executor("local"), parse_executor("processes:3")) == (0, 3)


def three_seeds(cohort: Path, folder: Path, *options: str) -> list[str]:
    """Return a command of 48 jobs."""
    return [
        *("benchmark", "--data", str(cohort), "--label", "response", "--group", "patient"),
        *("--models", "constant,technical,hvg-logreg,randproj", "--folds", "2"),
        *("--protocol", "pooled-group", "--protocol", "paper-pooled", "--draws", "20"),
        *("--seeds", "0,1,2", "--controls", "none", "-o", str(folder), *options),
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Tables of that command, in a process that nobody killed and that has two threads."""
    folder = tmp_path_factory.mktemp("undisturbed")
    synthetic_adata(240, 600, n_patients=8).write_h5ad(folder / "cohort.h5ad")
    command = three_seeds(folder / "cohort.h5ad", folder / "whole")
    subprocess.run(
        [sys.executable, "-m", "scdrugmap", *command],
        check=True,
        capture_output=True,
        timeout=200,
        env={**os.environ, "SCDRUGMAP_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "2"},
    )
    return tables(folder / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", "processes:2"])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    cli: Callable[..., Any],
    cohort: Path,
    tmp_path: Path,
    undisturbed: dict[str, bytes],
    executor: str,
) -> None:
    folder = tmp_path / "killed"
    command = three_seeds(cohort, folder)
    child = subprocess.Popen(
        [sys.executable, "-m", "scdrugmap", *command, "--executor", executor],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and child.poll() is None:
        if len(list((folder / "jobs").glob("[0-9a-f]*.tsv.gz"))) >= 5:
            break
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert "jobs are finished and kept" in err
    assert "Run the same command again" in err
    assert "Traceback" not in err
    done = events(folder).count("job")
    assert 1 <= done < 48  # of the five that were seen, the last may not have been noted
    again = cli(*command)
    assert again.code == 0, again.err
    assert events(folder).count("job") <= 48 + 1
    assert tables(folder) == undisturbed
