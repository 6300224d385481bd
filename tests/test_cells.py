"""Cells read from files and memory: the same values by every road, in any order."""

from __future__ import annotations

import warnings

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from scdrugmap.data import transposed
from scdrugmap.data.cells import open_cells
from scdrugmap.data.gene_table import gene_table
from scdrugmap.data.obs import read_obs
from scdrugmap.errors import DataError, UsageError

N_CELLS, N_GENES = 57, 40


def counts(n_cells: int = N_CELLS, n_genes: int = N_GENES, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).poisson(0.6, (n_cells, n_genes)).astype(np.float32)
    values[3] = 0
    return values


def genes(n: int = N_GENES) -> list[str]:
    return list(gene_table().names("symbol")[:n])


def make_adata(values: np.ndarray | None = None, names: list[str] | None = None) -> AnnData:
    values = counts() if values is None else values
    obs = pd.DataFrame(
        {
            "patient": pd.Categorical([f"p{i % 4}" for i in range(len(values))]),
            "depth": values.sum(axis=1),
            "treated": [i % 2 == 0 for i in range(len(values))],
            "age": pd.array([None, *range(1, len(values))], dtype="Int64"),
        },
        index=[f"cell{i}" for i in range(len(values))],
    )
    var = pd.DataFrame(index=names or genes(values.shape[1]))
    return AnnData(sparse.csr_matrix(values), obs=obs, var=var)


def values_of(cells, size: int = 10) -> np.ndarray:
    return np.concatenate([block.rows.toarray() for block in cells.blocks(size)])


def h5ad(adata: AnnData, path, **options):
    adata.write_h5ad(path / "cells.h5ad", **options)
    return path / "cells.h5ad"


def zarr_folder(adata: AnnData, path, version: int):
    import anndata

    with warnings.catch_warnings(), anndata.settings.override(zarr_write_format=version):
        warnings.simplefilter("ignore")
        adata.write_zarr(path / "cells.zarr")
    return path / "cells.zarr"


def zarr_zip(adata: AnnData, path):
    import shutil

    folder = zarr_folder(adata, path, 2)
    return shutil.make_archive(str(path / "cells.zarr"), "zip", folder)


def backed(adata: AnnData, path):
    import anndata

    return anndata.read_h5ad(h5ad(adata, path), backed="r")


