"""Ways to spoil folders and files of weights, each a function or the bytes themselves."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

CHECKPOINT = Path(__file__).parents[2] / "plugins/scgpt/tests/golden/checkpoint"
TENSORS = "best_model.pt"

Spoil = Callable[[Path], None]


class Runs:
    """Creates the file `ran` in the working folder when it is unpickled the usual way."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


def tensors_of(folder: Path) -> dict[str, Any]:
    return dict(torch.load(folder / TENSORS, weights_only=True))


def saved(change: Callable[[dict[str, Any]], Any]) -> Spoil:
    return lambda folder: torch.save(change(tensors_of(folder)), folder / TENSORS)


def replaced(**tensors: Any) -> Spoil:
    by_key = {key.replace("__", "."): tensor for key, tensor in tensors.items()}
    return saved(lambda old: {**old, **by_key})


def spoilt_value(value: float, kind: torch.dtype = torch.float32) -> Spoil:
    def change(tensors: dict[str, Any]) -> dict[str, Any]:
        key = "value_encoder.linear2.weight"
        tensors[key] = tensors[key].to(kind)
        tensors[key][3, 4] = value
        return tensors

    return saved(change)


def further_trained(folder: Path) -> None:
    """Make other weights of the same shapes."""
    saved(lambda old: {**old, "value_encoder.norm.bias": old["value_encoder.norm.bias"] + 1})(
        folder
    )


def written(name: str, content: bytes | str) -> Spoil:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data) and None


def cut(name: str, keep: float) -> Spoil:
    def spoil(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * keep)])

    return spoil


def changed_json(name: str, change: Callable[[dict[str, Any]], Any]) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(change(json.loads(path.read_text("utf-8")))), "utf-8")

    return spoil


def whole_model(folder: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), folder / TENSORS)


def _members(folder: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(folder / TENSORS) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _pack(folder: Path, members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(folder / TENSORS, "w", how) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def compressed(folder: Path) -> None:
    _pack(folder, _members(folder), zipfile.ZIP_DEFLATED)


def zip_bomb(folder: Path) -> None:
    """A megabyte that unpacks to a gigabyte."""
    path = folder / TENSORS
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (("archive/data.pkl", pickle.dumps({}, 2)), ("archive/version", b"3\n")):
            archive.writestr(name, data)
        with archive.open("archive/data/0", "w") as member:
            for _ in range(1024):
                member.write(bytes(2**20))


def with_pickle(content: bytes) -> Spoil:
    """Replace the pickle in the archive of tensors."""

    def spoil(folder: Path) -> None:
        members = _members(folder)
        _pack(
            folder,
            {k: content if k.endswith("data.pkl") else v for k, v in members.items()},
        )

    return spoil


# What ends the process if it is hashed: a million tuples within each other, as a key.
DEEP_TUPLES = b"\x80\x02})" + b"\x85" * 1_000_000 + b"Ns."
DEEP_LISTS = b"\x80\x02" + b"]" * 5_000 + b"a" * 4_999 + b"."


def legacy_deep_tuples(folder: Path) -> None:
    """The same in the format that torch wrote before it wrote archives."""
    torch.save({"a": torch.ones(1)}, folder / TENSORS, _use_new_zipfile_serialization=False)
    data = (folder / TENSORS).read_bytes()
    head = data[: data.index(b"\x80\x02}q\x00X\x01")]  # magic number, protocol, system
    (folder / TENSORS).write_bytes(head + DEEP_TUPLES)


def flipped_header(folder: Path) -> None:
    data = bytearray((folder / TENSORS).read_bytes())
    for place in range(200):
        data[place] ^= 0xFF
    (folder / TENSORS).write_bytes(data)


def flipped_bit(path: Path, place: int = -3) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def link_out(name: str) -> Spoil:
    """Move a file out of the folder, as if it were another user's, and link to it."""

    def spoil(folder: Path) -> None:
        outside = folder.parent / "other_user"
        outside.mkdir()
        (folder / name).rename(outside / name)
        (folder / name).symlink_to(outside / name)

    return spoil


def twin(name: str, other: str) -> Spoil:
    return lambda folder: shutil.copy(folder / name, folder / other) and None


def pipe(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return spoil


def header(text: str | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file of this header."""
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def many_tensors(n: int) -> bytes:
    """A safetensors file of empty tensors."""
    entry = '"{}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    return header("{" + ",".join(entry.format(number) for number in range(n)) + "}")
