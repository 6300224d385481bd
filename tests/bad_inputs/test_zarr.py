"""zarr stores that are damaged or hostile: cases 105 to 109."""

from __future__ import annotations

import json
import shutil
import struct
import warnings
import zipfile
from pathlib import Path

import anndata
import numcodecs
import numpy as np
import pytest
import zarr
from scipy import sparse

from scdrugmap.errors import DataError


@pytest.fixture(params=[2, 3], ids=["zarr 2", "zarr 3"])
def store(request, make) -> Path:
    """A valid store of 20 cells and 30 genes."""
    adata = anndata.AnnData(sparse.csr_matrix(make.counts()))
    adata.obs_names = [f"cell{i}" for i in range(20)]
    adata.var_names = make.genes()
    adata.obs["depth"] = make.counts().sum(axis=1)
    path = make.folder / "cells.zarr"
    with (
        warnings.catch_warnings(),
        anndata.settings.override(zarr_write_format=request.param),
    ):
        warnings.simplefilter("ignore")
        adata.write_zarr(path)
    return path


def pieces(store: Path, part: str) -> list[Path]:
    """Return the files that hold the values of an array."""
    names = (".zarray", ".zattrs", "zarr.json")
    return [p for p in sorted((store / part).rglob("*")) if p.is_file() and p.name not in names]


def test_valid_store_is_read(store, read, make):
    cells, found = read(store)
    assert np.array_equal(found, make.counts())
    assert cells.notices == ()


@pytest.mark.case(105)
@pytest.mark.parametrize("part", ["X/data", "X/indices", "X/indptr", "obs/_index", "var/_index"])
def test_missing_piece(store, refused, part):
    pieces(store, part)[0].unlink()
    refused(store, DataError, f"1 pieces of {part} are missing", "the store is damaged")


def test_missing_piece_of_a_column_is_told(store, read):
    """zarr leaves out pieces of zeros, so that this may be meant."""
    pieces(store, "obs/depth")[0].unlink()
    cells, _ = read(store)
    told = "cells.zarr: 1 pieces of obs/depth are not stored, so they are read as zeros or empty"
    assert told in cells.notices


@pytest.mark.case(106)
@pytest.mark.parametrize("part", ["X/data", "X/indptr"])
@pytest.mark.parametrize("n_values", [0, 5, 5000])
def test_piece_of_wrong_length(store, refused, part, n_values):
    """A piece that is whole, but of more or fewer values than the metadata say."""
    piece = pieces(store, part)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = zarr.open_array(str(store / part), mode="r")
        values = np.ones(n_values, array.dtype)
        version = 2 if (store / part / ".zarray").exists() else 3
        other = zarr.create_array(
            str(store.parent / "other"),
            shape=max(1, n_values),
            chunks=max(1, n_values),
            dtype=array.dtype,
            zarr_format=version,
            compressors=array.compressors,
        )
        if n_values:
            other[:] = values
    piece.write_bytes(pieces(store.parent, "other")[0].read_bytes() if n_values else b"")
    refused(store, DataError, f"{part} cannot be read", "the store is damaged")


@pytest.mark.parametrize("part", ["X/data", "X/indptr", "obs/_index"])
@pytest.mark.parametrize("n_lost", [1, 3, 10])
def test_piece_that_is_cut(store, refused, part, n_lost):
    """blosc of numcodecs 0.16 reads on behind the end of such a piece, whatever stands there."""
    piece = pieces(store, part)[0]
    piece.write_bytes(piece.read_bytes()[:-n_lost])
    refused(store, DataError, f"{part} cannot be read", "the store is damaged")


@pytest.mark.case(107)
def test_unknown_codec(store, refused):
    file = store / "X/data/.zarray"
    if file.exists():
        document = json.loads(file.read_text())
        document["compressor"] = {"id": "hologram"}
    else:
        file = store / "X/data/zarr.json"
        document = json.loads(file.read_text())
        document["codecs"][-1] = {"name": "hologram"}
    file.write_text(json.dumps(document))
    refused(store, DataError, "uses the codec 'hologram', which is not read", "blosc, zstd or gzip")


