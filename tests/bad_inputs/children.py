"""A process that has imported everything, and forks a child with limits for each request.

Run as a script by ``conftest.py``: requests come on stdin, answers go to stdout, both as pickles.
A child has 4 GB of address space and ten seconds of processor time; what becomes of it is part of the answer.
"""

from __future__ import annotations

import ctypes
import datetime
import gc
import importlib
import os
import pickle
import resource
import selectors
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

SECONDS = 10
"""Processor time of a child."""

MOST_SECONDS = 60
"""Time by the clock: more, because others use the machine, and for what only waits."""

MEMORY = 4 << 30


@dataclass(frozen=True)
class Request:
    """What a child shall do.

    Parameters
    ----------
    arguments : sequence of str
        Of the command line; or what `function` is called with.
    function : str
        ``module:name`` to call instead of the command line.
    options : dict
        Keywords for `function`.
    limits : dict of str to int
        ``nofile``, ``fsize`` and ``umask``, as the system knows them; ``clock``, the time in
        seconds since 1970; ``signal``, a signal that comes when a finished file gets its name;
        ``closed_stdout``.
    """

    arguments: Sequence[Any]
    function: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "."
    limits: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """How a child ended: exit code (negative: a signal), output, and what a function gave."""

    code: int
    out: str
    err: str
    value: Any = None
    error: BaseException | None = None


@dataclass(frozen=True)
class Seen:
    """What the reader gave of a file."""

    name: str
    names: list[str]
    obs: Any
    genes: Any
    matrix: Any
    notices: tuple[str, ...]
    fingerprints: list[str]
    sorted_rows: bool
    rows: Any


