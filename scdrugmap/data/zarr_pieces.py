"""The pieces in which a zarr store keeps an array, looked at before anything unpacks them.

The library takes a file of any size into memory, unpacks it to any size, and only then finds that
it is not what the metadata say. Here every piece is held against the shape that is declared: by
what its header says, where the format has one, else by unpacking it without keeping it.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from scdrugmap.data.unpacking import MOST_BYTES, becomes_more, most_packed
from scdrugmap.errors import DataError

PACKERS = frozenset({"blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd"})

_PLAIN = frozenset({"bytes", "endian", "transpose", "crc32c", "shuffle"})
"""Codecs that give as many bytes as they take, a checksum aside."""

_TEXTS = frozenset({"vlen-utf8", "vlen-bytes", "vlen-array"})
_MISSING = 2**64 - 1
_BLOSC_HEADER = 16
_CHECKSUM = 4
_DAMAGED = "the store is damaged: write it again, or fetch it again"


class StoreFiles:
    """The files of a store, a folder or a zip file.

    Parameters
    ----------
    path : Path
    root : str
        Where the store lies inside of the zip file.
    """

    def __init__(self, path: Path, root: str = "") -> None:
        self._path = path
        self._root = PurePosixPath(root)
        self._zip = None if path.is_dir() else zipfile.ZipFile(path)

    def close(self) -> None:
        """Close the zip file."""
        if self._zip is not None:
            self._zip.close()

    def document(self, part: str) -> dict[str, Any]:
        """Return the metadata of an array."""
        for name in (".zarray", "zarr.json"):
            try:
                if self._zip is not None:
                    return dict(json.loads(self._zip.read(str(self._root / part / name))))
                return dict(json.loads((self._path / part / name).read_bytes()))
            except (KeyError, FileNotFoundError):
                continue
        raise FileNotFoundError(f"{part} has no metadata")

    def pieces(self, part: str) -> Iterator[tuple[str, int, BinaryIO]]:
        """Yield name, size and content of the files that hold values of an array."""
        if self._zip is None:
            for file in sorted((self._path / part).rglob("*")):
                if not file.name.startswith((".z", "zarr.json")) and file.is_file():
                    with open(file, "rb") as handle:
                        yield file.name, file.stat().st_size, handle
            return
        folder = f"{self._root / part}/"
        for info in self._zip.infolist():
            name = info.filename.rpartition("/")[2]
            if info.filename.startswith(folder) and name and not name.startswith((".z", "zarr.js")):
                with self._zip.open(info) as handle:
                    yield name, info.file_size, handle  # type: ignore[misc]  # it can seek


@dataclass(frozen=True)
class Packing:
    """How the pieces of an array are packed.

    Attributes
    ----------
    packer : str
        Empty: not at all.
    shape : tuple of int
        Of a piece; of those within a shard, if there are shards.
    limit : int
        Bytes that a piece may become.
    checksum : int
        Bytes behind a packed piece.
    texts : bool
        Pieces begin with the number of their texts.
    n_inner : int
        Pieces of a shard; 0: there are no shards.
    index_bytes : int
        Of the index of a shard.
    index_first : bool
    """

    packer: str
    shape: tuple[int, ...]
    limit: int
    checksum: int = 0
    texts: bool = False
    n_inner: int = 0
    index_bytes: int = 0
    index_first: bool = False

    @classmethod
    def of(cls, document: dict[str, Any]) -> Packing:
        """Read the metadata of an array.

        Raises
        ------
        ValueError
            They name a way of packing that cannot be looked through.
        """
        if "chunk_grid" not in document:
            codecs = [*(document.get("filters") or ()), document.get("compressor")]
            named = [_named(codec) for codec in codecs if codec]
            return cls._plain(named, tuple(document["chunks"]), document["dtype"])
        shape = tuple(document["chunk_grid"]["configuration"]["chunk_shape"])
        named = [_named(codec) for codec in document["codecs"]]
        kind = document["data_type"]
        shards = [config for name, config in named if name == "sharding_indexed"]
        if not shards:
            return cls._plain(named, shape, kind)
        index = [_named(codec)[0] for codec in shards[0]["index_codecs"]]
        if len(named) > 1 or index not in (["bytes"], ["bytes", "crc32c"]):
            raise ValueError("shards that are packed as a whole")
        inner = tuple(shards[0]["chunk_shape"])
        n_inner = math.prod(n // m for n, m in zip(shape, inner, strict=True))
        plain = cls._plain([_named(codec) for codec in shards[0]["codecs"]], inner, kind)
        return cls(
            *(plain.packer, inner, plain.limit, plain.checksum, plain.texts, n_inner),
            index_bytes=16 * n_inner + _CHECKSUM * ("crc32c" in index),
            index_first=shards[0].get("index_location") == "start",
        )

    @classmethod
    def _plain(
        cls, named: list[tuple[str, dict[str, Any]]], shape: tuple[int, ...], kind: Any
    ) -> Packing:
        names = [name for name, _ in named]
        packers = [name for name in names if name in PACKERS]
        others = [name for name in names if name not in PACKERS | _PLAIN | {"delta"}]
        texts = [name for name in others if name in _TEXTS]
        if len(packers) > 1 or "sharding_indexed" in names:
            raise ValueError(f"two codecs that pack ({', '.join(names)})")
        if texts and len(others) > 1:
            raise ValueError(f"texts with other codecs ({', '.join(names)})")
        for name, config in named:
            if name == "lzma" and (config.get("format", 1) == 3 or config.get("filters")):
                raise ValueError("lzma without a header")
        place = names.index(packers[0]) if packers else len(names)
        inner, outer = names[:place], names[place + 1 :]
        limit, size = MOST_BYTES, item_size(kind)
        if size and not others and "delta" not in names:
            limit = math.prod(shape) * size + _CHECKSUM * inner.count("crc32c")
        checksum = _CHECKSUM * outer.count("crc32c")
        return cls("".join(packers), shape, limit, checksum, bool(texts))


def check_pieces(files: StoreFiles, part: str, where: str) -> None:
    """Refuse pieces that would take more memory than their array declares for them.

    Parameters
    ----------
    files : StoreFiles
    part, where : str
        Path of the array in the store, and the store, for messages.

    Raises
    ------
    DataError
        A piece is larger, or unpacks to more, than its shape; or is cut, where the library would
        read on behind its end.
    """
    packing = Packing.of(files.document(part))
    for name, size, handle in files.pieces(part):
        spans = [(0, size)] if not packing.n_inner else _spans(packing, size, handle)
        for offset, n_bytes in spans:
            problem = _problem(packing, handle, offset, n_bytes)
            if problem:
                raise DataError(
                    f"{where}: {part} cannot be read: piece {name} {problem}", hint=_DAMAGED
                )


def _spans(packing: Packing, size: int, handle: BinaryIO) -> Iterator[tuple[int, int]]:
    """Return where the pieces of a shard lie; an index that is cut is left to the library."""
    handle.seek(0 if packing.index_first else max(0, size - packing.index_bytes))
    index = handle.read(16 * packing.n_inner)
    places = np.frombuffer(index[: len(index) // 16 * 16], "<u8").reshape(-1, 2).tolist()
    return ((at, length) for at, length in places if at != _MISSING)


def _problem(packing: Packing, handle: BinaryIO, offset: int, n_bytes: int) -> str:
    """Say what is wrong with a piece; empty: nothing."""
    most = most_packed(packing.limit) if packing.packer else packing.limit
    if n_bytes > most + packing.checksum:
        return f"has {n_bytes:,} bytes, expected {packing.limit:,} at most"
    packed = n_bytes - packing.checksum
    handle.seek(offset)
    if packing.packer == "blosc":  # numcodecs reads on behind the end of a piece that is cut
        head = handle.read(_BLOSC_HEADER)
        said = int.from_bytes(head[12:16], "little")  # size of the packed bytes with the header
        if len(head) < _BLOSC_HEADER or said != packed:
            return f"has {n_bytes:,} bytes, expected {said:,}"
        handle.seek(offset)
    if packing.packer and becomes_more(handle, packed, packing.limit, packing.packer):
        return f"unpacks to more than {packing.limit:,} bytes"
    if packing.texts:
        handle.seek(offset)
        n_texts = _number_of_texts(packing, handle.read(packed))
        if n_texts > math.prod(packing.shape):
            return f"announces {n_texts:,} texts, expected {math.prod(packing.shape):,}"
    return ""


def _number_of_texts(packing: Packing, raw: bytes) -> int:
    """Return how many texts a piece announces, for which the library makes room at once."""
    if packing.packer:
        import numcodecs

        raw = bytes(numcodecs.get_codec({"id": packing.packer}).decode(raw))
    return int.from_bytes(raw[:4], "little")


def _named(codec: Any) -> tuple[str, dict[str, Any]]:
    """Return name and settings of a codec, as either format writes it."""
    if not isinstance(codec, dict):
        raise ValueError(f"the codec {str(codec)[:40]!r}")
    name = str(codec.get("id", codec.get("name", ""))).removeprefix("numcodecs.")
    return name, codec.get("configuration") or codec


def item_size(kind: Any) -> int:
    """Return the bytes of a value of a type as the metadata name it; 0: that is not known."""
    try:
        return int(np.dtype(kind).itemsize)
    except (SyntaxError, TypeError, ValueError):  # of commas, NumPy's parser raises the first
        return 0
