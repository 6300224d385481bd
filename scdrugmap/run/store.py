"""The cache of finished work: folders named by the hash of what they were made from.

::

    ROOT/<kind>/<first two digits>/<key>/   the files and manifest.json (sizes, hashes, the record)
    ROOT/locks/<kind>-<key>.lock            held while somebody works on a key
    ROOT/quarantine/                        damaged entries, set aside

An entry appears whole (built beside, flushed, renamed) and is verified before it is given out.
Several processes may share one cache; a lock only avoids double work and ends with its owner.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from scdrugmap.errors import ResourceError
from scdrugmap.files import atomic_folder, hash_file, remove, write_json
from scdrugmap.progress import say
from scdrugmap.system_errors import resource_error

CACHE_VARIABLE = "SCDRUGMAP_CACHE"
MANIFEST = "manifest.json"
FORMAT = 1
LOCK_TIMEOUT_S = 12 * 3600.0
"""How long to wait for somebody else's work on the same key."""

_KIND = re.compile(r"[a-z][a-z0-9-]*")
_KEY = re.compile(r"[0-9a-f]{64}")
_POLL_S = 0.05
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


def default_root() -> Path | None:
    """Return the cache folder: ``$SCDRUGMAP_CACHE``, else in the home folder; None without one."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    try:
        return Path.home() / ".cache" / "scdrugmap"
    except RuntimeError:
        return None


@dataclass(frozen=True)
class Entry:
    """One finished piece of work, as ``cache list`` shows it; sizes in bytes, times in seconds."""

    kind: str
    key: str
    path: Path
    n_bytes: int
    record: dict[str, Any]


class Store:
    """A cache folder.

    Parameters
    ----------
    root : Path, optional
        Default: :func:`default_root`. A folder that cannot be written to is only read; without
        any folder everything is computed anew.
    quiet : bool
        Do not say that the cache is missing or an entry was damaged.

    Attributes
    ----------
    root : Path or None
        None: there is no cache.
    writable : bool
    notices : list of str
        What was said.
    """

    def __init__(self, root: Path | None = None, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.notices: list[str] = []
        self.root = root if root is not None else default_root()
        self.writable = False
        if self.root is None:
            self._notice(f"no home folder and no {CACHE_VARIABLE}: working without a cache")
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.writable = os.access(self.root, os.W_OK | os.X_OK)
        except OSError:
            self.writable = False
        if not self.writable:
            self._notice(
                f"the cache folder {self.root} cannot be written to: finished work is not kept "
                f"(set {CACHE_VARIABLE} to another folder)"
            )

    @classmethod
    def disabled(cls) -> Store:
        """Return a store that keeps and finds nothing (``--no-cache``)."""
        store = cls.__new__(cls)
        store.quiet, store.notices, store.root, store.writable = True, [], None, False
        return store

    def get(self, kind: str, key: str) -> Path | None:
        """Return the folder of an entry whose every file has its recorded size and hash.

        A damaged entry is moved to ``quarantine/``, said, and counts as missing.
        """
        path = self._path(kind, key)
        if path is None or not path.is_dir():
            return None
        problem = _verify(path, kind, key)
        if not problem:
            return path
        self._set_aside(path, problem)
        return None

    def put(
        self, kind: str, key: str, writer: Callable[[Path], None], record: Mapping[str, Any]
    ) -> Path | None:
        """Keep a piece of work.

        Parameters
        ----------
        kind : str
            What it is (``embedding``).
        key : str
            SHA-256 (hex) of what it was made from.
        writer : callable
            Writes plain files into the folder it is given.
        record : mapping
            What the key is the hash of, for ``cache why``.

        Returns
        -------
        Path or None
            The folder of the entry; None if the cache cannot be written to.

        Raises
        ------
        ResourceError
            Disk full and the like.
        """
        path = self._path(kind, key)
        if path is None or not self.writable:
            return None
        with _as_resource_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(path) as folder:
            writer(folder)
            files = {
                part.name: {"n_bytes": part.stat().st_size, "sha256": hash_file(part)}
                for part in sorted(folder.iterdir())
            }
            manifest = {"format": FORMAT, "kind": kind, "key": key, "files": files}
            write_json(folder / MANIFEST, {**manifest, "record": dict(record)})
        return path

    @contextmanager
    def lock(self, kind: str, key: str, *, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
        """Hold the lock of a key inside the block.

        Raises
        ------
        ResourceError
            Somebody else held it for `timeout_s` seconds.
        """
        lock = self.acquire(kind, key, timeout_s=timeout_s)
        if lock is None:
            raise ResourceError(
                f"another process has been working on {kind} {key[:12]} for more than "
                f"{timeout_s:,.0f} s",
                hint="wait for it, or stop it; the lock ends with its owner",
            )
        try:
            yield
        finally:
            lock.release()

    def acquire(
        self,
        kind: str,
        key: str,
        *,
        timeout_s: float = 0.0,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Lock | None:
        """Take the lock of a key; None if somebody else holds it until `timeout_s` are over.

        Where locks do not work (no cache, some network file systems) it is granted at once.
        """
        self._path(kind, key)
        if self.root is None or not self.writable:
            return Lock(None)
        path = self.root / "locks" / f"{kind}-{key}.lock"
        with _as_resource_error(path):
            path.parent.mkdir(exist_ok=True)
            lock = FileLock(path, thread_local=False)
            end = time.monotonic() + timeout_s
            while not cancelled():
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    if time.monotonic() >= end:
                        return None
                    time.sleep(_POLL_S)
                except NotImplementedError:
                    return Lock(None)
                except OSError as err:
                    if err.errno in _NO_LOCKS:
                        return Lock(None)
                    raise
                else:
                    return Lock(lock)
        return None

    def entries(self, kind: str | None = None) -> Iterator[Entry]:
        """Yield the entries, not verified, in a fixed order."""
        if self.root is None or not self.root.is_dir():
            return
        for folder in sorted(self.root.iterdir()):
            if not _KIND.fullmatch(folder.name) or (kind and folder.name != kind):
                continue
            for path in sorted(folder.glob("[0-9a-f][0-9a-f]/*")):
                manifest = _read_manifest(path) if _KEY.fullmatch(path.name) else None
                if manifest is not None:
                    n_bytes = sum(item["n_bytes"] for item in manifest["files"].values())
                    yield Entry(folder.name, path.name, path, n_bytes, manifest["record"])

    def delete(self, entry: Entry) -> None:
        """Remove an entry."""
        remove(entry.path)

    def sweep(self) -> None:
        """Remove what was set aside, and lock files that nobody holds."""
        if self.root is None or not self.writable:
            return
        remove(self.root / "quarantine")
        for path in (self.root / "locks").glob("*.lock"):
            lock = FileLock(path)
            with contextlib.suppress(Timeout, OSError, NotImplementedError):
                lock.acquire(timeout=0)
                path.unlink(missing_ok=True)
                lock.release()

    def _path(self, kind: str, key: str) -> Path | None:
        if not _KIND.fullmatch(kind) or not _KEY.fullmatch(key):
            raise ValueError(f"not a kind and a SHA-256: {kind!r}, {key!r}")
        return None if self.root is None else self.root / kind / key[:2] / key

    def _set_aside(self, path: Path, problem: str) -> None:
        where = "it is ignored"
        if self.writable and self.root is not None:
            with _as_resource_error(path):
                folder = self.root / "quarantine"
                folder.mkdir(exist_ok=True)
                with contextlib.suppress(FileNotFoundError):  # another process was faster
                    path.rename(folder / f"{path.name}-{secrets.token_hex(4)}")
                where = f"it was moved to {folder} and is computed again"
        self._notice(f"the cache entry {path.name[:12]} is damaged ({problem}): {where}")

    def _notice(self, text: str) -> None:
        self.notices.append(text)
        say(f"Notice: {text}", quiet=self.quiet)


class Lock:
    """A lock that is held; :meth:`release` it. Without a file it only pretends."""

    def __init__(self, held: FileLock | None) -> None:
        self._held = held

    def release(self) -> None:
        """Let go; the second call does nothing."""
        held, self._held = self._held, None
        if held is not None:
            # The entry exists by now, so whoever still waits on the old file finds it.
            with contextlib.suppress(OSError):
                os.unlink(held.lock_file)
            held.release()


def entry_model(entry: Entry) -> str:
    """Return the model an entry was made with, as its record says; empty if it does not."""
    model = entry.record.get("model")
    name = model.get("model") if isinstance(model, dict) else model
    return name if isinstance(name, str) else ""


def summary(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Return the number and size of entries by kind and model, JSON-able."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in entries:
        model = entry_model(entry)
        empty = {"kind": entry.kind, "model": model, "n_entries": 0, "n_bytes": 0}
        row = rows.setdefault((entry.kind, model), empty)
        row["n_entries"] += 1
        row["n_bytes"] += entry.n_bytes
    return [rows[key] for key in sorted(rows)]


def _verify(path: Path, kind: str, key: str) -> str:
    """Return what is wrong with an entry, or nothing."""
    manifest = _read_manifest(path)
    if manifest is None:
        return f"{MANIFEST} is missing or cannot be read"
    if (manifest["format"], manifest["kind"], manifest["key"]) != (FORMAT, kind, key):
        return f"{MANIFEST} belongs to another entry"
    try:
        found = {part.name for part in path.iterdir()} - {MANIFEST}
        if found != set(manifest["files"]):
            return f"its files are {', '.join(sorted(found)) or 'gone'}"
        for name, expected in manifest["files"].items():
            part = path / name
            if not part.is_file() or part.is_symlink():
                return f"{name} is no plain file"
            n_bytes = part.stat().st_size
            if n_bytes != expected["n_bytes"]:
                return f"{name} has {n_bytes:,} bytes, expected {expected['n_bytes']:,}"
            if hash_file(part) != expected["sha256"]:
                return f"{name} has another hash"
    except OSError as err:
        return f"it cannot be read: {err.strerror}"
    return ""


def _read_manifest(path: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(manifest, dict) or not {"format", "kind", "key", "files", "record"} <= set(
        manifest
    ):
        return None
    files, record = manifest["files"], manifest["record"]
    sound = isinstance(files, dict) and isinstance(record, dict)
    return manifest if sound and all(_is_file_record(item) for item in files.values()) else None


def _is_file_record(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and {"n_bytes", "sha256"} <= set(item)
        and isinstance(item["n_bytes"], int)
    )


@contextmanager
def _as_resource_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise (resource_error(err, path) or err) from err


def differences(wanted: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Compare two records field by field.

    Returns
    -------
    dict
        ``"options.max_length"`` to (stored, wanted), for fields that differ; None where missing.
    """
    left, right = dict(_flat(stored)), dict(_flat(wanted))
    return {
        name: (left.get(name), right.get(name))
        for name in sorted({*left, *right})
        if left.get(name) != right.get(name)
    }


def _flat(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in record.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
