"""The model of a cluster that docs/scaling.md predicts with."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).resolve().parent.parent / "benchmarks" / "cluster.py"


@pytest.fixture(scope="module")
def cluster() -> Any:
    spec = importlib.util.spec_from_file_location("cluster", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["cluster"] = module
    spec.loader.exec_module(module)
    return module


def test_jobs_go_to_the_first_free_slot(cluster: Any) -> None:
    assert cluster.makespan([4, 1, 1, 1], 2) == 4
    assert cluster.makespan([1, 1, 1, 4], 2) == 5


def test_shards_hold_every_cell_once(cluster: Any) -> None:
    assert cluster.shard_sizes(10, 4) == [3, 3, 2, 2]


def test_one_job_takes_its_start_and_its_cells(cluster: Any) -> None:
    one = cluster.Cluster(slots=1, start_s=5, poll_s=0)
    assert cluster.wall_clock(one, [10], cells=100, shards=1, join_rate=1e9) == pytest.approx(20)


def test_smaller_shards_cost_starts_and_save_waiting(cluster: Any) -> None:
    many = cluster.Cluster(slots=8, start_s=5, poll_s=0)
    hours = {
        n: cluster.wall_clock(many, [10], cells=10_000, shards=n, join_rate=1e9)
        for n in (1, 8, 800)
    }
    assert hours[8] < hours[800] < hours[1]
