"""Tests of the built-in estimators: each by itself, then what all must obey."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scdrugmap.baselines import ESTIMATORS, scdrugmap_estimators
from scdrugmap.baselines.estimator import Estimator
from scdrugmap.data.genes import Genes
from scdrugmap.errors import DataError
from scdrugmap.registry import get_registry
from scdrugmap.specs import EstimatorSpec, load_object
from scdrugmap.testing import synthetic_adata
from scdrugmap.train.state import dump_state, load_state

NAMES = [spec.name for spec in ESTIMATORS]
READING = [name for name in NAMES if name not in ("constant", "stratified")]
LEARNING = [name for name in READING if name != "technical"]
SETTINGS: dict[str, dict[str, Any]] = {
    "gbt": {"n_trees": 10, "n_genes": 50},
    "knn": {"n_components": 10},
    "pca-logreg": {"n_components": 10},
}


@lru_cache
def cells(
    values: str = "counts", seed: int = 0
) -> tuple[csr_matrix, Genes, np.ndarray, np.ndarray]:
    adata = synthetic_adata(120, 300, seed=seed, values=values)  # type: ignore[arg-type]
    y = (adata.obs["response"] == "sensitive").to_numpy(float)
    groups = adata.obs["patient"].astype(str).to_numpy()
    return csr_matrix(adata.X), Genes.from_names(list(adata.var_names)), y, groups


def make(name: str, seed: int = 0) -> Estimator:
    spec = get_registry().estimator(name)
    estimator: Estimator = load_object(spec.factory)(spec.options(**SETTINGS.get(name, {})), seed)
    return estimator


@lru_cache
def fitted(name: str, values: str = "counts", seed: int = 0) -> Estimator:
    rows, genes, y, groups = cells(values)
    estimator = make(name, seed)
    estimator.fit(rows, genes, y, groups, values=values)  # type: ignore[arg-type]
    return estimator


def predict(estimator: Estimator, rows: csr_matrix, genes: Genes, values: Any = "counts") -> Any:
    return estimator.predict(rows, genes, values=values)


def auroc(y: np.ndarray, p: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(y, p))


def test_scdrugmap_estimators_gives_the_baselines_of_the_protocol() -> None:
    specs = scdrugmap_estimators()
    assert [spec.name for spec in specs] == [
        "constant",
        "stratified",
        "technical",
        "hvg-logreg",
        "pca-logreg",
        "knn",
        "gbt",
        "pseudobulk-logreg",
    ]
    assert {spec.name for spec in specs} <= set(get_registry().estimators)
    assert [spec.name for spec in specs if spec.level == "sample"] == ["pseudobulk-logreg"]


@pytest.mark.parametrize("spec", ESTIMATORS, ids=NAMES)
def test_spec_survives_json(spec: EstimatorSpec) -> None:
    assert EstimatorSpec.model_validate_json(spec.model_dump_json()) == spec


def test_constant_answers_the_share_of_sensitive_cells() -> None:
    rows, genes, _, groups = cells()
    estimator = make("constant")
    estimator.fit(rows, genes, np.arange(120) < 30, groups, values="counts")
    assert predict(estimator, rows, genes).tolist() == [0.25] * 120


def test_stratified_calls_as_many_sensitive_as_there_were() -> None:
    rows, genes, _, groups = cells()
    estimator = make("stratified")
    estimator.fit(rows, genes, np.arange(120) < 30, groups, values="counts")
    many = synthetic_adata(2000, 300, seed=5)
    p = predict(estimator, csr_matrix(many.X), genes)
    assert set(p) == {0.0, 1.0}
    assert 0.21 < p.mean() < 0.29
    assert 0.4 < auroc(np.arange(2000) % 2, p) < 0.6


def test_stratified_draws_anew_for_another_seed() -> None:
    rows, genes, _, _ = cells()
    first = predict(fitted("stratified", seed=0), rows, genes)
    second = predict(fitted("stratified", seed=1), rows, genes)
    assert (first != second).any()


def test_technical_tells_deep_cells_from_shallow_ones() -> None:
    rows, genes, y, groups = cells()
    deep = csr_matrix(rows.multiply(np.where(y > 0, 3.0, 1.0)[:, None]), dtype=np.float32)
    estimator = make("technical")
    estimator.fit(deep, genes, y, groups, values="counts")
    assert auroc(y, predict(estimator, deep, genes)) > 0.95
    assert estimator.notices == ()


def test_technical_on_lognormalised_values_goes_without_totals_and_says_so() -> None:
    estimator = fitted("technical", "lognorm")
    assert estimator.notices == (
        "technical goes without total counts (the values are log-normalised)",
    )
    rows, genes, _, _ = cells("lognorm")
    assert np.isfinite(predict(estimator, rows, genes, "lognorm")).all()


def test_technical_without_mitochondrial_genes_says_so() -> None:
    rows, genes, y, groups = cells()
    kept = np.flatnonzero(~genes.is_mitochondrial())
    estimator = make("technical")
    estimator.fit(csr_matrix(rows[:, kept]), genes.take(kept), y, groups, values="counts")
    assert estimator.notices == ("technical goes without mitochondrial share (no MT- gene)",)


def test_technical_trained_on_counts_refuses_lognormalised_values() -> None:
    rows, genes, _, _ = cells("lognorm")
    with pytest.raises(DataError, match="was trained on counts") as caught:
        predict(fitted("technical"), rows, genes, "lognorm")
    assert "counts" in caught.value.hint


def test_trees_predict_what_scikit_learn_predicts() -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    from scdrugmap.baselines.options import TreeOptions
    from scdrugmap.baselines.trees import Trees

    random = np.random.default_rng(0)
    x = random.normal(size=(200, 12)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(np.int64)
    trees = Trees(TreeOptions(n_trees=25), seed=3)
    trees._learn(x, y)
    model = HistGradientBoostingClassifier(
        max_iter=25, max_leaf_nodes=15, max_bins=63, early_stopping=False, random_state=3
    ).fit(x, y)
    fresh = random.normal(size=(500, 12)).astype(np.float32)
    np.testing.assert_allclose(trees._score(fresh), model.predict_proba(fresh)[:, 1], atol=1e-9)


def test_prototypes_hold_no_training_cell() -> None:
    from scdrugmap.baselines.neighbours import Prototypes

    estimator = fitted("knn")
    assert isinstance(estimator, Prototypes)
    rows, genes, y, _ = cells()
    lognorm, _, _ = estimator.space.lognorm(rows, genes, "counts", estimator.chosen)
    points = estimator._standardise(lognorm.toarray()) @ estimator.axes.T
    nearest = np.sqrt(((points[:, None] - estimator.centres[None]) ** 2).sum(-1)).min(0)
    assert (nearest > 1e-3).all()
    assert len(estimator.centres) < len(y) / 4
    assert estimator.notices == (
        f"{len(estimator.centres)} prototypes stand for 120 training cells",
    )


def test_class_of_two_cells_still_has_a_prototype() -> None:
    rows, genes, _, groups = cells()
    y = np.zeros(120)
    y[:2] = 1
    estimator = make("knn")
    estimator.fit(rows, genes, y, groups, values="counts")
    assert np.isfinite(predict(estimator, rows, genes)).all()


def test_cells_in_which_no_gene_varies_are_refused() -> None:
    rows = csr_matrix(np.ones((20, 5), np.float32))
    genes = Genes.from_names(["TP53", "EGFR", "KRAS", "MYC", "BRAF"])
    with pytest.raises(DataError, match="none of 5 genes varies among 20 training cells"):
        make("hvg-logreg").fit(rows, genes, np.arange(20) % 2, np.full(20, "a"), values="counts")


@pytest.mark.parametrize("name", LEARNING)
def test_learns_a_response_that_is_there(name: str) -> None:
    rows, genes, y, groups = cells()
    trained = np.arange(120) < 80
    estimator = make(name)
    estimator.fit(rows[trained], genes, y[trained], groups[trained], values="counts")
    assert auroc(y[~trained], predict(estimator, rows[~trained], genes)) > 0.8


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("values", ["counts", "lognorm"])
def test_gives_one_probability_per_cell(name: str, values: str) -> None:
    rows, genes, _, _ = cells(values)
    p = predict(fitted(name, values), rows, genes, values)
    assert p.shape == (120,)
    assert p.dtype == np.float32
    assert ((p >= 0) & (p <= 1)).all()


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_gives_the_same_state(name: str) -> None:
    rows, genes, y, groups = cells()
    again = make(name)
    again.fit(rows, genes, y, groups, values="counts")
    assert dump_state(again.state()) == dump_state(fitted(name).state())


@pytest.mark.parametrize("name", NAMES)
def test_comes_back_from_its_state(name: str) -> None:
    rows, genes, _, _ = cells()
    restored = make(name)
    restored.restore(load_state(dump_state(fitted(name).state()), "estimator.skops"))
    np.testing.assert_array_equal(
        predict(restored, rows, genes), predict(fitted(name), rows, genes)
    )
    assert restored.genes.tolist() == fitted(name).genes.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_order_of_cells_and_block_size_change_nothing(name: str) -> None:
    rows, genes, _, _ = cells()
    whole = predict(fitted(name), rows, genes)
    parts = [predict(fitted(name), rows[i : i + 7], genes) for i in range(0, 120, 7)]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)
    back = predict(fitted(name), rows[::-1], genes)
    np.testing.assert_allclose(back[::-1], whole, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_order_of_genes_changes_nothing(name: str) -> None:
    rows, genes, _, _ = cells()
    order = np.random.default_rng(1).permutation(300)
    moved = csr_matrix(rows[:, order])
    moved.sort_indices()
    np.testing.assert_allclose(
        predict(fitted(name), moved, genes.take(order)),
        predict(fitted(name), rows, genes),
        atol=1e-6,
    )


@pytest.mark.parametrize("name", READING)
def test_genes_that_it_does_not_know_change_nothing(name: str) -> None:
    rows, genes, _, _ = cells()
    more = Genes.from_names([*genes.published, "UNHEARD-OF-1", "UNHEARD-OF-2"])
    extra = np.random.default_rng(2).poisson(50, (120, 2)).astype(np.float32)
    wide = csr_matrix(np.hstack([rows.toarray(), extra]))
    np.testing.assert_allclose(
        predict(fitted(name), wide, more), predict(fitted(name), rows, genes), atol=1e-6
    )


@pytest.mark.parametrize("name", READING)
def test_cell_without_a_known_gene_has_no_probability(name: str) -> None:
    rows, genes, _, _ = cells()
    dense = rows[:3].toarray()
    dense[1] = 0
    p = predict(fitted(name), csr_matrix(dense), genes)
    assert np.isnan(p).tolist() == [False, True, False]


@pytest.mark.parametrize("name", LEARNING)
def test_missing_gene_counts_as_the_training_mean(name: str) -> None:
    estimator = fitted(name)
    rows, genes, _, _ = cells()
    absent = np.isin(genes.identity().astype(str), estimator.genes[:5])
    kept = np.flatnonzero(~absent)
    p = predict(estimator, csr_matrix(rows[:, kept]), genes.take(kept))
    full = predict(estimator, rows, genes)
    assert np.isfinite(p).all()
    assert (p != full).any()
    assert np.corrcoef(p, full)[0, 1] > 0.8


@pytest.mark.parametrize("name", NAMES)
def test_input_is_left_as_it_was(name: str) -> None:
    rows, genes, _, _ = cells()
    before = rows.data.copy()
    predict(fitted(name), rows, genes)
    assert (rows.data == before).all()


@pytest.mark.parametrize("name", NAMES)
def test_global_random_state_is_not_touched(name: str) -> None:
    rows, genes, y, groups = cells()
    state = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]  # noqa: NPY002
    make(name).fit(rows, genes, y, groups, values="counts")
    assert (np.random.get_state()[1] == state).all()  # type: ignore[index]  # noqa: NPY002
