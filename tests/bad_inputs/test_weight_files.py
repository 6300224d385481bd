"""Single files of weights: safetensors, arrays, texts and folders; refused before they cost much."""

from __future__ import annotations

import io
import pickle
import shutil
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from scdrugmap import safe_pickle
from scdrugmap.errors import WeightsError
from scdrugmap.modelkit import PublishedFolder
from scdrugmap.modelkit import published_files as files
from tests.bad_inputs.spoiled_weights import (
    CHECKPOINT,
    DEEP_TUPLES,
    Runs,
    header,
    many_tensors,
)

ONE = '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'

BAD_SAFETENSORS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "has 0 bytes and should have more"),
    "no header": (header("", length=500), "has 8 bytes and should have more"),
    "header of 2^63 bytes": (header("{}", length=2**63), "has 10 bytes and should have more"),
    "truncated": (
        header('{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}', b"1234"),
        "bytes and should have",
    ),
    "trailing bytes": (header(ONE + "}", b"12345678"), "bytes and should have"),
    "shape of other bytes": (
        header('{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}', b"1234"),
        "cannot be read",
    ),
    "shape that overflows": (
        header(
            '{"a":{"dtype":"F32","shape":[4294967296,4294967297],"data_offsets":[0,4]}}', b"1234"
        ),
        "cannot be read",
    ),
    "overlapping": (
        header(ONE + ',"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"1234"),
        "cannot be read",
    ),
    "hole": (
        header(ONE + ',"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}', bytes(12)),
        "cannot be read",
    ),
    "key given twice": (
        header(ONE + ',"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"1234"),
        "its header is damaged: 'a' occurs twice",
    ),
    "offset that is infinite": (
        header('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,1e400]}}', b"1234"),
        "its header is damaged",
    ),
    "negative offsets": (
        header('{"a":{"dtype":"F32","shape":[1],"data_offsets":[-8,-4]}}'),
        "bytes and should have",
    ),
    "unknown kind": (
        header('{"a":{"dtype":"PICKLE","shape":[1],"data_offsets":[0,4]}}', b"1234"),
        "cannot be read",
    ),
    "header that is no JSON": (header("{{{"), "its header is damaged"),
    "header that is a list": (header("[1]"), "its header is damaged"),
    "header without offsets": (header('{"a":{}}'), "its header is damaged"),
    "nested header": (header("[" * 100_000), "its header is damaged"),
    "50,001 tensors": (many_tensors(50_001), "names 50,001 tensors; at most 50,000 are read"),
    "300,000 tensors": (many_tensors(300_000), "bytes; at most 16,777,216 are read"),
}


@pytest.mark.parametrize("name", BAD_SAFETENSORS)
def test_bad_safetensors(tmp_path: Path, name: str) -> None:
    content, message = BAD_SAFETENSORS[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    began = time.monotonic()
    with pytest.raises(WeightsError, match=message) as caught:
        files.read_safetensors(path)
    assert time.monotonic() - began < 5
    assert str(path) in caught.value.message
    assert len(caught.value.message) < 1000


def test_limits_of_headers_are_as_promised() -> None:
    assert files.MAX_HEADER_BYTES == 16 * 2**20
    assert files.MAX_TENSORS == 50_000


def test_too_many_tensors_are_refused_before_their_header_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(header(b'{"data_offsets' * 50_001))  # would be no JSON
    with pytest.raises(WeightsError, match="names 50,001 tensors"):
        files.read_safetensors(path)


def array_bytes(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def archive_bytes() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.arange(3))
    return stream.getvalue()


def huge_array() -> bytes:
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4)}\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


BAD_ARRAYS: dict[str, bytes] = {
    "objects": array_bytes(np.array([{}, Runs()], object)),
    "truncated": array_bytes(np.arange(9))[:-8],
    "code in the header": b"\x93NUMPY\x01\x00" + struct.pack("<H", 20) + b"{'descr': __import__",
    "shape that overflows": huge_array(),
    "several arrays": archive_bytes(),
    "empty": b"",
    "web page": b"<html></html>",
    "pickle": pickle.dumps(Runs()),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "table.npy"
    path.write_bytes(BAD_ARRAYS[name])
    with pytest.raises(WeightsError, match="cannot be read as an array"):
        files.read_array(path)
    assert not (tmp_path / "ran").exists()


BAD_PICKLES: dict[str, bytes] = {
    "code": pickle.dumps({"TP53": Runs()}),
    "deep tuples as a key": DEEP_TUPLES,
    "deep tuples by the memo": b"\x80\x04)\x94" + b"h\x00\x85\x94" + b"\x85\x94" * 99 + b".",
    "deep tuples as a type": b"\x80\x02cnumpy\ndtype\n)" + b"\x85" * 100_000 + b"\x85R.",
    "set": pickle.dumps({"genes": {"TP53"}}),
    "frozen set": pickle.dumps({"genes": frozenset({"TP53"})}),
    "a type of a megabyte": b"\x80\x02cnumpy\ndtype\nX\x00\x00\x10\x00" + b"x" * 2**20 + b"\x85R.",
    "memo of gigabytes": b"\x80\x02}r\xff\xff\xff\x7f.",
    "value that is not there": b"\x80\x02\x85.",
}


@pytest.mark.parametrize("name", BAD_PICKLES)
def test_bad_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "names.pkl"
    path.write_bytes(BAD_PICKLES[name])
    with pytest.raises(WeightsError, match="nothing in it was run") as caught:
        safe_pickle.load(path)
    assert len(caught.value.message) < 1000
    assert not (tmp_path / "ran").exists()


def test_tuples_of_usual_depth_are_read() -> None:
    value = ("a", ("b", (1, 2)))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert safe_pickle.loads(pickle.dumps({"x": [value, value]}, protocol))["x"][1] == value


def test_a_huge_text_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 5)
    path = tmp_path / "vocab.json"
    path.write_text('{"a": 1}', "utf-8")
    for read in (files.read_text, files.read_json):
        with pytest.raises(WeightsError, match="has 8 bytes; at most 5 are read"):
            read(path)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "sub/../../outside", "."])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(CHECKPOINT, tmp_path / "checkpoint")
    (tmp_path / "outside").write_text("{}", "utf-8")
    with pytest.raises(WeightsError, match=r"leads out of the folder|is missing"):
        PublishedFolder(folder).json(name)


def test_a_linked_folder_may_be_named(tmp_path: Path) -> None:
    folder = shutil.copytree(CHECKPOINT, tmp_path / "checkpoint")
    (tmp_path / "link").symlink_to(folder)
    (folder / "inside.json").symlink_to(folder / "args.json")
    here = PublishedFolder(tmp_path / "link")
    assert here.json("inside.json") == here.json("args.json")


@pytest.mark.parametrize(("name", "message"), [("gone", "is not there"), ("file", "is no folder")])
def test_a_folder_must_be_one(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(WeightsError, match=message):
        PublishedFolder(tmp_path / name)


def test_tensors_of_torch_before_archives_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.bin"
    state = {"model_state_dict": {"a": torch.arange(4.0)}, "epoch": 3, "losses": [0.5]}
    torch.save(state, path, _use_new_zipfile_serialization=False)
    content = files.read_torch(path)
    assert content["model_state_dict"]["a"].tolist() == [0, 1, 2, 3]
    assert content["epoch"] == 3


def test_tied_tensors_are_no_reason_to_refuse(tmp_path: Path) -> None:
    path = tmp_path / "tied.bin"
    table = torch.ones(1000, 4)
    torch.save({"word": table, "decoder": table}, path)
    assert files.read_torch(path)["decoder"].shape == (1000, 4)
