"""Damage valid h5ad files and zarr stores at 1 to 16 random places and read them.

What must hold of every mutant: it is refused in one line, or reads as the original, or reads
differently and says so; silently different only where the damage hit stored values, which is
shown by putting these bytes back: the rest of the damage must then be refused or change nothing.
No mutant ends the process that reads, or keeps it for more than ten seconds.

Run as a script for any number of mutants: ``tests/faults/mutants.py --number 20000 --seed 0``.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import pickle
import platform
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
import zarr  # noqa: F401  here and below: imported once, not in every child
from forked_walk import start_by_fork  # beside this script

from scdrugmap.data import genes, inspect, transposed, zarr_store  # noqa: F401
from scdrugmap.data.cells import open_cells
from scdrugmap.data.gene_table import gene_table
from scdrugmap.errors import ScDrugMapError
from scdrugmap.files import write_json

SECONDS = 10
MEMORY = 4 << 30
MOST_PLACES = 16
BATCH = 25
"""Mutants of one file that a child tries unless it dies; then another goes on."""

RESULTS = Path(__file__).with_name("results")

HELD = ("refused", "unchanged", "said", "values")
"""Outcomes that are allowed; the others are ``silent``, ``fault``, ``crash`` and ``slow``."""

Files = dict[str, bytes]
"""A file or store by the paths inside of it; "" is a single file."""


@dataclass
class Original:
    """A valid file or store.

    Parameters
    ----------
    ending : str
        Ending of its name.
    files : Files
    values : dict of str to (n_bytes,) bool
        Bytes that store values of a matrix or table, and nothing else.
    content : dict
        What it reads as.
    """

    ending: str
    files: Files
    values: dict[str, np.ndarray]
    content: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Mutant:
    """Damage, and the same without the part of it that hit values."""

    files: Files
    without_values: Files


def write_originals(folder: Path) -> dict[str, Path]:
    """Write a small file of every kind that is read, with the text and numbers of real ones."""
    import anndata
    import pandas as pd
    from scipy import sparse

    random = np.random.default_rng(0)
    counts = random.poisson(0.6, (30, 40)).astype(np.float32)
    counts[:, 0] = 1 + np.arange(30) % 3
    obs = pd.DataFrame(
        {
            "patient": pd.Categorical([f"patient {i % 3}" for i in range(30)]),
            "response": pd.Categorical(["sensitive", "resistant"] * 15),
            "depth": counts.sum(axis=1),
            "n_genes": (counts > 0).sum(axis=1),
            "note": [f"from plate {i}" for i in range(30)],
        },
        index=[f"AAACCTG{i:04d}-1" for i in range(30)],
    )
    obs["note"] = obs["note"].astype(object)
    names = list(gene_table().names("symbol")[:40])
    var = pd.DataFrame({"n_cells": (counts > 0).sum(axis=0)}, index=names)
    whole = anndata.AnnData(sparse.csr_matrix(counts), obs, var)
    whole.obsm["X_pca"] = random.normal(size=(30, 4)).astype(np.float32)
    whole.uns["note"] = {"made": "by code"}
    columns = anndata.AnnData(sparse.csc_matrix(counts), obs, var)
    dense = anndata.AnnData(counts, obs, var)
    scaled = anndata.AnnData(np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4), obs, var)
    scaled.raw = whole
    scaled.layers["counts"] = sparse.csr_matrix(counts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole.write_h5ad(folder / "csr.h5ad")
        whole.write_h5ad(folder / "gzip.h5ad", compression="gzip")
        columns.write_h5ad(folder / "csc.h5ad")
        dense.write_h5ad(folder / "dense.h5ad", compression="lzf")
        scaled.write_h5ad(folder / "layers.h5ad")
        latest = h5py.File(folder / "latest.h5ad", "w", libver="latest")
        with h5py.File(folder / "csr.h5ad") as old, latest as new:
            for name in old:
                old.copy(name, new)
            new.attrs.update(old.attrs)
        for number, stored in ((2, whole), (3, columns)):
            with anndata.settings.override(zarr_write_format=number):
                stored.write_zarr(folder / f"format{number}.zarr")
        shutil.make_archive(str(folder / "packed.zarr"), "zip", folder / "format2.zarr")
    return {path.name: path for path in sorted(folder.iterdir())}


def load_original(path: Path) -> Original:
    """Read the bytes of a file or store and find those that store values."""
    ending = path.name[path.name.index(".") :]
    if path.is_dir():
        files = {
            file.relative_to(path).as_posix(): file.read_bytes()
            for file in sorted(path.rglob("*"))
            if file.is_file()
        }
        values = {name: np.full(len(raw), not _is_metadata(name)) for name, raw in files.items()}
        return Original(ending, files, values)
    raw = path.read_bytes()
    mask = np.zeros(len(raw), dtype=bool)
    for start, size in _zip_values(path) if ending.endswith(".zip") else _hdf5_values(path, raw):
        mask[start : start + size] = True
    return Original(ending, {"": raw}, {"": mask})


def _is_metadata(name: str) -> bool:
    return name.rpartition("/")[2] in (".zarray", ".zgroup", ".zattrs", ".zmetadata", "zarr.json")


def _zip_values(path: Path) -> Iterator[tuple[int, int]]:
    with zipfile.ZipFile(path) as archive, open(path, "rb") as handle:
        for info in archive.infolist():
            if not _is_metadata(info.filename):
                handle.seek(info.header_offset + 26)
                lengths = struct.unpack("<HH", handle.read(4))
                yield info.header_offset + 30 + sum(lengths), info.compress_size


def _hdf5_values(path: Path, raw: bytes) -> Iterator[tuple[int, int]]:
    """Yield the stretches that hold values: chunks, contiguous arrays, and texts in heaps."""
    texts: set[bytes] = set()
    ranges: list[tuple[int, int]] = []

    def visit(name: str, node: Any) -> None:
        if not isinstance(node, h5py.Dataset):
            return
        if node.chunks:
            chunks = [node.id.get_chunk_info(i) for i in range(node.id.get_num_chunks())]
            ranges.extend((chunk.byte_offset, chunk.size) for chunk in chunks)
        elif node.id.get_offset() is not None:
            ranges.append((node.id.get_offset(), node.id.get_storage_size()))
        if h5py.check_string_dtype(node.dtype) is not None:
            texts.update(np.asarray(node[()]).ravel().tolist())

    with h5py.File(path) as file:
        file.visititems(visit)
    yield from ranges
    yield from ((at, len(text)) for at, text in _heap_objects(raw) if text in texts)


def _heap_objects(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield place and bytes of all objects in the global heaps of an HDF5 file."""
    heap = raw.find(b"GCOL")
    while heap >= 0:
        (size,) = struct.unpack_from("<Q", raw, heap + 8)
        at = heap + 16
        while at + 16 <= heap + size:
            index, _, _, length = struct.unpack_from("<HHIQ", raw, at)
            if index == 0:
                break
            yield at + 16, raw[at + 16 : at + 16 + length]
            at += 16 + (length + 7) // 8 * 8
        heap = raw.find(b"GCOL", heap + size)


