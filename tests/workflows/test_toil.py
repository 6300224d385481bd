"""A benchmark by Toil: on one machine, and on a Slurm cluster whose jobs and leader get killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.workflows.engines import succeed
from tests.workflows.not_run import not_run
from tests.workflows.slurm import Cluster, why_not

pytestmark = pytest.mark.timeout(1500)
TABLES = ("metrics.tsv", "predictions-pooled-group.tsv.gz", "cellmap.tsv.gz")
NODE_LOSS = "SCDRUGMAP_NODE_LOSS"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if reason := why_not():
        not_run("Toil on Slurm", reason)
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def command(made: Path, run: Path, system: str) -> list[str]:
    return [
        *("scdrugmap", "benchmark", str(made / "bench.yaml"), "-o", str(run)),
        *("--executor", "cwl", "--runner", "toil", "--batch-system", system, "--shards", "2"),
    ]


def same_tables(run: Path, made: Path) -> bool:
    return all((run / name).read_bytes() == (made / "run" / name).read_bytes() for name in TABLES)


def wait_for(what: Callable[[], object], process: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + 600
    while not what():
        text = log.read_text("utf-8")[-3000:] if log.is_file() else ""
        assert process.poll() is None, f"it ended too early: {text}"
        assert time.monotonic() < deadline, f"it takes too long: {text}"
        time.sleep(0.3)


def test_one_machine_gives_the_tables_of_the_local_executor(made: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    succeed(*command(made, run, "single_machine"))
    assert same_tables(run, made)
    assert not (run / "workflow" / "jobstore").exists()


def test_a_cancelled_job_is_tried_again(cluster: Cluster, made: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    before = len(cluster.finished())
    process = subprocess.Popen(
        command(made, run, "slurm"),
        env={**os.environ, **cluster.environment},
        stderr=subprocess.DEVNULL,
        text=True,
    )
    log = run / "workflow" / "engine.log"

    def training() -> list[str]:
        return [number for number, name, _ in cluster.running() if "train" in name]

    try:
        wait_for(training, process, log)
        cluster.cancel(training()[0])
        assert process.wait(900) == 0, log.read_text("utf-8")[-4000:]
    finally:
        process.kill()
    assert same_tables(run, made)
    jobs = cluster.finished()[before:]
    assert [job for job in jobs if job["JobState"] == "CANCELLED"]
    assert len({job["NodeList"] for job in jobs}) > 1, "the scatter went to one node only"


def test_a_killed_leader_goes_on_with_the_steps_that_are_missing(
    cluster: Cluster, made: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    before = len(cluster.finished())
    words, environment = command(made, run, "slurm"), {**os.environ, **cluster.environment}
    process = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL, text=True)
    log = run / "workflow" / "engine.log"

    def trained() -> list[str]:
        done = [job["Name"] for job in cluster.finished()[before:]]
        return [name for name in done if "train" in name]

    try:
        wait_for(trained, process, log)
        leader = subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
        )
        os.kill(int(leader.stdout.split()[0]), signal.SIGKILL)
        assert process.wait(60) == 5
    finally:
        process.kill()
    first = [job["Name"] for job in cluster.finished()[before:]]
    while cluster.running():  # they end by themselves
        time.sleep(0.5)
    succeed(*words, **cluster.environment)
    second = [job["Name"] for job in cluster.finished()[before + len(first) :]]
    assert any("plan" in name for name in first)
    assert not any("plan" in name for name in second), "a finished step ran again"
    assert same_tables(run, made)


@pytest.mark.skipif(NODE_LOSS not in os.environ, reason="minutes of waiting: make test-node-loss")
def test_a_lost_node_costs_time_and_nothing_else(
    cluster: Cluster, made: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen(
        command(made, run, "slurm"),
        env={**os.environ, **cluster.environment},
        stderr=subprocess.DEVNULL,
        text=True,
    )

    def on_first() -> list[str]:
        return [name for _, name, node in cluster.running() if node == "n1" and "train" in name]

    try:
        wait_for(on_first, process, run / "workflow" / "engine.log")
        cluster.kill_node("n1")
        assert process.wait(1200) == 0
    finally:
        process.kill()
    assert same_tables(run, made)
