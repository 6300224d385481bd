"""The cache gives out only what it can verify, and never half an entry."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from scdrugmap.errors import ResourceError
from scdrugmap.run.store import Store, default_root, differences, summary
from scdrugmap.temporary_names import TEMPORARY_SUFFIX

KEY = "ab" + "0" * 62
RECORD = {"model": {"model": "toy"}, "precision": "float32"}


def write(folder: Path) -> None:
    (folder / "values").write_bytes(b"12345")
    (folder / "status").write_text("{}")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def everything(store: Store) -> list[str]:
    assert store.root is not None
    return sorted(str(p.relative_to(store.root)) for p in store.root.rglob("*") if p.is_file())


def test_an_entry_is_found_again(store: Store) -> None:
    assert store.get("embedding", KEY) is None
    path = store.put("embedding", KEY, write, RECORD)
    assert store.get("embedding", KEY) == path
    assert path is not None
    assert (path / "values").read_bytes() == b"12345"


def test_keys_are_folders_named_by_hash_only(store: Store) -> None:
    for kind, key in [("../x", KEY), ("embedding", "../../etc"), ("embedding", "AB" * 32)]:
        with pytest.raises(ValueError, match="not a kind and a SHA-256"):
            store.get(kind, key)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda p: (p / "values").write_bytes(b"1234"), "values has 4 bytes, expected 5"),
        (lambda p: (p / "values").write_bytes(b"12346"), "values has another hash"),
        (lambda p: (p / "values").unlink(), "its files are status"),
        (lambda p: (p / "extra").touch(), "its files are extra, status, values"),
        (lambda p: (p / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda p: (p / "manifest.json").write_text("{"), "manifest.json is missing or"),
        (lambda p: (p / "manifest.json").write_text("[]"), "manifest.json is missing or"),
    ],
)
def test_a_damaged_entry_is_set_aside_and_said(
    store: Store, capsys: pytest.CaptureFixture[str], damage: object, reason: str
) -> None:
    path = store.put("embedding", KEY, write, RECORD)
    damage(path)  # type: ignore[operator]
    assert store.get("embedding", KEY) is None
    assert reason in capsys.readouterr().err
    assert reason in store.notices[0]
    assert store.root is not None
    assert len(list((store.root / "quarantine").iterdir())) == 1
    assert store.put("embedding", KEY, write, RECORD) == path
    assert store.get("embedding", KEY) == path


def test_an_entry_under_the_name_of_another_is_not_given_out(store: Store) -> None:
    path = store.put("embedding", KEY, write, RECORD)
    assert path is not None
    other = "ab" + "1" * 62
    path.rename(path.with_name(other))
    assert store.get("embedding", other) is None
    assert "belongs to another entry" in store.notices[0]


def test_a_link_is_not_followed(store: Store, tmp_path: Path) -> None:
    path = store.put("embedding", KEY, write, RECORD)
    assert path is not None
    (tmp_path / "secret").write_bytes(b"12345")
    (path / "values").unlink()
    (path / "values").symlink_to(tmp_path / "secret")
    assert store.get("embedding", KEY) is None


def test_a_writer_that_fails_leaves_nothing(store: Store) -> None:
    def fail(folder: Path) -> None:
        write(folder)
        raise KeyError

    with pytest.raises(KeyError):
        store.put("embedding", KEY, fail, RECORD)
    assert everything(store) == []


def test_the_second_of_two_writers_keeps_the_entry_of_the_first(store: Store) -> None:
    def late(folder: Path) -> None:
        store.put("embedding", KEY, write, RECORD)
        write(folder)

    path = store.put("embedding", KEY, late, RECORD)
    assert store.get("embedding", KEY) == path
    assert not any(TEMPORARY_SUFFIX in name for name in everything(store))


def test_a_full_disk_is_a_resource_error(store: Store) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(ResourceError, match="the disk is full"):
        store.put("embedding", KEY, full, RECORD)


def test_a_folder_that_cannot_be_made_means_no_cache_and_a_notice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    store = Store(tmp_path / "file" / "cache")
    assert "cannot be written to" in capsys.readouterr().err
    assert store.put("embedding", KEY, write, RECORD) is None
    assert store.get("embedding", KEY) is None
    with store.lock("embedding", KEY):
        pass


def test_a_read_only_cache_is_read(store: Store) -> None:
    path = store.put("embedding", KEY, write, RECORD)
    store.writable = False
    assert store.get("embedding", KEY) == path
    assert store.put("embedding", "cd" + "0" * 62, write, RECORD) is None
    assert path is not None
    (path / "values").write_bytes(b"x")
    assert store.get("embedding", KEY) is None
    assert "it is ignored" in store.notices[-1]


def test_without_a_home_folder_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCDRUGMAP_CACHE", raising=False)

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert default_root() is None
    store = Store(quiet=True)
    assert store.root is None
    assert store.put("embedding", KEY, write, RECORD) is None
    assert list(store.entries()) == []
    store.sweep()


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCDRUGMAP_CACHE", "/x/y")
    assert default_root() == Path("/x/y")


def test_a_disabled_store_keeps_nothing() -> None:
    store = Store.disabled()
    assert store.put("embedding", KEY, write, RECORD) is None
    assert store.get("embedding", KEY) is None
    assert store.notices == []


def test_a_lock_keeps_others_out_until_it_is_released(store: Store) -> None:
    first = store.acquire("embedding", KEY)
    assert first is not None
    assert store.acquire("embedding", KEY) is None
    with (
        pytest.raises(ResourceError, match="another process has been working on"),
        store.lock("embedding", KEY, timeout_s=0.1),
    ):
        pass
    first.release()
    first.release()
    with store.lock("embedding", KEY, timeout_s=0.1):
        pass
    assert everything(store) == []


def test_waiting_for_a_lock_can_be_cancelled(store: Store) -> None:
    held = store.acquire("embedding", KEY)
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    began = time.monotonic()
    waited = store.acquire("embedding", KEY, timeout_s=60, cancelled=stop.is_set)
    assert waited is None
    assert time.monotonic() - began < 20
    assert held is not None
    held.release()


def test_the_lock_of_a_killed_process_is_free(store: Store) -> None:
    code = (
        "import os, pathlib, sys\nfrom scdrugmap.run.store import Store\n"
        "lock = Store(pathlib.Path(sys.argv[1])).acquire('embedding', sys.argv[2])\n"
        "assert lock\nprint('held', flush=True)\nsys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(store.root), KEY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert store.acquire("embedding", KEY) is None
        process.kill()
        process.wait()
        lock = store.acquire("embedding", KEY, timeout_s=1)
    assert lock is not None
    lock.release()


def test_entries_are_listed_summed_and_deleted(store: Store) -> None:
    assert store.root is not None
    store.put("embedding", KEY, write, RECORD)
    store.put("embedding", "cd" + "0" * 62, write, RECORD)
    (store.root / "weights" / "ab" / "mine").mkdir(parents=True)
    (store.root / "embedding" / "notes.txt").touch()
    found = list(store.entries())
    assert [entry.key for entry in found] == [KEY, "cd" + "0" * 62]
    (row,) = summary(found)
    assert (row["kind"], row["model"], row["n_entries"]) == ("embedding", "toy", 2)
    store.delete(found[0])
    assert [entry.key for entry in store.entries()] == ["cd" + "0" * 62]


def test_entries_of_one_kind_are_listed_alone(store: Store) -> None:
    store.put("embedding", KEY, write, RECORD)
    store.put("reply", KEY, write, RECORD)
    assert [entry.kind for entry in store.entries("reply")] == ["reply"]
    assert [entry.kind for entry in store.entries()] == ["embedding", "reply"]


def test_sweeping_removes_quarantine_and_free_locks_only(store: Store) -> None:
    path = store.put("embedding", KEY, write, RECORD)
    assert path is not None
    (path / "values").write_bytes(b"x")
    store.get("embedding", KEY)
    held = store.acquire("embedding", "cd" + "0" * 62)
    assert store.root is not None
    (store.root / "locks" / "old.lock").touch()
    store.sweep()
    assert everything(store) == ["locks/embedding-cd" + "0" * 62 + ".lock"]
    assert held is not None
    held.release()


def test_the_manifest_holds_the_record(store: Store) -> None:
    path = store.put("embedding", KEY, write, RECORD)
    assert path is not None
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["record"] == RECORD
    assert set(manifest["files"]) == {"values", "status"}


def test_records_are_compared_field_by_field() -> None:
    wanted = {"model": {"options": {"a": 1, "b": 2}}, "x": 1, "new": None}
    stored = {"model": {"options": {"a": 1, "b": 3}}, "x": 1, "old": 5}
    assert differences(wanted, stored) == {"model.options.b": (3, 2), "old": (5, None)}


@pytest.mark.slow
def test_eight_processes_on_one_key_never_see_half_an_entry(tmp_path: Path) -> None:
    code = """
