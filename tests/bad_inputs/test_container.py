"""Inputs that are not what they should be as a whole: cases 1 to 14."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import sparse

from scdrugmap.data.cells import open_cells
from scdrugmap.data.inspect import open_scanned, scan
from scdrugmap.errors import DataError, ResourceError, UsageError


@pytest.mark.case(1)
def test_path_that_does_not_exist(refused, tmp_path):
    refused(tmp_path / "none.h5ad", UsageError, "does not exist", "check the spelling")
    refused(tmp_path / "no" / "none.h5ad", UsageError, "does not exist", "does not exist either")


def test_path_that_is_nearly_right(refused, path):
    refused(path.with_name("cell.h5ad"), UsageError, "does not exist", "mean cells.h5ad?")


@pytest.mark.case(2)
def test_folder_that_holds_no_matrix(refused, tmp_path):
    refused(tmp_path, UsageError, "is a folder without a zarr store", "name a file")


@pytest.mark.case(3)
def test_empty_file(refused, tmp_path):
    path = tmp_path / "empty.h5ad"
    path.touch()
    refused(path, DataError, "the file is empty", "fetch it again")


@pytest.mark.case(4)
def test_web_page_saved_as_h5ad(refused, tmp_path):
    path = tmp_path / "login.h5ad"
    path.write_text("\n<!DOCTYPE html><html><body>Please log in</body></html>")
    refused(path, DataError, "looks like a web page", "open the link in a browser")


@pytest.mark.case(5)
def test_truncated_file_names_its_size(refused, path):
    size = path.stat().st_size // 2
    os.truncate(path, size)
    refused(path, DataError, f"(size {size:,} bytes; incomplete download?)", "fetch it again")


def test_file_whose_beginning_is_lost(refused, path):
    path.write_bytes(b"\x00" * 100 + path.read_bytes()[100:])
    refused(path, DataError, "is no HDF5 file: it begins with", "fetch the file again")


@pytest.mark.case(6)
def test_gzipped_h5ad(refused, path):
    packed = path.with_name("cells.h5ad.gz")
    packed.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    refused(packed, DataError, "is a gzip-compressed HDF5 file", "gunzip cells.h5ad.gz")


@pytest.mark.parametrize("part", ["obs", "var"])
@pytest.mark.case(7)
def test_hdf5_file_without_a_table(refused, make, path, part):
    with make.edit(path) as file:
        del file[part]
    refused(path, DataError, f"there is no {part}", "scdrugmap convert")


@pytest.mark.case(8)
def test_10x_h5_is_read(make, read, tmp_path):
    counts = make.counts()
    path = tmp_path / "filtered_feature_bc_matrix.h5"
    with h5py.File(path, "w") as file:
        columns = sparse.csc_matrix(counts.T)
        group = file.create_group("matrix")
        group["barcodes"] = np.array([f"AC{i}-1" for i in range(len(counts))], dtype="S")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(columns, name).astype(np.int64)
        group["shape"] = np.array(columns.shape)
        features = group.create_group("features")
        features["id"] = np.array([f"X{i}" for i in range(30)], dtype="S")
        features["name"] = np.array(make.genes(), dtype="S")
        features["feature_type"] = np.array(["Gene Expression"] * 30, dtype="S")
        features["genome"] = np.array(["GRCh38"] * 30, dtype="S")
    cells, values = read(path)
    assert cells.name == "filtered_feature_bc_matrix"
    assert np.array_equal(values, counts)
    assert any("10x" in notice for notice in cells.notices)


@pytest.mark.case(9)
def test_h5mu_names_the_modality_and_the_conversion(refused, tmp_path):
    path = tmp_path / "multi.h5mu"
    with h5py.File(path, "w") as file:
        file.create_group("mod/rna/obs")
        file.create_group("mod/adt/obs")
    refused(path, DataError, "several modalities; cells are in mod/adt", ".write_h5ad(")


@pytest.mark.case(10)
def test_loom_names_the_conversion(refused, tmp_path):
    path = tmp_path / "cells.loom"
    with h5py.File(path, "w") as file:
        file["matrix"] = np.ones((3, 2))
        file.create_group("row_attrs")
        file.create_group("col_attrs")
    refused(path, DataError, "is a loom file", "scanpy.read_loom('cells.loom').write_h5ad(")


@pytest.mark.case(11)
def test_file_that_is_being_written(refused, path):
    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import h5py, sys; f = h5py.File(sys.argv[1], 'r+'); print(1, flush=True); input()",
            str(path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert writer.stdout is not None
        writer.stdout.readline()
        refused(path, ResourceError, "another process is writing it", "wait until it is done")
    finally:
        writer.communicate(b"\n")


@pytest.mark.case(12)
def test_link_to_a_file_elsewhere_is_read(read, path, tmp_path_factory):
    link = tmp_path_factory.mktemp("other") / "link.h5ad"
    link.symlink_to(path)
    cells, _ = read(link)
    assert cells.name == "link"


@pytest.mark.case(13)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipe_or_device_is_refused_without_waiting_for_it(refused, tmp_path, kind):
    path = tmp_path / "pipe" if kind == "pipe" else Path("/dev/zero")
    if kind == "pipe":
        os.mkfifo(path)
    refused(path, UsageError, "is not a file but a pipe or device", "h5ad")


@pytest.mark.case(14)
def test_file_replaced_while_it_is_read(make, path, child):
    new = make.h5ad("new.h5ad")
    with pytest.raises(DataError, match="changed while it was being read") as caught:
        child.call("children:replace_while_reading", path, new)
    assert caught.value.exit_code == 3
    assert "run again" in caught.value.hint


def test_file_written_to_between_look_and_reading(make, path):
    found = scan(path)
    with make.edit(path) as file:
        file["uns/more"] = np.ones(1000)
    with pytest.raises(DataError, match="changed while it was being read"):
        open_scanned(found)


def test_unreadable_file(refused, path):
    path.chmod(0)
    refused(path, ResourceError, "permission denied", "readable")


@pytest.mark.parametrize(
    ("name", "content", "message", "hint"),
    [
        ("cells.rds", b"X\n\x00\x00\x00\x03", "is an R object", "docs"),
        ("cells.rds.gz", gzip.compress(b"RDX3\nX\n\x00", mtime=0), "is an R object", "docs"),
        ("cells.pkl", b"\x80\x04\x95rest", "is a Python pickle, which is never opened", "h5ad"),
        ("cells.npy", b"\x93NUMPY\x01\x00", "is a NumPy array", "h5ad"),
        ("cells.csv", b"cell,TP53\nc1,3\n", "is a table of text", "scdrugmap convert"),
        (
            "cells.tsv.gz",
            gzip.compress(b"cell\tTP53\nc1\t3\n", mtime=0),
            "is a table of text",
            "convert",
        ),
        (
            "matrix.mtx.gz",
            gzip.compress(b"%%MatrixMarket matrix", mtime=0),
            "without names",
            "folder",
        ),
        (
            "cells.bin.gz",
            gzip.compress(b"\x00\x01", mtime=0),
            "a gzip file of something else",
            "unpack",
        ),
        ("cells.gz", b"\x1f\x8bnonsense", "is a damaged gzip file", "fetch it again"),
        ("cells.zip", b"PK\x03\x04nonsense", "is a damaged zip file", "fetch it again"),
    ],
)
def test_file_of_another_kind_says_what_it_is(refused, tmp_path, name, content, message, hint):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, DataError, message, hint)


def test_zip_of_something_else(refused, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("cells.h5ad", b"")
    refused(tmp_path / "a.zip", DataError, "holds no zarr store (cells.h5ad)", "unpack it")


def test_path_that_is_too_long(refused):
    refused("x" * 3000, UsageError, "is no usable path", "check the name")


def test_path_with_a_nul_byte():
    """No command line can hold one, a Python string can."""
    with pytest.raises(UsageError, match="is no usable path") as caught:
        open_cells("with\0nul")
    assert "check the name" in caught.value.hint


@pytest.mark.case("O17")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw[: len(raw) // 3], "incomplete download?"),
        (lambda raw: b"<html><title>Sign in</title></html>", "looks like a web page"),
        (lambda raw: b"", "the file is empty"),
    ],
    ids=["truncated", "web page", "empty"],
)
def test_download_that_went_wrong(refused, path, change, message):
    path.write_bytes(change(path.read_bytes()))
    refused(path, DataError, message, "")


@pytest.mark.case("O33")
def test_file_of_anndata_0_5_is_read(make, read, tmp_path):
    path, counts = tmp_path / "old.h5ad", make.counts()
    with h5py.File(path, "w") as file:
        file["X"] = counts
        obs = np.zeros(20, dtype=[("index", "S8"), ("depth", "f4")])
        obs["index"] = [f"cell{i}" for i in range(20)]
        obs["depth"] = counts.sum(axis=1)
        file["obs"] = obs
        file["var"] = np.array([(name,) for name in make.genes()], dtype=[("index", "S20")])
    cells, found = read(path)
    assert np.array_equal(found, counts)
    assert cells.names[4] == "cell4"
    assert cells.obs["depth"].iloc[5] == counts[5].sum()
