"""Files that point elsewhere or ask for too much: cases 15 to 28.

All are refused by their metadata alone, fast and in little memory, and nothing of another file
appears anywhere.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t

from scdrugmap.data import inspect
from scdrugmap.data.inspect import scan
from scdrugmap.errors import DataError

SECRET = "TOPSECRET"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A file with a secret, which nothing may leak."""
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["X"] = np.full((20, 30), 42.0)
        file["secret"] = np.array([SECRET] * 20, dtype="S")
    return path


@pytest.mark.case(15, "O7")
def test_external_link_as_matrix(refused, make, path, other):
    with make.edit(path) as file:
        del file["X"]
        file["X"] = h5py.ExternalLink(str(other), "/X")
    error = refused(path, DataError, "X is an external link", "write the file again")
    assert SECRET not in str(error)


@pytest.mark.case(16)
def test_external_link_as_column_of_obs(refused, make, path, other):
    with make.edit(path) as file:
        file["obs/secret"] = h5py.ExternalLink(str(other), "/secret")
    refused(path, DataError, "obs/secret is an external link", "write the file again")


@pytest.mark.case(17, "O8")
def test_external_storage(refused, make, path, tmp_path):
    text = tmp_path / "secret.txt"
    text.write_text(SECRET * 100)
    with make.edit(path) as file:
        file.create_dataset("obsm/text", (100,), "u1", external=[(str(text), 0, 100)])
    refused(path, DataError, "obsm/text has external storage", "write the file again")


@pytest.mark.case(18, "O9")
def test_virtual_dataset(refused, make, path, other):
    with make.edit(path) as file:
        del file["X"]
        layout = h5py.VirtualLayout((20, 30), "f8")
        layout[:] = h5py.VirtualSource(str(other), "X", (20, 30))
        file.create_virtual_dataset("X", layout)
    refused(path, DataError, "X is a virtual dataset", "write the file again")


@pytest.mark.case(19)
def test_soft_link_out_of_the_file(refused, make, path, other):
    with make.edit(path) as file:
        file["uns/door"] = h5py.ExternalLink(str(other), "/")
        file["obs/secret"] = h5py.SoftLink("/uns/door/secret")
    refused(path, DataError, "uns/door is an external link", "write the file again")


def test_soft_link_to_nothing(refused, make, path):
    with make.edit(path) as file:
        file["obs/secret"] = h5py.SoftLink("/uns/nowhere")
    refused(path, DataError, "obs/secret is a soft link to /uns/nowhere", "write the file again")


def test_soft_link_inside_the_file_is_read(read, make, path):
    with make.edit(path) as file:
        file.move("X", "uns/matrix")
        file["X"] = h5py.SoftLink("uns/./matrix")
    _, values = read(path)
    assert np.array_equal(values, make.counts())


@pytest.mark.parametrize("target", ["/uns/a", "b", "/uns/b", "/"])
@pytest.mark.case(20, "O14")
def test_soft_links_in_a_circle(refused, make, path, target):
    with make.edit(path) as file:
        file["uns/a"] = h5py.SoftLink(target)
        file["uns/b"] = h5py.SoftLink("a")
    refused(path, DataError, "a circle", "write the file again")


@pytest.mark.case(21, "O13")
def test_hard_links_in_a_circle(refused, make, path):
    with make.edit(path) as file:
        file["uns/loop"] = file["uns"]
    refused(path, DataError, "uns/loop loops back to uns", "write the file again")


def test_group_under_two_names(refused, make, path):
    with make.edit(path) as file:
        file["uns/copy"] = file["obs"]
    refused(path, DataError, "one group under two names", "write the file again")


@pytest.mark.case(22)
def test_groups_nested_too_deep(refused, make, path):
    with make.edit(path) as file:
        file.create_group("uns/" + "/".join("abcdefgh"))
    refused(path, DataError, "nested deeper than 8", "write the file again")


@pytest.mark.case("O15")
def test_thousands_of_nested_groups(refused, make, path):
    with make.edit(path) as file:
        group = file["uns"]
        for _ in range(3000):
            group = group.create_group("a")
    refused(path, DataError, "nested deeper than 8", "write the file again")


@pytest.mark.case(23)
def test_too_many_objects(refused, make, path):
    with make.edit(path) as file:
        group = file["uns"]
        for number in range(100_001):
            group.id.links.create_soft(b"%d" % number, b"/X")
    refused(path, DataError, "more than 100,000 objects", "write the file again")


@pytest.mark.case(24, "O11")
def test_dense_matrix_that_declares_more_than_it_stores(refused, make, path):
    with make.edit(path) as file:
        del file["X"]
        file.create_dataset("X", (20, 2_000_000_000), "f4", chunks=(1, 100_000))
    refused(path, DataError, "X declares 160,000,000,000 bytes", "write the file again")


def test_dimension_beyond_all_measure(refused, make, path):
    with make.edit(path) as file:
        del file["X"]
        file.create_dataset("X", (20, 1 << 41), "f4", chunks=(1, 100_000))
    refused(path, DataError, "declares a dimension of 2,199,023,255,552", "write the file again")


