"""What a path is, by its content."""

from __future__ import annotations

import gzip
import json
import shutil
import warnings
import zipfile

import h5py
import numpy as np
import pytest

from scdrugmap.data.cells import open_cells
from scdrugmap.data.formats import Format, recognise
from scdrugmap.errors import DataError
from scdrugmap.testing import synthetic_adata


@pytest.fixture
def h5ad(tmp_path):
    synthetic_adata(20, 50).write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


@pytest.fixture(params=[2, 3], ids=["zarr 2", "zarr 3"])
def store(tmp_path, request):
    import anndata

    with (
        warnings.catch_warnings(),
        anndata.settings.override(zarr_write_format=request.param),
    ):
        warnings.simplefilter("ignore")
        synthetic_adata(20, 50).write_zarr(tmp_path / "cells.zarr")
    return tmp_path / "cells.zarr"


def test_h5ad_whatever_its_name(h5ad):
    found = recognise(h5ad.rename(h5ad.with_name("cells.csv")))
    assert found.format == Format.H5AD
    assert found.scan is not None


def test_hdf5_behind_a_user_block(h5ad, tmp_path):
    moved = tmp_path / "moved.h5ad"
    with h5py.File(h5ad) as old, h5py.File(moved, "w", userblock_size=512) as new:
        for name in old:
            old.copy(name, new)
    assert recognise(moved).format == Format.H5AD


def test_zarr_store(store):
    assert recognise(store).format == Format.ZARR
    assert recognise(str(store) + "/").format == Format.ZARR


def test_zarr_store_in_a_zip_file_with_or_without_a_folder(store, tmp_path):
    flat = shutil.make_archive(str(tmp_path / "flat.zarr"), "zip", store)
    nested = shutil.make_archive(str(tmp_path / "nested.zarr"), "zip", tmp_path, "cells.zarr")
    for path in (flat, nested):
        assert recognise(path).format == Format.ZARR
        with open_cells(path) as cells:
            assert cells.n_cells == 20
    assert cells.name == "nested"


def test_10x_folder(tmp_path):
    (tmp_path / "matrix.mtx.gz").touch()
    assert recognise(tmp_path).format == Format.TENX_FOLDER


def test_10x_h5_of_both_versions(tmp_path):
    for group in ("matrix", "GRCh38"):
        path = tmp_path / f"{group}.h5"
        with h5py.File(path, "w") as file:
            file[f"{group}/barcodes"] = np.array(["AC"], dtype="S2")
            file[f"{group}/indptr"] = np.zeros(2, dtype=int)
        assert recognise(path).format == Format.TENX_H5


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_table_of_text(tmp_path, pack):
    path = tmp_path / "cells.csv"
    path.write_bytes(pack(b"cell,TP53,EGFR\nAC,0,1\n"))
    assert recognise(path).format == Format.TABLE


def _array_document(store, part):
    file = store / part / ".zarray"
    return file if file.exists() else store / part / "zarr.json"


def test_zarr_codec_that_runs_code(store):
    file = _array_document(store, "X/data")
    document = json.loads(file.read_text())
    if file.name == ".zarray":
        document["filters"] = [{"id": "pickle", "protocol": 5}]
    else:
        document["codecs"] = [{"name": "numcodecs.pickle"}]
    file.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"uses the codec '(numcodecs\.)?pickle'") as caught:
        open_cells(store)
    assert "blosc, zstd or gzip" in caught.value.hint


def test_zarr_chunk_that_declares_too_much(store):
    file = _array_document(store, "X/data")
    document = json.loads(file.read_text())
    if file.name == ".zarray":
        document["chunks"] = [1 << 40]
    else:
        document["chunk_grid"]["configuration"]["chunk_shape"] = [1 << 40]
    file.write_text(json.dumps(document))
    with pytest.raises(DataError, match="declares pieces of"):
        open_cells(store)


def test_zarr_metadata_that_are_no_json(store):
    _array_document(store, "X/data").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        open_cells(store)


def test_zarr_folder_that_is_a_link(store, tmp_path):
    shutil.move(store / "obs", tmp_path / "elsewhere")
    (store / "obs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="obs is a symbolic link"):
        open_cells(store)


def test_zip_member_outside_of_the_store(store, tmp_path):
    path = tmp_path / "cells.zarr.zip"
    shutil.make_archive(str(tmp_path / "cells.zarr"), "zip", store)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../etc/x", "")
    with pytest.raises(DataError, match="outside of the store"):
        open_cells(path)


@pytest.mark.parametrize("part", ["obs", "var"])
def test_zarr_store_without_a_table(store, part):
    shutil.rmtree(store / part)
    meta = store / "zarr.json"
    if meta.exists():
        document = json.loads(meta.read_text())
        document.pop("consolidated_metadata", None)
        meta.write_text(json.dumps(document))
    (store / ".zmetadata").unlink(missing_ok=True)
    with pytest.raises(DataError, match=f"there is no {part}"):
        open_cells(store)
