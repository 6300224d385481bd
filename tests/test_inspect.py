"""The look at an HDF5 file before it is read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import h5py
import numpy as np
import pytest

from scdrugmap.data import inspect
from scdrugmap.data.inspect import Scan, check_stamp, file_stamp, open_scanned, scan
from scdrugmap.errors import DataError, ResourceError, UsageError
from scdrugmap.testing import synthetic_adata


@pytest.fixture
def path(tmp_path):
    synthetic_adata(20, 50).write_h5ad(tmp_path / "cells.h5ad", compression="gzip")
    return tmp_path / "cells.h5ad"


def test_scan_describes_every_object(path):
    found = scan(path)
    assert found.objects[""] == {"kind": "group", "encoding-type": "anndata"}
    assert found.objects["X"]["encoding-type"] == "csr_matrix"
    assert found.objects["X/indptr"]["shape"] == [21]
    assert found.objects["X/data"]["values"] == "float"
    assert found.objects["X/data"]["filters"] == ["gzip"]
    assert found.objects["var/_index"]["values"] == "text"
    assert found.objects["obs"]["_index"] == "_index"
    assert "obs/patient/codes" in found
    assert "layers/none" not in found
    assert found.notices == ()


def test_scan_reads_no_data(path):
    """Values that cannot be unpacked do not matter to it."""
    with h5py.File(path, "r") as file:
        place = file["X/data"].id.get_chunk_info(0)
    with open(path, "r+b") as handle:
        handle.seek(place.byte_offset)
        handle.write(b"\xff" * place.size)
    assert "X/data" in scan(path)


def test_scan_leaves_the_file_as_it_was(path):
    before = path.read_bytes(), file_stamp(path)
    scan(path)
    assert (path.read_bytes(), file_stamp(path)) == before


def test_scan_of_nothing(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        scan(tmp_path / "none.h5ad")


def test_module_called_like_one_of_ours_in_the_folder_does_not_matter(path, monkeypatch, tmp_path):
    (tmp_path / "h5py.py").write_text("raise SystemExit('loaded the wrong h5py')")
    monkeypatch.chdir(tmp_path)
    assert "X" in scan(path)


@pytest.mark.parametrize("name", ["a b.h5ad", "quote's.h5ad", "ö名.h5ad", "-o.h5ad", "n\nl.h5ad"])
def test_file_of_any_name(path, name):
    assert "X" in scan(path.rename(path.with_name(name)))


def test_opened_file_is_the_one_that_was_looked_at(path):
    found = scan(path)
    with open_scanned(found) as file:
        assert set(file) >= {"X", "obs", "var"}
    path.unlink()
    with pytest.raises(DataError, match="changed while it was being read"):
        open_scanned(found)


def test_stamp_tells_states_of_a_file_apart(path):
    stamp = file_stamp(path)
    check_stamp(path, stamp)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DataError, match="changed while it was being read"):
        check_stamp(path, stamp)
    assert file_stamp(path.with_name("none")) == ()


def test_small_arrays_of_fill_values_are_allowed_and_told(path):
    """Arrays that were never written hold fill values; small ones are no bomb."""
    with h5py.File(path, "r+") as file:
        file.create_dataset("uns/empty", (1000, 1000), "f4", chunks=(100, 100))
        file.create_dataset("layers/empty", (20, 50), "f4", chunks=(20, 50))
    assert scan(path).notices == (
        "cells.h5ad: 1 pieces of layers/empty are not stored, so they are read as zeros or empty",
    )


def test_strings_lists_and_structures_of_old_files_are_allowed_where_they_belong(path):
    with h5py.File(path, "r+") as file:
        file["uns/table"] = np.zeros(3, dtype=[("a", "f4"), ("b", "S3")])
        file.create_dataset("uns/lists", (3,), h5py.vlen_dtype(np.int32))
        file["obsm/old"] = np.zeros(20, dtype=[("x", "f4")])
        file["uns"].attrs["nothing"] = h5py.Empty("f4")
    found = scan(path)
    assert found.objects["uns/table"]["values"] == "structure"
    assert found.objects["uns/lists"]["values"] == "lists of integer"


def test_large_arrays_that_are_never_read_are_told(path):
    with h5py.File(path, "r+") as file:
        file.create_dataset("uns/huge", (3 << 30,), "u1", chunks=(1 << 20,), compression="gzip")
    notice = "cells.h5ad: uns/huge declares 3,221,225,472 bytes and is not read"
    assert scan(path).notices == (notice,)


@pytest.fixture
def writer(path) -> Iterator[None]:
    """Another process that writes the file."""
    code = "import h5py, sys; f = h5py.File(sys.argv[1], 'r+'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.communicate()


def test_file_that_another_process_writes_is_left_alone(path, writer):
    with pytest.raises(ResourceError, match="is locked: another process is writing it") as caught:
        scan(path)
    assert caught.value.hint == "wait until it is done, try again"


def test_file_that_another_process_began_to_write_since_is_left_alone(path, request):
    found = scan(path)
    request.getfixturevalue("writer")
    with pytest.raises(ResourceError, match="is locked: another process is writing it"):
        open_scanned(found)


def test_file_that_ends_early_is_told_with_its_size(path):
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match="5,000 bytes; incomplete download") as caught:
        scan(path)
    assert caught.value.hint


def test_file_that_was_replaced_since_is_not_opened(path, tmp_path):
    found = scan(path)
    path.rename(tmp_path / "old.h5ad")
    synthetic_adata(20, 50).write_h5ad(path)
    with pytest.raises(DataError, match="the file changed while it was being read"):
        open_scanned(found)


def test_file_that_cannot_be_opened_any_more_is_named(path):
    found = scan(path)
    path.write_bytes(b"no longer HDF5")
    with pytest.raises(DataError, match="the file changed while it was being read"):
        open_scanned(found)
    with pytest.raises(DataError, match=r"cells\.h5ad: .*file signature not found") as caught:
        open_scanned(Scan(path, file_stamp(path), {}))
    assert caught.value.hint == "fetch the file again"


def test_death_by_a_signal_without_a_name_is_told_by_its_number(path, tmp_path, monkeypatch):
    walk = tmp_path / "walk.py"
    walk.write_text("import os; os.kill(os.getpid(), 40)")
    monkeypatch.setattr(inspect, "_WALK", walk)
    with pytest.raises(DataError, match=r"failed on this file \(ended by signal 40\)"):
        scan(path)