def damage(original: Original, random: np.random.Generator) -> Mutant:
    """Damage 1 to 16 places: bits, bytes, stretches, lost ends, lost files.

    Half of the mutants are hit only outside of stored values, where they are the most dangerous.
    """
    spare_values = bool(random.integers(2))
    names = list(original.files)
    sizes = np.array([float(len(original.files[name])) for name in names])
    if spare_values:
        sizes = np.array([float(np.count_nonzero(~original.values[name])) for name in names])
    damaged = {name: bytearray(raw) for name, raw in original.files.items()}
    lost: set[str] = set()
    for _ in range(int(random.integers(1, MOST_PLACES + 1))):
        name = names[int(random.choice(len(names), p=sizes / sizes.sum()))]
        whole, mask = damaged[name], original.values[name]
        if not len(whole):
            continue
        places = np.flatnonzero(~mask) if spare_values else np.arange(len(mask))
        at = int(random.choice(places))
        if at >= len(whole):
            continue
        kind = random.random()
        if kind < 0.4:
            whole[at] ^= 1 << int(random.integers(8))
        elif kind < 0.75:
            whole[at] = int(random.integers(256))
        elif kind < 0.985:
            _overwrite(whole, at, random, mask if spare_values else None)
        elif len(names) > 1 and kind < 0.995:
            lost.add(name)
        else:
            del whole[at:]
    files = {name: bytes(raw) for name, raw in damaged.items() if name not in lost}
    return Mutant(files, {name: _put_back(original, name, raw) for name, raw in files.items()})