ROADS = {
    "memory": lambda adata, path: adata,
    "view": lambda adata, path: adata[np.arange(N_CELLS)],
    "backed": backed,
    "h5ad": h5ad,
    "h5ad gzip": lambda adata, path: h5ad(adata, path, compression="gzip"),
    "h5ad lzf": lambda adata, path: h5ad(adata, path, compression="lzf"),
    "zarr 2": lambda adata, path: zarr_folder(adata, path, 2),
    "zarr 3": lambda adata, path: zarr_folder(adata, path, 3),
    "zarr zip": zarr_zip,
}


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_every_road_gives_the_same_cells(road, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(transposed, "_READ_ENTRIES", 100)
    monkeypatch.setattr(transposed, "_BUNDLE_ENTRIES", 150)
    adata = make_adata()
    if kind == "dense":
        adata.X = adata.X.toarray()
    else:
        adata.X = adata.X.asformat(kind)
    with open_cells(ROADS[road](adata, tmp_path), name="cells") as cells:
        assert np.array_equal(values_of(cells), counts())
        assert cells.name == "cells"
        assert (cells.n_cells, cells.n_genes) == (N_CELLS, N_GENES)
        assert list(cells.genes.published) == genes()
        assert cells.obs["patient"].astype(str).tolist() == [f"p{i % 4}" for i in range(N_CELLS)]
        assert cells.matrix.values == "counts"
        assert cells.matrix.storage == kind
        assert list(cells.names) == [f"cell{i}" for i in range(N_CELLS)]


def test_name_is_the_stem_of_the_file(tmp_path):
    path = h5ad(make_adata(), tmp_path)
    with open_cells(path) as cells:
        assert cells.name == "cells"
        assert cells.path == path
    with open_cells(path, name="tumour") as cells:
        assert cells.name == "tumour"
    with open_cells(make_adata()) as cells:
        assert cells.name == "adata"
        assert cells.path is None


def test_caller_keeps_an_unmodified_object():
    adata = make_adata()
    adata.X.data[::5] = 0
    before = adata.copy()
    with open_cells(adata) as cells:
        for block in cells.blocks(10):
            block.rows.data[:] = -1
    assert np.array_equal(adata.X.data, before.X.data)
    assert adata.X.nnz == before.X.nnz
    pd.testing.assert_frame_equal(adata.obs, before.obs)


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
@pytest.mark.parametrize("order", ["shuffled", "runs", "repeated", "reversed", "every third"])
def test_cells_come_in_the_order_asked_for(order, kind, tmp_path):
    adata = make_adata()
    adata.X = adata.X.toarray() if kind == "dense" else adata.X.asformat(kind)
    random = np.random.default_rng(1)
    index = {
        "shuffled": random.permutation(N_CELLS),
        "runs": np.r_[40:57, 0:40],
        "repeated": random.integers(0, N_CELLS, 80),
        "reversed": np.arange(N_CELLS)[::-1],
        "every third": np.arange(0, N_CELLS, 3),
    }[order]
    with open_cells(h5ad(adata, tmp_path)) as cells:
        blocks = list(cells.blocks(16, index))
        assert np.array_equal(np.concatenate([b.rows.toarray() for b in blocks]), counts()[index])
        assert np.array_equal(np.concatenate([b.index for b in blocks]), index)
        assert np.array_equal(np.concatenate([b.names for b in blocks]), cells.names[index])
        assert np.array_equal(cells.rows(index).toarray(), counts()[index])
        assert cells.rows(np.array([], dtype=np.int64)).shape == (0, N_GENES)


def test_blocks_are_canonical_float32(tmp_path):
    with open_cells(h5ad(make_adata(), tmp_path)) as cells:
        for block in cells.blocks(10, np.arange(N_CELLS)[::-1]):
            assert block.rows.dtype == np.float32
            assert block.rows.indices.dtype == np.int32
            assert (block.rows.data != 0).all()
            block.rows.has_sorted_indices = False
            before = block.rows.indices.copy()
            block.rows.sort_indices()
            assert np.array_equal(block.rows.indices, before)


def test_block_of_no_cells_is_misuse():
    with open_cells(make_adata()) as cells, pytest.raises(ValueError, match="at least 1 cell"):
        next(cells.blocks(0))


def test_source_of_another_type_is_misuse():
    with pytest.raises(TypeError, match="expected a path or an AnnData, not list"):
        open_cells([1, 2, 3])


def test_selected_cells_are_read_alone(tmp_path):
    path = h5ad(make_adata(), tmp_path)
    with open_cells(path, where=[("patient", "p1"), ("patient", "p3"), ("treated", "False")]) as c:
        chosen = np.flatnonzero(np.arange(N_CELLS) % 4 % 2 == 1)
        assert np.array_equal(values_of(c), counts()[chosen])
        assert list(c.obs.index) == [f"cell{i}" for i in chosen]
        part = c.subset(np.array([5, 2]))
        assert np.array_equal(values_of(part), counts()[chosen[[5, 2]]])
        assert list(part.names) == [f"cell{i}" for i in chosen[[5, 2]]]
        part.close()
        assert len(values_of(c)) == len(chosen)


def test_table_of_cells_alone(tmp_path):
    path = h5ad(make_adata(), tmp_path)
    name, obs = read_obs(path, where=[("patient", "p0")])
    assert name == "cells"
    assert list(obs.index) == [f"cell{i}" for i in range(0, N_CELLS, 4)]
    assert obs["age"].isna().sum() == 1
    assert obs["treated"].dtype == bool
    assert obs["depth"].to_numpy() == pytest.approx(counts().sum(axis=1)[::4])
    assert read_obs(make_adata())[0] == "adata"


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_repeated_genes_are_summed(tmp_path):
    names = genes(36)
    names = [*names[:10], names[2], *names[10:20], names[2], names[15], *names[20:], names[0]]
    assert len(names) == N_GENES
    with open_cells(h5ad(make_adata(names=names), tmp_path)) as cells:
        expected = np.zeros((N_CELLS, 36), np.float32)
        for column, name in enumerate(names):
            expected[:, genes(36).index(name)] += counts()[:, column]
        assert list(cells.genes.published) == genes(36)
        assert np.array_equal(values_of(cells), expected)
        assert cells.mapping.counts["joined"] == 4


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_of_repeated_lognormalised_genes_the_largest_is_kept(tmp_path):
    names = [*genes(39), genes(39)[4]]
    values = np.log1p(counts() * np.float32(1.7))
    values[:, 39] = values[:, 4] + np.float32(0.3)
    path = h5ad(make_adata(values, names), tmp_path)
    with open_cells(path) as cells:
        found = values_of(cells)
        assert cells.n_genes == 39
        assert np.array_equal(found[:, 4], values[:, 39])
    with open_cells(path, where=[("patient", "p1")]) as cells:
        assert np.array_equal(values_of(cells), found[1::4])


def test_features_that_are_no_genes_are_left_out():
    adata = make_adata()
    adata.var["feature_types"] = ["Antibody Capture"] * 3 + ["Gene Expression"] * 37
    with open_cells(adata) as cells:
        assert np.array_equal(values_of(cells), counts()[:, 3:])


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_genes_in_rows_are_read_with_transpose(kind, tmp_path):
    adata = make_adata()
    adata.X = adata.X.toarray() if kind == "dense" else adata.X.asformat(kind)
    for source in (adata.T.copy(), h5ad(adata.T.copy(), tmp_path)):
        with open_cells(source, transpose=True) as cells:
            assert np.array_equal(values_of(cells), counts())
            assert cells.names[5] == "cell5"
            assert list(cells.genes.published) == genes()


def test_totals_of_genes(tmp_path):
    with open_cells(h5ad(make_adata(), tmp_path)) as cells:
        assert cells.column_totals() == pytest.approx(counts().sum(axis=0))


def test_dense_rows_are_read_in_slabs(tmp_path, monkeypatch):
    from scdrugmap.data import sources

    monkeypatch.setattr(sources, "_DENSE_BYTES", 7 * 4 * N_GENES)
    adata = make_adata()
    adata.X = adata.X.toarray()
    for options in ({}, {"compression": "gzip"}):
        with open_cells(h5ad(adata, tmp_path, **options)) as cells:
            assert np.array_equal(values_of(cells, 25), counts())


def test_fingerprints_are_equal_for_equal_cells_only():
    values = counts()
    values[11] = values[7]
    with open_cells(make_adata(values)) as cells:
        prints = cells.fingerprints()
    assert prints.dtype == object
    assert all(len(text) == 32 for text in prints)
    _, same = np.unique(values, axis=0, return_inverse=True)
    _, found = np.unique(prints.astype(str), return_inverse=True)
    assert np.array_equal(same[:, None] == same[None], found[:, None] == found[None])
    assert prints[3] == "0" * 32


def test_fingerprints_do_not_depend_on_file_order_or_storage(tmp_path):
    adata = make_adata()
    with open_cells(adata) as cells:
        expected = cells.fingerprints()
    order = np.random.default_rng(2).permutation(N_GENES)
    shuffled = adata[:, order].copy()
    extra = AnnData(
        sparse.csr_matrix((N_CELLS, 5), dtype=np.float32),
        obs=adata.obs,
        var=pd.DataFrame(index=list(gene_table().names("symbol")[100:105])),
    )
    import anndata

    wider = anndata.concat([shuffled, extra], axis=1, merge="same")
    ids = adata.copy()
    ids.var_names = gene_table().resolve(genes(), "symbol")[1]
    dense = adata.copy()
    dense.X = dense.X.toarray().astype(np.float64)
    for other in (shuffled, wider, ids, h5ad(dense, tmp_path)):
        with open_cells(other) as cells:
            assert list(cells.fingerprints()) == list(expected)
            assert list(cells.subset(np.array([4, 1])).fingerprints()) == list(expected[[4, 1]])


def test_fingerprints_change_with_every_value():
    with open_cells(make_adata()) as cells:
        before = cells.fingerprints()
    values = counts()
    values[np.arange(N_CELLS), np.arange(N_CELLS) % N_GENES] += 1
    with open_cells(make_adata(values)) as cells:
        assert not np.any(cells.fingerprints() == before)


def test_file_of_anndata_0_5_is_read(tmp_path):
    path = tmp_path / "old.h5ad"
    with h5py.File(path, "w") as file:
        file["X"] = counts()
        obs = np.zeros(N_CELLS, dtype=[("index", "S8"), ("depth", "f4")])
        obs["index"] = [f"cell{i}" for i in range(N_CELLS)]
        obs["depth"] = counts().sum(axis=1)
        file["obs"] = obs
        file["var"] = np.array([(name,) for name in genes()], dtype=[("index", "S20")])
    with open_cells(path) as cells:
        assert np.array_equal(values_of(cells), counts())
        assert cells.names[4] == "cell4"
        assert cells.obs["depth"].iloc[5] == counts()[5].sum()


def test_file_of_anndata_0_7_is_read(tmp_path):
    path = tmp_path / "old.h5ad"
    matrix = sparse.csr_matrix(counts())
    with h5py.File(path, "w") as file:
        group = file.create_group("raw.X")
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csr", matrix.shape
        group["data"], group["indices"], group["indptr"] = (
            matrix.data,
            matrix.indices,
            matrix.indptr,
        )
        file["raw.var"] = np.array([(name,) for name in genes()], dtype=[("index", "S20")])
        for part, names in (
            ("obs", [f"cell{i}" for i in range(N_CELLS)]),
            ("var", genes()),
        ):
            file.create_group(part).attrs["_index"] = "index"
            file[part].create_dataset("index", data=names, dtype=h5py.string_dtype())
        obs = file["obs"]
        obs["response"] = np.array([i % 2 for i in range(N_CELLS)], dtype="i1")
        obs.create_dataset(
            "__categories/response", data=["resistant", "sensitive"], dtype=h5py.string_dtype()
        )
        obs["response"].attrs["categories"] = obs["__categories/response"].ref
    with open_cells(path) as cells:
        assert cells.matrix.location == "raw/X"
        assert np.array_equal(values_of(cells), counts())
        assert cells.obs["response"].tolist()[:3] == ["resistant", "sensitive", "resistant"]


def test_unknown_column_of_where_names_the_nearest():
    with pytest.raises(UsageError, match="no column 'patients'") as caught:
        open_cells(make_adata(), where=[("patients", "p1")])
    assert "patient" in caught.value.hint


def test_two_readers_share_a_file(tmp_path):
    path = h5ad(make_adata(), tmp_path)
    with open_cells(path) as one, open_cells(path) as two:
        assert np.array_equal(values_of(one), values_of(two))


def test_temporary_file_of_columns_is_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    adata = make_adata()
    adata.X = adata.X.tocsc()
    with open_cells(h5ad(adata, tmp_path)) as cells:
        assert np.array_equal(values_of(cells), counts())
    assert list((tmp_path / "tmp").iterdir()) == []


def test_no_room_for_the_temporary_file(tmp_path, monkeypatch):
    from collections import namedtuple

    from scdrugmap.errors import ResourceError

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage(100, 100, 0))
    adata = make_adata()
    adata.X = adata.X.tocsc()
    with pytest.raises(ResourceError, match="bytes are needed to turn cells") as caught:
        open_cells(h5ad(adata, tmp_path))
    assert "TMPDIR" in caught.value.hint


def test_a_name_with_a_nul_is_refused_since_two_could_be_taken_for_one() -> None:
    adata = make_adata()
    adata.obs_names = ["cell0\x00", *adata.obs_names[1:]]
    with pytest.raises(DataError, match=r"1 of 57 cell names hold a NUL character .*row 0"):
        open_cells(adata)