import pathlib, sys
from scdrugmap.run.store import Store
store, key = Store(pathlib.Path(sys.argv[1])), 'ab' + '0' * 62
content = b'x' * 100_000
for _ in range(20):
    with store.lock('embedding', key, timeout_s=60):
        path = store.get('embedding', key)
        if path is None:
            path = store.put('embedding', key, lambda f: (f / 'v').write_bytes(content), {})
        assert (path / 'v').read_bytes() == content
    assert store.get('embedding', key) is not None
assert store.notices == []
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(8)]
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err


@pytest.mark.parametrize(("number", "granted"), [(errno.ENOLCK, True), (errno.EIO, False)])
def test_where_locks_do_not_work_they_are_granted_and_other_errors_are_told(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: int, granted: bool
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)
    if granted:
        lock = store.acquire("embedding", KEY)
        assert lock is not None
        lock.release()
        return
    with pytest.raises(ResourceError, match="input/output error"):
        store.acquire("embedding", KEY)


def test_an_entry_that_is_a_link_is_set_aside(store: Store, tmp_path: Path) -> None:
    path = store.put("embedding", KEY, write, RECORD)
    assert path is not None
    (tmp_path / "elsewhere").write_bytes((path / "values").read_bytes())
    (path / "values").unlink()
    (path / "values").symlink_to(tmp_path / "elsewhere")
    assert store.get("embedding", KEY) is None
    assert "values is no plain file" in store.notices[-1]
