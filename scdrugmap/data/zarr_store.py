"""Open a zarr store (folder or zip, format 2 or 3) for reading, after a look at its metadata.

The metadata of zarr are small JSON files, so looking at them needs no process of its own. It
matters all the same: the pickle codec runs code, and a chunk can declare any size.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scdrugmap.data.unpacking import MOST_BYTES
from scdrugmap.data.zarr_nodes import ZarrGroup, reading_zarr
from scdrugmap.data.zarr_pieces import PACKERS, Packing, StoreFiles, item_size
from scdrugmap.errors import DataError

MAX_CHUNK_BYTES = MOST_BYTES
MAX_DEPTH = 8
MAX_NODES = 100_000
MAX_METADATA_BYTES = 4 << 20

CODECS = frozenset(
    {
        *(*PACKERS, "shuffle", "delta"),
        *("astype", "bitround", "crc32", "crc32c", "fixedscaleoffset", "packbits", "quantize"),
        *("bytes", "endian", "transpose", "sharding_indexed"),
        *("vlen-utf8", "vlen-bytes", "vlen-array", "categorize"),
    }
)
"""Codecs that turn bytes into numbers or text and nothing else."""

_TYPES_OF_CODECS = ("dtype", "astype", "encode_dtype", "decode_dtype")
_AGAIN = "write the store again with a current anndata"
_PACKED = "write the store again with blosc, zstd or gzip"
_READ = ("X", "layers", "raw", "obs", "var")
_ARRAY_FILES = (".zarray", "zarr.json")
_NODE_FILES = (*_ARRAY_FILES, ".zgroup")


def open_zarr(path: Path) -> ZarrGroup:
    """Open a store.

    Raises
    ------
    DataError
        A node is not what it should be: links, codecs, sizes, or JSON that cannot be read.
    """
    import zarr
    from zarr.storage import ZipStore

    root = ""
    if path.is_dir():
        documents = _folder_documents(path)
    else:
        root, documents = _zip_documents(path)
    with reading_zarr(path.name):
        for name, raw in documents:
            _check_node(name, raw, path.name)
        store = str(path) if path.is_dir() else ZipStore(path, mode="r")
        # Consolidated metadata could say something else than the files that were looked at.
        options = {} if zarr.__version__.startswith("2.") else {"use_consolidated": False}
        group = zarr.open_group(store, path=root or None, mode="r", **options)
        return ZarrGroup(group, "", path.name, StoreFiles(path, root))


def _folder_documents(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the metadata of the nodes that are read; chunks are not listed."""
    open_folders = [(path / part, 1) for part in _READ if (path / part).exists()]
    seen = 0
    while open_folders:
        folder, depth = open_folders.pop()
        seen += 1
        inner = folder.relative_to(path).as_posix()
        if depth > MAX_DEPTH or seen > MAX_NODES:
            raise DataError(
                f"{path.name}: groups are nested too deep or too many ({inner[:80]})", hint=_AGAIN
            )
        if folder.is_symlink():
            raise DataError(
                f"{path.name}: {inner} is a symbolic link, which a zarr store must not hold",
                hint="copy the data into the store",
            )
        is_array = False
        for name in _NODE_FILES:
            file = folder / name
            if not file.is_file():
                continue
            if file.is_symlink() or file.stat().st_size > MAX_METADATA_BYTES:
                raise DataError(f"{path.name}: {inner}/{name} is a link, or too large", hint=_AGAIN)
            raw = file.read_bytes()
            yield f"{inner}/{name}", raw
            is_array = is_array or _is_array(name, raw)
        if not is_array:
            open_folders += [(child, depth + 1) for child in folder.iterdir() if child.is_dir()]


def _zip_documents(path: Path) -> tuple[str, Iterator[tuple[str, bytes]]]:
    archive = zipfile.ZipFile(path)
    names = archive.namelist()
    for info in archive.infolist():
        name = info.filename
        if info.file_size > MAX_CHUNK_BYTES:
            archive.close()
            raise DataError(
                f"{path.name}: {name[:80]} unpacks to {info.file_size:,} bytes, more than "
                f"{MAX_CHUNK_BYTES:,}",
                hint="write the store again with smaller chunks",
            )
        if name.startswith("/") or ".." in name.split("/") or "\\" in name:
            archive.close()
            raise DataError(
                f"{path.name} holds a member called {name[:80]!r}, outside of the store",
                hint="make the zip file again",
            )
    roots = [name.rpartition("/") for name in names if name.endswith((".zgroup", "zarr.json"))]
    root = min((folder for folder, _, _ in roots), key=len)
    prefix = f"{root}/" if root else ""

    def documents() -> Iterator[tuple[str, bytes]]:
        with archive:
            for info in archive.infolist():
                inner = info.filename.removeprefix(prefix)
                if inner.rpartition("/")[2] in _NODE_FILES and inner.split("/")[0] in _READ:
                    if info.file_size > MAX_METADATA_BYTES:
                        raise DataError(
                            f"{path.name}: {inner} is too large for metadata", hint=_AGAIN
                        )
                    yield inner, archive.read(info)

    return root, documents()


def _is_array(name: str, raw: bytes) -> bool:
    file = name.rpartition("/")[2]
    return file == ".zarray" or (file == "zarr.json" and b'"array"' in raw)


def _check_node(name: str, raw: bytes, where: str) -> None:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as err:
        raise DataError(f"{where}: {name} is not JSON: {err}", hint="the store is damaged") from err
    if not isinstance(document, dict) or not _is_array(name, raw):
        return
    chunks = document.get("chunks")
    if chunks is None:
        grid = document.get("chunk_grid", {})
        chunks = grid.get("configuration", {}).get("chunk_shape", [])
    kinds = [document.get("dtype", document.get("data_type", "")), *_codec_types(document)]
    size = max(item_size(kind) or 16 for kind in kinds)
    if not all(isinstance(n, int) and n >= 0 for n in chunks) or (
        math.prod(chunks) * size > MAX_CHUNK_BYTES
    ):
        raise DataError(
            f"{where}: {name} declares pieces of {chunks} values, more than "
            f"{MAX_CHUNK_BYTES:,} bytes",
            hint="write the store again with smaller chunks",
        )
    for codec in _codecs(document):
        if codec.removeprefix("numcodecs.") not in CODECS:
            raise DataError(
                f"{where}: {name} uses the codec {codec[:40]!r}, which is not read",
                hint=_PACKED,
            )
    try:
        Packing.of(document)
    except ValueError as err:
        part = name.rpartition("/")[0]
        raise DataError(f"{where}: {part} is stored with {err}", hint=_PACKED) from err


def _codecs(document: dict[str, Any]) -> Iterator[str]:
    for codec in _codec_settings(document):
        yield str(codec.get("id", codec.get("name", "")))


def _codec_types(document: dict[str, Any]) -> Iterator[Any]:
    """Yield the types into which codecs turn values on the way."""
    for codec in _codec_settings(document):
        for settings in (codec, codec.get("configuration")):
            if isinstance(settings, dict):
                yield from (settings[name] for name in _TYPES_OF_CODECS if settings.get(name))


def _codec_settings(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    entries = [document.get("compressor"), *(document.get("filters") or ())]
    entries += document.get("codecs") or ()
    for entry in entries:
        if isinstance(entry, dict):
            yield entry
            inner = entry.get("configuration")
            if isinstance(inner, dict):
                yield from _codec_settings(inner)  # the codecs inside of a shard
