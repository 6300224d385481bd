"""Commands that write, on tiny data, and what must hold whatever happens to them.

After an error or a kill: no input has changed, every file without a temporary name is whole and
the same as in an undisturbed run, every entry of the cache can be verified. After an error, not a
kill, nothing is left under a temporary name. The same command again succeeds, with the bytes of
an undisturbed run.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fault_server import Ended, Fault, FaultServer

from scdrugmap.files import hash_file
from scdrugmap.run.store import Store
from scdrugmap.temporary_names import TEMPORARY_SUFFIX

KINDS_THAT_FAIL = ("open", "write", "fsync", "rename", "mkdir")
ALL_KINDS = (*KINDS_THAT_FAIL, "unlink")
TRACED = (*ALL_KINDS, "create", "from", "map")
CHECKPOINT = Path(__file__).parents[2] / "plugins/scgpt/tests/golden/checkpoint"
_CHANGING = ("run.json", "report.html", "history.jsonl", "config.yaml", "manifest.json")
"""Files with times in them: they must be whole, but differ from run to run."""


@dataclass(frozen=True)
class Golden:
    """What an undisturbed run made: hashes by name, and its calls (kind, path).

    The trace holds the same calls and those that are never counted: see ``failing_calls.c``.
    """

    hashes: dict[str, str]
    trace: tuple[tuple[str, str], ...]

    @property
    def calls(self) -> tuple[tuple[str, str], ...]:
        """The calls that are counted."""
        return tuple(call for call in self.trace if call[0] in ALL_KINDS)

    def number(self, *kinds: str) -> int:
        """Return how many calls of some kinds there were."""
        return sum(kind in kinds for kind, _ in self.calls)


class Scene:
    """One command, its inputs, and a folder for all that it writes.

    Parameters
    ----------
    server : FaultServer
    inputs : Path
        Folder with what :func:`make_inputs` made.
    work : Path
        Emptied before each case.
    name : str
        One of :data:`COMMANDS`.
    """

    def __init__(self, server: FaultServer, inputs: Path, work: Path, name: str) -> None:
        self.server, self.inputs, self.work, self.name = server, inputs, work, name
        self.out, self.cache = work / "out", work / "cache"
        self.arguments = COMMANDS[name](inputs, self.out)
        self._input_hashes = hashes(inputs)
        self.clear()
        ended = server.learn(self.arguments, Fault(str(work), TRACED), **self._environment())
        self.golden = Golden(self._made(), ended.calls)
        assert self.golden.hashes, "the command wrote nothing"

    def clear(self) -> None:
        """Empty the folder of the command."""
        shutil.rmtree(self.work, ignore_errors=True)
        for folder in (self.out, self.work / "tmp"):
            folder.mkdir(parents=True)

    def run(self, fault: Fault | None = None, *more: str, **limits: int) -> Ended:
        """Run the command once, maybe with more arguments."""
        arguments = (*self.arguments, *more)
        return self.server.run(arguments, fault, **limits, **self._environment())

    def fault(self, kinds: tuple[str, ...], first: int, last: int, error: int) -> Fault:
        """Return a fault in what the command writes."""
        return Fault(str(self.work), kinds, first, last, error)

    def check_refused(self, ended: Ended, *, bytes_named: bool = False) -> str:
        """Assert what holds after an error; return ``refused`` or ``carried on``."""
        assert "Traceback" not in ended.err, ended.err
        if ended.code == 0:
            assert self._made() == self.golden.hashes
            outcome = "carried on"
        else:
            assert ended.code == 5, (ended.code, ended.err)
            errors = [line for line in ended.err.splitlines() if line.startswith("Error: ")]
            assert len(errors) == 1, ended.err
            assert str(self.work) in errors[0], ended.err
            assert TEMPORARY_SUFFIX not in errors[0], ended.err
            if bytes_named:
                assert "bytes needed" in errors[0], ended.err
            outcome = "refused"
        left = [path for path in self._everything() if TEMPORARY_SUFFIX in str(path)]
        assert left == []
        assert list((self.work / "tmp").iterdir()) == []
        self._check_whole()
        return outcome

    def check_killed(self, ended: Ended) -> None:
        """Assert what holds after a kill."""
        assert ended.code == -9, (ended.code, ended.err)
        self._check_whole()

    def check_again(self, *, killed: bool = False) -> None:
        """Run the command again, undisturbed: the bytes are those of a run that never failed.

        One that was killed when an output had its name says which it finds, and is told to replace
        it.
        """
        ended = self.run()
        if killed and ended.code == 2:
            assert "exists" in ended.err, ended.err
            assert "add --overwrite" in ended.err, ended.err
            ended = self.run(None, "--overwrite")
        assert ended.code == 0, ended.err
        assert self._made() == self.golden.hashes
        left = [p for p in self._everything() if TEMPORARY_SUFFIX in str(p) or p.suffix == ".lock"]
        assert [path for path in left if path.name != ".lock"] == []  # that of a run folder stays
        self._check_whole()

    def _check_whole(self) -> None:
        assert hashes(self.inputs) == self._input_hashes
        for name, value in self._made(partial=True).items():
            if name in self.golden.hashes:
                assert value == self.golden.hashes[name], f"{name} is not whole"
        store = Store(self.cache, quiet=True)
        for entry in store.entries():
            assert store.get(entry.kind, entry.key) is not None, store.notices

    def _made(self, *, partial: bool = False) -> dict[str, str]:
        """Return names and hashes of what the command made; files with times: if they are whole."""
        found = {}
        for path in self._everything():
            if self.out not in path.parents or TEMPORARY_SUFFIX in str(path):
                continue
            name = str(path.relative_to(self.out))
            if "/store/" in name:  # where a run keeps what no cache can hold
                continue
            if path.name == ".lock" or (not partial and "/jobs/" in name):
                continue
            found[name] = _wholeness(path) if path.name in _CHANGING else hash_file(path)
        return found

    def _everything(self) -> list[Path]:
        return sorted(path for path in self.work.rglob("*") if path.is_file())

    def _environment(self) -> dict[str, str]:
        return {"SCDRUGMAP_CACHE": str(self.cache), "TMPDIR": str(self.work / "tmp")}


def hashes(folder: Path) -> dict[str, str]:
    """Return the hash of every file below a folder, by name."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hash_file(path) for path in found}


