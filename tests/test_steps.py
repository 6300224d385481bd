"""A benchmark in steps, and the engines that run them; engines themselves are in tests/workflows."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scdrugmap.config import make_config, write_config
from scdrugmap.errors import DataError, PluginError, ResourceError, UsageError
from scdrugmap.model.parts import Shard
from scdrugmap.run.cwl import Engine, run_with_engine
from scdrugmap.run.execute import run_benchmark
from scdrugmap.run.finish import finish_run
from scdrugmap.run.plan import make_plan
from scdrugmap.run.steps import embed_shard, join_shards, run_task
from scdrugmap.run.tasks import StepTask, as_output_object, list_tasks, read_located, write_plan
from scdrugmap.testing import synthetic_adata


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    synthetic_adata(80, 60, n_patients=8).write_h5ad(tmp_path / "cohort.h5ad")
    config = make_config(
        {
            "data": str(tmp_path / "cohort.h5ad"),
            "label": "response",
            "group": "patient",
            "models": ("constant", "hvg-logreg", "randproj"),
            "controls": ("permuted",),
            "folds": 2,
            "draws": 10,
            "seeds": (0, 1),
            "min_genes": 1,
        }
    )
    write_config(config, tmp_path / "bench.yaml")
    return tmp_path / "bench.yaml"


def test_a_task_is_the_seeds_of_one_model_and_fold_and_survives_json(config_file: Path) -> None:
    tasks = list_tasks(make_plan(read_located(config_file)))
    assert all(
        len({(job.entry, job.fold, job.protocol) for job in task.jobs}) == 1 for task in tasks
    )
    assert {tuple(job.seed for job in task.jobs) for task in tasks} == {(0, 1), (0,)}
    for task in tasks:
        assert StepTask.of(json.loads(json.dumps(task.record()))) == task


@pytest.mark.slow
def test_steps_give_the_tables_of_the_local_executor(config_file: Path, tmp_path: Path) -> None:
    config = read_located(config_file)
    local = run_benchmark(config, tmp_path / "local", quiet=True)
    plan = tmp_path / "plan"
    listed = write_plan(config, plan, shards=2, quiet=True)
    splits = plan / listed["splits"]
    assert listed["networks"] == [0]
    shards = []
    for number, name in enumerate(listed["shard_names"]):
        shards.append(tmp_path / f"{number}.npz")
        embed_shard(config, splits, shards[-1], network=0, shard=Shard.parse(name), quiet=True)
    join_shards(shards, splits, tmp_path / "embeddings.npy")
    parts = []
    for name in [*listed["network_tasks"][0], *listed["other_tasks"], *listed["tuning_tasks"]]:
        parts.append(tmp_path / f"{Path(name).stem}.tsv.gz")
        embeddings = tmp_path / "embeddings.npy" if name in listed["network_tasks"][0] else None
        run_task(config, plan / name, splits, parts[-1], embeddings=embeddings, quiet=True)
    made = finish_run(
        config,
        tmp_path / "made",
        parts=parts,
        embeddings=[tmp_path / "embeddings.npy"],
        quiet=True,
    )
    events = (made.folder / "history.jsonl").read_text("utf-8")
    assert '"job"' not in events, "the last step trained something"
    assert made.record.config["data"][0]["path"] == "cohort.h5ad"
    for name in ("metrics.tsv", "predictions-pooled-group.tsv.gz", "cellmap.tsv.gz"):
        assert (made.folder / name).read_bytes() == (local.folder / name).read_bytes(), name


def test_a_plan_is_an_output_object_of_cwl(config_file: Path, tmp_path: Path) -> None:
    listed = write_plan(read_located(config_file), tmp_path / "plan", quiet=True)
    made = as_output_object(listed, Path("plan"))
    assert made["splits"] == {"class": "Directory", "path": "plan/splits"}
    for item in [*made["other_tasks"], *made["network_tasks"][0]]:
        assert (tmp_path / item["path"]).is_file()


def test_predictions_of_another_plan_are_refused(config_file: Path, tmp_path: Path) -> None:
    config = read_located(config_file).model_copy(update={"models": ("constant",)})
    stranger = tmp_path / "0000-000000000000.tsv.gz"
    stranger.touch()
    with pytest.raises(DataError, match="another plan"):
        finish_run(config, tmp_path / "made", parts=[stranger], quiet=True)


def test_shards_that_do_not_make_up_all_cells_are_refused(
    config_file: Path, tmp_path: Path
) -> None:
    plan = tmp_path / "plan"
    write_plan(read_located(config_file), plan, quiet=True)
    np.savez(tmp_path / "one.npz", rows=np.arange(30), values=np.zeros((30, 4), np.float32))
    with pytest.raises(DataError, match="50 of 80 cells are missing"):
        join_shards([tmp_path / "one.npz"], plan / "splits", tmp_path / "joined.npy")
    (tmp_path / "none.npz").write_text("no archive")
    with pytest.raises(DataError, match="is no shard"):
        join_shards([tmp_path / "none.npz"], plan / "splits", tmp_path / "joined.npy")


def test_another_number_of_files_than_the_configuration_names_is_refused(
    config_file: Path,
) -> None:
    with pytest.raises(UsageError, match=r"1 files of cells .* 2 are given"):
        read_located(config_file, [Path("a.h5ad"), Path("b.h5ad")])


def test_a_file_that_was_moved_keeps_the_name_of_its_dataset(config_file: Path) -> None:
    config = read_located(config_file, [Path("/elsewhere/staged.h5ad")])
    assert config.data[0].dataset == "cohort"
    assert config.identity() == read_located(config_file).identity()


def test_weights_that_were_moved_leave_the_identity_as_it_is(config_file: Path) -> None:
    def identity(folder: str) -> str:
        return make_config(
            {"data": "a.h5ad", "label": "x", "models": "scgpt", "weights": {"scgpt": folder}}
        ).identity()

    assert identity("/here/scgpt") == identity("/staged/by/an/engine/scgpt")
    assert len({identity("/here/scgpt"), identity("/here/other"), identity("random")}) == 3


def test_cwltool_has_no_batch_systems(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this machine only"):
        Engine(batch_system="slurm").command(tmp_path)


def test_a_runner_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PluginError, match="toil-cwl-runner is not installed"):
        Engine("toil").command(tmp_path)


def engine(folder: Path, says: str, code: int) -> None:
    """Put a program called cwltool on PATH that says something and fails."""
    program = folder / "cwltool"
    program.write_text(f"#!/bin/sh\necho '{says}' >&2\nexit {code}\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("says", "error", "message"),
    [
        ("Error: bad cells\nJob exited with status: 3", DataError, "bad cells"),
        ("Error: no column\nJob exited with status: 2", UsageError, "no column"),
        ("Error: disk full\nJob exited with status: 5", ResourceError, "disk full"),
        ("Segmentation fault", ResourceError, "cwltool could not run the workflow"),
    ],
)
def test_the_error_of_a_step_becomes_that_of_the_benchmark(
    config_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    says: str,
    error: type[Exception],
    message: str,
) -> None:
    engine(tmp_path, says, 1)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(error, match=message):
        run_with_engine(read_located(config_file), tmp_path / "run", Engine(), quiet=True)
    job = json.loads((tmp_path / "run" / "workflow" / "job.json").read_text())
    assert job["name"] == "run"
    assert job["data"] == [{"class": "File", "location": (tmp_path / "cohort.h5ad").as_uri()}]
    assert says.split("\n", 1)[0] in (tmp_path / "run" / "workflow" / "engine.log").read_text()


def test_a_samplesheet_is_refused_before_anything_runs(config_file: Path, tmp_path: Path) -> None:
    config = read_located(config_file).model_copy(update={"samplesheet": tmp_path / "sheet.csv"})
    with pytest.raises(UsageError, match="an engine moves them"):
        run_with_engine(config, tmp_path / "run", Engine(), quiet=True)
    assert not (tmp_path / "run").exists()


def test_options_of_engines_have_no_meaning_for_other_executors(
    cli: Callable[..., Any], config_file: Path, tmp_path: Path
) -> None:
    result = cli("benchmark", config_file, "-o", tmp_path / "run", "--runner", "toil")
    assert result.code == 2
    assert "--runner has no meaning with --executor local" in result.err
    assert not (tmp_path / "run").exists()
