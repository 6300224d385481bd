"""What is fuzzed under guidance: our readers of text and pickles, each fed with arbitrary bytes.

A reader may take the bytes or refuse them with the classes named here; anything else that it raises
is a fault. What it takes must be what its documentation promises.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scdrugmap.errors import DataError, UsageError, WeightsError

_SHA256 = "0" * 64
_MOST_LEVELS = 40


@dataclass(frozen=True)
class Target:
    """A reader under test.

    Attributes
    ----------
    title : str
        For the table of what was tried.
    declared : tuple of exception classes
        What it may raise.
    modules : tuple of str
        Modules whose branches guide the fuzzer.
    seeds : callable
        Gives inputs that it takes.
    open : callable
        Given an empty folder, returns a function that reads bytes and checks what came out.
    words : tuple of str
        What the fuzzer should know to spell.
    """

    title: str
    declared: tuple[type[Exception], ...]
    modules: tuple[str, ...]
    seeds: Callable[[], list[bytes]]
    open: Callable[[Path], Callable[[bytes], None]]
    words: tuple[str, ...] = ()

    def read(self, reader: Callable[[bytes], None], data: bytes) -> bool:
        """Feed bytes to an open reader; return whether it took them."""
        try:
            reader(data)
        except self.declared:
            return False
        return True


def _dump(value: Any) -> bytes:
    return json.dumps(value).encode()


def _keys(value: Any) -> Iterable[str]:
    """Yield the keys and texts of a JSON value."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield key
            yield from _keys(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _keys(entry)
    elif isinstance(value, str) and value:
        yield value


# pickles -----------------------------------------------------------------------------------------


def _pickles() -> list[bytes]:
    table = {"ENSG1": 1, "gène": -7, 3: [1.5, None, True, (1, 2)], "b": b"\xff", "big": 2**70}
    arrays = {"median": np.float32(0.5), "all": np.arange(6, dtype=">i2").reshape(2, 3)}
    return [pickle.dumps(item, p) for item in (table, arrays) for p in (0, 2, 4, 5)]


def _read_pickle(folder: Path) -> Callable[[bytes], None]:
    from scdrugmap import safe_pickle

    path = folder / "genes.pkl"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        _require_plain(safe_pickle.load(path), 0)

    return read


def _require_plain(value: Any, level: int) -> None:
    assert level < _MOST_LEVELS
    kind = type(value)
    if kind is dict:
        assert all(isinstance(key, str | int) for key in value)
        value = list(value.values())[:5]
    elif kind not in (list, tuple):
        assert kind in (str, bytes, int, float, bool, type(None), np.ndarray), kind
        assert kind is not np.ndarray or value.dtype.kind in "biuf"
        return
    for entry in value[:5]:
        _require_plain(entry, level + 1)


# records in JSON ---------------------------------------------------------------------------------

_FILE = {"sha256": _SHA256, "n_bytes": 7}
_MANIFEST = {
    "format": 1,
    "model": "scgpt",
    "name": "human",
    "variant": "human",
    "digest": _SHA256,
    "published": {"best_model.pt": _FILE},
    "files": dict.fromkeys(("config.json", "model.safetensors", "vocabulary.json"), _FILE),
    "licence": "MIT",
    "commercial_use": None,
    "homepage": "https://example.org",
    "n_tensors": 1,
    "n_parameters": 2,
    "imported_at": "2026-01-01T00:00:00+00:00",
    "scdrugmap": "0.1.0",
}


def _read_manifest(folder: Path) -> Callable[[bytes], None]:
    from scdrugmap.manifest import MANIFEST, Manifest, read_manifest

    def read(data: bytes) -> None:
        (folder / MANIFEST).write_bytes(data)
        found = read_manifest(folder)
        assert Manifest.model_validate_json(found.model_dump_json()) == found

    return read


_PREDICTOR = {
    "format": 1,
    "scdrugmap": "0.1.0",
    "name": "constant",
    "strategy": "estimator",
    "plugin": {"name": "baselines", "distribution": "scdrugmap", "version": "0.1.0"},
    "contract": 1,
    "numerics": 1,
    "options": {"a": [1, {"b": 0.5}]},
    "seed": 0,
    "values": "counts",
    "genes": {"n_genes": 5, "digest": _SHA256, "n_needed": 5, "counts": {"f": {"symbol": 5}}},
    "training": {
        "datasets": [{"name": "a", "n_cells": 9, "values_location": "X"}],
        "n_cells": 9,
        "n_sensitive": 4,
        "n_groups": 3,
    },
    "split": {"split_id": "pooled-group-0123456789abcdef", "fold": 0},
    "threshold": {"value": 0.5, "source": "validation", "n_validation": 3},
    "calibration": {
        "temperature": 1.5,
        "n_cells": 9,
        "n_groups": 3,
        "loss_before": 0.7,
        "loss_after": 0.6,
    },
    "self_test": {"genes": ["TP53"], "tokens": [], "p_sensitive": [0.5, None]},
}


def _read_predictor(_: Path) -> Callable[[bytes], None]:
    from scdrugmap.train.record import PredictorInfo, parse_info

    def read(data: bytes) -> None:
        found = parse_info(data, "a.scdrugmap")
        assert PredictorInfo.model_validate_json(found.model_dump_json()) == found

    return read


_ENTRY = {
    "format": 1,
    "kind": "embedding",
    "key": _SHA256,
    "files": {"values.npy": _FILE},
    "record": {"model": "scgpt", "options": {"a": 1}},
}


def _read_cache(folder: Path) -> Callable[[bytes], None]:
    """Read a cache whose one entry has these bytes as its manifest; nothing may stop it."""
    from scdrugmap.run.store import MANIFEST, Store, entry_model, summary

    kind, key = str(_ENTRY["kind"]), str(_ENTRY["key"])
    store = Store(folder, quiet=True)

    def read(data: bytes) -> None:
        entry = folder / kind / key[:2] / key
        entry.mkdir(parents=True, exist_ok=True)
        (entry / MANIFEST).write_bytes(data)
        listed = list(store.entries())
        assert isinstance(summary(listed), list)
        for item in listed:
            assert isinstance(entry_model(item), str)
        found = store.get(kind, key)
        assert found in (None, entry)
        if found is None:
            shutil.rmtree(folder / "quarantine", ignore_errors=True)
        if not listed:
            raise DataError("no manifest")

    return read


_TASK = {
    "format": 1,
    "number": 3,
    "network": 0,
    "plan": _SHA256,
    "jobs": [
        {
            "protocol": "pooled-group",
            "family": "sound",
            "entry": {
                "name": "randproj",
                "model": "randproj",
                "kind": "model",
                "strategy": "frozen",
                "control": "",
                "randomize": None,
                "permuted": False,
            },
            "head": "logistic",
            "tuning": None,
            "shots": 0,
            "fold": 0,
            "seed": 1,
        }
    ],
}


def _read_task(folder: Path) -> Callable[[bytes], None]:
    from scdrugmap.run.tasks import read_task

    path = folder / "task.json"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        assert read_task(path).record()["format"] == 1

    return read


# tensors -----------------------------------------------------------------------------------------


def _tensors() -> list[bytes]:
    headers = (
        {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
        {"__metadata__": {"format": "pt"}, "b": {"dtype": "I8", "shape": [8, 1], "data_offsets": [0, 8]}},
    )  # fmt: skip
    return [struct.pack("<Q", len(text)) + text + bytes(8) for text in map(_dump, headers)]


def _read_tensors(folder: Path) -> Callable[[bytes], None]:
    from scdrugmap.modelkit.published import read_safetensors

    path = folder / "model.safetensors"

    def read(data: bytes) -> None:
        path.unlink(missing_ok=True)  # not rewritten: tensors of the last call are mapped
        path.write_bytes(data)
        found = read_safetensors(path)
        n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in found.values())
        assert n_bytes <= len(data), "tensors hold more than the file"

    return read


# tables ------------------------------------------------------------------------------------------


def _splits() -> list[bytes]:
    from scdrugmap.evaluation.tables import SPLIT_COLUMNS, split_id
    from scdrugmap.tables import compress, table_bytes

    rows = []
    for cell in range(4):
        for fold in range(2):
            role = "test" if cell % 2 == fold else "train"
            label = "sensitive" if cell < 2 else "resistant"
            name = ["c0", "=c1", "c\t2", "'c3"][cell]
            rows.append(("d", name, f"s{cell}", f"p{cell}", "", label, fold, f"p{cell}", role))
    table = pd.DataFrame(rows, columns=list(SPLIT_COLUMNS[:-1]))
    more = table.assign(target="d", draw=1, drug="x")
    made = []
    for frame in (table, more):
        plain = table_bytes(frame.assign(split_id=split_id(frame, "lodo")))
        made += [plain, compress(plain)]
    return made


def _read_splits(folder: Path) -> Callable[[bytes], None]:
    from scdrugmap.evaluation.tables import read_splits, write_splits

    path, again = folder / "splits.tsv", folder / "again.tsv"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        found = read_splits(path)
        write_splits(found, again)
        pd.testing.assert_frame_equal(read_splits(again), found)

    return read


_SHEETS = (
    """file,sample,column,donor,label,drug
a.h5ad,,,P1,PR,paclitaxel
p.h5ad,s2,sample_id,P2,PD,"x,y"
p.h5ad,s3,sample_id,P3,PR,
""",
    "\ufefffile,label\na.h5ad,R\n\n",
)


def _read_sheet(folder: Path) -> Callable[[bytes], None]:
    from scdrugmap.data.samplesheet import read_samplesheet

    for name in ("a.h5ad", "p.h5ad"):
        (folder / name).touch()
    obs = pd.DataFrame({"sample_id": ["s2", "s3", "s4"]}, index=["c1", "c2", "c3"])
    path = folder / "sheet.csv"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        sheet = read_samplesheet(path)
        assert sheet.columns()["label"] == "label"
        for file in sheet.files:
            described, _ = sheet.describe(file, obs)
            assert len(described) == len(obs)

    return read


# configuration -----------------------------------------------------------------------------------

_CONFIG = """
data:
  - a.h5ad
  - {path: p.h5ad, drug: paclitaxel}
label: response
group: patient
models: [scgpt, hvg-logreg]
strategies: [frozen, lora]
weights: {scgpt: random}
protocols: [pooled-group]
folds: 2
seeds: [0, 1]
"""


def _recipes() -> list[bytes]:
    from scdrugmap.data import recipe

    return [path.read_bytes() for path in sorted(Path(recipe.__file__).parent.glob("recipes/*"))]


def _read_config(folder: Path) -> Callable[[bytes], None]:
    from scdrugmap.config import read_config, write_config

    path, again = folder / "benchmark.yaml", folder / "again.yaml"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        found = read_config(path)
        write_config(found, again)
        assert read_config(again) == found

    return read


def _read_recipe(folder: Path) -> Callable[[bytes], None]:
    from scdrugmap.data.recipe import read_recipe

    path = folder / "recipe.yaml"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_recipe(path)

    return read


# zarr --------------------------------------------------------------------------------------------

_ZARRAY = {
    "zarr_format": 2,
    "shape": [2, 2],
    "chunks": [2, 2],
    "dtype": "<f4",
    "compressor": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1},
    "fill_value": 0,
    "order": "C",
    "filters": [{"id": "delta", "dtype": "<f4"}],
}
_ZARR3 = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [2],
    "data_type": "float32",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2]}},
    "chunk_key_encoding": {"name": "default"},
    "fill_value": 0,
    "codecs": [
        {
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": [1],
                "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
                "index_codecs": [{"name": "bytes"}, {"name": "crc32c"}],
            },
        }
    ],
    "attributes": {},
}


