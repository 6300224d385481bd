"""Fetch the supplementary files of a GEO series.

The files of a series lie in one folder per series. What was fetched stands in ``fetch.json`` beside
the files, with hashes: a hash that nobody knew is pinned at the first download, and a file that
differs later is an error.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

from scdrugmap.data.download import check_url, download, hash_file, open_url
from scdrugmap.errors import DataError, UsageError
from scdrugmap.files import check_room, write_json
from scdrugmap.progress import Progress, say
from scdrugmap.system_errors import resource_error

MIRROR = "https://ftp.ncbi.nlm.nih.gov/geo/series"
RECORD = "fetch.json"

_ACCESSION = re.compile(r"GSE[0-9]{1,9}")
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+,=@ -]*")
_MOST_LISTING_BYTES = 1 << 22
_MOST_LISTED = 6


@dataclass(frozen=True)
class RemoteFile:
    """A file of a series; ``n_bytes`` is None where the server does not say."""

    name: str
    url: str
    n_bytes: int | None


def check_accession(text: str) -> str:
    """Return an accession in capitals.

    Raises
    ------
    UsageError
        It is none of a series.
    """
    accession = text.strip().upper()
    if not _ACCESSION.fullmatch(accession):
        raise UsageError(
            f"{text!r} is no accession of a GEO series",
            hint="as GSE149214; `scdrugmap datasets list` shows those of the paper",
        )
    return accession


def series_url(accession: str, mirror: str = MIRROR) -> str:
    """Return the address of the folder with a series' supplementary files."""
    stem = f"{accession[:-3]}nnn" if len(accession) > len("GSE") + 3 else "GSEnnn"
    return f"{mirror.rstrip('/')}/{stem}/{accession}/suppl/"


