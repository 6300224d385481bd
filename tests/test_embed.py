"""Files are embedded part by part, through the store, in the order of their cells."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)  # the toy models are imported by name

from toy_models import GROUP_SPEC, SPEC  # noqa: E402

from scdrugmap.data.cells import Cells, open_cells  # noqa: E402
from scdrugmap.errors import DataError, PluginError, UsageError  # noqa: E402
from scdrugmap.model import job as job_module  # noqa: E402
from scdrugmap.model import parts  # noqa: E402
from scdrugmap.model.embed import EmbeddingJob, Embeddings, embed_cells, embed_rows  # noqa: E402
from scdrugmap.model.embed_file import ModelRequest  # noqa: E402
from scdrugmap.model.explain_cache import why_not_cached  # noqa: E402
from scdrugmap.model.load import LoadedModel, load_model  # noqa: E402
from scdrugmap.model.parts import Shard, group_indices, plan_parts  # noqa: E402
from scdrugmap.model.prefetch import Prefetched  # noqa: E402
from scdrugmap.run.store import Store  # noqa: E402
from scdrugmap.testing import synthetic_adata  # noqa: E402

N = 50


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_CELLS", 16)
    monkeypatch.setattr(parts, "GROUP_CELLS", 16)
    monkeypatch.setattr(job_module, "WINDOW_CELLS", 5)


def cohort(n_cells: int = N, seed: int = 0) -> ad.AnnData:
    adata = synthetic_adata(n_cells, 60, seed=seed, n_patients=5)
    adata.X.data[adata.X.indptr[7] : adata.X.indptr[8]] = 0
    adata.X.eliminate_zeros()
    return adata


@pytest.fixture
def cells() -> Iterator[Cells]:
    with open_cells(cohort(), name="cohort") as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def toy(**settings: Any) -> LoadedModel:
    return load_model(SPEC, **settings)


def run(cells: Cells, loaded: LoadedModel, store: Store, **settings: Any) -> Embeddings:
    return embed_cells(
        cells, loaded, store=store, device="cpu", min_genes=1, quiet=True, **settings
    )


def n_entries(store: Store) -> int:
    return len(list(store.entries("embedding")))


def test_a_file_gives_what_its_rows_give_in_memory(cells: Cells, store: Store) -> None:
    loaded = toy()
    found = run(cells, loaded, store)
    expected = embed_rows(loaded.model, cells.genes, cells.rows(np.arange(N)), cells.names)
    np.testing.assert_allclose(found.values, expected, atol=1e-6)
    assert found.names.tolist() == cells.names.tolist()
    assert found.values.dtype == np.float32


def test_a_cell_without_known_genes_is_nan_with_a_status(cells: Cells, store: Store) -> None:
    for _ in range(2):  # computed, then read from the store
        found = run(cells, toy(), store)
        assert np.flatnonzero(np.isnan(found.values).any(1)).tolist() == [7]
        assert found.status[7] == "no_known_genes"
        assert set(np.delete(found.status, 7)) == {""}
        assert found.record["n_no_known_genes"] == 1


def test_a_second_run_reads_the_store_and_gives_the_same_bytes(
    cells: Cells, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(cells, toy(), store)
    assert n_entries(store) == 4
    monkeypatch.setattr(job_module.Network, "embed", None)
    assert run(cells, toy(), store).values.tobytes() == first.values.tobytes()


def test_a_run_that_was_stopped_goes_on_from_its_finished_parts(
    cells: Cells, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = run(cells, toy(), Store.disabled())
    job = EmbeddingJob(cells, toy(), store=store, device="cpu", min_genes=1, quiet=True)
    results = job.run(job.plan())
    next(results)
    next(results)
    results.close()
    assert n_entries(store) == 2
    calls = []
    original = job_module.write_part
    monkeypatch.setattr(job_module, "write_part", lambda *a: (calls.append(1), original(*a)))
    assert run(cells, toy(), store).values.tobytes() == undisturbed.values.tobytes()
    assert len(calls) == 2


def test_a_damaged_part_is_computed_again(
    cells: Cells, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(cells, toy(), store)
    values = next(store.entries()).path / "values.npy"
    content = bytearray(values.read_bytes())
    content[-1] ^= 1
    values.write_bytes(content)
    assert run(cells, toy(), store).values.tobytes() == first.values.tobytes()
    assert "values.npy has another hash" in capsys.readouterr().err


def test_some_cells_come_in_the_order_asked_for(cells: Cells, store: Store) -> None:
    loaded = toy()
    whole = run(cells, loaded, store)
    index = np.random.default_rng(0).permutation(N)[:30]
    some = run(cells, loaded, store, index=index)
    np.testing.assert_allclose(some.values, whole.values[index], atol=1e-6)
    assert some.names.tolist() == cells.names[index].tolist()


@pytest.mark.parametrize("budget", [1, 64, 100_000])
def test_the_token_budget_changes_no_key_and_no_value(
    cells: Cells, store: Store, budget: int
) -> None:
    expected = run(cells, toy(), Store.disabled())
    found = run(cells, toy(), store, token_budget=budget)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-6)
    run(cells, toy(), store)
    assert n_entries(store) == 4


def test_options_are_part_of_the_key(cells: Cells, store: Store) -> None:
    run(cells, toy(), store)
    run(cells, toy(settings={"max_length": "9"}), store)
    assert n_entries(store) == 8


def test_the_seed_is_part_of_the_key_where_it_acts_only(cells: Cells, store: Store) -> None:
    for seed in (0, 1):
        run(cells, load_model("randproj", seed=seed), store)
    assert n_entries(store) == 4
    for seed in (0, 1):
        scgpt = load_model("scgpt", weights="random", settings={"variant": "tiny"}, seed=seed)
        run(cells, scgpt, store)
    assert n_entries(store) == 12


def test_why_names_the_differing_option(store: Store, tmp_path: Path) -> None:
    cohort().write_h5ad(tmp_path / "c.h5ad")
    request = ModelRequest("randproj", {"dim": "8"})
    settings: dict[str, Any] = {"store": store, "device": "cpu"}
    empty = why_not_cached(tmp_path / "c.h5ad", request, **settings)
    assert empty.lines()[1] == "the cache holds no embedding of this model"
    with open_cells(tmp_path / "c.h5ad") as cells:
        run(cells, request.load(), store)
    assert why_not_cached(tmp_path / "c.h5ad", request, **settings).lines() == [
        "4 of 4 parts are in the cache"
    ]
    other = why_not_cached(tmp_path / "c.h5ad", ModelRequest("randproj", {"dim": "9"}), **settings)
    assert other.lines() == [
        "0 of 4 parts are in the cache",
        "4 parts: the option dim differs: stored 8, wanted 9",
    ]
    assert other.to_dict()["reasons"]["model.options.dim"]["parts"] == 4


def test_why_names_changed_cells(store: Store, tmp_path: Path) -> None:
    adata = cohort()
    adata.write_h5ad(tmp_path / "a.h5ad")
    with open_cells(tmp_path / "a.h5ad") as cells:
        run(cells, load_model("randproj"), store)
    adata.X.data[adata.X.indptr[20]] += 1
    adata.write_h5ad(tmp_path / "b.h5ad")
    answer = why_not_cached(tmp_path / "b.h5ad", ModelRequest("randproj"), store=store)
    assert (answer.n_found, answer.n_parts) == (3, 4)
    assert set(answer.reasons) == {"cells"}


def test_a_model_without_the_capability_is_refused(cells: Cells, store: Store) -> None:
    loaded = toy()
    loaded.spec = SPEC.model_copy(update={"capabilities": frozenset()})
    with pytest.raises(PluginError, match="cannot embed"):
        run(cells, loaded, store)


def test_too_few_known_genes_stop_before_any_work(cells: Cells, store: Store) -> None:
    with pytest.raises(DataError, match=r"60 of 60 genes match .*need 500"):
        embed_cells(cells, toy(), store=store, device="cpu", quiet=True)
    assert n_entries(store) == 0


def test_an_error_of_the_tokenizer_reaches_the_caller(
    cells: Cells, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = toy()

    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("in the thread")

    monkeypatch.setattr(loaded.model.tokenizer, "encode", fail)
    with pytest.raises(ZeroDivisionError, match="in the thread"):
        run(cells, loaded, store)
    assert not any(thread.name == "scdrugmap-prefetch" for thread in threading.enumerate())
    monkeypatch.undo()
    run(cells, toy(), store)  # no lock is left


def group_toy() -> LoadedModel:
    return load_model(GROUP_SPEC)


def test_groups_are_samples_whatever_the_order_of_cells(cells: Cells, store: Store) -> None:
    loaded = group_toy()
    found = run(cells, loaded, store, sample="patient")
    for patient in cells.obs["patient"].unique():
        index = np.flatnonzero(cells.obs["patient"] == patient)
        alone = embed_rows(
            loaded.model,
            cells.genes,
            cells.rows(index),
            cells.names[index],
            groups=np.full(len(index), "x", object),
        )
        np.testing.assert_allclose(found.values[index], alone, atol=1e-6)
    assert found.record["groups"] == "patient"
    assert np.isnan(found.values[7]).all()


def test_groups_decide_the_key(cells: Cells, store: Store) -> None:
    run(cells, group_toy(), store, sample="patient")
    before = n_entries(store)
    run(cells, group_toy(), store, sample="batch")
    assert n_entries(store) > before


def test_windows_in_file_order_are_announced(
    cells: Cells, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    found = embed_cells(cells, group_toy(), store=store, device="cpu", min_genes=1)
    assert "windows in file order are used" in capsys.readouterr().err
    assert found.record["groups"] == "windows in file order"


def test_a_sample_column_that_is_not_there_is_wrong_usage(cells: Cells, store: Store) -> None:
    with pytest.raises(UsageError, match="has no column 'pateint'") as caught:
        run(cells, group_toy(), store, sample="pateint")
    assert "did you mean patient" in caught.value.hint


def test_long_samples_are_cut_into_equal_windows() -> None:
    groups = group_indices(np.array(["a"] * 33 + ["b"] * 3, object), 36)
    assert [len(group) for group in groups] == [11, 11, 11, 3]
    assert group_indices(None, 0) == []


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_shards_are_the_parts_of_the_whole(grouped: bool, n: int) -> None:
    labels = np.arange(200) % 23
    whole = plan_parts(np.arange(200), grouped=grouped, labels=labels)
    shards = [
        plan_parts(np.arange(200), grouped=grouped, labels=labels, shard=Shard(i, n))
        for i in range(1, n + 1)
    ]
    joined = [part for shard in shards for part in shard]
    assert [p.index.tolist() for p in joined] == [p.index.tolist() for p in whole]
    assert [p.groups for p in joined] == [p.groups for p in whole]


def test_parts_end_where_groups_end() -> None:
    labels = np.repeat(np.arange(10), 7)
    for part in plan_parts(np.arange(70), grouped=True, labels=labels):
        assert part.groups is not None
        assert sum(part.groups) == len(part.index) <= 16
        assert set(part.groups) == {7}


@pytest.mark.parametrize(("n_cells", "n"), [(10, 4), (3, 5), (0, 2)])
def test_a_small_file_gives_every_shard_a_share(n_cells: int, n: int) -> None:
    shards = [plan_parts(np.arange(n_cells), shard=Shard(i, n)) for i in range(1, n + 1)]
    index = [int(i) for shard in shards for part in shard for i in part.index]
    assert index == list(range(n_cells))
    assert sum(bool(shard) for shard in shards) == min(n, n_cells)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "1/3/5", "-1/3"])
def test_a_shard_of_another_form_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match="--shard"):
        Shard.parse(text)
    assert str(Shard.parse("2/3")) == "2/3"


def test_prefetching_gives_items_in_order_and_ends_when_left() -> None:
    made: list[int] = []

    def produce(stopped: Any) -> Iterator[int]:
        for number in range(1000):
            made.append(number)
            yield number

    with Prefetched(produce) as items:
        taken = [item for item, _ in zip(items, range(3), strict=False)]
    assert taken == [0, 1, 2]
    assert len(made) < 10


@pytest.mark.slow
def test_a_killed_process_goes_on_and_gives_the_same_bytes(tmp_path: Path) -> None:
    cohort(400).write_h5ad(tmp_path / "c.h5ad")
    code = f"""
