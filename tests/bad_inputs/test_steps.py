"""Files that pass between the steps of a benchmark on other machines: tasks, shards, embeddings.

Each is damaged in one place; it is refused in one line, and never taken for something else.
"""

from __future__ import annotations

import copy
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scdrugmap.config import BenchmarkConfig, make_config, write_config
from scdrugmap.errors import DataError, UsageError
from scdrugmap.evaluation.tables import read_predictions, write_predictions
from scdrugmap.run.embeddings import CellRows, MappedEmbeddings
from scdrugmap.run.finish import Finished, finish_run
from scdrugmap.run.plan import make_plan
from scdrugmap.run.steps import join_shards, run_task
from scdrugmap.run.tasks import TASKS_FOLDER, read_task, write_plan
from scdrugmap.testing import synthetic_adata

Record = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of a constant and of ``randproj``, and its plan."""
    folder = tmp_path_factory.mktemp("steps")
    synthetic_adata(40, 60, n_patients=6).write_h5ad(folder / "cohort.h5ad")
    config = make_config(
        {
            "data": str(folder / "cohort.h5ad"),
            "label": "response",
            "group": "patient",
            "models": ("constant", "randproj"),
            "controls": (),
            "folds": 2,
            "draws": 10,
            "seeds": (0, 1),
            "min_genes": 1,
        }
    )
    write_config(config, folder / "bench.yaml")
    write_plan(config, folder / "plan", quiet=True)
    return folder


@pytest.fixture(scope="module")
def config(folder: Path) -> BenchmarkConfig:
    from scdrugmap.config import read_config

    return read_config(folder / "bench.yaml").resolved()


def task_of(folder: Path, model: str) -> Path:
    """Return the first task of a model."""
    paths = sorted((folder / "plan" / TASKS_FOLDER).iterdir())
    return next(path for path in paths if read_task(path).jobs[0].model == model)


@pytest.fixture
def record(folder: Path) -> Record:
    return dict(json.loads(task_of(folder, "randproj").read_text("utf-8")))


TYPES: list[tuple[str, Any]] = [
    *((("number", value)) for value in ("0", 1.5, True, None, -1, [0])),
    *((("network", value)) for value in ("0", 0.5, False, -1)),
    *((("plan", value)) for value in (7, None, ["a"])),
    *((("jobs", value)) for value in ([], {}, "", None, [7], [[]], [None])),
    *((("jobs.0.protocol", value)) for value in (7, None, ["within"])),
    *((("jobs.0.family", value)) for value in ("loud", 1, None)),
    *((("jobs.0.entry", value)) for value in ("constant", None, [], {})),
    *((("jobs.0.entry.name", value)) for value in (7, None)),
    *((("jobs.0.entry.kind", value)) for value in ("robot", 7)),
    *((("jobs.0.entry.strategy", value)) for value in (7, None)),
    *((("jobs.0.entry.randomize", value)) for value in ("1", 0.5)),
    *((("jobs.0.entry.permuted", value)) for value in ("no", 0, None)),
    *((("jobs.0.head", value)) for value in ("hydra", 1)),
    *((("jobs.0.tuning", value)) for value in ("lora", [], {"epochs": "3"}, {"epochs": 0})),
    *((("jobs.0.shots", value)) for value in ("4", -1)),
    *((("jobs.0.fold", value)) for value in ("0", -1, 0.0)),
    *((("jobs.0.seed", value)) for value in ("0", -1, 1e3, None, True)),
    *((("jobs.0.more", value)) for value in (1,)),
    *((("jobs.0.entry.more", value)) for value in (1,)),
    *((("more", value)) for value in (1,)),
]


@pytest.mark.parametrize(("place", "value"), TYPES, ids=lambda value: str(value))
def test_field_of_another_type_is_named(
    record: Record, tmp_path: Path, place: str, value: Any
) -> None:
    *path, last = place.split(".")
    inner: Any = record
    for part in path:
        inner = inner[int(part)] if part.isdigit() else inner[part]
    inner[last] = value
    file = tmp_path / "task.json"
    file.write_text(json.dumps(record), "utf-8")
    with pytest.raises(DataError, match="is no task of a benchmark") as caught:
        read_task(file)
    assert "\n" not in caught.value.message
    assert caught.value.hint == "give a file of the plan's tasks"


@pytest.mark.parametrize(
    "text", ["", "7", "[]", "null", '"task"', "{}", "[" * 2000, '{"format": 1}', "\udcff"]
)
def test_file_that_is_no_task(tmp_path: Path, text: str) -> None:
    file = tmp_path / "task.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match="is no task of a benchmark"):
        read_task(file)


def test_task_of_another_format(record: Record, tmp_path: Path) -> None:
    file = tmp_path / "task.json"
    file.write_text(json.dumps({**record, "format": 2}), "utf-8")
    with pytest.raises(DataError, match="is a task of format 2, not 1"):
        read_task(file)


def test_task_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_task(tmp_path / "task.json")


def _path_as_protocol(record: Record) -> None:
    record["jobs"][0]["protocol"] = "../../within"


def _several_steps(record: Record) -> None:
    record["jobs"].append({**copy.deepcopy(record["jobs"][0]), "fold": 1})


def _no_network(record: Record) -> None:
    record["network"] = None


def _needless_network(record: Record) -> None:
    record["jobs"] = [copy.deepcopy(record["jobs"][0])]
    record["jobs"][0]["entry"]["kind"] = "estimator"


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (_path_as_protocol, UsageError, r"there is no protocol '../../within'"),
        (_several_steps, DataError, "its jobs are of several steps"),
        (_no_network, DataError, "no network for .*randproj frozen, fold 0"),
        (_needless_network, DataError, "network 0 for .*randproj, fold 0"),
    ],
)
def test_task_that_contradicts_itself(
    record: Record,
    tmp_path: Path,
    spoil: Callable[[Record], None],
    kind: type[Exception],
    message: str,
) -> None:
    spoil(record)
    file = tmp_path / "task.json"
    file.write_text(json.dumps(record), "utf-8")
    with pytest.raises(kind, match=message):
        read_task(file)


def test_bad_task_is_one_line_of_the_command(folder, record, child, tmp_path) -> None:
    record["jobs"][0]["seed"] = "0"
    (tmp_path / "task.json").write_text(json.dumps(record), "utf-8")
    ended = child.cli(
        *("step", "train", folder / "bench.yaml", "--task", tmp_path / "task.json"),
        *("--splits", folder / "plan/splits", "-o", tmp_path / "p.tsv.gz"),
    )
    assert ended.code == 3, ended
    assert "jobs.0.seed: Input should be a valid integer" in " ".join(ended.err.split())
    assert not (tmp_path / "p.tsv.gz").exists()


def _shard(path: Path, **arrays: Any) -> None:
    valid = {"rows": np.arange(40), "values": np.zeros((40, 4), np.float32)}
    np.savez(path, **{**valid, **arrays})


def _single_array(path: Path) -> None:
    with open(path, "wb") as handle:
        np.save(handle, np.zeros(3))


def _archive(path: Path) -> None:
    with open(path, "wb") as handle:
        np.savez(handle, np.zeros(3))


def _flip(path: Path) -> None:
    _shard(path)
    raw = bytearray(path.read_bytes())
    raw[400] ^= 1
    path.write_bytes(raw)


def _unknown_packing(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rows.npy", b"x" * 99)
    raw = path.read_bytes()
    at = raw.rindex(b"PK\x01\x02") + 10
    path.write_bytes(raw[:at] + b"\x63" + raw[at + 1 :])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b""), "is no shard of embeddings: No data left"),
        (lambda path: path.write_text("no archive"), "is no shard of embeddings"),
        (lambda path: _single_array(path), "is no shard of embeddings"),
        (lambda path: np.savez(path, rows=np.arange(40)), "'values is not a file in the archive'"),
        (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(99)), "it is damaged"),
        (_flip, "it is damaged"),
        (_unknown_packing, "it is damaged"),
        (lambda path: _shard(path, rows=np.arange(40.0)), "rows .* float64, .*expected"),
        (lambda path: _shard(path, rows=np.arange(39)), "expected .n,. int64 and .n, D. float32"),
        (lambda path: _shard(path, rows=np.arange(40)[None]), "expected .n,. int64"),
        (lambda path: _shard(path, values=np.zeros(40, np.float32)), "expected .n,. int64"),
        (lambda path: _shard(path, values=np.zeros((40, 4))), "float64, expected"),
        (lambda path: _shard(path, values=np.array([{}] * 40)), "is no shard of embeddings"),
        (lambda path: _shard(path, rows=np.arange(40) - 1), "has rows -1 to 38, and the plan 40"),
        (lambda path: _shard(path, rows=np.arange(40) + 9), "has rows 9 to 48, and the plan 40"),
        (lambda path: _shard(path, rows=np.arange(40) // 2), "20 of 40 cells are missing, 20 are"),
    ],
)
def test_damaged_shard(
    folder: Path, tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "shard.npz"
    spoil(path)
    with pytest.raises(DataError, match=message) as caught:
        join_shards([path], folder / "plan/splits", tmp_path / "joined.npy")
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert not (tmp_path / "joined.npy").exists()


def test_shards_of_several_widths(folder: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "one.npz", tmp_path / "two.npz"]
    for number, path in enumerate(paths):
        rows = np.arange(20) + 20 * number
        _shard(path, rows=rows, values=np.ones((20, 4 + number), np.float32))
    with pytest.raises(DataError, match="widths 4, 5"):
        join_shards(paths, folder / "plan/splits", tmp_path / "joined.npy")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b""), "is no file of embeddings"),
        (lambda path: path.write_text("no array"), "is no file of embeddings"),
        (lambda path: _archive(path), "is no file of embeddings"),
        (lambda path: np.save(path, np.zeros((39, 4), np.float32)), r"shape \(39, 4\), float32"),
        (lambda path: np.save(path, np.zeros((40, 4))), r"shape \(40, 4\), float64, expected"),
        (lambda path: np.save(path, np.zeros(40, np.float32)), r"shape \(40,\), float32"),
        (lambda path: np.save(path, np.array([{}] * 40)), "is no file of embeddings"),
    ],
)
def test_damaged_embeddings_end_a_task_and_are_no_failed_job(
    folder: Path,
    config: BenchmarkConfig,
    tmp_path: Path,
    spoil: Callable[[Path], object],
    message: str,
) -> None:
    path = tmp_path / "embeddings.npy"
    spoil(path)
    with pytest.raises(DataError, match=message):
        MappedEmbeddings(path, CellRows.read(folder / "plan/splits"))
    if "39" in message:
        with pytest.raises(DataError, match=message):
            run_task(
                *(config, task_of(folder, "randproj"), folder / "plan/splits"),
                tmp_path / "p.tsv.gz",
                embeddings=path,
                quiet=True,
            )
        assert not (tmp_path / "p.tsv.gz").exists()


def test_another_number_of_embeddings_than_networks(
    config: BenchmarkConfig, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"has 1 networks, and 0 files of embeddings are given"):
        finish_run(config, tmp_path / "run", parts=[], quiet=True)


def test_predictions_of_one_task_under_the_name_of_another(
    folder: Path, config: BenchmarkConfig, tmp_path: Path
) -> None:
    one, two = (task_of(folder, name) for name in ("constant", "randproj"))
    path = tmp_path / f"{one.stem}.tsv.gz"
    run_task(config, one, folder / "plan/splits", path, quiet=True)
    renamed = tmp_path / f"{two.stem}.tsv.gz"
    path.rename(renamed)
    with pytest.raises(DataError, match="holds other predictions than its name says"):
        Finished((renamed,), ()).place(make_plan(config), {}, None)  # type: ignore[arg-type]
    table: pd.DataFrame = read_predictions(renamed)
    other_seed = tmp_path / f"{one.stem}.tsv.gz"
    write_predictions(table.assign(seed=table["seed"] + 7), other_seed)
    with pytest.raises(DataError, match="holds other predictions than its name says"):
        Finished((other_seed,), ()).place(make_plan(config), {}, None)  # type: ignore[arg-type]