@pytest.mark.case(108)
@pytest.mark.parametrize("name", ["../../etc/x", "/etc/x", "X/../../x", "X\\..\\x"])
def test_zip_member_that_leads_out_of_the_store(store, refused, name):
    path = store.with_name("cells.zarr.zip")
    shutil.make_archive(str(store), "zip", store)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "")
    refused(path, DataError, "outside of the store", "make the zip file again")


@pytest.mark.case(109)
@pytest.mark.parametrize("honest", [True, False], ids=["honest", "lying"])
def test_zip_bomb(store, refused, honest):
    """A member of 300 MB in 300 kB; or one that says 100 bytes and unpacks to more."""
    path = store.with_name("cells.zarr.zip")
    victim = pieces(store, "X/data")[0]
    name = victim.relative_to(store).as_posix()
    victim.unlink()
    shutil.make_archive(str(store), "zip", store)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, bytes(300 << 20 if honest else 1 << 20))
    if honest:
        refused(path, DataError, f"{name} unpacks to 314,572,800 bytes, more than", "smaller")
        return
    raw = bytearray(path.read_bytes())
    central = raw.rindex(b"PK\x01\x02")
    struct.pack_into("<I", raw, central + 24, 100)
    path.write_bytes(raw)
    refused(path, DataError, "X/data cannot be read", "the store is damaged")


def test_array_that_declares_more_than_it_stores(store, refused):
    file = store / "obs/depth/.zarray"
    file = file if file.exists() else store / "obs/depth/zarr.json"
    document = json.loads(file.read_text())
    document["shape"] = [1 << 34]
    file.write_text(json.dumps(document))
    refused(store, DataError, "obs/depth declares", "write the store again")


def test_metadata_that_zarr_does_not_understand(store, refused):
    file = store / "X/data/.zarray"
    if file.exists():
        file.write_text(file.read_text().replace('"order"', '"ordre"'))
    else:
        file = store / "X/data/zarr.json"
        file.write_text(file.read_text().replace('"separator"', '"separatr"'))
    refused(store, DataError, "cannot be read: ", "the store is damaged")


PACKED = [
    *((2, packer) for packer in ("gzip", "zlib", "bz2", "lzma", "lz4", "zstd", "blosc")),
    *((3, packer) for packer in ("gzip", "zstd", "blosc")),
]
"""Formats of zarr and what they pack with."""

SETTINGS = {
    "gzip": {"level": 1},
    "zstd": {"level": 0, "checksum": False},
    "blosc": {"typesize": 4, "cname": "lz4", "clevel": 5, "shuffle": "noshuffle", "blocksize": 0},
}


def repack(store: Path, part: str, packer: str, raw: bytes) -> None:
    """Put packed bytes in the place of the only piece of an array; the metadata say how."""
    piece = pieces(store, part)[0]
    piece.write_bytes(numcodecs.get_codec({"id": packer}).encode(raw))
    file = store / part / ".zarray"
    if file.exists():
        document = json.loads(file.read_text())
        document["compressor"] = {"id": packer}
    else:
        file = store / part / "zarr.json"
        document = json.loads(file.read_text())
        document["codecs"][-1] = {"name": packer, "configuration": SETTINGS[packer]}
    file.write_text(json.dumps(document))


def values(store: Path, part: str) -> np.ndarray:
    """Return an array of a store."""
    return np.asarray(zarr.open_array(str(store / part), mode="r")[:])


@pytest.mark.parametrize(("store", "packer"), PACKED, indirect=["store"])
def test_store_of_any_packer_is_read(store, read, make, packer):
    repack(store, "X/data", packer, values(store, "X/data").tobytes())
    assert np.array_equal(read(store)[1], make.counts())


@pytest.mark.parametrize(("store", "packer"), PACKED, indirect=["store"])
def test_piece_that_unpacks_to_thousands_of_times_what_it_stands_for(store, refused, packer):
    """Some are refused by their size already: so many bytes cannot be what is declared, packed."""
    size = values_size(store, "X/data")
    repack(store, "X/data", packer, bytes(8 << 20))
    error = refused(store, DataError, "X/data cannot be read: piece ", "the store is damaged")
    said = (f"expected {size:,} at most", f"unpacks to more than {size:,} bytes")
    assert error.message.endswith(said)


def values_size(store: Path, part: str) -> int:
    """Return the bytes that the metadata declare for a piece."""
    array = zarr.open_array(str(store / part), mode="r")
    return int(np.prod(array.chunks)) * array.dtype.itemsize


