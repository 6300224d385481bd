"""Weights that are damaged, hostile or of something else: one line that says what and where.

Every case goes through the command line: exit code 4, no traceback, nothing run, nothing written.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from scdrugmap.errors import WeightsError
from scdrugmap.modelkit import PublishedFolder
from scdrugmap.modelkit import published_files as published
from scdrugmap.modelkit.published_files import (
    read_array,
    read_json,
    read_safetensors,
    read_text,
    read_torch,
)
from scdrugmap.weights import import_weights
from scdrugmap_plugin_scgpt import SPEC

CHECKPOINT = Path(__file__).parents[2] / "plugins/scgpt/tests/golden/checkpoint"
TENSORS = "best_model.pt"

Spoil = Callable[[Path], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(CHECKPOINT, tmp_path / "checkpoint")


def tensors_of(folder: Path) -> dict[str, Any]:
    return torch.load(folder / TENSORS, weights_only=True)


def saved(change: Callable[[dict[str, Any]], Any]) -> Spoil:
    return lambda folder: torch.save(change(tensors_of(folder)), folder / TENSORS)


def replaced(**tensors: Any) -> Spoil:
    by_key = {key.replace("__", "."): tensor for key, tensor in tensors.items()}
    return saved(lambda old: {**old, **by_key})


def written(name: str, content: bytes | str) -> Spoil:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data) and None


def cut(name: str, keep: float) -> Spoil:
    def spoil(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * keep)])

    return spoil


def vocabulary(change: Callable[[dict[str, int]], Any]) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / "vocab.json"
        path.write_text(json.dumps(change(json.loads(path.read_text("utf-8")))), "utf-8")

    return spoil


class Runs:
    """Creates the file `ran` in the working folder when it is unpickled the usual way."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


def whole_model(folder: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), folder / TENSORS)