def write_piece(
    file: h5py.File, name: str, raw: bytes, shape: tuple[int, ...], **how: object
) -> None:
    """Put packed bytes in the place of all values of a dataset, in one piece."""
    dtype = file[name].dtype
    del file[name]
    made = file.create_dataset(name, shape, dtype, chunks=shape, **{"compression": "gzip", **how})
    made.id.write_direct_chunk((0,) * len(shape), raw)


def test_piece_larger_than_what_it_stands_for(refused, make, path):
    """gzip of 8 MB of zeros in the place of some hundred bytes; HDF5 unpacks it all."""
    with make.edit(path) as file:
        write_piece(file, "X/data", zlib.compress(bytes(8 << 20)), file["X/data"].shape)
    refused(path, DataError, "X/data has a piece of 8,163 bytes, expected", "fetch it again")


@pytest.mark.parametrize("userblock", [0, 512])
def test_piece_that_unpacks_to_much_more_than_it_stands_for(refused, make, userblock):
    """300 MB of zeros in 300 kB, where 1 MB is declared; the limit of the child would allow it."""
    packer = zlib.compressobj(6)
    zeros = bytes(1 << 20)
    raw = b"".join([*(packer.compress(zeros) for _ in range(300)), packer.flush()])
    path = make.folder / "bomb.h5ad"
    with h5py.File(make.h5ad()) as old, h5py.File(path, "w", userblock_size=userblock) as file:
        for name in old:
            old.copy(name, file)
        write_piece(file, "X/data", raw, (1 << 18,))
    refused(path, DataError, "X/data has a piece that unpacks to more than", "write the file again")


def test_large_piece_that_is_what_it_says_is_read(read, make, path):
    """Of these values gzip makes more than 254 kB in one piece, which are unpacked to look."""
    counts = np.random.default_rng(0).integers(1, 1 << 12, (1000, 300)).astype(np.float32)
    with make.edit(make.h5ad(counts=counts)) as file:
        del file["X"]
        file.create_dataset("X", data=counts, chunks=counts.shape, compression="gzip")
        assert file["X"].id.get_storage_size() > 254_000
    assert np.array_equal(read(path)[1], counts)


def test_piece_that_is_packed_twice(refused, make, path):
    with make.edit(path) as file:
        plist = h5p.create(h5p.DATASET_CREATE)
        plist.set_chunk((10,))
        plist.set_deflate(1)
        plist.set_filter(32000, 1, (4, 261, 40))
        space = h5s.create_simple((20,))
        odd = h5d.create(file["obs"].id, b"odd", h5t.NATIVE_FLOAT, space, plist)
        odd.write(h5s.ALL, h5s.ALL, np.zeros(20, "f4"))
    refused(path, DataError, "obs/odd is packed twice", "fetch it again")


def test_lzf_that_asks_for_gigabytes(refused, make, path):
    with make.edit(path) as file:
        made = file.create_dataset("obs/odd", (20,), "f4", chunks=(20,), compression="lzf")
        assert made.id.get_create_plist().get_filter(0)[2][2] == 80
    raw = bytearray(path.read_bytes())
    values = struct.pack("<III", 4, 261, 80)
    at = raw.index(values)
    raw[at + 8 : at + 12] = struct.pack("<I", 0xF0000000)
    path.write_bytes(raw)
    refused(path, DataError, "obs/odd asks for more memory than its pieces can need", "write")


@pytest.mark.case("O12")
def test_sparse_matrix_that_declares_too_many_columns(refused, make, path):
    with make.edit(path) as file:
        file["X"].attrs["shape"] = np.array([20, 1 << 40])
    refused(path, DataError, "X is 20 x 1,099,511,627,776, but", "damaged")


@pytest.mark.parametrize("name", ["X/indptr", "obs/_index", "var/_index", "obs/column"])
def test_table_that_declares_more_than_it_stores(refused, make, path, name):
    with make.edit(path) as file:
        if name in file:
            del file[name]
        file.create_dataset(name, (1 << 34,), "i8", chunks=(1 << 16,))
    refused(path, DataError, f"{name} declares 137,438,953,472 bytes", "write the file again")


def test_pieces_too_large_to_hold(refused, make, path):
    with make.edit(path) as file:
        del file["X"]
        file.create_dataset("X", (20, 30), "f4", chunks=(1 << 14, 1 << 14), maxshape=(None, None))
    refused(path, DataError, "X is stored in pieces of 1,073,741,824 bytes", "write the file")


@pytest.mark.case(25, "O10")
def test_huge_array_in_uns_is_skipped_with_a_notice(read, make, path):
    with make.edit(path) as file:
        file.create_dataset("uns/huge", (3 << 30,), "u1", chunks=(1 << 20,), compression="gzip")
    cells, values = read(path)
    assert np.array_equal(values, make.counts())
    notice = "cells.h5ad: uns/huge declares 3,221,225,472 bytes and is not read"
    assert notice in cells.notices