import sys
sys.path.insert(0, {HERE!r})
from pathlib import Path
from toy_models import SPEC
from scdrugmap.data.cells import open_cells
from scdrugmap.model import embed, parts
from scdrugmap.model.load import load_model
from scdrugmap.run.store import Store
parts.PART_CELLS = 16
with open_cells({str(tmp_path / "c.h5ad")!r}) as cells:
    found = embed.embed_cells(cells, load_model(SPEC), store=Store(Path(sys.argv[1])),
                              device="cpu", min_genes=1, token_budget=64)
sys.stdout.buffer.write(found.values.tobytes())
"""
    command = [sys.executable, "-c", code]
    cache, clean = tmp_path / "cache", tmp_path / "clean"
    process = subprocess.Popen([*command, str(cache)], stdout=subprocess.DEVNULL)
    for _ in range(600):
        if (
            len(list(cache.glob("embedding/*/[0-9a-f]*/manifest.json"))) >= 3
            or process.poll() is not None
        ):
            break
        time.sleep(0.05)
    process.kill()
    process.wait()
    kept = {path: path.stat().st_ino for path in cache.glob("embedding/*/[0-9a-f]*/manifest.json")}
    assert 3 <= len(kept) < 25
    done = [
        subprocess.run([*command, str(folder)], capture_output=True, check=True)
        for folder in (cache, clean)
    ]
    assert kept == {path: path.stat().st_ino for path in kept}
    assert done[0].stdout == done[1].stdout
    assert not list(cache.rglob("*.scdrugmap-tmp"))
    assert not list(cache.rglob("*.lock"))


@pytest.mark.slow
def test_two_processes_share_one_cache(tmp_path: Path) -> None:
    cohort(200).write_h5ad(tmp_path / "c.h5ad")
    command = [
        *(sys.executable, "-m", "scdrugmap", "embed", str(tmp_path / "c.h5ad")),
        *("--model", "scgpt", "--weights", "random", "--set", "variant=tiny", "--min-genes", "1"),
    ]
    running = [
        subprocess.Popen([*command, "-o", str(tmp_path / f"{n}.h5ad")], stderr=subprocess.PIPE)
        for n in range(2)
    ]
    for process in running:
        _, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
    first, second = (ad.read_h5ad(tmp_path / f"{n}.h5ad") for n in range(2))
    assert first.obsm["X_scgpt"].tobytes() == second.obsm["X_scgpt"].tobytes()
