"""Shards of one embedding become the file that an undivided run writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest

from scdrugmap.errors import DataError, UsageError
from scdrugmap.model import parts
from scdrugmap.model.embed_file import ModelRequest, embed_file
from scdrugmap.model.merge import merge_embeddings
from scdrugmap.model.parts import Shard
from scdrugmap.run.store import Store
from scdrugmap.testing import synthetic_adata

N = 45


def write_cells(folder: Path) -> Path:
    adata = synthetic_adata(N, 600)
    adata.X.data[adata.X.indptr[20] : adata.X.indptr[21]] = 0
    adata.X.eliminate_zeros()
    adata.obs["rare"] = pd.Categorical(["a"] * 40 + ["b"] * 5)
    adata.write_h5ad(folder / "cells.h5ad")
    return folder / "cells.h5ad"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(parts, "PART_CELLS", 8)
    return write_cells(tmp_path)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return shards(write_cells(tmp_path_factory.mktemp("shards")), 3, store=Store.disabled())


@pytest.fixture
def three(prepared: list[Path], tmp_path: Path) -> list[Path]:
    """Three shards that a test may damage."""
    return [Path(shutil.copy(path, tmp_path)) for path in prepared]


def shards(source: Path, n: int, **settings: Any) -> list[Path]:
    made = []
    request = ModelRequest("randproj", settings.pop("options", {"dim": "8"}))
    for i in range(1, n + 1):
        target = source.with_name(f"shard{i}.h5ad")
        target.unlink(missing_ok=True)
        embed_file(source, [request], target, shard=Shard(i, n), quiet=True, **settings)
        made.append(target)
    return made


def whole(source: Path, **settings: Any) -> ad.AnnData:
    target = source.with_name("whole.h5ad")
    embed_file(source, [ModelRequest("randproj", {"dim": "8"})], target, quiet=True, **settings)
    return ad.read_h5ad(target)


@pytest.mark.parametrize("n", [1, 3, 6])
def test_merged_shards_equal_the_undivided_run(source: Path, n: int) -> None:
    target = source.with_name("merged.h5ad")
    merge_embeddings(shards(source, n)[::-1], target)
    merged, expected = ad.read_h5ad(target), whole(source)
    np.testing.assert_array_equal(merged.obsm["X_randproj"], expected.obsm["X_randproj"])
    pd.testing.assert_frame_equal(merged.obs, expected.obs)
    left, right = (json.loads(a.uns["scdrugmap"]["embed_randproj"]) for a in (merged, expected))
    assert len(left.pop("made")["shards"]) == n
    right.pop("made")
    assert left == right


def test_shards_and_the_whole_share_their_parts(source: Path) -> None:
    store = Store(source.with_name("cache"))
    shards(source, 3, store=store)
    before = len(list(store.entries()))
    whole(source, store=store)
    assert len(list(store.entries())) == before == 6


def test_more_shards_than_cells_leave_empty_ones_that_merge(tmp_path: Path) -> None:
    source = tmp_path / "few.h5ad"
    synthetic_adata(3, 600).write_h5ad(source)
    made = shards(source, 5)
    assert sorted(ad.read_h5ad(path).n_obs for path in made) == [0, 0, 1, 1, 1]
    merge_embeddings(made, tmp_path / "merged.h5ad")
    assert ad.read_h5ad(tmp_path / "merged.h5ad").n_obs == 3


def test_shards_with_dropped_cells_merge_without_them(source: Path) -> None:
    merge_embeddings(shards(source, 3, empty="drop"), source.with_name("merged.h5ad"))
    merged, expected = ad.read_h5ad(source.with_name("merged.h5ad")), whole(source, empty="drop")
    assert merged.n_obs == N - 1
    assert merged.obs_names.tolist() == expected.obs_names.tolist()
    np.testing.assert_array_equal(merged.obsm["X_randproj"], expected.obsm["X_randproj"])


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    with h5py.File(path, "r+") as file:
        record = json.loads(file["uns/scdrugmap/embed_randproj"].asstr()[()])
        change(record)
        del file["uns/scdrugmap/embed_randproj"]
        file["uns/scdrugmap/embed_randproj"] = json.dumps(record)


def test_a_missing_shard_is_named(three: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 of 3 shards are missing: 2/3"):
        merge_embeddings([three[0], three[2]], tmp_path / "merged.h5ad")
    assert not (tmp_path / "merged.h5ad").exists()


def test_a_shard_named_twice_is_refused(three: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="shard 1/3 is there twice"):
        merge_embeddings([three[0], *three], tmp_path / "merged.h5ad")


def test_shards_of_other_options_are_refused(source: Path) -> None:
    first = shards(source, 2)[0].rename(source.with_name("first.h5ad"))
    second = shards(source, 2, options={"dim": "8", "variant": "tiny"})[1]
    with pytest.raises(DataError, match=r"randproj differs in what\.model\.options\.variant"):
        merge_embeddings([first, second], source.with_name("merged.h5ad"))


def test_shards_of_another_file_are_refused(source: Path, tmp_path: Path) -> None:
    first = shards(source, 2)[0].rename(tmp_path / "first.h5ad")
    adata = ad.read_h5ad(source)
    adata.obs_names = [f"other{name}" for name in adata.obs_names]
    adata.write_h5ad(source)
    with pytest.raises(DataError, match=r"differs in shard\.names"):
        merge_embeddings([first, shards(source, 2)[1]], tmp_path / "merged.h5ad")


def test_a_whole_embedding_is_no_shard(source: Path) -> None:
    whole(source)
    with pytest.raises(DataError, match="is no shard of an embedding"):
        merge_embeddings([source.with_name("whole.h5ad")], source.with_name("merged.h5ad"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["shard"].update(rows=[[0, 10**12]]), "is no shard"),
        (lambda r: r["shard"].update(rows=[[0, 3]]), "its record says 3"),
        (lambda r: r["shard"].update(rows=[[0, 15]]), "different cells of 45"),
        (lambda r: r["shard"].update(n="2"), "is no shard"),
        (lambda r: r.update(shard=[]), "is no shard"),
        (lambda r: r.update(dim=9), "differs in dim"),
    ],
)
def test_an_edited_record_is_refused(
    three: list[Path], tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    edit(three[1], change)
    with pytest.raises(DataError, match=message):
        merge_embeddings(three, tmp_path / "merged.h5ad")


def test_exchanged_names_are_noticed(three: list[Path], tmp_path: Path) -> None:
    adata = ad.read_h5ad(three[0])
    adata.obs_names = adata.obs_names[::-1]
    adata.write_h5ad(three[0])
    with pytest.raises(DataError, match="names of the cells are not those"):
        merge_embeddings(three, tmp_path / "merged.h5ad")


def test_a_file_without_cells_is_refused(three: list[Path], tmp_path: Path) -> None:
    with h5py.File(three[0], "r+") as file:
        del file["obs"]
    with pytest.raises(DataError, match="holds no table of cells"):
        merge_embeddings(three, tmp_path / "merged.h5ad")


def test_a_path_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        merge_embeddings([tmp_path / "no.h5ad"], tmp_path / "merged.h5ad")


def test_the_command_merges(cli: Callable[..., Any], three: list[Path], tmp_path: Path) -> None:
    made, target = three, tmp_path / "merged.h5ad"
    assert cli("merge", *made, "-o", target).code == 0
    assert ad.read_h5ad(target).n_obs == N
    refused = cli("merge", *made, "-o", target)
    assert refused.code == 2
    assert "exists" in refused.err
    assert cli("merge", *made, "-o", made[0], "--overwrite").code == 2
