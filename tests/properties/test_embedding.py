"""What a model or an estimator says of a cell depends on that cell and its known genes alone."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import FILES, QUICK, SLOW, counts, orders, seeds
from scipy.sparse import csr_matrix, hstack

from scdrugmap.baselines.estimator import Estimator
from scdrugmap.data.genes import Genes
from scdrugmap.model.embed_file import ModelRequest, embed_file
from scdrugmap.model.embedding_file import read_embeddings
from scdrugmap.model.merge import merge_embeddings
from scdrugmap.model.parts import Shard, plan_parts
from scdrugmap.registry import get_registry
from scdrugmap.run.store import Store
from scdrugmap.testing import Subject, synthetic_adata
from scdrugmap.testing.comparison import require_close
from scdrugmap.testing.subject import N_CELLS, N_GENES, Sample

MODELS = ("randproj", "scgpt", "geneformer")
ESTIMATORS = ("hvg-logreg", "pca-logreg", "knn", "gbt")
models, estimators = st.sampled_from(MODELS), st.sampled_from(ESTIMATORS)
subsets = st.lists(st.integers(0, N_CELLS - 1), min_size=1, max_size=N_CELLS, unique=True)


@cache
def subject(model: str) -> Subject:
    return Subject(get_registry().model(model))


@cache
def whole(model: str) -> np.ndarray:
    """Embed all cells of a subject, once."""
    return subject(model).embed(subject(model).sample)


@cache
def fitted(name: str) -> Estimator:
    """Fit an estimator to the cells of a subject."""
    from scdrugmap.specs import load_object

    spec = get_registry().estimator(name)
    made: Estimator = load_object(spec.factory)(spec.options(), 0)
    sample = subject("randproj").sample
    y = np.arange(len(sample.names)) % 2
    made.fit(sample.rows, sample.genes, y.astype(float), sample.groups, values="counts")
    return made


def same(found: np.ndarray, expected: np.ndarray) -> None:
    """Require equality up to rounding, as the conformance kit does."""
    require_close(
        expected.reshape(len(expected), -1), found.reshape(len(found), -1), "what came out"
    )


@SLOW
@given(models, subsets)
def test_embeddings_of_some_cells_are_some_of_the_embeddings(model: str, chosen: list[int]) -> None:
    at = np.array(chosen)
    same(subject(model).embed(subject(model).sample.take(at)), whole(model)[at])


@SLOW
@given(models, orders(N_GENES))
def test_embeddings_do_not_depend_on_the_order_of_genes(model: str, order: np.ndarray) -> None:
    same(subject(model).embed(subject(model).sample.columns(order)), whole(model))


@SLOW
@given(models, st.integers(1, 5_000))
def test_embeddings_do_not_depend_on_how_cells_are_batched(model: str, budget: int) -> None:
    one = subject(model)
    same(one.embed(one.sample, token_budget=budget), whole(model))


@SLOW
@given(models, st.integers(1, 30), seeds)
def test_unknown_genes_change_no_embedding(model: str, n_unknown: int, seed: int) -> None:
    one = subject(model)
    same(one.embed(with_unknown(one.sample, n_unknown, seed)), whole(model))


def with_unknown(sample: Sample, n_unknown: int, seed: int) -> Sample:
    """Put expressed genes that nobody knows behind the others, then mix all columns."""
    more = csr_matrix(counts(len(sample.names), n_unknown, seed))
    names = [*sample.genes.published, *(f"NO-GENE-{n}" for n in range(n_unknown))]
    genes = Genes.from_names(names)
    joined = Sample(hstack([sample.rows, more]).tocsr(), genes, sample.names, sample.groups)
    return joined.columns(np.random.default_rng(seed).permutation(len(names)))


@QUICK
@given(estimators, subsets)
def test_predictions_of_some_cells_are_some_of_the_predictions(
    name: str, chosen: list[int]
) -> None:
    sample, at = subject("randproj").sample, np.array(chosen)
    predict = fitted(name).predict
    everyone = predict(sample.rows, sample.genes, values="counts")
    same(predict(sample.rows[at], sample.genes, values="counts"), everyone[at])


@QUICK
@given(estimators, orders(N_GENES))
def test_predictions_do_not_depend_on_the_order_of_genes(name: str, order: np.ndarray) -> None:
    sample = subject("randproj").sample
    mixed = sample.columns(order)
    predict = fitted(name).predict
    same(
        predict(mixed.rows, mixed.genes, values="counts"),
        predict(sample.rows, sample.genes, values="counts"),
    )


@QUICK
@given(estimators, st.integers(1, 30), seeds)
def test_genes_that_were_not_trained_on_change_no_prediction(
    name: str, n_unknown: int, seed: int
) -> None:
    sample = subject("randproj").sample
    mixed = with_unknown(sample, n_unknown, seed)
    predict = fitted(name).predict
    same(
        predict(mixed.rows, mixed.genes, values="counts"),
        predict(sample.rows, sample.genes, values="counts"),
    )


@SLOW
@given(st.sampled_from(["hvg-logreg", "pca-logreg"]), orders(N_CELLS))
def test_training_does_not_depend_on_the_order_of_cells(name: str, order: np.ndarray) -> None:
    from scdrugmap.specs import load_object

    spec = get_registry().estimator(name)
    sample = subject("randproj").sample
    y = (np.arange(len(sample.names)) % 2).astype(float)
    other: Estimator = load_object(spec.factory)(spec.options(), 0)
    rows = csr_matrix(sample.rows[order])
    other.fit(rows, sample.genes, y[order], sample.groups[order], values="counts")
    assert other.genes.tolist() == fitted(name).genes.tolist()
    found = other.predict(sample.rows, sample.genes, values="counts")
    expected = fitted(name).predict(sample.rows, sample.genes, values="counts")
    np.testing.assert_allclose(found, expected, atol=1e-3)  # the optimiser stops early


@QUICK
@given(
    st.integers(0, 6000),
    st.integers(1, 9),
    st.booleans(),
    st.lists(st.sampled_from("abcde"), min_size=1, max_size=12),
)
def test_every_cell_is_in_one_part_of_one_shard(
    n_cells: int, n_shards: int, grouped: bool, letters: list[str]
) -> None:
    index = np.arange(n_cells)[::-1]
    labels = np.resize(np.array(letters, object), n_cells) if grouped else None
    planned = [
        part
        for number in range(1, n_shards + 1)
        for part in plan_parts(index, grouped=grouped, labels=labels, shard=Shard(number, n_shards))
    ]
    seen = np.concatenate([np.zeros(0, int), *(part.index for part in planned)])
    assert sorted(seen.tolist()) == list(range(n_cells))
    for part in planned:
        assert part.groups is None or sum(part.groups) == len(part.index)


@FILES
@pytest.mark.filterwarnings("ignore")
@given(st.integers(1, 30), st.integers(1, 4), seeds)
def test_merged_shards_are_the_embedding_of_the_whole_file(
    n_cells: int, n_shards: int, seed: int
) -> None:
    n_shards = min(n_shards, n_cells)
    request = [ModelRequest("randproj", settings={"variant": "tiny"})]
    how = {"store": Store.disabled(), "quiet": True}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        synthetic_adata(n_cells, 60, seed=seed).write_h5ad(folder / "cells.h5ad")
        embed_file(folder / "cells.h5ad", request, folder / "whole.h5ad", **how)
        shards = []
        for number in range(1, n_shards + 1):
            path = folder / f"{number}.h5ad"
            shard = Shard(number, n_shards)
            embed_file(folder / "cells.h5ad", request, path, shard=shard, **how)
            shards.append(path)
        merge_embeddings(shards[::-1], folder / "merged.h5ad")
        one, other = (
            read_embeddings(folder / f"{which}.h5ad", "randproj") for which in ("whole", "merged")
        )
    assert one.names.tolist() == other.names.tolist()
    np.testing.assert_array_equal(one.values, other.values)
