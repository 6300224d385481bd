"""A GEO series is listed and fetched from a real server on loopback."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scdrugmap.data import download as module
from scdrugmap.data.geo import fetch_series, list_files, series_url
from scdrugmap.errors import DataError, UsageError

from .file_server import FileServer, serve

pytestmark = pytest.mark.enable_socket  # a server on loopback

FILES = {
    "GSE123456_RAW.tar": b"t" * 3000,
    "GSE123456_counts.csv.gz": b"c" * 2000,
    "filelist.txt": b"f" * 100,
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.0)
    suppl = tmp_path / "mirror" / "GSE123nnn" / "GSE123456" / "suppl"
    suppl.mkdir(parents=True)
    for name, data in FILES.items():
        (suppl / name).write_bytes(data)
    (suppl / "below").mkdir()
    with serve(tmp_path / "mirror") as running:
        yield running


@pytest.mark.parametrize(
    ("accession", "end"),
    [
        ("GSE149214", "/GSE149nnn/GSE149214/suppl/"),
        ("GSE9999", "/GSE9nnn/GSE9999/suppl/"),
        ("GSE12", "/GSEnnn/GSE12/suppl/"),
    ],
)
def test_a_series_lies_where_geo_puts_it(accession: str, end: str) -> None:
    assert series_url(accession).endswith(
        f"https://ftp.ncbi.nlm.nih.gov/geo/series{end}"[-len(end) :]
    )
    assert series_url(accession).startswith("https://ftp.ncbi.nlm.nih.gov/geo/series/")


def test_files_are_listed_with_their_sizes(server: FileServer) -> None:
    listed = {file.name: file.n_bytes for file in list_files("GSE123456", mirror=server.url)}
    assert listed == {name: len(data) for name, data in FILES.items()}


def test_fetching_pins_hashes_and_fetches_nothing_twice(server: FileServer, tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    fetch_series("gse123456", folder, mirror=server.url, quiet=True)
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "fetch.json"} == FILES
    record = json.loads((folder / "fetch.json").read_text())
    assert record["accession"] == "GSE123456"
    counts = FILES["GSE123456_counts.csv.gz"]
    assert (
        record["files"]["GSE123456_counts.csv.gz"]["sha256"] == hashlib.sha256(counts).hexdigest()
    )
    server.log.clear()
    fetch_series("GSE123456", folder, mirror=server.url, quiet=True)
    assert server.log == []


def test_patterns_choose_files_and_an_unknown_one_lists_what_there_is(
    server: FileServer, tmp_path: Path
) -> None:
    folder = tmp_path / "raw"
    fetch_series("GSE123456", folder, patterns=["*counts*"], mirror=server.url, quiet=True)
    assert sorted(p.name for p in folder.iterdir()) == ["GSE123456_counts.csv.gz", "fetch.json"]
    with pytest.raises(UsageError, match=r"has no file \*\.h5") as error:
        fetch_series("GSE123456", folder, patterns=["*.h5"], mirror=server.url, quiet=True)
    assert "GSE123456_RAW.tar" in str(error.value.hint)


def test_a_file_that_changed_on_the_server_is_refused(server: FileServer, tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    fetch_series("GSE123456", folder, mirror=server.url, quiet=True)
    served = server.folder / "GSE123nnn" / "GSE123456" / "suppl" / "filelist.txt"
    served.write_bytes(b"g" * 100)
    (folder / "filelist.txt").unlink()
    with pytest.raises(DataError, match="is not the expected file"):
        fetch_series("GSE123456", folder, mirror=server.url, quiet=True)
    fetch_series("GSE123456", folder, mirror=server.url, overwrite=True, quiet=True)
    assert (folder / "filelist.txt").read_bytes() == b"g" * 100


def test_a_file_that_changed_here_is_not_taken_for_the_fetched_one(
    server: FileServer, tmp_path: Path
) -> None:
    folder = tmp_path / "raw"
    fetch_series("GSE123456", folder, mirror=server.url, quiet=True)
    (folder / "filelist.txt").write_bytes(b"edited")
    with pytest.raises(DataError, match="has changed since it was fetched"):
        fetch_series("GSE123456", folder, mirror=server.url, quiet=True)
    assert (folder / "filelist.txt").read_bytes() == b"edited"


def test_a_file_of_somebody_else_is_not_overwritten(server: FileServer, tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "filelist.txt").write_bytes(b"mine")
    with pytest.raises(DataError, match="was not fetched by this command"):
        fetch_series("GSE123456", folder, mirror=server.url, quiet=True)
    assert (folder / "filelist.txt").read_bytes() == b"mine"


def test_the_folder_of_another_series_is_refused(server: FileServer, tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "fetch.json").write_text('{"accession": "GSE1", "files": {}}')
    with pytest.raises(DataError, match="holds files of GSE1, not of GSE123456"):
        fetch_series("GSE123456", folder, mirror=server.url, quiet=True)


def test_absent_series_and_bad_accessions_are_named(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="GEO has no files of GSE999999"):
        fetch_series("GSE999999", tmp_path / "raw", mirror=server.url)
    with pytest.raises(UsageError, match="is no accession"):
        fetch_series("../GSE1", tmp_path / "raw", mirror=server.url)


def test_the_command_lists_before_it_fetches(
    server: FileServer, tmp_path: Path, cli: Callable
) -> None:
    common = ("datasets", "fetch", "GSE123456", "-o", tmp_path / "raw", "--mirror", server.url)
    listed = cli(*common, "--dry-run")
    assert listed.code == 0
    assert "GSE123456_counts.csv.gz" in listed.out
    assert not (tmp_path / "raw").exists()
    fetched = cli(*common, "--files", "*.txt")
    assert fetched.code == 0
    assert (tmp_path / "raw" / "filelist.txt").read_bytes() == FILES["filelist.txt"]
