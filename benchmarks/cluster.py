"""Predict how long embedding takes on a cluster: ``python benchmarks/cluster.py --help``.

Jobs of one shard each go to the first free slot, as a batch system gives them out; then one job joins
them. The rate comes from ``scdrugmap throughput`` on one such device, the start of a job from one that
embeds hardly anything. ``docs/scaling.md`` explains the figures.
"""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Iterable
from dataclasses import dataclass

BYTES_PER_VALUE = 4  # float32


@dataclass(frozen=True)
class Cluster:
    """What runs the jobs.

    Attributes
    ----------
    slots : int
        Jobs that run at the same time: devices.
    start_s : float
        Seconds from a free slot to the first cell: queue, engine, Python, weights.
    poll_s : float
        Seconds until the engine sees that a job has ended.
    fixed_s : float
        Seconds that the engine itself takes before the first job and after the last.
    """

    slots: int
    start_s: float
    poll_s: float = 1.0
    fixed_s: float = 0.0


def shard_sizes(cells: int, shards: int) -> list[int]:
    """Return the cells of each shard; they differ by one at most."""
    return [cells // shards + (number < cells % shards) for number in range(shards)]


def makespan(seconds: Iterable[float], slots: int) -> float:
    """Return when the last of some jobs ends, each given to the first free of `slots`."""
    free = [0.0] * slots
    for length in seconds:
        heapq.heappush(free, heapq.heappop(free) + length)
    return max(free)


def wall_clock(
    cluster: Cluster, rates: Iterable[float], *, cells: int, shards: int, join_rate: float
) -> float:
    """Predict the seconds of embedding `cells` with every model, joins included.

    Parameters
    ----------
    cluster : Cluster
    rates : iterable of float
        Cells/s of each model on one slot.
    cells, shards : int
        Of each model.
    join_rate : float
        Cells/s of the job that joins the shards of a model.
    """
    rates = list(rates)
    every = cluster.start_s + cluster.poll_s
    embedding = [every + size / rate for rate in rates for size in shard_sizes(cells, shards)]
    joining = [every + cells / join_rate for _ in rates]
    waves = makespan(embedding, cluster.slots) + makespan(joining, cluster.slots)
    return cluster.fixed_s + waves


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=10_000_000)
    parser.add_argument("--rates", default="200", help="cells/s of each model, comma-separated")
    parser.add_argument("--dims", default="512", help="width of each embedding, comma-separated")
    parser.add_argument("--shards", type=int, default=100, help="of each model")
    parser.add_argument("--slots", type=int, default=16, help="devices")
    parser.add_argument("--start", type=float, default=30.0, help="seconds to start a job")
    parser.add_argument("--join-rate", type=float, default=100_000.0, help="cells/s of joining")
    given = parser.parse_args()
    rates = [float(text) for text in given.rates.split(",")]
    dims = [int(text) for text in given.dims.split(",")]
    cluster = Cluster(given.slots, given.start)
    seconds = wall_clock(
        cluster, rates, cells=given.cells, shards=given.shards, join_rate=given.join_rate
    )
    busy = sum(given.cells / rate + given.shards * given.start for rate in rates)
    print(f"wall-clock   {seconds / 3600:10.1f} h")
    print(
        f"device time  {busy / 3600:10.1f} h, {busy / seconds / given.slots:.0%} of {given.slots}"
    )
    print(f"embeddings   {sum(dims) * given.cells * BYTES_PER_VALUE / 1e9:10.1f} GB")


if __name__ == "__main__":
    main()
