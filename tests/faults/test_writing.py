"""Failed calls, kills, full disks: a sample of `sweep.py` and `kills.py`.

The k-th open, write, fsync, rename or mkdir of the commands that write fails with ENOSPC, EIO or
EACCES, or the process is killed there: the output is absent or whole, the exit code 5, the message
one line with the path, no input has changed, and the same command then gives the same bytes. The
calls of every command are also replayed on a disk that keeps what was flushed and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scdrugmap.run.embeddings import CellRows

sys.path.insert(0, str(Path(__file__).parent))
from fault_server import ERRORS, FOR_EVER, KILL, Fault, FaultServer, compiler
from kills import Trial, benchmark, make_cells
from power_loss import MAPPED, OUTSIDE, Disk
from scenes import ALL_KINDS, COMMANDS, TRACED, Scene, make_inputs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(compiler() is None, reason="NOT RUN: there is no C compiler (gcc or cc)"),
    pytest.mark.skipif(sys.platform != "linux", reason="NOT RUN: needs LD_PRELOAD and /proc"),
]

SAMPLE = [
    ("embed", "write", "ENOSPC", 0.5),
    ("train", "write", "ENOSPC", 1.0),
    ("predict", "open", "EACCES", 0.5),
    ("predict", "rename", "EIO", 1.0),
    ("weights import", "write", "EIO", 0.0),
    ("weights import", "fsync", "ENOSPC", 1.0),
    ("datasets prepare", "write", "EIO", 0.0),
    ("datasets prepare", "mkdir", "EACCES", 0.0),
    ("benchmark", "write", "ENOSPC", 0.6),
    ("benchmark", "fsync", "EIO", 0.0),
]
"""Command, kind of call, error, and which of these calls: 0.0 the first, 1.0 the last."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultServer]:
    server = FaultServer(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def inputs(server: FaultServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "in"
    make_inputs(server, folder)
    return folder


@pytest.fixture(scope="module")
def scenes(server: FaultServer, inputs: Path) -> dict[str, Scene]:
    return {}


@pytest.fixture
def scene(
    request: pytest.FixtureRequest, server: FaultServer, inputs: Path, scenes: dict[str, Scene]
) -> Scene:
    """The scene of the command that the test names, made once."""
    name = request.param
    if name not in scenes:
        work = inputs.parent / name.replace(" ", "-")
        scenes[name] = Scene(server, inputs, work, name)
    scenes[name].clear()
    return scenes[name]


@pytest.mark.parametrize(("scene", "kind", "error", "part"), SAMPLE, indirect=["scene"])
def test_a_failed_call_is_one_line_and_leaves_nothing_half(
    scene: Scene, kind: str, error: str, part: float
) -> None:
    k = 1 + round(part * (scene.golden.number(kind) - 1))
    ended = scene.run(scene.fault((kind,), k, k, ERRORS[error]))
    assert ended.seen >= k
    assert scene.check_refused(ended) == "refused"
    scene.check_again()


@pytest.mark.parametrize("scene", ["embed"], indirect=True)
def test_a_disk_that_stays_full_is_told_with_the_bytes(scene: Scene) -> None:
    k = scene.golden.number("write") // 2
    ended = scene.run(scene.fault(("write",), k, FOR_EVER, ERRORS["ENOSPC"]))
    assert scene.check_refused(ended, bytes_named=True) == "refused"
    assert "the disk is full" in ended.err
    scene.check_again()


@pytest.mark.parametrize("scene", ["embed"], indirect=True)
def test_a_limit_on_the_size_of_files_is_told(scene: Scene) -> None:
    ended = scene.run(most_file_bytes=60_000)
    assert scene.check_refused(ended, bytes_named=True) == "refused"
    assert "e.h5ad: the file would exceed the allowed size" in ended.err
    scene.check_again()


@pytest.mark.parametrize("scene", list(COMMANDS), indirect=True)
def test_power_may_go_at_any_moment(scene: Scene) -> None:
    disk = Disk(str(scene.work), outside=OUTSIDE)
    disk.replay(scene.golden.trace, there=[str(scene.out)])
    assert disk.problems == []
    mapped = {Path(path).name for kind, path in scene.golden.trace if kind == "map"}
    assert all(MAPPED.fullmatch(name) for name in mapped), mapped
    made = {path.removeprefix(f"{scene.out}/") for path in disk.nodes}
    assert scene.golden.hashes.keys() <= made, "the model knows all that the command made"


@pytest.mark.parametrize("scene", ["weights import"], indirect=True)
def test_power_may_go_while_a_folder_is_replaced(scene: Scene) -> None:
    """The old weights are there until the new ones have their name for good."""
    disk = Disk(str(scene.work), outside=OUTSIDE)
    disk.replay(scene.golden.trace, there=[str(scene.out)])
    assert scene.run().code == 0
    manifest = scene.out / "scgpt/manifest.json"
    text = manifest.read_text("utf-8")
    manifest.write_text(re.sub('"digest": "[0-9a-f]{8}', '"digest": "00000000', text), "utf-8")
    fault = Fault(str(scene.work), TRACED)
    ended = scene.run(fault, "--overwrite")
    assert ended.code == 0, ended.err
    assert sum(kind == "rename" for kind, _ in ended.calls) >= 2
    disk.replay(ended.calls)
    assert disk.problems == []


@contextlib.contextmanager
def small_disk(place: Path, free: int) -> Iterator[None]:
    """Mount 2 MB of memory and fill it up to some free bytes."""
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"NOT RUN: a small disk cannot be mounted ({done.stderr.strip()})")
    try:
        (place / "ballast").write_bytes(bytes(2 * 2**20 - free))
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: mounting a small disk needs root")
@pytest.mark.parametrize("scene", ["embed"], indirect=True)
def test_a_real_full_disk_leaves_nothing_and_room_made_it_works(scene: Scene) -> None:
    with small_disk(scene.work, 48 * 1024):
        for name in ("out", "tmp"):
            (scene.work / name).mkdir()
        ended = scene.run()
        assert scene.check_refused(ended) == "refused"
        assert "bytes needed" in ended.err or "bytes are needed" in ended.err
        (scene.work / "ballast").unlink()
        scene.check_again()


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: mounting a small disk needs root")
def test_a_full_disk_under_a_mapped_file_is_told(server: FaultServer, tmp_path: Path) -> None:
    """Writing into the holes of a mapped file would end the process with a signal."""
    frame = pd.DataFrame({"dataset": ["d"] * 300, "cell": [f"c{number}" for number in range(300)]})
    CellRows.write(frame, tmp_path)
    np.savez(tmp_path / "one.npz", rows=np.arange(300), values=np.ones((300, 500), np.float32))
    disk = tmp_path / "disk"
    disk.mkdir()
    with small_disk(disk, 100_000):
        shards = ("step", "join", tmp_path / "one.npz", "--splits", tmp_path)
        ended = server.run((*shards, "-o", disk / "joined.npy"))
        assert (ended.code, [path.name for path in disk.iterdir()]) == (5, ["ballast"]), ended
        assert "joined.npy: the disk is full (more than 600,128 bytes needed)" in ended.err


@pytest.mark.parametrize("scene", ["embed", "predict", "weights import"], indirect=True)
def test_a_process_that_is_killed_at_a_call_leaves_nothing_half(scene: Scene) -> None:
    last = {kind: number for number, (kind, _) in enumerate(scene.golden.calls, 1)}
    scene.check_killed(scene.run(scene.fault(ALL_KINDS, last["rename"], last["rename"], KILL)))
    scene.check_again(killed=True)


def test_every_command_that_writes_is_in_the_sweep() -> None:
    wanted = {"embed", "train", "predict", "weights import", "datasets prepare", "benchmark"}
    assert set(COMMANDS) == wanted
    assert {command for command, *_ in SAMPLE} == wanted


def test_a_benchmark_that_is_killed_ten_times_ends_as_if_it_never_was(
    server: FaultServer, tmp_path: Path
) -> None:
    cells = make_cells(tmp_path / "cells.h5ad")
    chance = random.Random(0)
    whole, trial = tmp_path / "whole", Trial(cells, tmp_path / "killed")
    environment = {"SCDRUGMAP_CACHE": str(trial.work / "cache")}
    assert server.run(benchmark(cells, whole), SCDRUGMAP_CACHE=str(tmp_path / "other")).code == 0
    for _ in range(10):
        trial.work.mkdir(exist_ok=True)
        n = chance.randint(1, 40)
        fault = Fault(str(trial.work), ALL_KINDS, n, n, KILL)
        ended = server.run(benchmark(cells, trial.folder), fault, **environment)
        assert ended.code == -9
        trial.after_kill()
    assert server.run(benchmark(cells, trial.folder), **environment).code == 0
    trial.after_end((whole / "metrics.tsv").read_bytes())
    assert trial.faults == []