def compressed(folder: Path) -> None:
    with zipfile.ZipFile(folder / TENSORS) as old:
        content = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(folder / TENSORS, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in content.items():
            new.writestr(name, data)


def flipped_header(folder: Path) -> None:
    data = bytearray((folder / TENSORS).read_bytes())
    for place in range(200):
        data[place] ^= 0xFF
    (folder / TENSORS).write_bytes(data)


def link_out(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        outside = folder.parent / "outside"
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return spoil


def spoilt_value(value: float) -> Spoil:
    def change(tensors: dict[str, Any]) -> dict[str, Any]:
        tensors["value_encoder.linear2.weight"][3, 4] = value
        return tensors

    return saved(change)


CASES: dict[str, tuple[Spoil, str]] = {
    "missing file": (lambda folder: (folder / TENSORS).unlink(), "best_model.pt is missing"),
    "missing key": (
        saved(lambda old: {k: v for k, v in old.items() if k != "encoder.enc_norm.weight"}),
        "1 tensors are missing: gene_encoder.norm.weight",
    ),
    "extra key": (replaced(surprise__weight=torch.ones(2)), "this model: surprise.weight"),
    "wrong shape": (
        replaced(value_encoder__norm__weight=torch.ones(31)),
        "value_encoder.norm.weight is (31,), expected (32,)",
    ),
    "fused rows that are no three parts": (
        saved(
            lambda old: {
                **old,
                "transformer_encoder.layers.0.self_attn.Wqkv.bias": torch.ones(95),
            }
        ),
        "has 95 rows, not 3 equal parts",
    ),
    "integers": (
        replaced(value_encoder__norm__weight=torch.ones(32, dtype=torch.int32)),
        "value_encoder.norm.weight is torch.int32, expected torch.float32",
    ),
    "not a tensor": (replaced(value_encoder__norm__weight=3), "is a int, not a tensor"),
    "NaN": (spoilt_value(np.nan), "value_encoder.linear2.weight holds NaN"),
    "infinite": (spoilt_value(np.inf), "value_encoder.linear2.weight holds NaN or infinite"),
    "pickle payload": (
        saved(lambda old: {**old, "encoder.enc_norm.weight": Runs()}),
        "nothing in it was run",
    ),
    "old pickle payload": (
        lambda folder: (folder / TENSORS).write_bytes(pickle.dumps(Runs())) and None,
        "nothing in it was run",
    ),
    "whole saved model": (whole_model, "holds more than tensors"),
    "expanded tensor": (
        replaced(encoder__enc_norm__weight=torch.zeros(1).expand(10**9)),
        "encoder.enc_norm.weight claims 4,000,000,000 bytes, 4 are stored",
    ),
    "many views of one tensor": (
        saved(lambda old: {f"{n}": old["encoder.embedding.weight"] for n in range(100)}),
        "its tensors claim",
    ),
    "sparse tensor": (
        replaced(encoder__enc_norm__weight=torch.ones(32).to_sparse()),
        "encoder.enc_norm.weight is no plain tensor",
    ),
    "tensor without values": (
        replaced(encoder__enc_norm__weight=torch.empty(32, device="meta")),
        "encoder.enc_norm.weight is no plain tensor",
    ),
    "list of tensors": (saved(lambda old: list(old.values())), "holds a list, not tensors"),
    "compressed archive": (compressed, "is a compressed archive"),
    "truncated": (cut(TENSORS, 0.5), "best_model.pt"),
    "half a header": (cut(TENSORS, 0.0001), "best_model.pt"),
    "damaged header": (flipped_header, "best_model.pt"),
    "empty": (written(TENSORS, b""), "best_model.pt cannot be read (0 bytes)"),
    "web page": (written(TENSORS, "<html>sign in</html>"), "best_model.pt"),
    "link out of the folder": (link_out(TENSORS), "best_model.pt leads out of the folder"),
    "vocabulary of another length": (
        vocabulary(lambda old: {**old, "ONE": len(old)}),
        "has 357 rows, but vocab.json makes 358 tokens",
    ),
    "vocabulary with a gap": (
        vocabulary(lambda old: {k: v + (v > 5) for k, v in old.items()}),
        "the token ids are not 0 to 356, each once",
    ),
    "vocabulary that names a gene twice": (
        written("vocab.json", '{"TP53": 0, "TP53": 1}'),
        "vocab.json is no proper JSON: 'TP53' occurs twice",
    ),
    "vocabulary cut off": (cut("vocab.json", 0.7), "vocab.json is no proper JSON"),
    "vocabulary of bytes": (written("vocab.json", b"\xff\xfe{}"), "vocab.json is no UTF-8 text"),
    "deeply nested": (written("vocab.json", "[" * 200_000), "vocab.json is no proper JSON"),
    "sizes that are no numbers": (
        written("args.json", '{"embsize": NaN}'),
        "args.json is no proper JSON: NaN is no JSON number",
    ),
    "link of the vocabulary": (link_out("vocab.json"), "vocab.json leads out of the folder"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_published_weights(
    cli: Callable[..., Any],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    spoil, message = CASES[name]
    spoil(folder)
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "imported"
    for verb in (("verify", "scgpt", folder), ("import", "scgpt", folder, "-o", output)):
        done = cli("weights", *verb)
        assert done.code == 4, done.err
        assert message in done.err
        assert done.err.startswith("Error: ")
        assert "Traceback" not in done.err
        assert len(done.err.splitlines()) <= 2
        assert done.out == ""
        assert not output.exists()
        assert not (tmp_path / "ran").exists()


def test_the_payload_would_have_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Runs()))
    assert (tmp_path / "ran").exists()


def header(text: str | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def many_tensors(n: int) -> bytes:
    entry = '"{}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    return header("{" + ",".join(entry.format(number) for number in range(n)) + "}")


BAD_SAFETENSORS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "has 0 bytes and should have more"),
    "no header": (header("", length=500), "has 8 bytes and should have more"),
    "truncated": (
        header('{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}', b"1234"),
        "and should have",
    ),
    "trailing bytes": (
        header('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"12345678"),
        "and should have",
    ),
    "shape of other bytes": (
        header('{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}', b"1234"),
        "cannot be read",
    ),
    "overlapping": (
        header(
            '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
            '"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            b"1234",
        ),
        "cannot be read",
    ),
    "header that is no JSON": (header("{{{"), "its header is damaged"),
    "header that is a list": (header("[1]"), "its header is damaged"),
    "header without offsets": (header('{"a":{}}'), "its header is damaged"),
    "nested header": (header("[" * 100_000), "its header is damaged"),
    "too many tensors": (many_tensors(50_001), "names 50,001 tensors; at most 50,000 are read"),
}


@pytest.mark.parametrize("name", BAD_SAFETENSORS)
def test_bad_safetensors(tmp_path: Path, name: str) -> None:
    content, message = BAD_SAFETENSORS[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        read_safetensors(path)
    assert str(path) in caught.value.message


def test_a_large_safetensors_header_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert published.MAX_HEADER_BYTES == 16 * 2**20
    monkeypatch.setattr(published, "MAX_HEADER_BYTES", 100)
    path = tmp_path / "model.safetensors"
    path.write_bytes(header("x" * 101))
    with pytest.raises(WeightsError, match="its header has 101 bytes; at most 100 are read"):
        read_safetensors(path)


def test_a_truncated_import_is_refused(cli: Callable[..., Any], tmp_path: Path) -> None:
    target = import_weights(SPEC, CHECKPOINT, output=tmp_path / "imported")
    path = target / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    done = cli("weights", "verify", "scgpt", target)
    assert done.code == 4
    assert "model.safetensors is not the file that was imported" in done.err
    assert "import the weights again" in done.err


def test_tensors_of_another_import_are_refused(cli: Callable[..., Any], tmp_path: Path) -> None:
    target = import_weights(SPEC, CHECKPOINT, output=tmp_path / "imported")
    path = target / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    tensors["value_encoder.norm.bias"] += 1
    save_file(tensors, path)
    done = cli("weights", "verify", "scgpt", target)
    assert done.code == 4
    assert "expected" in done.err


def array_bytes(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        array_bytes(np.array([{}, Runs()], object)),
        array_bytes(np.arange(9))[:-8],
        b"\x93NUMPY\x01\x00" + struct.pack("<H", 20) + b"{'descr': __import__",
        b"",
        b"<html></html>",
        pickle.dumps(Runs()),
    ],
    ids=["objects", "truncated", "code", "empty", "web page", "pickle"],
)
def test_bad_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "table.npy"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read as an array"):
        read_array(path)
    assert not (tmp_path / "ran").exists()


def test_a_huge_text_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "MAX_JSON_BYTES", 5)
    path = tmp_path / "vocab.json"
    path.write_text('{"a": 1}', "utf-8")
    for read in (read_text, read_json):
        with pytest.raises(WeightsError, match="has 8 bytes; at most 5 are read"):
            read(path)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "sub/../../outside", "."])
