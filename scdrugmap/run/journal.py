"""The folder of a run: who works in it, what it is the run of, and which steps are finished.

::

    runs/NAME/config.yaml      written first: what this folder is the run of
              jobs/KEY.tsv.gz  predictions of one finished job; KEY is the hash of all that decides it
              history.jsonl    what was done when
              controls/        splits and predictions of permuted labels
              workflow/        what a workflow engine ran, if one did
              splits-*.tsv.gz  predictions-*.tsv.gz  metrics.tsv  cellmap.tsv.gz  run.json  report.html
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from scdrugmap.config import read_config, write_config
from scdrugmap.errors import DataError, ResourceError, UsageError
from scdrugmap.files import make_folder, remove
from scdrugmap.plain import ascii_escapes
from scdrugmap.run.record import CELL_MAP_FILE, RUN_FILE
from scdrugmap.system_errors import resource_error
from scdrugmap.temporary_names import TEMPORARY_SUFFIX

if TYPE_CHECKING:
    import pandas as pd

    from scdrugmap.config import BenchmarkConfig

CONFIG_FILE, HISTORY_FILE, LOCK_FILE, JOBS_FOLDER = "config.yaml", "history.jsonl", ".lock", "jobs"
STORE_FOLDER, CONTROLS_FOLDER, WORKFLOW_FOLDER = "store", "controls", "workflow"
_OURS = (  # all but the configuration, which says that the folder is a run's
    HISTORY_FILE,
    JOBS_FOLDER,
    STORE_FOLDER,
    CONTROLS_FOLDER,
    WORKFLOW_FOLDER,
    CELL_MAP_FILE,
    RUN_FILE,
    "metrics.tsv",
    "report.html",
)
_OURS_PATTERNS = ("splits-*.tsv.gz", "predictions-*.tsv.gz")


class RunFolder:
    """A run folder that this process holds; made by :func:`open_folder`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def jobs(self) -> Path:
        """Folder of the finished jobs."""
        return self.path / JOBS_FOLDER

    @property
    def controls(self) -> Path:
        """Folder of the splits and predictions of permuted labels."""
        return self.path / CONTROLS_FOLDER

    def table(self, name: str, protocol: str, permutation: int | None = None) -> Path:
        """Return where a table is; those of permuted labels are kept apart from results.

        Parameters
        ----------
        name : {"splits", "predictions"}
        protocol : str
        permutation : int, optional
            Number of the permutation.
        """
        if permutation is None:
            return self.path / f"{name}-{protocol}.tsv.gz"
        return self.controls / f"{name}-{protocol}-permuted-{permutation}.tsv.gz"

    def part(self, key: str) -> Path:
        """Return where the predictions of a job are, once it is finished."""
        return self.jobs / f"{key}.tsv.gz"

    def finished(self, key: str) -> pd.DataFrame | None:
        """Return the predictions of a finished job; a damaged file counts as missing."""
        from scdrugmap.evaluation.tables import read_predictions

        path = self.part(key)
        if not path.is_file():
            return None
        try:
            return read_predictions(path)
        except DataError:
            remove(path)
            self.note("damaged", job=key)
            return None

    def note(self, event: str, **facts: Any) -> None:
        """Add a line to the history; one that a full disk or a kill cut off stays by itself."""
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": event, **facts}
        text = ascii_escapes(json.dumps(line, ensure_ascii=False))
        data = f"{text}\n".encode("utf-8", "backslashreplace")
        path = self.path / HISTORY_FILE
        try:
            with open(path, "ab+", buffering=0) as handle:
                if handle.seek(0, os.SEEK_END):
                    handle.seek(-1, os.SEEK_END)
                    data = data if handle.read(1) == b"\n" else b"\n" + data
                handle.write(data)
        except OSError as err:
            raise (resource_error(err, path, len(data)) or err) from err


@contextmanager
def open_folder(path: Path, config: BenchmarkConfig, *, overwrite: bool) -> Iterator[RunFolder]:
    """Take a folder for a run: a new one, or one of the same configuration to go on with.

    Parameters
    ----------
    path : Path
    config : BenchmarkConfig
        Resolved.
    overwrite : bool
        Remove the results of the run that is there, whatever it was, and begin anew.

    Raises
    ------
    UsageError
        The folder holds a run of another configuration, or other things.
    ResourceError
        Another process works in it, or it cannot be written to.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file", hint="name a folder with -o")
    try:
        if _holds_other_things(path):
            raise UsageError(
                f"{path} holds other things than a run", hint="name a new folder with -o"
            )
        for name in (JOBS_FOLDER, CONTROLS_FOLDER):
            make_folder(path / name)
        lock = FileLock(path / LOCK_FILE)
        lock.acquire(timeout=0)
    except Timeout as err:
        raise ResourceError(
            f"another process is working in {path}", hint="wait for it, or name another folder"
        ) from err
    except OSError as err:
        raise (resource_error(err, path) or err) from err
    try:
        known = (path / CONFIG_FILE).is_file()
        if known and overwrite:
            _clear(path)
        elif known:
            _require_same(path, config)
        write_config(config, path / CONFIG_FILE)
        yield RunFolder(path)
    finally:
        lock.release()


def _holds_other_things(path: Path) -> bool:
    """Return whether a folder is neither a run's nor empty, nor one that a run has just begun in."""
    begun = (JOBS_FOLDER, CONTROLS_FOLDER)
    try:
        others = path.is_dir() and any(
            any(item.iterdir())
            if item.name in begun and item.is_dir()
            else item.name != LOCK_FILE and not item.name.endswith(TEMPORARY_SUFFIX)
            for item in path.iterdir()
        )
    except FileNotFoundError:  # it changes: somebody works in it, and the lock will tell
        return False
    return others and not (path / CONFIG_FILE).is_file()  # looked at last: it is written first


def _require_same(path: Path, config: BenchmarkConfig) -> None:
    there = read_config(path / CONFIG_FILE).resolved()
    if there.identity() == config.identity():
        return
    changed = [
        name
        for name in type(config).model_fields
        if name != "data" and getattr(there, name) != getattr(config, name)
    ]
    if [item.dataset for item in there.data] != [item.dataset for item in config.data]:
        changed.insert(0, "data")
    raise UsageError(
        f"{path} holds a run with other settings ({', '.join(changed)})",
        hint="name another folder with -o, or add --overwrite to begin anew",
    )


def _clear(path: Path) -> None:
    for name in _OURS:
        remove(path / name)
    for pattern in _OURS_PATTERNS:
        for item in path.glob(pattern):
            remove(item)
    for name in (JOBS_FOLDER, CONTROLS_FOLDER):
        (path / name).mkdir(exist_ok=True)