class _Links(HTMLParser):
    """Collect the targets of a page's links."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.targets += [value for name, value in attrs if name == "href" and value]


def list_files(accession: str, *, mirror: str = MIRROR) -> list[RemoteFile]:
    """List the supplementary files of a series, by name.

    Raises
    ------
    DataError
        There is no such series, or its folder is empty.
    ResourceError
        The server cannot be reached.
    """
    folder = series_url(accession, mirror)
    try:
        with open_url(folder) as response:
            page = response.read(_MOST_LISTING_BYTES).decode("utf-8", "replace")
    except DataError as err:
        raise DataError(
            f"GEO has no files of {accession} ({folder})", hint="is the accession right?"
        ) from err
    links = _Links()
    links.feed(page)
    names = sorted({name for target in links.targets if (name := _name_below(folder, target))})
    if not names:
        raise DataError(f"{folder} lists no files", hint="is the accession right?")
    return [_look(folder, name) for name in names]


def _name_below(folder: str, target: str) -> str:
    """Return the name of a file that lies in the folder itself; else ``""``."""
    full = urljoin(folder, target)
    if urlsplit(full).query or not full.startswith(folder):
        return ""
    name = unquote(full.removeprefix(folder))
    return name if _SAFE_NAME.fullmatch(name) and ".." not in name else ""


def _look(folder: str, name: str) -> RemoteFile:
    url = folder + quote(name)
    with open_url(url, {"Range": "bytes=0-0", "Accept-Encoding": "identity"}) as response:
        whole = (response.headers.get("Content-Range") or "").rpartition("/")[2]
        size = whole or response.headers.get("Content-Length") or ""
    return RemoteFile(name, url, int(size) if size.isdigit() else None)


def fetch_series(
    accession: str,
    folder: Path,
    *,
    patterns: Sequence[str] = (),
    mirror: str = MIRROR,
    dry_run: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> list[RemoteFile]:
    """Fetch a series' files into a folder; those that are there already are not fetched again.

    Parameters
    ----------
    accession : str
        As GSE149214.
    folder : Path
        Made if it is not there.
    patterns : sequence of str
        Shell patterns of names, as ``*_counts.csv.gz``; empty: all files.
    mirror : str
        Address of the folder of all series.
    dry_run : bool
        List the files only.
    overwrite : bool
        Take files that differ from those fetched before, and pin their hashes anew.
    quiet : bool

    Returns
    -------
    list of RemoteFile
        The files that were chosen.

    Raises
    ------
    UsageError
        No file has such a name, or the accession or address is none.
    DataError
        There is no such series, or a file differs from when it was first fetched.
    ResourceError
        The server or the disk fails; the same command goes on where it stopped.
    """
    accession = check_accession(accession)
    check_url(series_url(accession, mirror))
    files = list_files(accession, mirror=mirror)
    chosen = [file for file in files if not patterns or _fits(file.name, patterns)]
    if not chosen:
        there = ", ".join(file.name for file in files[:_MOST_LISTED])
        raise UsageError(
            f"{accession} has no file {' or '.join(patterns)}", hint=f"it has: {there}"
        )
    total = sum(file.n_bytes or 0 for file in chosen)
    say(f"{accession}: {len(chosen)} of {len(files)} files, {total / 1e6:,.1f} MB", quiet=quiet)
    if dry_run:
        return chosen
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise (resource_error(err, folder) or err) from err
    known = read_record(folder, accession)
    check_room(folder / RECORD, sum(_missing(file, folder) for file in chosen))
    with Progress(f"fetch {accession}", total, "bytes", quiet=quiet) as progress:
        for file in chosen:
            pinned = known.get(file.name, {}).get("sha256")
            if not overwrite and _is_there(folder / file.name, pinned):
                progress.skip(file.n_bytes or 0)
                continue
            known[file.name] = _fetch(file, folder, None if overwrite else pinned, progress)
            write_json(
                folder / RECORD, {"accession": accession, "files": dict(sorted(known.items()))}
            )
    return chosen


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _missing(file: RemoteFile, folder: Path) -> int:
    path = folder / file.name
    return 0 if path.exists() else file.n_bytes or 0


def _is_there(path: Path, pinned: str | None) -> bool:
    """Tell whether a file is there as it was fetched.

    Raises
    ------
    DataError
        It is there, but was changed since.
    """
    if not path.is_file():
        return False
    if pinned is None:
        raise DataError(
            f"{path} is there, but was not fetched by this command",
            hint="move it away, or add --overwrite",
        )
    if hash_file(path) != pinned:
        raise DataError(
            f"{path} has changed since it was fetched",
            hint="move it away to fetch it again, or add --overwrite",
        )
    return True


def _fetch(
    file: RemoteFile, folder: Path, pinned: str | None, progress: Progress
) -> dict[str, Any]:
    seen = 0

    def tell(done: int) -> None:
        nonlocal seen
        progress.advance(done - seen)
        seen = done

    got = download(file.url, folder / file.name, sha256=pinned, on_bytes=tell)
    if file.n_bytes is not None and got.n_bytes != file.n_bytes:
        raise DataError(
            f"{file.url} has {got.n_bytes:,} bytes, the server announced {file.n_bytes:,}",
            hint="run the command again with --overwrite",
        )
    return {"sha256": got.sha256, "n_bytes": got.n_bytes, "url": got.url}


def read_record(folder: Path, accession: str) -> dict[str, dict[str, Any]]:
    """Return what was fetched into a folder before: name of the file to hash, size and address.

    Raises
    ------
    DataError
        The record is damaged, or of another series.
    """
    path = folder / RECORD
    try:
        record = json.loads(path.read_text("utf-8"))
        files = record["files"]
        if record["accession"] != accession:
            raise DataError(
                f"{folder} holds files of {record['accession']}, not of {accession}",
                hint="choose another folder with -o",
            )
        if not isinstance(files, Mapping):
            raise TypeError("files is no table")
        return {str(name): dict(facts) for name, facts in files.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, RecursionError) as err:
        raise DataError(
            f"{path} is damaged: {str(err).splitlines()[0]}",
            hint="move the folder away and fetch the series again",
        ) from err
