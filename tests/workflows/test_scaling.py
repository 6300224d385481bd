"""The model of docs/scaling.md against a real run on Slurm; by ``make test-scaling``, on a quiet machine."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from scdrugmap.testing import synthetic_adata
from tests.workflows.engines import call, succeed
from tests.workflows.not_run import not_run
from tests.workflows.slurm import Cluster, why_not

ROOT = Path(__file__).resolve().parent.parent.parent
SCALING = "SCDRUGMAP_SCALING"
SLOTS = 2
CELLS, GENES = 512, 600  # some hundred tokens a cell: seconds of work for each hundred cells
MODEL = ["--model", "scgpt", "--weights", "random"]
MOST_OFF = 0.25

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(SCALING not in os.environ, reason="a measurement: make test-scaling"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if reason := why_not():
        not_run("the scale plan on Slurm", reason)
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def plan() -> Any:
    spec = importlib.util.spec_from_file_location("cluster", ROOT / "benchmarks" / "cluster.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["cluster"] = module
    spec.loader.exec_module(module)
    return module


def embed(cluster: Cluster, cells: Path, shards: int, folder: Path) -> tuple[float, list[float]]:
    """Embed a file in shards; return the seconds that took and when each embedding job started."""
    folder.mkdir()
    job = {
        "input": {"class": "File", "path": str(cells)},
        "model": "scgpt",
        "weights": ["random"],
        "device": "cpu",
        "shards": [f"{number + 1}/{shards}" for number in range(shards)],
    }
    (folder / "job.json").write_text(json.dumps(job))
    before, began = len(cluster.finished()), time.monotonic()
    done = call(
        *("toil-cwl-runner", "--batchSystem", "slurm", "--jobStore", folder / "store"),
        *("--workDir", folder, "--batchLogsDir", folder, "--no-container"),
        *("--statePollingWait", "1", "--outdir", folder / "out"),
        *(ROOT / "cwl" / "workflows" / "embed-sharded.cwl", folder / "job.json"),
        timeout=1200,
        TOIL_SLURM_ARGS="--exclude=n3",
        **cluster.environment,
    )
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stderr[-4000:]
    starts = [
        datetime.fromisoformat(job["StartTime"]).timestamp()
        for job in cluster.finished()[before:]
        if job["Name"].endswith(".embed")
    ]
    assert len(starts) == shards
    return seconds, sorted(starts)


def test_wall_clock_is_predicted_within_a_quarter(
    cluster: Cluster, plan: Any, tmp_path: Path
) -> None:
    few, many = tmp_path / "few.h5ad", tmp_path / "many.h5ad"
    synthetic_adata(8, GENES).write_h5ad(few)
    data = synthetic_adata(CELLS, GENES)
    data.write_h5ad(many)
    length = round((data.X > 0).sum() / CELLS)
    measured = json.loads(
        succeed(
            *("scdrugmap", "throughput", *MODEL, "--length", length, "--cells", 16),
            *("--device", "cpu", "--json"),
            OMP_NUM_THREADS="1",
        )
    )
    rate = float(measured["cells_per_s"])
    # Two waves of jobs with hardly any cells tell what a job costs, and what the engine does.
    seconds, starts = embed(cluster, few, 2 * SLOTS, tmp_path / "calibration")
    turn = (starts[-1] + starts[-2] - starts[0] - starts[1]) / 2
    fixed = seconds - 3 * turn
    model = plan.Cluster(SLOTS, start_s=turn, poll_s=0.0, fixed_s=fixed)
    off = {}
    for shards in (SLOTS, 2 * SLOTS):
        predicted = plan.wall_clock(model, [rate], cells=CELLS, shards=shards, join_rate=1e6)
        took, _ = embed(cluster, many, shards, tmp_path / f"shards{shards}")
        print(
            f"{shards} shards: predicted {predicted:.0f} s, took {took:.0f} s ({rate:.0f} cells/s)"
        )
        off[shards] = abs(predicted - took) / took
    assert max(off.values()) < MOST_OFF, off
