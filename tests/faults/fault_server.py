"""A process that has everything imported and forks for each command, with faults injected into it.

The client compiles `failing_calls.c`, starts this file with it preloaded, and asks for commands as
JSON lines. A child runs the real command line and ends as any process does; only its start is
saved, which costs two seconds where the command costs a tenth.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("failing_calls.c")
KINDS = {
    "open": 1,
    "write": 2,
    "fsync": 4,
    "rename": 8,
    "unlink": 16,
    "mkdir": 32,
    "create": 64,
    "from": 128,
    "map": 256,  # written down, never counted nor failed
}
NAMES = {number: name for name, number in KINDS.items()}
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EACCES": errno.EACCES}
KILL, COUNT = -1, 0
FOR_EVER = 2**62


def compiler() -> str | None:
    """Return the C compiler, if there is one."""
    return shutil.which("gcc") or shutil.which("cc")


@dataclass(frozen=True)
class Fault:
    """The `first`-th to `last`-th call of some kinds below `folder` fails with `error`."""

    folder: str
    kinds: tuple[str, ...]
    first: int = 0
    last: int = 0
    error: int = COUNT


@dataclass(frozen=True)
class Ended:
    """How a command ended; `calls` are those that a counting run made: (kind, path)."""

    code: int
    out: str
    err: str
    seen: int
    calls: tuple[tuple[str, str], ...] = ()


@dataclass
class FaultServer:
    """Starts commands in forked children; close it.

    Parameters
    ----------
    folder : Path
        For the compiled library and what commands print.
    """

    folder: Path
    _process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        library = self.folder / "failing_calls.so"
        command = [str(compiler()), "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE)]
        subprocess.run([*command, "-ldl"], check=True, capture_output=True)
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(library), str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"},
        )

    def run(
        self,
        arguments: Sequence[object],
        fault: Fault | None = None,
        *,
        most_file_bytes: int | None = None,
        timeout_s: int = 600,
        kill_after_s: float | None = None,
        **environment: str,
    ) -> Ended:
        """Run one command to its end."""
        request: dict[str, Any] = {
            "arguments": [str(argument) for argument in arguments],
            "environment": environment,
            "fault": None if fault is None else asdict(fault),
            "most_file_bytes": most_file_bytes,
            "timeout_s": timeout_s,
            "kill_after_s": kill_after_s,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        reply = json.loads(self._process.stdout.readline())
        reply["calls"] = tuple((NAMES[kind], path) for kind, path in reply["calls"])
        return Ended(**reply)

    def learn(
        self, arguments: Sequence[object], fault: Fault | None = None, **environment: str
    ) -> Ended:
        """Run a command undisturbed, maybe counting; the server imports what it imported."""
        ended = self.run(arguments, fault, SCDRUGMAP_TEST_LEARN="1", **environment)
        assert ended.code == 0, ended.err
        return ended

    def close(self) -> None:
        """End the process."""
        with self._process:  # closes what it reads from, waits, and closes the rest
            assert self._process.stdin is not None
            self._process.stdin.close()


def serve(library: ctypes.CDLL, folder: Path) -> None:
    """Answer requests until the input ends; returns in children too, which then run a command."""
    replies = os.fdopen(os.dup(1), "w")
    while line := sys.stdin.readline():
        request = json.loads(line)
        with contextlib.ExitStack() as stack:
            out, err, trace, learnt = (
                stack.enter_context(tempfile.TemporaryFile("w+", dir=folder)) for _ in range(4)
            )
            fault = request["fault"]
            counts = fault is not None and fault["error"] == COUNT
            child = os.fork()
            if not child:
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                if counts:
                    library.fault_trace(os.dup(trace.fileno()))
                kept = os.dup(learnt.fileno())
                replies.close()
                stack.pop_all()
                os.environ.update(request["environment"])
                _run(library, request, kept)
            status = _ended(child, request["kill_after_s"])
            for stream in (out, err, trace, learnt):
                stream.seek(0)
            calls = [line.split(" ", 1) for line in trace.read().splitlines()]
            _import(learnt.read().split())
            reply = {
                "code": os.waitstatus_to_exitcode(status),
                "out": out.read(),
                "err": err.read(),
                "seen": library.fault_seen() if fault else 0,
                "calls": [(int(kind), path) for kind, path in calls],
            }
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _ended(child: int, kill_after_s: float | None) -> int:
    """Return the status of a child and, if it takes longer than that, kill it first."""
    if kill_after_s is not None:
        end = time.monotonic() + kill_after_s
        while time.monotonic() < end:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _run(library: ctypes.CDLL, request: dict[str, Any], learnt: int) -> None:
    """Run the command line in this child and leave as it leaves."""
    from scdrugmap.cli import main

    signal.alarm(request["timeout_s"])
    if request["most_file_bytes"] is not None:
        most = request["most_file_bytes"]
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    fault = request["fault"]
    if fault is not None:
        kinds = sum(KINDS[kind] for kind in fault["kinds"])
        numbers = (ctypes.c_long(fault["first"]), ctypes.c_long(min(fault["last"], FOR_EVER)))
        library.fault_arm(fault["folder"].encode(), kinds, *numbers, fault["error"])
    try:
        main(request["arguments"])
    finally:
        if "SCDRUGMAP_TEST_LEARN" in request["environment"]:
            os.write(learnt, " ".join(sys.modules).encode())


def _import(names: Sequence[str]) -> None:
    for name in names:
        if name not in sys.modules and not name.startswith("_"):
            with contextlib.suppress(ImportError, AttributeError):
                importlib.import_module(name)
    if names:
        from scdrugmap.model.load import load_model

        load_model("randproj")  # its vectors take longer than the commands; children inherit them
        gc.collect()
        gc.freeze()  # children do not copy pages by collecting what they share


if __name__ == "__main__":
    _library = ctypes.CDLL(sys.argv[1])
    _library.fault_seen.restype = ctypes.c_long
    serve(_library, Path(sys.argv[2]))