@pytest.mark.case(26, "O19")
def test_unknown_filter(refused, make, path):
    with make.edit(path) as file:
        plist = h5p.create(h5p.DATASET_CREATE)
        plist.set_chunk((10,))
        plist.set_filter(31_999, 1, ())  # 1: optional, so HDF5 would store and read without it
        space = h5s.create_simple((10,))
        h5d.create(file["uns"].id, b"odd", h5t.NATIVE_FLOAT, space, plist)
    refused(path, DataError, "uns/odd is stored with the unknown filter 31999", "gzip")


def _references(file: h5py.File) -> None:
    file.create_dataset("uns/odd", data=file["X"].ref, dtype=h5py.ref_dtype)


def _regions(file: h5py.File) -> None:
    region = file["X/data"].regionref[0:2]
    file.create_dataset("uns/odd", data=region, dtype=h5py.regionref_dtype)


def _reference_attribute(file: h5py.File) -> None:
    file["obs"].attrs["odd"] = file["X"].ref


def _opaque(file: h5py.File) -> None:
    file["uns/odd"] = np.zeros(4, dtype="V7")


def _compound_column(file: h5py.File) -> None:
    file["obs/odd"] = np.zeros(20, dtype=[("a", "f4"), ("b", "i4")])


def _lists(file: h5py.File) -> None:
    file.create_dataset("obs/odd", (20,), h5py.vlen_dtype(np.int32))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_references, "uns/odd holds references"),
        (_regions, "uns/odd holds references"),
        (_reference_attribute, "obs@odd holds references"),
        (_opaque, "uns/odd holds opaque bytes"),
        (_compound_column, "obs/odd holds structures (compound)"),
        (_lists, "obs/odd holds lists of integer"),
    ],
)
@pytest.mark.case(27, "O16")
def test_values_that_belong_nowhere(refused, make, path, spoil, message):
    with make.edit(path) as file:
        spoil(file)
    refused(path, DataError, message, "write the file again")


def test_compound_in_uns_is_left_alone(read, make, path):
    with make.edit(path) as file:
        file["uns/rank_genes_groups"] = np.zeros(4, dtype=[("a", "f4"), ("b", "i4")])
    _, values = read(path)
    assert np.array_equal(values, make.counts())


@pytest.mark.parametrize("fixed", [True, False], ids=["fixed length", "variable length"])
@pytest.mark.case(28)
def test_attribute_of_64_megabytes(refused, tmp_path, make, fixed):
    path = make.h5ad("cells.h5ad")
    with h5py.File(tmp_path / "new.h5ad", "w", libver="latest") as new:
        with h5py.File(path) as file:
            for name in file:
                file.copy(name, new)
        text = "x" * (64 << 20)
        new.create_group("uns/more").attrs["note"] = np.bytes_(text) if fixed else text
    refused(
        tmp_path / "new.h5ad",
        DataError,
        "attribute 'note' of uns/more has 67,108,864 bytes, more than 4,194,304"
        if fixed
        else "attribute 'note' of uns/more cannot be read, or is larger than 4,194,304 bytes",
        "write the file again",
    )


def test_bombs_are_refused_in_two_seconds_and_200_megabytes(make, tmp_path):
    path = make.h5ad()
    with h5py.File(tmp_path / "bomb.h5ad", "w", libver="latest") as new, h5py.File(path) as file:
        for name in file:
            file.copy(name, new)
        new["obs"].attrs["note"] = "x" * (64 << 20)
    code = (
        "import resource, sys\n"
        "from scdrugmap.data import cells\n"
        "from scdrugmap.errors import DataError\n"
        "def peak(who): return resource.getrusage(who).ru_maxrss / 1024\n"
        "cells.open_cells(sys.argv[1]).close()\n"
        "own, child = peak(resource.RUSAGE_SELF), peak(resource.RUSAGE_CHILDREN)\n"
        "try: cells.open_cells(sys.argv[2])\n"
        "except DataError: pass\n"
        "print(peak(resource.RUSAGE_SELF) - own, peak(resource.RUSAGE_CHILDREN) - child)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(tmp_path / "bomb.h5ad")],
        capture_output=True,
        text=True,
        check=True,
    )
    own, child = map(float, done.stdout.split())
    assert own < 20
    assert child < 200
    began = time.monotonic()
    with pytest.raises(DataError):
        scan(tmp_path / "bomb.h5ad")
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import os; os.kill(os.getpid(), 11)", "failed on this file (ended by SIGSEGV)"),
        ("raise MemoryError", "failed on this file (MemoryError)"),
        ("print('not what was asked for')", "failed on this file (exit code 0)"),
        ("while True: pass", "looking at the file took more than 1 s"),
    ],
)
def test_death_of_the_child_is_one_line(refused_here, path, tmp_path, monkeypatch, script, message):
    walk = tmp_path / "walk.py"
    walk.write_text(script)
    monkeypatch.setattr(inspect, "_WALK", walk)
    monkeypatch.setattr(inspect, "SECONDS", 1)
    refused_here(path, DataError, message, "fetch it again")