def _overwrite(
    whole: bytearray, at: int, random: np.random.Generator, mask: np.ndarray | None
) -> None:
    length = min(int(random.integers(2, 17)), len(whole) - at)
    kind = int(random.integers(4))
    new = [bytes(length), b"\xff" * length, random.bytes(length), b""][kind]
    if not new:
        start = int(random.integers(len(whole) - length + 1))
        new = bytes(whole[start : start + length])
    for i, byte in enumerate(new):
        if mask is None or not mask[at + i]:
            whole[at + i] = byte


def _put_back(original: Original, name: str, raw: bytes) -> bytes:
    before = np.frombuffer(original.files[name], np.uint8)[: len(raw)]
    mask = original.values[name][: len(raw)]
    return np.where(mask, before, np.frombuffer(raw, np.uint8)).astype(np.uint8).tobytes()


def write_files(path: Path, files: Files) -> None:
    """Write a mutant."""
    for name, raw in files.items():
        target = path / name if name else path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(raw)


def read_content(path: Path) -> dict[str, Any]:
    """Read everything that the reader gives of a file."""
    with open_cells(path) as cells:
        blocks = [block.rows for block in cells.blocks(7)]
        return {
            "values": [(b.data.tolist(), b.indices.tolist(), b.indptr.tolist()) for b in blocks],
            "names": cells.names.tolist(),
            "genes": cells.genes.published.tolist(),
            "symbols": cells.genes.symbol.tolist(),
            "obs": {str(name): cells.obs[name].astype(str).tolist() for name in cells.obs},
            "kind": (cells.matrix.location, cells.matrix.values),
            "notices": sorted(cells.notices),
        }


def judge(path: Path, original: Original, mutant: Mutant) -> tuple[str, str]:
    """Read a mutant, in a process that may die of it; return the outcome and what was said."""
    write_files(path, mutant.files)
    outcome, words = _compare(path, original.content)
    if outcome != "silent" or mutant.files == mutant.without_values:
        return outcome, words
    _remove(path)
    write_files(path, mutant.without_values)
    again, more = _compare(path, original.content)
    return ("values", words) if again in HELD else (again, more)


def _compare(path: Path, content: dict[str, Any]) -> tuple[str, str]:
    try:
        found = read_content(path)
    except ScDrugMapError as err:
        one_line = "\n" not in err.message and err.hint
        return ("refused" if one_line else "fault"), f"{type(err).__name__}: {err.message}"
    except Exception as err:  # what the program would show as its own fault
        import traceback

        where = traceback.extract_tb(err.__traceback__)
        ours = [frame for frame in where if "scdrugmap" in frame.filename][-1:]
        return "fault", f"{type(err).__name__}: {err} ({ours})"
    differs = [key for key in content if key != "notices" and found[key] != content[key]]
    if not differs:
        return "unchanged", ""
    if set(found["notices"]) - set(content["notices"]):
        return "said", str(found["notices"])
    return "silent", ", ".join(differs)


def in_child(work: Callable[..., Iterator[Any]], *given: Any) -> tuple[list[Any], str]:
    """Run something in a forked process with limits.

    Returns
    -------
    answers : list
        What `work` yielded before the process ended; each has :data:`SECONDS` of its own.
    end : str
        Empty, or how the process died.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _live(work, writing, given)
    os.close(writing)
    answers = []
    with open(reading, "rb") as handle, contextlib.suppress(EOFError, pickle.UnpicklingError):
        while True:
            answers.append(pickle.load(handle))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGALRM:
        return answers, f"slow: more than {SECONDS} s"
    return answers, f"crash: exit code {code}" if code else ""


def _live(work: Callable[..., Iterator[Any]], writing: int, given: tuple[Any, ...]) -> NoReturn:
    code = 1
    try:
        signal.alarm(SECONDS)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        warnings.simplefilter("ignore")
        with open(writing, "wb") as handle:
            for answer in work(*given):
                pickle.dump(answer, handle)
                handle.flush()
                signal.alarm(SECONDS)
        code = 0
    finally:
        os._exit(code)


@dataclass
class Tally:
    """What happened so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    by_file: dict[str, Counter[str]] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    n_told: int = 0

    def add(self, name: str, number: int, outcome: str, words: str) -> None:
        """Count a mutant."""
        self.outcomes[outcome] += 1
        self.by_file.setdefault(name, Counter())[outcome] += 1
        if outcome == "refused":
            self.refusals[words.split(":")[0]] += 1
        elif outcome not in HELD:
            self.failures.append(f"{name} {number}: {outcome}: {words}")

    def untold(self) -> list[str]:
        """Return the failures since the last call."""
        lines, self.n_told = self.failures[self.n_told :], len(self.failures)
        return lines