def _wholeness(path: Path) -> str:
    text = path.read_text("utf-8")
    if path.suffix == ".json":
        json.loads(text)
    elif path.suffix == ".jsonl":
        for line in text.splitlines():
            json.loads(line)
    elif path.suffix == ".html":
        assert text.rstrip().endswith("</html>"), f"{path} ends early"
    else:
        assert text.endswith("\n"), f"{path} ends early"
    return "whole"


def make_inputs(server: FaultServer, folder: Path) -> None:
    """Make what the commands read: cells, a split, a predictor, files of a series."""
    from scdrugmap.testing import synthetic_adata

    folder.mkdir()
    cells = folder / "cells.h5ad"
    synthetic_adata(48, 220, n_patients=6).write_h5ad(cells)
    labels = ("--label", "response", "--group", "patient")
    where = {"SCDRUGMAP_CACHE": str(folder.parent / "first-cache")}
    for arguments in (
        ("split", cells, *labels, "--folds", 2, "-o", folder / "splits.tsv", "--quiet"),
        _train(folder, folder / "predictor.zip"),
    ):
        server.learn(arguments, **where)
    series = folder / "series"
    series.mkdir()
    with tarfile.open(series / "GSE149214_RAW.tar", "w") as tar:
        for number, name in enumerate(("GSM4494347_D0", "GSM4494348_D11b", "GSM4494349_D11c")):
            rows = [f"G{gene}\t{gene}\t{number}" for gene in range(30)]
            data = "\n".join(["GENE\tAC\tAG", *rows, ""]).encode()
            info = tarfile.TarInfo(f"{name}.dge.txt.gz")
            packed = io.BytesIO()
            with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as handle:
                handle.write(data)
            info.size = len(packed.getvalue())
            tar.addfile(info, io.BytesIO(packed.getvalue()))
    shutil.copytree(CHECKPOINT, folder / "checkpoint")


def _train(inputs: Path, output: Path) -> tuple[object, ...]:
    chosen = ("--splits", inputs / "splits.tsv", "--fold", 0, "--model", "randproj")
    return ("train", inputs / "cells.h5ad", *chosen, "-o", output, "--quiet")


def _embed(inputs: Path, out: Path) -> tuple[object, ...]:
    return ("embed", inputs / "cells.h5ad", "--model", "randproj", "-o", out / "e.h5ad", "--quiet")


def _predict(inputs: Path, out: Path) -> tuple[object, ...]:
    more = ("--h5ad", out / "p.h5ad", "--summary", out / "p.json", "-o", out / "p.tsv.gz")
    return ("predict", inputs / "cells.h5ad", "--predictor", inputs / "predictor.zip", *more)


def _benchmark(inputs: Path, out: Path) -> tuple[object, ...]:
    chosen = ("--label", "response", "--group", "patient", "--models", "constant,randproj")
    small = ("--folds", 2, "--protocol", "pooled-group", "--draws", 10, "--controls", "none")
    return (
        *("benchmark", "--data", inputs / "cells.h5ad", *chosen, *small, "--seeds", 0),
        *("-o", out / "run", "--quiet"),
    )


def _import(inputs: Path, out: Path) -> tuple[object, ...]:
    return ("weights", "import", "scgpt", inputs / "checkpoint", "-o", out / "scgpt", "--quiet")


def _prepare(inputs: Path, out: Path) -> tuple[object, ...]:
    return ("datasets", "prepare", "GSE149214", "--from", inputs / "series", "-o", out / "s.h5ad")


COMMANDS: dict[str, Callable[[Path, Path], tuple[object, ...]]] = {
    "embed": _embed,
    "train": lambda inputs, out: _train(inputs, out / "t.zip"),
    "predict": _predict,
    "weights import": _import,
    "datasets prepare": _prepare,
    "benchmark": _benchmark,
}
"""Arguments of each command, from the folders of its inputs and outputs."""