def test_file_of_holes_in_the_place_of_a_piece(store, refused):
    with open(pieces(store, "X/data")[0], "r+b") as handle:
        handle.truncate(1 << 40)
    refused(store, DataError, "has 1,099,511,627,776 bytes, expected", "the store is damaged")


@pytest.mark.parametrize("packer", ["zstd", "gzip"])
def test_piece_that_announces_billions_of_texts(store, refused, packer):
    """The library makes room for as many as the first four bytes say."""
    repack(store, "obs/_index", packer, b"\xff\xff\xff\x7f" + bytes(60))
    refused(store, DataError, "announces 2,147,483,647 texts, expected 20", "the store is damaged")


def edit(store: Path, part: str, **changes: object) -> None:
    """Change the metadata of an array."""
    file = store / part / ".zarray"
    file = file if file.exists() else store / part / "zarr.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
GZIP2, GZIP3 = {"id": "gzip", "level": 1}, {"name": "gzip", "configuration": {"level": 1}}


def test_piece_that_is_packed_twice(store, refused):
    """Each unpacking alone may be small."""
    edit(store, "X/data", **(
        {"filters": [GZIP2], "compressor": GZIP2}
        if (store / "X/data/.zarray").exists()
        else {"codecs": [BYTES, GZIP3, GZIP3]}
    ))  # fmt: skip
    refused(store, DataError, "X/data is stored with two codecs that pack", "gzip")


@pytest.mark.parametrize("store", [2], indirect=True)
def test_lzma_without_a_header(store, refused):
    edit(store, "X/data", compressor={"id": "lzma", "format": 3})
    refused(store, DataError, "X/data is stored with lzma without a header", "gzip")


def test_type_that_is_none(store, refused):
    name = "dtype" if (store / "X/data/.zarray").exists() else "data_type"
    edit(store, "X/data", **{name: ",f"})
    refused(store, DataError, "X cannot be read", "damaged")


def test_codec_that_makes_enormous_values(store, refused):
    huge = {"encode_dtype": "<f4", "decode_dtype": "S1000000000"}
    edit(store, "X/data", **(
        {"filters": [{"id": "astype", **huge}]}
        if (store / "X/data/.zarray").exists()
        else {"codecs": [{"name": "numcodecs.astype", "configuration": huge}, BYTES]}
    ))  # fmt: skip
    refused(store, DataError, "declares pieces of", "smaller chunks")


@pytest.fixture
def shards(make) -> Path:
    """A store whose values lie in shards of ten pieces."""
    adata = anndata.AnnData(sparse.csr_matrix(make.counts()))
    adata.obs_names = [f"cell{i}" for i in range(20)]
    adata.var_names = make.genes()
    path = make.folder / "shards.zarr"
    with warnings.catch_warnings(), anndata.settings.override(zarr_write_format=3):
        warnings.simplefilter("ignore")
        adata.write_zarr(path)
    data = values(path, "X/data")
    shutil.rmtree(path / "X/data")
    size = -(-len(data) // 10)
    zarr.create_array(
        str(path / "X/data"),
        data=data,
        chunks=(size,),
        shards=(10 * size,),
        compressors=zarr.codecs.ZstdCodec(),
    )
    return path


def test_shards_are_read(shards, read, make):
    assert np.array_equal(read(shards)[1], make.counts())


@pytest.mark.parametrize("place", [0, 9])
def test_piece_of_a_shard_that_unpacks_to_more(shards, refused, place):
    file = pieces(shards, "X/data")[0]
    raw = file.read_bytes()
    index = np.frombuffer(raw[-164:-4], "<u8").reshape(10, 2).copy()
    bomb = bytes(numcodecs.Zstd().encode(bytes(8 << 20)))
    index[place] = len(raw) - 164, len(bomb)
    ends = index.tobytes()
    checksum = numcodecs.checksum32.CRC32C().encode(ends)[:4]
    file.write_bytes(raw[:-164] + bomb + ends + bytes(checksum))
    refused(shards, DataError, "unpacks to more than", "the store is damaged")


def test_shards_that_are_packed_as_a_whole(shards, refused):
    file = shards / "X/data/zarr.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "codecs": [*document["codecs"], GZIP3]}))
    refused(shards, DataError, "X/data is stored with shards that are packed as a whole", "gzip")