def make_originals(folder: Path) -> dict[str, Original]:
    """Write, load and read the valid files, and warm up what every child needs."""

    def write() -> Iterator[Any]:
        yield write_originals(folder)

    def load() -> Iterator[Any]:
        for path in paths.values():
            original = load_original(path)
            original.content = read_content(path)
            yield original

    (paths,), _ = in_child(write)
    read_content(folder / "csr.h5ad")  # starts no thread, unlike zarr
    gc.collect()
    gc.freeze()  # so that children share the memory of the parent
    originals, end = in_child(load)
    if end:
        raise RuntimeError(f"a valid file could not be read: {end}")
    return dict(zip(paths, originals, strict=True))


def try_batch(
    folder: Path, original: Original, numbers: list[int], seed: int
) -> Iterator[tuple[str, str]]:
    """Yield outcome and words of mutants of one file; dies with the first that kills."""
    for i in numbers:
        path = folder / f"mutant{i}{original.ending}"
        try:
            yield judge(path, original, damage(original, np.random.default_rng((seed, i))))
        finally:
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def run(
    number: int,
    seed: int,
    *,
    minutes: float = np.inf,
    keep: Path | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Try so many mutants; return the record of what happened.

    Parameters
    ----------
    number : int
    seed : int
    minutes : float
        Stop after this time, whatever the number.
    keep : Path, optional
        Folder that gets the mutants that were not held.
    """
    inspect._start = start_by_fork
    began = told = time.monotonic()
    tally = Tally()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        originals = make_originals(folder)
        for start in range(0, number, BATCH * len(originals)):
            if time.monotonic() - began > 60 * minutes:
                break
            for k, (name, original) in enumerate(originals.items()):
                numbers = list(range(start + k, number, len(originals)))[:BATCH]
                while numbers:
                    answers, end = in_child(try_batch, folder, original, numbers, seed)
                    if end and len(answers) < len(numbers):
                        outcome, _, words = end.partition(": ")
                        answers.append((outcome, words))
                    for i, (outcome, words) in zip(numbers, answers, strict=False):
                        tally.add(name, i, outcome, words)
                        if outcome not in HELD and keep:
                            mutant = damage(original, np.random.default_rng((seed, i)))
                            write_files(keep / f"{i}-{outcome}{original.ending}", mutant.files)
                    numbers = numbers[len(answers) :]
            if not quiet and time.monotonic() - told > 10:
                told = time.monotonic()
                tried = tally.outcomes.total()
                rate = tried / (told - began)
                sys.stderr.write(
                    f"{tried:,} of {number:,}, {rate:.1f}/s, {(number - tried) / rate:,.0f} s "
                    f"left, {dict(tally.outcomes)}\n"
                )
                for line in tally.untold():
                    sys.stderr.write(f"  {line}\n")
    return {
        "subject": "Random damage of h5ad files and zarr stores",
        "tried": tally.outcomes.total(),
        "unit": "mutants",
        "held": sum(tally.outcomes[word] for word in HELD),
        "outcomes": dict(tally.outcomes),
        "outcomes_by_file": {name: dict(found) for name, found in tally.by_file.items()},
        "refusals_by_class": dict(tally.refusals),
        "failures": tally.failures[:100],
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "python": platform.python_version(),
            "h5py": version("h5py"),
            "hdf5": h5py.version.hdf5_version,
            "zarr": version("zarr"),
        },
    }


def main() -> None:
    """Run as a script."""
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":  # only a process of one thread may fork
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **one})
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=np.inf, help="stop after this time")
    parser.add_argument("--output", type=Path, default=RESULTS / "mutants.json")
    parser.add_argument("--keep", type=Path, help="folder for mutants that were not held")
    parser.add_argument("--quiet", action="store_true")
    given = parser.parse_args()
    record = run(
        given.number, given.seed, minutes=given.minutes, keep=given.keep, quiet=given.quiet
    )
    record["command"] = "make fuzz"
    record["notes"] = (
        "1 to 16 places of 9 files damaged: bits, bytes, stretches, lost ends, lost files; half of "
        "the mutants only outside of stored values. values: different without a sign, and only "
        "through the bytes of stored values"
    )
    write_json(given.output, record)
    sys.stderr.write(f"{json.dumps(record['outcomes'])}\n")
    sys.exit(0 if record["held"] == record["tried"] else 1)


if __name__ == "__main__":
    main()
