"""Files come over HTTP whole or not at all, and broken transfers go on where they broke."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from scdrugmap.data import download as module
from scdrugmap.data.download import check_url, download
from scdrugmap.errors import DataError, ResourceError, UsageError

from .file_server import FileServer, serve

pytestmark = pytest.mark.enable_socket  # a server on loopback

DATA = bytes(range(256)) * 4096


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.0)
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "data.bin").write_bytes(DATA)
    with serve(folder) as running:
        yield running


def test_a_file_arrives_with_its_hash(server: FileServer, tmp_path: Path) -> None:
    got = download(f"{server.url}/data.bin", tmp_path / "data.bin")
    assert got.path.read_bytes() == DATA
    assert got.sha256 == hashlib.sha256(DATA).hexdigest()
    assert got.n_bytes == len(DATA)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.bin", "served"]


def test_a_broken_transfer_goes_on_where_it_broke(server: FileServer, tmp_path: Path) -> None:
    server.faults = ["cut", "cut"]
    seen: list[int] = []
    got = download(f"{server.url}/data.bin", tmp_path / "data.bin", on_bytes=seen.append)
    assert got.path.read_bytes() == DATA
    half, rest = len(DATA) // 2, len(DATA) // 4 * 3
    assert [wanted for _, wanted in server.log] == ["", f"bytes={half}-", f"bytes={rest}-"]
    assert seen[-1] == len(DATA)


def test_another_run_goes_on_where_the_first_gave_up(server: FileServer, tmp_path: Path) -> None:
    server.faults = ["cut"] * module.TRIES
    with pytest.raises(ResourceError, match=r"broke off 6 times; .* bytes are kept") as error:
        download(f"{server.url}/data.bin", tmp_path / "data.bin")
    assert "goes on there" in str(error.value.hint)
    assert not (tmp_path / "data.bin").exists()
    server.log.clear()
    got = download(f"{server.url}/data.bin", tmp_path / "data.bin")
    assert got.path.read_bytes() == DATA
    (_, wanted), *more = server.log
    assert wanted.startswith("bytes=")
    assert not more


def test_bytes_of_an_older_version_of_the_file_do_not_count(
    server: FileServer, tmp_path: Path
) -> None:
    server.faults = ["cut"] * module.TRIES
    with pytest.raises(ResourceError):
        download(f"{server.url}/data.bin", tmp_path / "data.bin")
    newer = DATA[::-1]
    (server.folder / "data.bin").write_bytes(newer)
    assert download(f"{server.url}/data.bin", tmp_path / "data.bin").path.read_bytes() == newer


def test_a_server_without_ranges_sends_all_again(server: FileServer, tmp_path: Path) -> None:
    server.ranges = False
    server.faults = ["cut"]
    assert download(f"{server.url}/data.bin", tmp_path / "data.bin").path.read_bytes() == DATA


def test_busy_servers_are_tried_again_and_refusals_are_final(
    server: FileServer, tmp_path: Path
) -> None:
    server.faults = ["503", "429", "500"]
    assert download(f"{server.url}/data.bin", tmp_path / "a").n_bytes == len(DATA)
    server.faults = ["403"]
    with pytest.raises(ResourceError, match="the server refuses \\(403"):
        download(f"{server.url}/data.bin", tmp_path / "b")
    server.faults = ["503"] * module.TRIES
    with pytest.raises(ResourceError, match=r"cannot be fetched.*tried 6 times"):
        download(f"{server.url}/data.bin", tmp_path / "b")
    with pytest.raises(DataError, match="no such file \\(404\\)"):
        download(f"{server.url}/absent.bin", tmp_path / "b")


def test_a_file_with_another_hash_never_takes_the_place_of_the_target(
    server: FileServer, tmp_path: Path
) -> None:
    target = tmp_path / "data.bin"
    target.write_bytes(b"before")
    with pytest.raises(DataError, match="is not the expected file"):
        download(f"{server.url}/data.bin", target, sha256="0" * 64)
    assert target.read_bytes() == b"before"


def test_nobody_listening_is_a_resource_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.0)
    with pytest.raises(ResourceError, match="cannot be fetched"):
        download("http://127.0.0.1:9/x", tmp_path / "x")


@pytest.mark.parametrize(
    "url", ["http://example.org/x", "ftp://example.org/x", "file:///etc/passwd", "https:///x"]
)
def test_only_https_is_fetched(url: str) -> None:
    with pytest.raises(UsageError, match="is not fetched"):
        check_url(url)
