"""Every file of ours gives back what was written into it, and says so when it was damaged."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from made_up import (
    FILES,
    KNOWN_GENES,
    QUICK,
    SLOW,
    cell_names,
    counts,
    hostile_names,
    orders,
    probabilities,
    seeds,
    texts,
)

from scdrugmap.data.cells import open_cells
from scdrugmap.data.convert import convert
from scdrugmap.data.gene_rows import read_gene_rows
from scdrugmap.errors import DataError
from scdrugmap.evaluation.tables import (
    COMPARISON_COLUMNS,
    FACET,
    METRIC_COLUMNS,
    PREDICTION_COLUMNS,
    read_comparisons,
    read_metrics,
    read_predictions,
    write_comparisons,
    write_metrics,
    write_predictions,
)
from scdrugmap.model.embedding_file import (
    EmbeddingWriter,
    from_runs,
    read_embeddings,
    to_runs,
)
from scdrugmap.model.gene_embedding import GeneEmbeddings, write_gene_embeddings
from scdrugmap.model.parts import read_part, write_part
from scdrugmap.model.token_store import _Entry, _write
from scdrugmap.modelkit.tokens import Tokens
from scdrugmap.run.store import Store
from scdrugmap.tables import compress, read_table, table_bytes, write_table
from scdrugmap.testing import synthetic_adata
from scdrugmap.train.archive import Archive, write_archive
from scdrugmap.train.checkpoint import Checkpoint
from scdrugmap.train.predict import predict_cells
from scdrugmap.train.predictor import Predictor
from scdrugmap.train.state import dump_state, load_state
from scdrugmap.train.tensors import dump_tensors, load_tensors

columns = st.lists(hostile_names, min_size=1, max_size=4, unique=True)
floats = st.floats(allow_nan=True, allow_infinity=True)


@QUICK
@given(
    columns, st.lists(st.tuples(hostile_names, floats, st.integers(-(2**53), 2**53)), max_size=6)
)
def test_a_table_comes_back_whatever_its_texts_and_headers(
    header: list[str], rows: list[tuple[str, float, int]]
) -> None:
    header = [f"{name}{place}" for place, name in enumerate(header)]
    frame = pd.DataFrame({name: [row[0] for row in rows] for name in header}, dtype=object)
    frame["number"] = np.array([row[1] for row in rows], np.float64)
    frame["whole"] = np.array([row[2] for row in rows], np.int64)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.tsv"
        write_table(frame, path)
        back = read_table(path, header, {"number": "float64", "whole": "int64"})
    pd.testing.assert_frame_equal(back, frame, check_column_type=False)


@QUICK
@given(st.lists(st.tuples(hostile_names, hostile_names), min_size=1, max_size=8))
def test_a_table_has_a_line_per_row_and_a_field_per_column(rows: list[tuple[str, str]]) -> None:
    frame = pd.DataFrame(rows, columns=["one", "other"])
    lines = table_bytes(frame).decode("utf-8").split("\n")
    assert lines.pop() == ""
    assert len(lines) == len(rows) + 1
    for line in lines:
        fields = line.split("\t")
        assert len(fields) == 2
        assert not any(field.startswith(("=", "+", "-", "@")) for field in fields)


@st.composite
def predictions(draw: st.DrawFn) -> pd.DataFrame:
    """Draw a valid table of predictions."""
    cells = draw(st.lists(cell_names, min_size=1, max_size=6, unique=True))
    rows = []
    for cell in cells:
        state = draw(st.sampled_from(["answered", "abstained", "invalid"]))
        rows.append(
            {
                "dataset": draw(cell_names),
                "cell": cell,
                "sample": draw(cell_names | st.just("")),
                "model": draw(hostile_names),
                "strategy": "frozen",
                "fold": draw(st.integers(0, 99)),
                "seed": draw(st.integers(0, 2**40)),
                "role": draw(st.sampled_from(["train", "test", "new"])),
                "p_sensitive": draw(st.floats(0, 1)) if state == "answered" else np.nan,
                "threshold": draw(st.floats(0, 1)),
                "state": state,
                "reason": draw(texts),
            }
        )
    return pd.DataFrame(rows, columns=list(PREDICTION_COLUMNS))


@QUICK
@given(predictions(), st.booleans())
def test_predictions_come_back_from_their_file(table: pd.DataFrame, packed: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("p.tsv.gz" if packed else "p.tsv")
        write_predictions(table, path)
        pd.testing.assert_frame_equal(read_predictions(path), table)


def _filled(names: tuple[str, ...], texts_of: tuple[str, ...], whole: tuple[str, ...]) -> Any:
    one = {
        name: cell_names if name in texts_of else st.integers(0, 2**40) if name in whole else floats
        for name in names
    }
    return st.fixed_dictionaries(one)


_METRIC_TEXTS = ("protocol", "model", "strategy", "dataset", "metric", "note")
_WHOLE = ("n", "n_sensitive", "n_groups", "n_invalid", "seed", "n_units", "n_comparisons")


@QUICK
@given(
    st.lists(_filled(METRIC_COLUMNS, _METRIC_TEXTS, _WHOLE), min_size=1, max_size=4),
    cell_names,
    st.sampled_from(["cell", "sample", "dataset_macro"]),
)
def test_metrics_come_back_from_their_file(
    rows: list[dict[str, Any]], facet: str, level: str
) -> None:
    table = pd.DataFrame(rows, columns=list(METRIC_COLUMNS))
    table["level"], table["fold"], table[FACET] = level, "all", facet
    table["metric"] = [f"{name}{place}" for place, name in enumerate(table["metric"])]
    table["seed"] = table["seed"].astype(np.int64)
    with tempfile.TemporaryDirectory() as folder:
        write_metrics(table, Path(folder) / "metrics.tsv")
        back = read_metrics(Path(folder) / "metrics.tsv")
    pd.testing.assert_frame_equal(back, table)


_COMPARED = (
    *("protocol", "model_a", "strategy_a", "model_b", "strategy_b", "level", "metric"),
    *("test", "unit", "note"),
)
_COUNTED = (*_WHOLE, "n_seeds_a", "n_seeds_b")


@QUICK
@given(st.lists(_filled(COMPARISON_COLUMNS, _COMPARED, _COUNTED), min_size=1, max_size=4))
def test_comparisons_come_back_from_their_file(rows: list[dict[str, Any]]) -> None:
    table = pd.DataFrame(rows, columns=list(COMPARISON_COLUMNS))
    table["test"] = [f"{name}{place}" for place, name in enumerate(table["test"])]
    with tempfile.TemporaryDirectory() as folder:
        write_comparisons(table, Path(folder) / "comparisons.tsv")
        back = read_comparisons(Path(folder) / "comparisons.tsv")
    pd.testing.assert_frame_equal(back, table)


@QUICK
@given(predictions(), st.data())
def test_a_packed_table_with_a_changed_byte_is_refused_or_the_same(
    table: pd.DataFrame, data: st.DataObject
) -> None:
    raw = bytearray(compress(table_bytes(table)))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.tsv.gz"
        path.write_bytes(raw)
        try:
            back = read_predictions(path)
        except DataError:
            return
    pd.testing.assert_frame_equal(back, table)  # bytes of the header that say nothing


@QUICK
@given(st.lists(st.integers(0, 400), unique=True))
def test_runs_of_rows_come_back(rows: list[int]) -> None:
    sorted_rows = np.sort(np.array(rows, np.int64))
    runs = to_runs(sorted_rows)
    assert from_runs(runs).tolist() == sorted_rows.tolist()
    assert all(start < stop for start, stop in runs)


@FILES
@given(
    st.lists(hostile_names, min_size=1, max_size=12, unique=True).flatmap(
        lambda names: st.tuples(st.just(names), orders(len(names)))
    ),
    seeds,
    st.booleans(),
)
def test_embeddings_come_back_in_whatever_order_they_were_written(
    drawn: tuple[list[str], np.ndarray], seed: int, droppable: bool
) -> None:
    names, order = drawn
    names = [f"{name}{place}".replace("\x00", "0") for place, name in enumerate(names)]
    values = np.random.default_rng(seed).normal(size=(len(names), 3)).astype(np.float32)
    values[0] = np.nan  # a cell without a known gene
    record = {"dim": 3, "names": names, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "e.h5ad"
        with h5py.File(path, "w") as file:
            writer = EmbeddingWriter(file, len(names), droppable=droppable)
            writer.add("m", 3)
            for part in np.array_split(order, 3):
                writer.write("m", part, values[part])
            writer.write_tables(pd.DataFrame({"text": names}, index=names))
            writer.write_record("m", record)
        writer.verify(path)
        back = read_embeddings(path, "m")
    assert back.names.tolist() == names
    np.testing.assert_array_equal(back.values, values)
    assert back.status.tolist() == ["no_known_genes", *[""] * (len(names) - 1)]
    assert back.record == record


@QUICK
@given(seeds, st.integers(1, 20), st.integers(1, 5))
def test_a_stored_part_comes_back(seed: int, n_cells: int, dim: int) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(size=(n_cells, dim)).astype(np.float32)
    status = random.choice(np.array(["", "no_known_genes", "other"], object), n_cells)
    with tempfile.TemporaryDirectory() as folder:
        write_part(values, status, Path(folder))
        back, words = read_part(Path(folder))
        np.testing.assert_array_equal(back, values)
        assert words.tolist() == status.tolist()
        del back


@QUICK
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), seeds, st.data())
def test_stored_tokens_come_back_cell_by_cell(
    lengths: list[int], seed: int, data: st.DataObject
) -> None:
    random = np.random.default_rng(seed)
    start = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = Tokens(
        start,
        {
            "gene": random.integers(0, 99, start[-1]).astype(np.int32),
            "value": random.normal(size=(start[-1], 2)).astype(np.float32),
            "column": np.zeros(start[-1], np.int32),
        },
        {"usable": np.array(lengths) > 0, "depth": random.random(len(lengths))},
    )
    row = data.draw(st.integers(0, len(lengths) - 1))
    with tempfile.TemporaryDirectory() as folder:
        _write(tokens, Path(folder))
        entry = _Entry(Path(folder))
        flat, cell = entry.cell(row)
        everything = entry.all_cells()
    for name in ("gene", "value"):
        np.testing.assert_array_equal(flat[name], tokens.flat[name][start[row] : start[row + 1]])
        np.testing.assert_array_equal(everything.flat[name], tokens.flat[name])
    for name in ("usable", "depth"):
        assert cell[name].tolist() == [tokens.cell[name][row]]
    assert "column" not in everything.flat


arrays = st.builds(
    lambda seed, shape, dtype: np.asarray(
        np.random.default_rng(seed).normal(size=shape) * 100
    ).astype(dtype),
    seeds,
    st.lists(st.integers(0, 4), max_size=3).map(tuple),
    st.sampled_from(["<f4", "<f8", "<i8", "<i4", "u1", "?"]),
)
plain_names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.]{0,8}", fullmatch=True)


@QUICK
@given(st.dictionaries(plain_names, arrays, max_size=4), st.randoms(use_true_random=False))
def test_tensors_come_back_and_their_bytes_do_not_depend_on_the_order(
    tensors: dict[str, np.ndarray], random: Any
) -> None:
    data = dump_tensors(tensors)
    back = load_tensors(data, "file")
    assert set(back) == set(tensors)
    for name, values in tensors.items():
        assert back[name].dtype == values.dtype
        np.testing.assert_array_equal(back[name], values)
    mixed = list(tensors)
    random.shuffle(mixed)
    assert dump_tensors({name: tensors[name] for name in mixed}) == data


@SLOW
@given(
    st.dictionaries(
        plain_names,
        arrays | st.none() | texts | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False),
        min_size=1,
        max_size=4,
    )
)
def test_what_an_estimator_learnt_comes_back(state: dict[str, Any]) -> None:
    data = dump_state(state)
    back = load_state(data, "file")
    assert dump_state(state) == data
    assert set(back) == set(state)
    for name, value in state.items():
        np.testing.assert_array_equal(back[name], value)


@QUICK
@given(st.dictionaries(plain_names, st.binary(max_size=40), max_size=5))
def test_an_archive_comes_back_and_equal_content_gives_equal_bytes(
    files: dict[str, bytes],
) -> None:
    data = write_archive(files)
    assert write_archive(dict(reversed(files.items()))) == data
    archive = Archive(data, "file", most_bytes=1000)
    assert archive.names == set(files)
    assert {name: archive.read(name) for name in files} == files


@cache
def predictor() -> Predictor:
    """Train a predictor on a few cells, once."""
    from scdrugmap.data.labels import LabelMap
    from scdrugmap.evaluation.design import read_design
    from scdrugmap.evaluation.splits import make_split
    from scdrugmap.model.load import load_model
    from scdrugmap.train.train import train_predictor

    adata = synthetic_adata(64, 60)
    design = read_design([adata], label="response", labels=LabelMap.parse(), group="patient")
    split = make_split(design, folds=2, validation=True)
    model = load_model("randproj", settings={"variant": "tiny"})
    with open_cells(adata) as cells:
        return train_predictor(
            [cells], split.table, fold=0, model=model, store=Store.disabled(), quiet=True
        )


@FILES
@given(seeds, st.integers(1, 12))
def test_a_predictor_says_the_same_after_its_way_through_a_file(seed: int, n_cells: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictor.zip"
        predictor().save(path)
        again = Predictor.load(path)
        assert again.info == predictor().info
        again.save(Path(folder) / "again.zip")
        assert (Path(folder) / "again.zip").read_bytes() == path.read_bytes()
    adata = synthetic_adata(n_cells, 60, seed=seed)
    how: dict[str, Any] = {"store": Store.disabled(), "quiet": True}
    with open_cells(adata) as cells:
        first, second = (predict_cells(one, cells, **how) for one in (predictor(), again))
    pd.testing.assert_frame_equal(first.cells, second.cells)
    pd.testing.assert_frame_equal(first.details, second.details)


@SLOW
@given(seeds, st.lists(st.integers(0, 19), min_size=1, max_size=20, unique=True))
def test_predictions_of_some_cells_of_a_file_are_some_of_the_predictions(
    seed: int, chosen: list[int]
) -> None:
    adata, at = synthetic_adata(20, 60, seed=seed), np.array(chosen)
    how: dict[str, Any] = {"store": Store.disabled(), "quiet": True}
    with open_cells(adata, name="d") as cells, open_cells(adata[at].copy(), name="d") as some:
        everyone = predict_cells(predictor(), cells, **how).cells.iloc[at].reset_index(drop=True)
        few = predict_cells(predictor(), some, **how).cells
    pd.testing.assert_frame_equal(few, everyone, rtol=0, atol=1e-6)


@SLOW
@given(
    st.dictionaries(plain_names, arrays.filter(lambda a: a.dtype.kind == "f"), max_size=3), seeds
)
def test_the_state_of_a_training_comes_back(tensors: dict[str, np.ndarray], seed: int) -> None:
    import torch

    course = {"step": seed % 1000, "best": None, "losses": [0.5, 1e-9]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictor.zip.unfinished"
        kept = Checkpoint(path)
        kept.record = {"seed": seed, "tuple": (1, 2)}
        kept.keep(
            lambda: ({n: torch.from_numpy(a) for n, a in tensors.items()}, course), force=True
        )
        again = Checkpoint(path, resume=True)
        again.record = {"seed": seed, "tuple": (1, 2)}
        found = again.load()
    assert found is not None
    assert found[1] == course
    assert set(found[0]) == set(tensors)
    for name, values in tensors.items():
        np.testing.assert_array_equal(found[0][name].numpy(), values)


small_names = st.from_regex(r"[a-z]{1,6}", fullmatch=True)  # some disks ignore case


@QUICK
@given(
    st.dictionaries(small_names, st.binary(min_size=1, max_size=40), min_size=1, max_size=3),
    st.data(),
)
def test_an_entry_of_the_cache_with_a_changed_byte_counts_as_missing(
    files: dict[str, bytes], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(files)))
    place = data.draw(st.integers(0, len(files[name]) - 1))
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder), quiet=True)

        def write(target: Path) -> None:
            for member, content in files.items():
                (target / member).write_bytes(content)

        store.put("kind", "ab" * 32, write, {})
        found = store.get("kind", "ab" * 32)
        assert found is not None
        assert {member: (found / member).read_bytes() for member in files} == files
        raw = bytearray(files[name])
        raw[place] ^= data.draw(st.integers(1, 255))
        (found / name).write_bytes(raw)
        assert store.get("kind", "ab" * 32) is None


@FILES
@given(seeds, st.sampled_from([",", "\t"]), st.booleans())
def test_a_table_of_counts_is_converted_to_the_same_counts(
    seed: int, separator: str, compress_file: bool
) -> None:
    values = counts(5, 30, seed)
    frame = pd.DataFrame(values.astype(int), columns=list(KNOWN_GENES[:30]))
    frame.insert(0, "Cell_barcode", [f"c{place}" for place in range(5)])
    frame.insert(1, "Condition", "treated")
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / ("t.csv" if separator == "," else "t.tsv")
        frame.to_csv(path, sep=separator, index=False)
        convert(path, Path(name) / "t.h5ad", compress=compress_file, quiet=True)
        with open_cells(Path(name) / "t.h5ad") as cells:
            assert cells.names.tolist() == frame["Cell_barcode"].tolist()
            np.testing.assert_array_equal(cells.rows(np.arange(5)).toarray(), values)


@SLOW
@given(seeds, st.sampled_from(",;\t "), st.booleans())
def test_a_table_with_genes_in_rows_holds_the_counts_written_into_it(
    seed: int, separator: str, headless: bool
) -> None:
    values = counts(5, 30, seed)
    frame = pd.DataFrame(values.T.astype(int), index=list(KNOWN_GENES[:30]))
    frame.columns = [f"c{place}" for place in range(5)]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "t.csv"
        frame.to_csv(path, sep=separator, index_label=False if headless else "gene")
        found = read_gene_rows(path)
    assert found.cells.tolist() == frame.columns.tolist()
    assert found.genes.tolist() == frame.index.tolist()
    np.testing.assert_array_equal(found.values.toarray(), values)


@QUICK
@given(st.lists(probabilities, min_size=1, max_size=20))
def test_probabilities_are_written_with_all_digits_that_float32_has(values: list[float]) -> None:
    p = np.array(values, np.float32)
    written = np.array([float(f"{value:.9g}") for value in p])
    assert written.astype(np.float32).tolist() == p.tolist()


@QUICK
@given(seeds, st.integers(1, 9))
def test_fingerprints_of_training_cells_are_found_again(seed: int, n_cells: int) -> None:
    from scdrugmap.train.predictor import short_fingerprints

    adata = synthetic_adata(n_cells, 30, seed=seed)
    with open_cells(adata) as cells:
        prints = cells.fingerprints()
    short = short_fingerprints(prints)
    assert short.dtype == np.uint64
    assert [f"{number:016x}" for number in short] == [text[:16] for text in prints]
    kept = load_tensors(dump_tensors({"training_cells": np.sort(short)}), "file")
    assert np.isin(short, kept["training_cells"]).all()


@SLOW
@given(
    st.lists(cell_names.filter(bool), min_size=1, max_size=4, unique=True),
    st.integers(1, 20),
    st.integers(1, 5),
    seeds,
    st.dictionaries(texts, st.none() | st.integers(-9, 9) | texts | st.lists(texts), max_size=3),
)
def test_vectors_of_genes_come_back(
    groups: list[str], n_genes: int, dim: int, seed: int, record: dict[str, Any]
) -> None:
    """Group, gene, number of cells and vector of every row, and the record; NaN stays NaN."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(len(groups), n_genes, dim)).astype(np.float32)
    n_cells = random.integers(0, 99, len(groups))
    values[n_cells == 0] = np.nan
    genes = np.array(KNOWN_GENES[:n_genes], object)
    found = GeneEmbeddings(genes, tuple(sorted(groups)), n_cells, values, record)
    with tempfile.TemporaryDirectory() as folder:
        write_gene_embeddings(found, "toy", Path(folder) / "genes.h5ad")
        again = anndata.read_h5ad(Path(folder) / "genes.h5ad")
    assert again.obs["gene"].tolist() == list(genes) * len(groups)
    assert again.obs["group"].tolist() == [name for name in found.groups for _ in genes]
    assert again.obs["n_cells"].tolist() == np.repeat(n_cells, n_genes).tolist()
    assert np.array_equal(again.obsm["X_toy"].reshape(values.shape), values, equal_nan=True)
    assert json.loads(again.uns["scdrugmap"]["genes_toy"]) == record