def read_all(source: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Read a file as every verb does; return the fields of :class:`Seen`."""
    import numpy as np
    from scipy import sparse

    from scdrugmap.data.cells import open_cells

    with open_cells(source, **options) as cells:
        blocks = [block.rows for block in cells.blocks(7)]
        whole = cells.rows(np.arange(cells.n_cells))
        rows = sparse.vstack(blocks).tocsr()
        assert (rows != whole).nnz == 0
        seen = Seen(
            cells.name,
            list(cells.names),
            cells.obs,
            cells.genes,
            cells.matrix,
            cells.notices,
            list(cells.fingerprints()),
            bool(whole.has_sorted_indices),
            rows,
        )
        return vars(seen)


def replace_while_reading(path: Path, new: Path) -> None:
    """Read a block, put another file in the place of the first, and go on reading."""
    from scdrugmap.data.cells import open_cells

    with open_cells(path) as cells:
        blocks = cells.blocks(5)
        next(blocks)
        os.replace(new, path)
        next(blocks)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer until the other side closes."""
    while True:
        try:
            request = Request(**pickle.load(requests))
        except EOFError:
            return
        pickle.dump(vars(_in_child(request)), answers)
        answers.flush()


def _in_child(request: Request) -> Ended:
    pipes = {name: os.pipe() for name in ("out", "err", "value")}
    child = os.fork()
    if child == 0:
        _live(request, {name: writing for name, (_, writing) in pipes.items()})
    for _, writing in pipes.values():
        os.close(writing)
    read = _read_all({reading: name for name, (reading, _) in pipes.items()})
    _, status = os.waitpid(child, 0)
    out, err = (read[name].decode("utf-8", "replace") for name in ("out", "err"))
    value, error = pickle.loads(read["value"]) if read["value"] else (None, None)
    return Ended(os.waitstatus_to_exitcode(status), out, err, value, error)


def _read_all(pipes: dict[int, str]) -> dict[str, bytes]:
    """Read pipes until all are closed; files would count among the child's limits."""
    found = dict.fromkeys(pipes.values(), b"")
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                part = os.read(key.fd, 1 << 16)
                found[pipes[key.fd]] += part
                if not part:
                    selector.unregister(key.fd)
                    os.close(key.fd)
    return found


def _live(request: Request, pipes: dict[str, int]) -> None:
    code = 1
    try:
        os.dup2(pipes["out"], 1)
        os.dup2(pipes["err"], 2)
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))
        os.chdir(request.folder)
        os.environ.clear()
        os.environ.update(request.environment)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(MOST_SECONDS)
        _limit(request.limits)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", encoding="utf-8") for n in (1, 2))
        code = _work(request, pipes["value"])
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def _limit(limits: dict[str, int]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tempfile.tempdir = None  # found anew, by the child's own environment
    os.umask(limits.get("umask", 0o022))
    _give_up_rights()
    for name, what in (("nofile", resource.RLIMIT_NOFILE), ("fsize", resource.RLIMIT_FSIZE)):
        if name in limits:
            resource.setrlimit(what, (limits[name], limits[name]))
    if "clock" in limits:
        _set_clock(limits["clock"])
    if "signal" in limits:
        _signal_at_rename(limits["signal"])
    if "closed_stdout" in limits:
        reading, writing = os.pipe()
        os.close(reading)
        os.dup2(writing, 1)


def _give_up_rights() -> None:
    """Let the permissions of files count, also for root."""
    head = struct.pack("Ii", 0x20080522, 0)  # third version of the call, this process
    ctypes.CDLL(None).capset(head, bytes(24))


def _set_clock(seconds: int) -> None:
    """Make it another time for all of our modules."""

    class Shifted(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Shifted:
            return cls.fromtimestamp(seconds, tz)

    time.time, time.time_ns = lambda: float(seconds), lambda: seconds * 10**9
    for name, module in list(sys.modules.items()):
        if name.startswith("scdrugmap") and getattr(module, "datetime", None) is datetime.datetime:
            module.datetime = Shifted  # type: ignore[attr-defined]


def _signal_at_rename(number: int) -> None:
    sent = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and not sent:
            sent.append(number)
            os.kill(os.getpid(), number)

    sys.addaudithook(watch)


def _work(request: Request, answer: int) -> int:
    if not request.function:
        from scdrugmap.cli import main

        try:
            main([str(argument) for argument in request.arguments])
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        return 0
    module, _, name = request.function.partition(":")
    owner = sys.modules["__main__"] if module == "children" else importlib.import_module(module)
    function: Callable[..., Any] = getattr(owner, name)
    value = error = None
    try:
        value = function(*request.arguments, **request.options)
    except Exception as err:  # judged by the test that asked
        error = err
    with open(answer, "wb") as handle:
        pickle.dump((value, error), handle)
    return 0


def main() -> None:
    """Import what children need, once, and serve."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing but answers goes to the caller
    sys.modules["children"] = sys.modules["__main__"]
    sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in PRELOADED:
            importlib.import_module(name)
    from forked_walk import start_by_fork

    from scdrugmap.data import inspect
    from scdrugmap.data.gene_table import gene_table

    gene_table().resolve(["TP53"])
    inspect._start = start_by_fork
    gc.collect()
    gc.freeze()  # so that children share the memory
    serve(sys.stdin.buffer, answers)


PRELOADED = (
    *("anndata", "h5py", "pandas", "scipy.sparse", "torch", "sklearn.linear_model", "zarr"),
    *("scdrugmap.cli", "scdrugmap.cli.check", "scdrugmap.cli.embed", "scdrugmap.cli.predict"),
    *("scdrugmap.cli.split", "scdrugmap.cli.train", "scdrugmap.cli.evaluate"),
    *("scdrugmap.data.cells", "scdrugmap.data.check", "scdrugmap.data.convert"),
    *("scdrugmap.data.genes", "scdrugmap.data.zarr_store", "scdrugmap.model.embed_file"),
    *("scdrugmap.train.train", "scdrugmap.train.predict", "scdrugmap.evaluation.evaluate"),
)

if __name__ == "__main__":
    main()
