"""Files damaged at random: refused, unchanged, or different with a word about it; never a crash.

The long form is ``tests/faults/mutants.py``; this runs its first 500 with another seed, and kinds of
damage that were once read in silence.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pytest

from scdrugmap.data.cells import open_cells
from scdrugmap.data.inspect import scan
from scdrugmap.errors import DataError
from scdrugmap.testing import synthetic_adata

NUMBER = 500
HELD = {"refused", "unchanged", "said", "values"}


@pytest.mark.slow
def test_500_mutants_are_refused_or_read_as_they_are(tmp_path: Path) -> None:
    record = tmp_path / "mutants.json"
    done = subprocess.run(
        [
            *(sys.executable, str(Path(__file__).with_name("mutants.py")), "--quiet"),
            *("--number", str(NUMBER), "--seed", "1", "--output", str(record)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(record.read_text())
    assert found["failures"] == []
    assert (done.returncode, found["tried"], found["held"]) == (0, NUMBER, NUMBER), done.stderr
    assert set(found["outcomes"]) <= HELD
    assert found["outcomes"]["refused"] > NUMBER / 2
    assert set(found["outcomes_by_file"]) == {
        *("csr.h5ad", "csc.h5ad", "dense.h5ad", "gzip.h5ad", "latest.h5ad", "layers.h5ad"),
        *("format2.zarr", "format3.zarr", "packed.zarr.zip"),
    }


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    synthetic_adata(20, 50).write_h5ad(tmp_path / "cells.h5ad", compression="gzip")
    return tmp_path / "cells.h5ad"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    synthetic_adata(20, 50).write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


def change(path: Path, old: bytes, new: bytes, after: int = 0) -> None:
    """Replace the first occurrence of some bytes of a file."""
    raw = path.read_bytes()
    at = raw.index(old, after)
    path.write_bytes(raw[:at] + new + raw[at + len(old) :])


def place(dataset: h5py.Dataset) -> int:
    """Return where the values of an array stand in the file."""
    if dataset.chunks:
        return int(dataset.id.get_chunk_info(0).byte_offset)
    return int(dataset.id.get_offset())


def test_array_moved_onto_another_is_refused(plain: Path) -> None:
    with h5py.File(plain) as file:
        data, indices = (place(file["X"][name]) for name in ("data", "indices"))
    change(plain, data.to_bytes(8, "little"), (indices + 8).to_bytes(8, "little"))
    with pytest.raises(DataError, match=r"the values of X/\w+ and X/\w+ are stored in one place"):
        scan(plain)


def test_array_moved_onto_a_header_is_refused(plain: Path) -> None:
    with h5py.File(plain) as file:
        data = place(file["X/data"])
        header = h5py.h5o.get_info(file["var"].id).addr
    change(plain, data.to_bytes(8, "little"), (header - 8).to_bytes(8, "little"))
    with pytest.raises(
        DataError, match=r"are stored (over the header|in one place)|beyond the end"
    ):
        scan(plain)


def test_packed_numbers_without_word_of_their_packing_are_refused(packed: Path) -> None:
    """One byte of a header hides the filter; the packed bytes would be read as numbers."""
    with h5py.File(packed) as file:
        header = h5py.h5o.get_info(file["X/data"].id).addr
    change(packed, b"\x0b\x00", b"\x5b\x00", after=header)
    with pytest.raises(DataError, match=r"X/data has a piece of \d+ bytes, expected \d+"):
        scan(packed)


def test_numbers_of_another_order_of_bytes_are_refused(plain: Path) -> None:
    with h5py.File(plain, "r+") as file:
        values = file["X/indices"][:]
        del file["X/indices"]
        file["X/indices"] = values.astype(">i4")
    with pytest.raises(DataError, match="differ in their order of bytes"):
        scan(plain)


def test_numbers_of_an_unusual_form_are_refused(plain: Path) -> None:
    kind = h5py.h5t.STD_I64LE.copy()
    kind.set_precision(40)
    with h5py.File(plain, "r+") as file:
        space = h5py.h5s.create_simple((20,))
        h5py.h5d.create(file["obs"].id, b"odd", kind, space)
    with pytest.raises(DataError, match="obs/odd holds numbers of an unusual form"):
        scan(plain)


def test_named_type_in_the_place_of_data_is_refused(plain: Path) -> None:
    with h5py.File(plain, "r+") as file:
        file["obs/odd"] = np.dtype("f4")
    with pytest.raises(DataError, match="obs/odd is a named type"):
        scan(plain)


@pytest.mark.parametrize("name", ["X/data", "X/indices", "X/indptr", "obs/_index"])
def test_piece_that_was_never_written_is_refused(plain: Path, name: str) -> None:
    with h5py.File(plain, "r+") as file:
        old = file[name]
        shape, dtype = old.shape, old.dtype
        del file[name]
        file.create_dataset(name, shape, dtype, chunks=shape)
    with pytest.raises(DataError, match=f"1 of 1 pieces of {name} are missing"):
        scan(plain)


@pytest.mark.parametrize("other", [1000, 0], ids=["no rows", "rows of another"])
def test_piece_that_stands_for_other_rows_is_refused(plain: Path, other: int) -> None:
    """The rows that it stood for would be read as zeros."""
    with h5py.File(plain, "r+") as file:
        file["obs"].create_dataset("depth", data=np.arange(20), chunks=(10,))
    key = struct.Struct("<IIQQ")  # of a piece in the tree: bytes, mask of filters, row, element
    change(plain, key.pack(80, 0, 10, 0), key.pack(80, 0, other, 0))
    with pytest.raises(
        DataError, match=r"obs/depth has (a piece for rows|two pieces for the same)"
    ):
        scan(plain)


def test_column_that_is_not_listed_is_told(plain: Path) -> None:
    with h5py.File(plain, "r+") as file:
        names = [name for name in file["obs"].attrs["column-order"] if name != "patient"]
        file["obs"].attrs["column-order"] = names
    with open_cells(plain) as cells:
        told = [text for text in cells.notices if "column-order" in text]
    assert told == ["cells.h5ad: obs does not list patient in its column-order: not read"]


def test_what_is_sound_raises_no_suspicion(tmp_path: Path) -> None:
    adata: Any = synthetic_adata(200, 300)
    adata.obs["flag"] = True
    adata.obs["few"] = adata.obs["patient"].astype(str)
    for compression in (None, "gzip", "lzf"):
        for dense in (False, True):
            made = adata.copy()
            if dense:
                made.X = made.X.toarray()
            made.write_h5ad(tmp_path / "cells.h5ad", compression=compression)
            with open_cells(tmp_path / "cells.h5ad") as cells:
                assert cells.notices == ()
    assert anndata.read_h5ad(tmp_path / "cells.h5ad").n_obs == 200
