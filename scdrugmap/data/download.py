"""Download files over HTTPS: broken transfers go on where they broke, and every file is hashed.

Nothing is downloaded but by a command that is named for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import ipaddress
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from scdrugmap.errors import DataError, ResourceError, UsageError
from scdrugmap.files import sync_file, sync_folder
from scdrugmap.system_errors import resource_error

PART_SUFFIX = ".part"
"""Ending of a file whose transfer has not finished; beside it, ``.part.json`` says of what."""

TRIES = 6
FIRST_WAIT_S = 1.0
TIMEOUT_S = 60.0

_BLOCK = 1 << 20
_NOT_FOUND = 404
_WORTH_ANOTHER_TRY = frozenset({408, 425, 429, 500, 502, 503, 504})
_PARTIAL, _RANGE_REFUSED = 206, 416


@dataclass(frozen=True)
class Downloaded:
    """A file that has arrived.

    Attributes
    ----------
    path : Path
    sha256 : str
        64 hexadecimal digits.
    n_bytes : int
    url : str
    """

    path: Path
    sha256: str
    n_bytes: int
    url: str


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow only to addresses that :func:`check_url` allows."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_url(url: str) -> None:
    """Refuse an address that is not HTTPS, unless it is of this machine.

    Raises
    ------
    UsageError
    """
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and _is_loopback(parts.hostname or ""):
        return
    raise UsageError(f"{url} is not fetched: only https:// is", hint="give an https:// address")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextlib.contextmanager
def open_url(url: str, headers: dict[str, str] | None = None) -> Iterator[Any]:
    """Open an address; the response has ``status``, ``headers`` and ``read``.

    Raises
    ------
    DataError
        There is no such file.
    ResourceError
        The server cannot be reached or does not answer properly, also after several tries.
    """
    check_url(url)
    opener = urllib.request.build_opener(_Redirects)
    request = urllib.request.Request(url, headers={"User-Agent": "scdrugmap", **(headers or {})})
    with _again(url, lambda: opener.open(request, timeout=TIMEOUT_S)) as response:
        yield response


def _again(url: str, attempt: Callable[[], Any]) -> Any:
    """Try until it works, a refusal is final, or :data:`TRIES` are used up."""
    last: BaseException | None = None
    for number in range(TRIES):
        if number:
            time.sleep(FIRST_WAIT_S * 2 ** (number - 1))
        try:
            return attempt()
        except urllib.error.HTTPError as err:
            err.close()
            if err.code == _NOT_FOUND:
                raise DataError(
                    f"{url}: there is no such file (404)", hint="see `scdrugmap datasets fetch -h`"
                ) from err
            if err.code == _RANGE_REFUSED:
                raise
            if err.code not in _WORTH_ANOTHER_TRY:
                raise ResourceError(f"{url}: the server refuses ({err.code} {err.reason})") from err
            last = err
        except (urllib.error.URLError, http.client.HTTPException, OSError) as err:
            last = err
    reason = getattr(last, "reason", last)
    raise ResourceError(
        f"{url} cannot be fetched: {reason} (tried {TRIES} times)",
        hint="look at the connection and run the same command again: it goes on where it stopped",
    ) from last


def download(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> Downloaded:
    """Fetch one file, whole or not at all; what has arrived is kept for the next try.

    Parameters
    ----------
    url : str
    target : Path
    sha256 : str, optional
        Hash that the file must have.
    on_bytes : callable, optional
        Told how many bytes of the file are there, those of an earlier try included.

    Raises
    ------
    DataError
        There is no such file, or it has another hash; the target is then as it was.
    ResourceError
        The transfer broke off each time, or the disk cannot take the file.
    """
    part = target.with_name(target.name + PART_SUFFIX)
    about = part.with_name(part.name + ".json")
    try:
        for number in range(TRIES):
            if number:
                time.sleep(FIRST_WAIT_S * 2 ** (number - 1))
            if _receive(url, part, about, on_bytes):
                break
        else:
            raise ResourceError(
                f"{url}: the transfer broke off {TRIES} times; {part.stat().st_size:,} bytes are "
                "kept",
                hint="run the same command again: it goes on there",
            )
        found, n_bytes = hash_file(part), part.stat().st_size
        if sha256 is not None and found != sha256:
            raise DataError(
                f"{url} is not the expected file: its SHA-256 is {found}, expected {sha256}",
                hint=f"what came is kept as {part.name}; the file on the server has changed, or "
                "the transfer was tampered with",
            )
        sync_file(part)
        os.replace(part, target)
        about.unlink(missing_ok=True)
        sync_folder(target.parent)
    except OSError as err:
        raise (resource_error(err, part) or err) from err
    return Downloaded(target, found, n_bytes, url)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _receive(url: str, part: Path, about: Path, on_bytes: Callable[[int], None] | None) -> bool:
    """Take bytes until there are no more; whether the file is whole then."""
    headers = {"Accept-Encoding": "identity"}
    have, version = _resumable(part, about, url)
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    try:
        with open_url(url, headers) as response:
            if response.status != _PARTIAL:
                have = 0  # a new file: the old bytes do not count
            length = response.headers.get("Content-Length") or ""
            expected = have + int(length) if length.isdigit() else None
            _note(about, url, response)
            with part.open("ab" if have else "wb") as handle:
                done, broken = _copy(response, handle, have, on_bytes)
    except urllib.error.HTTPError:  # the range lies beyond the end: begin anew
        part.unlink(missing_ok=True)
        return False
    return not broken and (expected is None or done == expected)


def _resumable(part: Path, about: Path, url: str) -> tuple[int, str]:
    """Return how many bytes of an earlier transfer are there, and of which version of the file."""
    try:
        known = json.loads(about.read_text("utf-8"))
        if known["url"] == url and known["version"]:
            return part.stat().st_size, known["version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return 0, ""


def _note(about: Path, url: str, response: Any) -> None:
    """Write down which version of the file the bytes are of; without one nothing is resumed."""
    version = response.headers.get("ETag") or ""
    if not version or version.startswith("W/"):  # a weak tag says nothing of single bytes
        version = response.headers.get("Last-Modified") or ""
    about.write_text(json.dumps({"url": url, "version": version}), "utf-8")


def _copy(
    response: Any, handle: IO[bytes], done: int, on_bytes: Callable[[int], None] | None
) -> tuple[int, bool]:
    """Copy until the end or until the connection breaks: bytes there are, and whether it broke."""
    while True:
        try:
            block = response.read1(_BLOCK)
        except (http.client.HTTPException, ConnectionError, TimeoutError):
            return done, True
        if not block:
            return done, False
        handle.write(block)
        done += len(block)
        if on_bytes is not None:
            on_bytes(done)