def _read_zarr(folder: Path) -> Callable[[bytes], None]:
    """Open a store one array of which has these bytes as its metadata, in either format."""
    from scdrugmap.data.zarr_store import open_zarr

    stores = []
    for version, group in ((2, ".zgroup"), (3, "zarr.json")):
        store = folder / f"v{version}.zarr"
        (store / "X").mkdir(parents=True)
        (store / group).write_bytes(_dump({"zarr_format": version, "node_type": "group"}))
        stores.append((store, ".zarray" if version == 2 else "zarr.json"))

    def read(data: bytes) -> None:
        for store, name in stores:
            (store / "X" / name).write_bytes(data)
            open_zarr(store)

    return read


TARGETS = {
    "pickle": Target(
        "published pickles (safe_pickle)",
        (WeightsError,),
        ("pickletools", "scdrugmap.safe_pickle"),
        _pickles,
        _read_pickle,
        ("numpy.core.multiarray", "_reconstruct", "scalar", "dtype", "collections", "OrderedDict",
         "_codecs", "encode", "os", "system", "builtins", "eval"),
    ),
    "weights-manifest": Target(
        "manifests of imported weights",
        (WeightsError,),
        ("json", "scdrugmap.manifest", "scdrugmap.modelkit.published"),
        lambda: [_dump(_MANIFEST)],
        _read_manifest,
        tuple(_keys(_MANIFEST)),
    ),
    "predictor": Target(
        "predictor.json",
        (DataError,),
        ("scdrugmap.train.record",),
        lambda: [_dump(_PREDICTOR)],
        _read_predictor,
        tuple(_keys(_PREDICTOR)),
    ),
    "cache": Target(
        "manifests of the cache",
        (DataError,),
        ("json", "scdrugmap.run.store"),
        lambda: [_dump(_ENTRY)],
        _read_cache,
        tuple(_keys(_ENTRY)),
    ),
    "task": Target(
        "tasks of a benchmark in steps",
        (DataError, UsageError),
        ("json", "scdrugmap.run.tasks"),
        lambda: [_dump(_TASK)],
        _read_task,
        tuple(_keys(_TASK)),
    ),
    "safetensors": Target(
        "headers of safetensors files",
        (WeightsError,),
        ("json", "scdrugmap.modelkit.published"),
        _tensors,
        _read_tensors,
        ("__metadata__", "dtype", "shape", "data_offsets", "F32", "F64", "BF16", "I64", "BOOL"),
    ),
    "splits": Target(
        "splits.tsv",
        (DataError, UsageError),
        ("scdrugmap.tables", "scdrugmap.evaluation.tables"),
        _splits,
        _read_splits,
        ("sensitive", "resistant", "train", "test", "validation", "excluded", "nan", "1e9"),
    ),
    "config": Target(
        "configurations of benchmarks",
        (UsageError, DataError),
        ("ruamel.yaml", "scdrugmap.config"),
        lambda: [_CONFIG.encode()],
        _read_config,
        ("data", "samplesheet", "label", "!!python/object", "!!int", "&a", "*a", "<<", "2020-99-99", "~"),
    ),
    "recipe": Target(
        "recipes of public data",
        (UsageError, DataError),
        ("ruamel.yaml", "scdrugmap.data.recipe"),
        _recipes,
        _read_recipe,
        ("!!python/object/apply", "!!timestamp", "&a", "*a", "<<", "label", "sample"),
    ),
    "zarr": Target(
        "metadata of zarr stores",
        (DataError,),
        ("json", "scdrugmap.data.zarr_store"),
        lambda: [_dump(_ZARRAY), _dump(_ZARR3)],
        _read_zarr,
        (*_keys(_ZARRAY), *_keys(_ZARR3), "pickle", "numcodecs.zlib"),
    ),
    "samplesheet": Target(
        "samplesheets",
        (DataError, UsageError),
        ("csv", "scdrugmap.data.samplesheet"),
        lambda: [text.encode() for text in _SHEETS],
        _read_sheet,
        ("file", "label", "sample", "column", "donor", "study", "dataset", "~", "../", "/dev/null"),
    ),
}  # fmt: skip


def shared_memory() -> Path | None:
    """Return where temporary files cost nothing, or None."""
    folder = Path("/dev/shm")
    return folder if os.access(folder, os.W_OK) else None
