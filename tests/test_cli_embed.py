"""``scdrugmap embed``, ``cache`` and ``throughput`` from the command line."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest

from scdrugmap.data.cells import open_cells
from scdrugmap.errors import DataError
from scdrugmap.model.embed import embed_cells
from scdrugmap.model.embedding_file import read_embeddings, storable
from scdrugmap.model.load import load_model
from scdrugmap.run.store import Store
from scdrugmap.testing import synthetic_adata

Cli = Callable[..., Any]
N = 40


def cohort(empty: bool = True) -> ad.AnnData:
    adata = synthetic_adata(N, 600)
    if empty:
        adata.X.data[adata.X.indptr[7] : adata.X.indptr[8]] = 0
        adata.X.eliminate_zeros()
    return adata


@pytest.fixture
def source(tmp_path: Path) -> Path:
    cohort().write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def ok(result: Any) -> Any:
    assert result.code == 0, result.err
    return result


SCGPT = ("--weights", "scgpt=random", "--set", "scgpt.variant=tiny", "--set", "scgpt.max_length=64")


def test_an_embedding_opens_in_anndata_with_its_record(
    cli: Cli, source: Path, tmp_path: Path
) -> None:
    before = digest(source)
    ok(cli("embed", source, "--model", "randproj,scgpt", *SCGPT, "-o", tmp_path / "o.h5ad"))
    found, original = ad.read_h5ad(tmp_path / "o.h5ad"), ad.read_h5ad(source)
    assert found.X is None
    assert found.n_vars == 0
    pd.testing.assert_frame_equal(found.obs, original.obs)
    assert {key: (v.dtype, v.shape) for key, v in found.obsm.items()} == {
        "X_randproj": (np.float32, (N, 256)),
        "X_scgpt": (np.float32, (N, 32)),
    }
    assert set(found.uns["scdrugmap"]) == {"embed_randproj", "embed_scgpt"}
    record = json.loads(found.uns["scdrugmap"]["embed_scgpt"])
    assert record["what"]["model"]["options"]["max_length"] == 64
    assert record["weights"]["label"].startswith("random weights")
    assert record["n_cells"] == N
    assert digest(source) == before


def test_the_command_gives_what_the_library_gives(cli: Cli, source: Path, tmp_path: Path) -> None:
    ok(cli("embed", source, "--model", "randproj", "-o", tmp_path / "o.h5ad", "--device", "cpu"))
    loaded = load_model("randproj")
    with open_cells(source) as cells:
        expected = embed_cells(cells, loaded, store=Store.disabled(), device="cpu", quiet=True)
    found = read_embeddings(tmp_path / "o.h5ad", "randproj")
    np.testing.assert_array_equal(found.values, expected.values)
    assert found.status.tolist() == expected.status.tolist()
    assert found.names.tolist() == expected.names.tolist()
    assert found.record["what"] == expected.record["what"]


def test_the_same_command_gives_the_same_bytes(
    cli: Cli, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("1", "2"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        ok(cli("embed", source, "--model", "randproj", "-o", "o.h5ad", "--no-cache"))
    assert digest(tmp_path / "1" / "o.h5ad") == digest(tmp_path / "2" / "o.h5ad")


def test_what_is_going_on_is_said_on_stderr_only(cli: Cli, source: Path, tmp_path: Path) -> None:
    result = ok(cli("embed", source, "--model", "scgpt", *SCGPT, "-o", tmp_path / "o.h5ad"))
    assert result.out == ""
    assert "scgpt (random weights (untrained, means nothing)): 40 cells on cpu" in result.err
    assert "Notice: 1 cells have no gene that scgpt knows: NaN rows" in result.err
    quiet = ok(cli("embed", source, "--model", "randproj", "-o", tmp_path / "q.h5ad", "--quiet"))
    assert quiet.out + quiet.err == ""


def test_cells_without_known_genes_are_kept_dropped_or_refused(
    cli: Cli, source: Path, tmp_path: Path
) -> None:
    whole, some = tmp_path / "nan.h5ad", tmp_path / "drop.h5ad"
    ok(cli("embed", source, "--model", "randproj", "-o", whole))
    ok(cli("embed", source, "--model", "randproj", "-o", some, "--empty", "drop"))
    kept, dropped = ad.read_h5ad(whole), ad.read_h5ad(some)
    assert np.flatnonzero(np.isnan(kept.obsm["X_randproj"]).all(1)).tolist() == [7]
    assert dropped.obs_names.tolist() == np.delete(kept.obs_names, 7).tolist()
    np.testing.assert_array_equal(
        dropped.obsm["X_randproj"], np.delete(kept.obsm["X_randproj"], 7, 0)
    )
    assert json.loads(dropped.uns["scdrugmap"]["embed_randproj"])["n_dropped"] == 1
    refused = cli(
        "embed", source, "--model", "randproj", "-o", tmp_path / "e.h5ad", "--empty", "error"
    )
    assert refused.code == 3
    assert "1 cells have no gene that randproj knows: cell_00007" in refused.err
    assert "--empty nan" in refused.err
    assert not (tmp_path / "e.h5ad").exists()


def test_into_adds_to_a_copy_and_keeps_the_rest(cli: Cli, source: Path, tmp_path: Path) -> None:
    mine = cohort()[::-1].copy()
    mine.obsm["X_pca"] = np.arange(2 * N, dtype=np.float64).reshape(N, 2)
    mine.uns["note"] = "kept"
    mine.write_h5ad(tmp_path / "mine.h5ad")
    ok(cli("embed", source, "--model", "randproj", "--into", tmp_path / "mine.h5ad"))
    ok(cli("embed", source, "--model", "scgpt", *SCGPT, "--into", tmp_path / "mine.h5ad"))
    ok(cli("embed", source, "--model", "randproj", "-o", tmp_path / "o.h5ad"))
    found, plain = ad.read_h5ad(tmp_path / "mine.h5ad"), ad.read_h5ad(tmp_path / "o.h5ad")
    np.testing.assert_array_equal(found.obsm["X_randproj"], plain.obsm["X_randproj"][::-1])
    np.testing.assert_array_equal(found.X.toarray(), mine.X.toarray())
    np.testing.assert_array_equal(found.obsm["X_pca"], mine.obsm["X_pca"])
    assert found.uns["note"] == "kept"
    assert set(found.uns["scdrugmap"]) == {"embed_randproj", "embed_scgpt"}


def test_into_with_an_output_leaves_the_file_alone(cli: Cli, source: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.h5ad"
    cohort().write_h5ad(mine)
    before = digest(mine)
    ok(cli("embed", source, "--model", "randproj", "--into", mine, "-o", tmp_path / "o.h5ad"))
    assert digest(mine) == before
    assert ad.read_h5ad(tmp_path / "o.h5ad").n_vars == 600


def test_an_embedding_that_is_there_is_replaced_only_on_demand(
    cli: Cli, source: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.h5ad"
    adata = cohort()
    adata.obsm["X_randproj"] = np.zeros((N, 3))
    adata.write_h5ad(mine)
    refused = cli("embed", source, "--model", "randproj", "--into", mine)
    assert refused.code == 2
    assert "holds obsm['X_randproj'] already" in refused.err
    assert "add --overwrite" in refused.err
    ok(cli("embed", source, "--model", "randproj", "--into", mine, "--overwrite"))
    assert ad.read_h5ad(mine).obsm["X_randproj"].shape == (N, 256)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--model", "randproj"), 2, "no output is named"),
        (("--model", "randproj", "-o", "{source}"), 2, "both input and output"),
        (("--model", "randproj", "--into", "{source}"), 2, "both input and output"),
        (("--model", "randproj", "--into", "no.h5ad"), 2, "no.h5ad does not exist"),
        (("--model", "randproj", "-o", "no/o.h5ad"), 2, "the folder no does not exist"),
        (("--model", "randproj", "-o", "o.h5ad", "--shard", "3/2"), 2, "--shard '3/2'"),
        (("--model", "randproj,randproj", "-o", "o.h5ad"), 2, "a model twice"),
        (("--model", ",", "-o", "o.h5ad"), 2, "no model"),
        (("--model", "randprj", "-o", "o.h5ad"), 4, "no model named 'randprj'"),
        (("--model", "scgpt", "-o", "o.h5ad"), 4, "no weights of whole-human"),
        (("--model", "randproj", "-o", "o.h5ad", "--set", "dmi=3"), 2, "no option 'dmi'"),
        (("--model", "randproj", "-o", "o.h5ad", "--device", "cuda:99"), 5, "this machine has"),
        (("--model", "randproj", "-o", "o.h5ad", "--sample", "x"), 2, "'x'"),
        (("--model", "randproj", "-o", "o.h5ad", "--min-genes", "601"), 3, "600 of 600 genes"),
    ],
)
def test_what_cannot_work_is_said_in_one_line_and_writes_nothing(
    cli: Cli,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(source.parent)
    before = sorted(source.parent.iterdir())
    result = cli("embed", source, *(text.format(source=source) for text in arguments))
    assert result.code == code
    assert message in result.err
    assert "Traceback" not in result.err
    assert sorted(source.parent.iterdir()) == before


def test_an_existing_output_is_replaced_only_on_demand(
    cli: Cli, source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "o.h5ad"
    target.write_text("mine")
    assert cli("embed", source, "--model", "randproj", "-o", target).code == 2
    assert target.read_text() == "mine"
    ok(cli("embed", source, "--model", "randproj", "-o", target, "--overwrite"))
    assert read_embeddings(target, "randproj").values.shape == (N, 256)


def test_into_a_file_of_other_cells_is_refused(cli: Cli, source: Path, tmp_path: Path) -> None:
    cohort()[:30].copy().write_h5ad(tmp_path / "other.h5ad")
    before = digest(tmp_path / "other.h5ad")
    result = cli("embed", source, "--model", "randproj", "--into", tmp_path / "other.h5ad")
    assert result.code == 3
    assert "has 30 cells, cells.h5ad 40; 10 of these are not in it, 'cell_00030'" in result.err
    assert digest(tmp_path / "other.h5ad") == before


def test_a_damaged_block_leaves_no_output(cli: Cli, source: Path, tmp_path: Path) -> None:
    with h5py.File(source, "r+") as file:
        file["X/data"][5] = np.nan
    result = cli("embed", source, "--model", "randproj", "-o", tmp_path / "o.h5ad")
    assert result.code == 3
    assert "NaN" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["cells.h5ad"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_found_before_the_work(
    cli: Cli, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    result = cli("embed", source, "--model", "randproj", "-o", tmp_path / "locked" / "o.h5ad")
    assert result.code == 5
    assert "permission denied" in result.err


def test_without_a_cache_embedding_works_and_says_so(
    cli: Cli, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SCDRUGMAP_CACHE", str(tmp_path / "file" / "cache"))
    result = ok(cli("embed", source, "--model", "randproj", "-o", tmp_path / "o.h5ad"))
    assert "cannot be written to: finished work is not kept" in result.err


def test_log_normalised_files_are_embedded_by_models_that_accept_them(
    cli: Cli, tmp_path: Path
) -> None:
    synthetic_adata(10, 600, values="lognorm").write_h5ad(tmp_path / "l.h5ad")
    ok(cli("embed", tmp_path / "l.h5ad", "--model", "randproj", "-o", tmp_path / "o.h5ad"))
    record = read_embeddings(tmp_path / "o.h5ad", "randproj").record
    assert record["what"]["matrix"]["values"] == "lognorm"


def test_only_chosen_cells_are_embedded(cli: Cli, source: Path, tmp_path: Path) -> None:
    ok(
        cli(
            *("embed", source, "--model", "randproj", "-o", tmp_path / "o.h5ad"),
            *("--where", "response=sensitive"),
        )
    )
    found = ad.read_h5ad(tmp_path / "o.h5ad")
    assert found.n_obs == 20
    assert set(found.obs["response"]) == {"sensitive"}


def test_hostile_names_and_columns_survive(cli: Cli, tmp_path: Path) -> None:
    adata = cohort()
    names = ["=cmd()", "<script>", "../../etc/x", "tab\tname", "new\nline", "ä 𝄞"]
    adata.obs_names = [*names, *adata.obs_names[len(names) :]]
    adata.obs["gaps"] = pd.Series([None, "x"] * (N // 2), index=adata.obs_names, dtype=object)
    adata.write_h5ad(tmp_path / "c.h5ad")
    ok(cli("embed", tmp_path / "c.h5ad", "--model", "randproj", "-o", tmp_path / "o.h5ad"))
    found = ad.read_h5ad(tmp_path / "o.h5ad")
    assert found.obs_names[: len(names)].tolist() == names
    assert found.obs["gaps"].isna().sum() == N // 2


def test_reserved_column_names_are_changed_and_said() -> None:
    frame, notices = storable(pd.DataFrame({"a/b": [1], "_index": ["x"], "a_b": [2]}, index=["c"]))
    assert list(frame.columns) == ["a_b", "_index_", "a_b_"]
    assert "column of obs a/b is written as a_b" in notices


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file["obsm"].pop("X_randproj"), "holds no embedding of randproj"),
        (lambda file: _replace(file, np.zeros((3, 256))), "no float matrix of 40 rows"),
        (lambda file: _replace(file, np.zeros(N)), "no float matrix of 40 rows"),
        (lambda file: _replace(file, np.zeros((N, 2), int)), "no float matrix"),
        (lambda file: _replace(file, np.full((N, 2), np.inf)), "partly NaN, or infinite"),
        (lambda file: _replace(file, np.array([[0, np.nan]] * N)), "partly NaN, or infinite"),
        (lambda file: _record(file, "{"), "is no record"),
        (lambda file: _record(file, "[]"), "is no record"),
    ],
)
def test_a_damaged_embedding_is_refused(
    cli: Cli, source: Path, tmp_path: Path, damage: Callable[[h5py.File], object], message: str
) -> None:
    target = tmp_path / "o.h5ad"
    ok(cli("embed", source, "--model", "randproj", "-o", target))
    with h5py.File(target, "r+") as file:
        damage(file)
    with pytest.raises(DataError, match=message):
        read_embeddings(target, "randproj")


def _replace(file: h5py.File, values: np.ndarray) -> None:
    del file["obsm/X_randproj"]
    file["obsm/X_randproj"] = values


def _record(file: h5py.File, text: str) -> None:
    del file["uns/scdrugmap/embed_randproj"]
    file["uns/scdrugmap/embed_randproj"] = text


def test_values_that_read_back_differently_are_noticed(
    cli: Cli, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scdrugmap.model import embedding_file

    monkeypatch.setattr(embedding_file, "write_runs", lambda dataset, rows, values: None)
    result = cli("embed", source, "--model", "randproj", "-o", tmp_path / "o.h5ad")
    assert result.code == 5
    assert "reads back differently" in result.err
    assert not (tmp_path / "o.h5ad").exists()


def test_the_cache_is_listed_explained_and_cleared(cli: Cli, source: Path, tmp_path: Path) -> None:
    assert "0 of 1 parts" in ok(cli("cache", "why", source, "--model", "randproj")).out
    ok(cli("embed", source, "--model", "randproj", "-o", tmp_path / "o.h5ad"))
    assert ok(cli("cache", "why", source, "--model", "randproj")).out == (
        "1 of 1 parts are in the cache\n"
    )
    why = ok(cli("cache", "why", source, "--model", "randproj", "--set", "dim=9", "--json"))
    reason = json.loads(why.out)["reasons"]["model.options.dim"]
    assert reason == {"parts": 1, "stored": None, "wanted": 9}
    listed = json.loads(ok(cli("cache", "list", "--json")).out)
    assert [row["model"] for row in listed["entries"]] == ["randproj"]
    assert "randproj" in ok(cli("cache", "list")).out
    ok(cli("cache", "clear", "--model", "scgpt", "--yes"))
    assert json.loads(ok(cli("cache", "list", "--json")).out)["entries"] != []
    ok(cli("cache", "clear", "--yes"))
    assert json.loads(ok(cli("cache", "list", "--json")).out)["entries"] == []


def test_throughput_measures_a_model(cli: Cli) -> None:
    arguments = ("throughput", "--model", "scgpt", *SCGPT, "--cells", "3", "--length", "50")
    found = json.loads(ok(cli(*arguments, "--json")).out)
    assert found["tokens_per_cell"] == 51
    assert found["cells_per_s"] > 0
    assert 0 < found["share_of_matmul_rate"] < 2
    assert found["peak_memory_bytes"] > 1e7
    # 2 layers, 32 wide, 51 tokens: the linear layers alone are 2 * 51 * (4 * 32^2 + 2 * 32 * 32)
    assert found["gflop_per_cell"] * 1e9 > 2 * 2 * 51 * 4 * 32**2
    assert "GFLOP per cell" in ok(cli(*arguments)).out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--length", "99999999"), "genes that randproj knows"), (("--cells", "0"), "0")],
)
def test_throughput_refuses_impossible_cells(
    cli: Cli, arguments: tuple[str, str], message: str
) -> None:
    result = cli("throughput", "--model", "randproj", *arguments)
    assert result.code == 2
    assert message in result.err
