"""How much packed bytes become, found out without holding them.

A packed piece of a file can become a thousand times its size and more; the libraries that read it
unpack it whole before they look. Needs the standard library only, as the process that looks at files
does.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

MOST_BYTES = 256 << 20
"""What a piece may become where nothing says how much it should be."""

MOST_INFLATED = 1_032
"""Bytes that one byte of gzip or zlib can become; zlib's own documentation gives the number."""

UNPACKED_PER_SECOND = 10 << 20
"""Bytes of gzip that any machine unpacks in a second."""

_AT_ONCE = 1 << 20
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_BLOCK = 128 << 10  # RFC 8878, 3.1.1.2.4
_STREAMS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(47),  # gzip or zlib
    "zlib": lambda: zlib.decompressobj(47),
    "bz2": bz2.BZ2Decompressor,
    "lzma": lambda: lzma.LZMADecompressor(memlimit=MOST_BYTES),
}


def most_packed(limit: int) -> int:
    """Return the bytes that a packed piece of `limit` bytes has at most: what does not get smaller."""
    return limit + limit // 64 + 4096


def becomes_more(handle: BinaryIO, n_bytes: int, limit: int, packer: str) -> bool:
    """Tell whether packed bytes become more than `limit` bytes; damage is no answer here.

    Parameters
    ----------
    handle : file
        At the start of the bytes.
    n_bytes : int
    limit : int
    packer : {"blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd"}
        Of these gzip and zlib are unpacked only if they could become more than 256 MB at all.
    """
    if packer == "blosc":
        return int.from_bytes(handle.read(8)[4:8], "little") > limit
    if packer == "lz4":
        return int.from_bytes(handle.read(4), "little") > limit
    if packer == "zstd":
        return _zstd_becomes(handle, n_bytes) > limit
    if packer in ("gzip", "zlib") and n_bytes * MOST_INFLATED <= MOST_BYTES:
        return False
    total = 0
    try:
        for length in _lengths(handle, n_bytes, _STREAMS[packer]):
            total += length
            if total > limit:
                return True
    except lzma.LZMAError as err:
        return "memory" in str(err).lower()
    except (OSError, ValueError, zlib.error):
        return False
    return False


def _lengths(handle: BinaryIO, n_bytes: int, start: Callable[[], Any]) -> Iterator[int]:
    """Unpack streams that follow each other; yield the bytes of each part."""
    left = n_bytes
    unpacker, given = start(), b""
    while True:
        if not given:
            given = handle.read(min(left, _AT_ONCE))
            left -= len(given)
            if not given:
                return
        unpacked = unpacker.decompress(given, _AT_ONCE)
        yield len(unpacked)
        given = getattr(unpacker, "unconsumed_tail", b"")  # of zlib; the others keep it
        while not unpacker.eof and not given and len(unpacked) == _AT_ONCE:
            unpacked = unpacker.decompress(b"", _AT_ONCE)
            yield len(unpacked)
        if unpacker.eof:
            given = unpacker.unused_data
            unpacker = start()


def _zstd_becomes(handle: BinaryIO, n_bytes: int) -> int:
    """Return what zstd says a piece becomes; where it does not, the most that its blocks can."""
    total, place = 0, 0
    while place + 9 <= n_bytes:
        magic = handle.read(4)
        if magic[1:] == b"\x2a\x4d\x18" and magic[0] >> 4 == 5:  # a frame that is skipped
            length = int.from_bytes(handle.read(4), "little")
            handle.seek(length, 1)
            place += 8 + length
            continue
        if magic != _ZSTD_MAGIC:
            break
        form = handle.read(1)[0]
        whole = form >> 5 & 1
        handle.read((1 - whole) + (0, 1, 2, 4)[form & 3])
        width = (whole, 2, 4, 8)[form >> 6]
        said = int.from_bytes(handle.read(width), "little") + (256 if width == 2 else 0)
        if width and not total:
            return said
        place += 5 + (1 - whole) + (0, 1, 2, 4)[form & 3] + width
        last = False
        while not last and place + 3 <= n_bytes:
            head = int.from_bytes(handle.read(3), "little")
            last, kind, size = bool(head & 1), head >> 1 & 3, head >> 3
            stored = 1 if kind == 1 else size
            total += size if kind in (0, 1) else _ZSTD_BLOCK
            handle.seek(stored, 1)
            place += 3 + stored
        place += 4 * (form >> 2 & 1)
        handle.seek(4 * (form >> 2 & 1), 1)
    return total
