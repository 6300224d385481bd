"""HDF5 files are written through an object that remembers the first error of the disk."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest

from scdrugmap.data.hdf5_writing import check_written, path_of, write_h5ad, writing_hdf5
from scdrugmap.testing import synthetic_adata


def test_a_file_reads_back_as_anndata_writes_it(tmp_path: Path) -> None:
    adata = synthetic_adata(20, 30, n_patients=2)
    adata.raw = adata.copy()
    write_h5ad(adata, tmp_path / "ours.h5ad", compression="gzip")
    adata.write_h5ad(tmp_path / "theirs.h5ad", compression="gzip")
    ours, theirs = (anndata.read_h5ad(tmp_path / f"{name}.h5ad") for name in ("ours", "theirs"))
    np.testing.assert_array_equal(ours.X.toarray(), theirs.X.toarray())
    np.testing.assert_array_equal(ours.raw.X.toarray(), theirs.raw.X.toarray())
    assert ours.obs.equals(theirs.obs)
    assert ours.var.equals(theirs.var)
    with h5py.File(tmp_path / "ours.h5ad") as file:
        assert dict(file.attrs) == {"encoding-type": "anndata", "encoding-version": "0.1.0"}


def test_a_file_is_changed_in_place(tmp_path: Path) -> None:
    path = tmp_path / "ä b.h5"
    with writing_hdf5(path) as file:
        file["a"] = np.arange(5)
        assert path_of(file) == path
    with writing_hdf5(path, "r+") as file:
        file["b"] = file["a"][:] * 2
    with h5py.File(path) as file:
        assert file["b"][:].tolist() == [0, 2, 4, 6, 8]
        assert path_of(file) == path


@pytest.mark.skipif(sys.platform == "win32", reason="NOT RUN: no limits of this kind")
def test_the_first_error_is_raised_at_the_end_and_whenever_it_is_asked_for(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with (
            pytest.raises(OSError, match="File too large"),
            writing_hdf5(tmp_path / "a.h5") as file,
        ):
            write_until_it_is_told(file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_until_it_is_told(file: h5py.File) -> None:
    file["small"] = np.zeros(10)
    check_written(file)
    for number in range(20):
        file[f"large{number}"] = np.zeros(10_000)
    with pytest.raises(OSError, match="File too large"):
        check_written(file)