def test_nothing_outside_the_folder_is_opened(folder: Path, name: str) -> None:
    (folder.parent / "outside").write_text("{}", "utf-8")
    with pytest.raises(WeightsError, match=r"leads out of the folder|is missing"):
        PublishedFolder(folder).json(name)


def test_a_linked_folder_may_be_named(folder: Path, tmp_path: Path) -> None:
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
    content = read_torch(path)
    assert content["model_state_dict"]["a"].tolist() == [0, 1, 2, 3]
    assert content["epoch"] == 3


def test_tied_tensors_are_no_reason_to_refuse(tmp_path: Path) -> None:
    path = tmp_path / "tied.bin"
    table = torch.ones(1000, 4)
    torch.save({"word": table, "decoder": table}, path)
    assert read_torch(path)["decoder"].shape == (1000, 4)


def test_code_never_asks_torch_or_numpy_to_unpickle() -> None:
    import ast

    root = Path(__file__).parents[2]
    files = [*(root / "scdrugmap").rglob("*.py"), *(root / "plugins").glob("*/scdrugmap_*/**/*.py")]
    assert len(files) > 50
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if name == "torch.load":
                assert given.get("weights_only") == "True", file
            assert given.get("allow_pickle", "False") == "False", file
            assert name not in ("pickle.load", "pickle.loads", "joblib.load", "np.memmap"), file
