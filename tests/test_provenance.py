"""Records say what made a result, and hold neither clock readings nor places."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scdrugmap import __version__
from scdrugmap.errors import DataError
from scdrugmap.run import provenance as module
from scdrugmap.run.provenance import command_line, hash_record, provenance, without_times


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "cells.h5ad").write_bytes(b"abc")
    return tmp_path / "cells.h5ad"


def test_a_record_names_versions_plugins_command_and_inputs(source: Path) -> None:
    record = provenance("embed", [source], {"seed": 0}, hash_inputs=True)
    assert json.loads(json.dumps(record)) == record
    assert record["scdrugmap"] == __version__
    assert {"python", "torch", "numpy"} <= set(record["versions"])
    assert "baselines" in [plugin["name"] for plugin in record["plugins"]]
    (item,) = record["inputs"]
    assert (item["name"], item["n_bytes"]) == ("cells.h5ad", 3)
    assert item["sha256"].startswith("ba7816bf")


def test_only_times_depend_on_the_clock(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = provenance("embed", [source])

    class Later(module.datetime):  # type: ignore[misc,name-defined]
        @classmethod
        def now(cls, tz: object = None) -> object:
            return cls(2038, 1, 20, tzinfo=module.UTC)

    monkeypatch.setattr(module, "datetime", Later)
    second = provenance("embed", [source])
    assert first["times"] != second["times"]
    assert without_times(first) == without_times(second)
    assert hash_record(first) == hash_record(second)


def test_a_record_holds_no_absolute_path(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        module.sys, "argv", ["/usr/bin/scdrugmap", "embed", str(source), f"--weights={source}"]
    )
    assert str(source.parent) not in json.dumps(provenance("embed", [source]))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("/a/b/c.h5ad", "c.h5ad"),
        ("~/c.h5ad", "c.h5ad"),
        ("data/c.h5ad", "data/c.h5ad"),
        ("--weights=/a/b/w", "--weights=w"),
        ("scgpt=/a/b/w", "scgpt=w"),
        ("key=1/2", "key=1/2"),
        ("--shard", "--shard"),
    ],
)
def test_commands_lose_the_folders_of_absolute_paths(given: str, kept: str) -> None:
    assert command_line(["/x/scdrugmap", given]) == ["scdrugmap", kept]
    assert command_line([]) == []


def test_an_input_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.h5ad cannot be read"):
        provenance("embed", [tmp_path / "no.h5ad"])


def test_a_folder_is_recorded_without_a_size(tmp_path: Path) -> None:
    record = provenance("embed", [tmp_path], hash_inputs=True)
    assert record["inputs"] == [{"name": tmp_path.name, "n_bytes": None}]
