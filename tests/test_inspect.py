"""The look at an HDF5 file before it is read."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from scdrugmap.data.inspect import check_stamp, file_stamp, open_scanned, scan
from scdrugmap.errors import DataError, UsageError
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
