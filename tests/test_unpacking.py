"""How much packed bytes become is found out without holding them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tracemalloc
import zlib
from collections.abc import Callable

import numcodecs
import numpy as np
import pytest

from scdrugmap.data.unpacking import MOST_BYTES, becomes_more, most_packed

LARGE = 300 << 20
"""Zeros of which gzip makes more bytes than could never become too many."""


@pytest.fixture(scope="module")
def zeros() -> bytes:
    """So many zeros as a zlib stream, made a part at a time."""
    packer = zlib.compressobj(1)
    part = bytes(1 << 20)
    parts = [packer.compress(part) for _ in range(LARGE >> 20)]
    return b"".join([*parts, packer.flush()])


def more(raw: bytes, limit: int, packer: str) -> bool:
    return becomes_more(io.BytesIO(raw), len(raw), limit, packer)


def test_large_piece_of_gzip_is_unpacked_without_being_held(zeros: bytes) -> None:
    tracemalloc.start()
    try:
        assert more(zeros, LARGE - 1, "zlib")
        assert not more(zeros, LARGE, "zlib")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_streams_of_gzip_that_follow_each_other_count_together(zeros: bytes) -> None:
    assert not more(zeros, LARGE, "gzip")
    assert more(zeros + gzip.compress(b"x", mtime=0), LARGE, "gzip")


def test_piece_of_gzip_that_cannot_become_too_large_is_left_to_the_library() -> None:
    assert not more(gzip.compress(bytes(1 << 20)), 1, "gzip")


@pytest.mark.parametrize(
    ("packer", "pack"),
    [
        ("bz2", bz2.compress),
        ("lzma", lzma.compress),
        *((name, numcodecs.get_codec({"id": name}).encode) for name in ("lz4", "zstd", "blosc")),
    ],
)
def test_bound_is_exact(packer: str, pack: Callable[[bytes], bytes]) -> None:
    raw = bytes(pack(bytes(3 << 20)))
    assert more(raw, (3 << 20) - 1, packer)
    assert not more(raw, 3 << 20, packer)


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_streams_that_follow_each_other(pack: Callable[[bytes], bytes]) -> None:
    packer = "bz2" if pack is bz2.compress else "lzma"
    raw = pack(bytes(2 << 20)) + pack(bytes(3))
    assert more(raw, 2 << 20, packer)
    assert not more(raw, (2 << 20) + 3, packer)


def frame(form: int, window: bytes, blocks: int, *, checksum: bytes = b"") -> bytes:
    """Return a frame of zstd that does not say what it becomes: blocks of 128 kB of one byte."""
    head = b"\x28\xb5\x2f\xfd" + bytes([form]) + window
    block = ((128 << 10) << 3 | 1 << 1).to_bytes(3, "little") + b"a"
    last = (1 | 5 << 3).to_bytes(3, "little") + b"bcdef"
    return head + block * blocks + last + checksum


SKIPPED = b"\x50\x2a\x4d\x18" + (7).to_bytes(4, "little") + b"unknown"


@pytest.mark.parametrize(
    ("raw", "size"),
    [
        (frame(0, b"\x70", 100), (100 << 17) + 5),
        (frame(0, b"\x70", 2) + frame(0, b"\x70", 3), (5 << 17) + 10),
        (frame(4, b"\x70", 2, checksum=b"1234") + frame(0, b"\x70", 1), (3 << 17) + 10),
        (SKIPPED + frame(0, b"\x70", 1), (1 << 17) + 5),
    ],
)
def test_zstd_that_does_not_say_what_it_becomes_is_counted_by_blocks(raw: bytes, size: int) -> None:
    assert more(raw, size - 1, "zstd")
    assert not more(raw, size, "zstd")


def test_the_frame_above_is_one_that_the_library_reads() -> None:
    found = bytes(numcodecs.Zstd().decode(frame(0, b"\x70", 3)))
    assert found == b"a" * (3 << 17) + b"bcdef"


@pytest.mark.parametrize("packer", ["bz2", "lzma", "zstd", "lz4", "blosc"])
@pytest.mark.parametrize(
    "raw", [b"", b"\0", b"nothing of the kind", b"\x28\xb5\x2f\xfd\x00\x70abcd"]
)
def test_damage_is_no_answer(packer: str, raw: bytes) -> None:
    assert not more(raw, 1 << 40, packer)


def test_damaged_gzip_is_no_answer(zeros: bytes) -> None:
    assert not more(b"xx" + zeros, LARGE - 1, "gzip")
    assert not more(zeros[:-2000], LARGE, "zlib")


def test_lzma_that_asks_for_too_much_memory_counts_as_more() -> None:
    raw = bytearray(lzma.compress(b"a", lzma.FORMAT_ALONE))
    raw[1:5] = (2 * MOST_BYTES).to_bytes(4, "little")
    assert more(bytes(raw), 1 << 40, "lzma")


def test_what_does_not_get_smaller_is_no_bomb() -> None:
    noise = np.random.default_rng(0).bytes(1 << 20)
    for packer in ("gzip", "zlib", "bz2", "lzma", "lz4", "zstd", "blosc"):
        packed = numcodecs.get_codec({"id": packer}).encode(noise)
        assert len(packed) <= most_packed(len(noise)), packer
