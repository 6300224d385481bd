"""Tests of prediction: which cells get what, and that nothing but a cell's own values decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from scdrugmap.data.cells import open_cells
from scdrugmap.data.labels import LabelMap
from scdrugmap.errors import DataError, UsageError
from scdrugmap.evaluation.design import read_design
from scdrugmap.evaluation.splits import make_split
from scdrugmap.evaluation.tables import PREDICTION_COLUMNS, check_predictions
from scdrugmap.model.load import load_model
from scdrugmap.testing import synthetic_adata
from scdrugmap.train.annotate import CALLS, COLORS, REASONS, annotate, columns
from scdrugmap.train.domain import outside
from scdrugmap.train.gather import as_categories
from scdrugmap.train.known import units_of
from scdrugmap.train.predict import predict_cells
from scdrugmap.train.predicted import Predicted
from scdrugmap.train.predictor import Predictor
from scdrugmap.train.train import train_predictor

SEED_OF_STRANGERS = 7


def cohort(seed: int = 0, **changes: Any) -> anndata.AnnData:
    adata = synthetic_adata(96, 300, **{"seed": seed, **changes})
    adata.obs["drug"] = "erlotinib"
    return adata


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "cohort.h5ad"
    cohort().write_h5ad(path)
    return path


def split_of(path: Path, protocol: str = "pooled-group") -> pd.DataFrame:
    design = read_design([path], label="response", labels=LabelMap.parse(), group="patient")
    return make_split(design, protocol, folds=2).table


@pytest.fixture(scope="module")
def splits(path: Path) -> pd.DataFrame:
    return split_of(path)


def train(path: Path, splits: pd.DataFrame, **options: Any) -> Predictor:
    with open_cells(path) as cells:
        return train_predictor([cells], splits, **{"fold": 0, "quiet": True, **options})


@pytest.fixture(scope="module")
def estimator(path: Path, splits: pd.DataFrame) -> Predictor:
    return train(path, splits, estimator="hvg-logreg")


@pytest.fixture
def frozen(path: Path, splits: pd.DataFrame) -> Predictor:
    return train(path, splits, model=load_model("randproj"))


def predicted(predictor: Predictor, source: Path | anndata.AnnData, **options: Any) -> Predicted:
    with open_cells(source) as cells:
        return predict_cells(predictor, cells, **{"quiet": True, **options})


def predict(predictor: Predictor, source: Path | anndata.AnnData, **options: Any) -> pd.DataFrame:
    return predicted(predictor, source, **options).cells


def changed(adata: anndata.AnnData, rows: slice, value: Any) -> None:
    dense = adata.X.toarray()
    dense[rows] = value
    adata.X = csr_matrix(dense)


def test_table_has_the_columns_of_the_contract(estimator: Predictor, path: Path) -> None:
    table = predict(estimator, path)
    assert tuple(table.columns) == PREDICTION_COLUMNS
    check_predictions(table)
    assert len(table) == 96
    assert set(table["model"]) == {"hvg-logreg"}
    assert set(table["strategy"]) == {"estimator"}
    assert set(table["dataset"]) == {"cohort"}
    assert (table["state"] == "answered").all()
    assert (table["threshold"] == 0.5).all()


def test_roles_come_from_the_split(estimator: Predictor, path: Path, splits: pd.DataFrame) -> None:
    table = predict(estimator, path, splits=splits).set_index("cell")
    wanted = splits[splits["fold"] == 0].set_index("cell")
    assert (table["role"] == wanted["role"].reindex(table.index)).all()
    assert (table["sample"] == wanted["sample"].reindex(table.index)).all()
    assert set(table["role"]) == {"train", "test"}


def test_training_cells_are_recognised_without_a_split(
    estimator: Predictor, path: Path, splits: pd.DataFrame
) -> None:
    table = predict(estimator, path).set_index("cell")
    trained = splits[(splits["fold"] == 0) & (splits["role"] == "train")]["cell"]
    assert set(table.index[table["role"] == "train"]) == set(trained)
    assert set(table["role"]) == {"train", "new"}


def test_training_cells_are_recognised_under_other_names(
    estimator: Predictor, path: Path, splits: pd.DataFrame
) -> None:
    adata = cohort()
    adata.obs_names = [f"renamed_{i}" for i in range(96)]
    order = np.random.default_rng(0).permutation(300)
    table = predict(estimator, adata[::-1, order].copy())
    assert (table["role"] == "train").sum() == 48


def test_strangers_are_new(estimator: Predictor) -> None:
    assert set(predict(estimator, cohort(SEED_OF_STRANGERS))["role"]) == {"new"}


def test_another_split_is_refused(estimator: Predictor, path: Path) -> None:
    with pytest.raises(DataError, match="was trained on split pooled-group-") as caught:
        predict(estimator, path, splits=split_of(path, "paper-pooled"))
    assert "--splits" in caught.value.hint


def test_labels_are_never_needed(estimator: Predictor) -> None:
    adata = cohort(SEED_OF_STRANGERS)
    with_labels = predict(estimator, adata)
    adata.obs = adata.obs[[]]
    assert predict(estimator, adata)["p_sensitive"].equals(with_labels["p_sensitive"])


@pytest.mark.parametrize("kind", ["estimator", "frozen"])
def test_other_cells_of_the_file_change_nothing(
    kind: str, request: pytest.FixtureRequest, path: Path
) -> None:
    predictor = request.getfixturevalue(kind)
    whole = predict(predictor, cohort()).set_index("cell")["p_sensitive"]
    part = predict(predictor, cohort()[[50, 3, 7]].copy()).set_index("cell")["p_sensitive"]
    np.testing.assert_allclose(part, whole.loc[part.index], atol=1e-6)


@pytest.mark.parametrize("kind", ["estimator", "frozen"])
def test_cell_without_counts_is_invalid(kind: str, request: pytest.FixtureRequest) -> None:
    adata = cohort(SEED_OF_STRANGERS)
    changed(adata, slice(3, 4), 0)
    row = predict(request.getfixturevalue(kind), adata).iloc[3]
    assert (row["state"], row["reason"]) == ("invalid", "few_counts")
    assert np.isnan(row["p_sensitive"])


@pytest.mark.parametrize("kind", ["estimator", "frozen"])
def test_cell_without_a_known_gene_is_invalid(kind: str, request: pytest.FixtureRequest) -> None:
    adata = cohort(SEED_OF_STRANGERS)
    changed(adata, slice(3, 4), 0)
    extra = np.zeros((96, 1), np.float32)
    extra[3] = 5
    more = anndata.AnnData(
        csr_matrix(np.hstack([adata.X.toarray(), extra])),
        obs=adata.obs,
        var=pd.DataFrame(index=[*adata.var_names, "UNHEARD-OF-1"]),
    )
    table = predict(request.getfixturevalue(kind), more)
    assert (table["state"] == "invalid").sum() == 1
    assert table.iloc[3]["reason"] == "no_known_genes"


def test_missing_genes_are_counted_and_said(
    estimator: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    adata = cohort(SEED_OF_STRANGERS)[:, 30:].copy()
    table = predict(estimator, adata, quiet=False)
    assert (table["state"] == "answered").all()
    assert "lacks 30 of the 297 genes" in capsys.readouterr().err


def test_too_many_missing_genes_are_refused(estimator: Predictor) -> None:
    adata = cohort(SEED_OF_STRANGERS)[:, 90:].copy()
    with pytest.raises(
        DataError, match=r"lacks 90 of the 297 genes .*\(30%; at most 20%"
    ) as caught:
        predict(estimator, adata)
    assert "--gene-id" in caught.value.hint


def test_lognormalised_values_for_a_predictor_of_counts_are_said(
    estimator: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = predict(estimator, cohort(SEED_OF_STRANGERS))
    lognorm = predict(estimator, cohort(SEED_OF_STRANGERS, values="lognorm"), quiet=False)
    assert "was trained on counts" in capsys.readouterr().err
    np.testing.assert_allclose(lognorm["p_sensitive"], counts["p_sensitive"], atol=1e-4)


def test_another_drug_is_said(
    estimator: Predictor, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(estimator, path, drug="cisplatin", quiet=False)
    assert "was trained on erlotinib, not on cisplatin" in capsys.readouterr().err
    predict(estimator, path, drug="Erlotinib", quiet=False)
    assert "trained on" not in capsys.readouterr().err


def test_samples_come_from_a_column(estimator: Predictor, path: Path) -> None:
    table = predict(estimator, path, sample="patient")
    assert table["sample"].tolist() == cohort().obs["patient"].tolist()
    with pytest.raises(UsageError, match="'patiens'"):
        predict(estimator, path, sample="patiens")


def test_cells_see_those_of_the_sample_that_is_named(path: Path, splits: Any) -> None:
    model = load_model("cellplm", settings={"variant": "tiny"}, weights="random")
    predictor = train(path, splits, model=model, sample="patient", min_genes=1)
    strangers = cohort(SEED_OF_STRANGERS)[np.random.default_rng(0).permutation(96)].copy()
    expected = predict(predictor, strangers)
    strangers.obs = strangers.obs.rename(columns={"patient": "donor"})
    named = predict(predictor, strangers, sample="donor")
    assert named["p_sensitive"].tolist() == expected["p_sensitive"].tolist()
    in_file_order = predict(predictor, strangers)
    assert in_file_order["p_sensitive"].tolist() != expected["p_sensitive"].tolist()


def test_predictor_of_samples_gives_their_cells_one_answer(path: Path, splits: Any) -> None:
    predictor = train(path, splits, estimator="pseudobulk-logreg")
    table = predict(predictor, cohort(SEED_OF_STRANGERS), sample="patient")
    assert (table.groupby("sample")["p_sensitive"].nunique() == 1).all()
    assert table["p_sensitive"].nunique() == 8


def test_predictor_of_samples_reads_the_summed_profile(path: Path, splits: Any) -> None:
    predictor = train(path, splits, estimator="pseudobulk-logreg")
    adata = cohort(SEED_OF_STRANGERS)
    mask = (adata.obs["patient"] == "P02").to_numpy()
    pooled = anndata.AnnData(
        csr_matrix(adata.X[mask].sum(0)), obs=pd.DataFrame(index=["P02"]), var=adata.var
    )
    table = predict(predictor, adata, sample="patient")
    expected = predict(predictor, pooled)["p_sensitive"].iloc[0]
    assert table[mask]["p_sensitive"].iloc[0] == pytest.approx(expected, abs=1e-6)


def test_predictor_of_samples_takes_cells_alone_where_none_is_known(
    path: Path, splits: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor = train(path, splits, estimator="pseudobulk-logreg")
    table = predict(predictor, cohort(SEED_OF_STRANGERS), quiet=False)
    assert table["p_sensitive"].nunique() > 8
    assert "takes each cell as a sample of its own" in capsys.readouterr().err


def test_training_cells_never_stand_for_test_cells_of_their_sample(path: Path) -> None:
    splits = split_of(path, "paper-pooled")
    predictor = train(path, splits, estimator="pseudobulk-logreg")
    table = predict(predictor, path, splits=splits)
    per_sample = table.groupby("sample")["p_sensitive"].nunique()
    assert (per_sample == 2).all()
    assert (table.groupby(["sample", "role"])["p_sensitive"].nunique() == 1).all()


def test_cells_of_a_sample_and_role_are_one_unit() -> None:
    samples = as_categories(np.array(["a", "a", "", "b", "a"], object))
    roles = as_categories(np.array(["test", "train", "new", "test", "test"], object))
    expected = ["a\0test", "a\0train", "", "b\0test", "a\0test"]
    assert units_of(samples, roles).tolist() == expected


def test_samples_that_differ_behind_a_nul_stay_apart() -> None:
    words = np.array(["a\0b", "a\0c", "a"], object)
    assert as_categories(words).tolist() == words.tolist()
    assert len(set(as_categories(words).codes)) == 3


def test_table_that_is_held_is_small_and_written_as_the_plain_one(
    path: Path, tmp_path: Path
) -> None:
    from scdrugmap.evaluation.tables import write_predictions

    design = read_design([path], label="response", labels=LabelMap.parse(), group="patient")
    splits = make_split(design, "pooled-group", folds=2, validation=True).table
    predictor = train(path, splits, model=load_model("randproj"))
    adata = cohort()
    changed(adata, slice(3, 4), 0)
    found = predicted(predictor, adata, splits=splits, sample="patient")
    kinds = {name: dtype.name for name, dtype in found.table.dtypes.items()}
    assert [name for name, kind in kinds.items() if kind == "object"] == ["cell"]
    assert kinds["fold"] == kinds["seed"] == "uint8"
    assert set(found.cells.dtypes.astype(str)) == {"object", "int64", "float64"}
    write_predictions(found.table, tmp_path / "held.tsv")
    write_predictions(found.cells, tmp_path / "plain.tsv")
    assert (tmp_path / "held.tsv").read_bytes() == (tmp_path / "plain.tsv").read_bytes()


def test_probabilities_read_back_as_they_were(
    estimator: Predictor, path: Path, tmp_path: Path
) -> None:
    from scdrugmap.evaluation.tables import read_predictions, write_predictions

    table = predict(estimator, path)
    write_predictions(table, tmp_path / "p.tsv")
    pd.testing.assert_frame_equal(read_predictions(tmp_path / "p.tsv"), table)


def test_hostile_names_come_back(estimator: Predictor, tmp_path: Path) -> None:
    from scdrugmap.evaluation.tables import read_predictions, write_predictions

    names = ["a\tb", "=cmd()", "<script>", "../../x", "line\nbreak", "'quoted"]
    adata = cohort(SEED_OF_STRANGERS)[:6].copy()
    adata.obs_names = names
    write_predictions(predict(estimator, adata), tmp_path / "p.tsv")
    assert read_predictions(tmp_path / "p.tsv")["cell"].tolist() == names


def test_keys_of_an_anndata_are_those_of_the_contract(estimator: Predictor) -> None:
    adata = cohort(SEED_OF_STRANGERS)
    changed(adata, slice(3, 4), 0)
    found = predicted(estimator, adata)
    before = adata.X.toarray()
    annotate(adata, found)
    assert adata.obs["scdrugmap_p_sensitive"].dtype == np.float32
    assert tuple(adata.obs["scdrugmap_call"].cat.categories) == CALLS
    assert adata.obs["scdrugmap_call"].iloc[3] == "invalid"
    assert adata.obs["scdrugmap_reason"].iloc[3] == "few_counts"
    assert adata.obs["scdrugmap_reason"].isna().sum() == 95
    assert tuple(adata.uns["scdrugmap_call_colors"]) == COLORS
    assert json.loads(adata.uns["scdrugmap"]["predict"])["predictor"]["name"] == "hvg-logreg"
    assert (adata.X.toarray() == before).all()


def test_calls_follow_the_threshold(estimator: Predictor) -> None:
    table = pd.DataFrame(
        {
            "cell": list("abcd"),
            "p_sensitive": [0.3, 0.29, np.nan, np.nan],
            "threshold": 0.3,
            "state": ["answered", "answered", "abstained", "invalid"],
            "reason": ["", "", "conformal", "no_known_genes"],
        }
    )
    found = Predicted(table, estimator.info, np.full(4, np.nan, np.float32))
    calls = columns(found)["scdrugmap_call"].tolist()
    assert calls == ["sensitive", "resistant", "abstain", "invalid"]


def test_reason_of_a_text_model_is_kept_in_an_anndata(estimator: Predictor) -> None:
    table = pd.DataFrame(
        {
            "cell": list("abc"),
            "p_sensitive": [0.3, np.nan, np.nan],
            "threshold": 0.5,
            "state": ["answered", "abstained", "invalid"],
            "reason": ["", "unsure", "few_counts"],
        }
    )
    found = columns(Predicted(table, estimator.info, np.full(3, np.nan, np.float32)))
    assert found["scdrugmap_reason"].isna().tolist() == [True, False, False]
    assert found["scdrugmap_reason"].iloc[1:].tolist() == ["unsure", "few_counts"]
    assert found["scdrugmap_reason"].cat.categories.tolist() == [*REASONS, "unsure"]


def test_two_predictors_need_two_prefixes(estimator: Predictor) -> None:
    adata = cohort(SEED_OF_STRANGERS)
    found = predicted(estimator, adata)
    annotate(adata, found)
    with pytest.raises(UsageError, match="nothing is overwritten") as caught:
        annotate(adata, found)
    assert "--key-added" in caught.value.hint
    annotate(adata, found, "second")
    assert "second_p_sensitive" in adata.obs
    assert "second_call_colors" in adata.uns


def test_foreign_key_is_not_overwritten(estimator: Predictor) -> None:
    adata = cohort(SEED_OF_STRANGERS)
    found = predicted(estimator, adata)
    adata.uns["scdrugmap"] = "somebody else's"
    with pytest.raises(UsageError, match="did not write"):
        annotate(adata, found)
    assert "scdrugmap_call" not in adata.obs


def test_embeddings_in_uns_are_kept(estimator: Predictor) -> None:
    adata = cohort(SEED_OF_STRANGERS)
    adata.uns["scdrugmap"] = {"embed_scgpt": "{}"}
    annotate(adata, predicted(estimator, adata))
    assert set(adata.uns["scdrugmap"]) == {"embed_scgpt", "predict"}


@pytest.mark.parametrize("key", ["", "a/b", "_index"])
def test_key_that_h5ad_cannot_hold_is_refused(estimator: Predictor, key: str) -> None:
    adata = cohort(SEED_OF_STRANGERS)
    with pytest.raises(UsageError, match="cannot be a key"):
        annotate(adata, predicted(estimator, adata), key)


def test_domain_is_the_quantile_of_the_distance_to_the_training_cells(
    frozen: Predictor, path: Path, splits: pd.DataFrame
) -> None:
    adata = anndata.read_h5ad(path)
    annotate(adata, predicted(frozen, path))
    domain = adata.obs["scdrugmap_domain"]
    assert domain.dtype == np.float32
    rows = splits[splits["fold"] == 0].set_index("cell")["role"]
    train = domain.loc[rows.index[rows == "train"]].sort_values()
    np.testing.assert_allclose(train, np.linspace(0, 1, len(train)), atol=0.01)  # one quantile


def test_strange_cell_lies_outside_of_the_training_cells(frozen: Predictor) -> None:
    adata = cohort()
    one = np.zeros(300)
    one[5] = 10_000
    changed(adata, slice(3, 4), one)
    changed(adata, slice(4, 5), 0)
    domain = predicted(frozen, adata).domain
    assert outside(domain)[3]
    assert outside(domain).mean() < 0.1
    assert np.isnan(domain[4])
    assert np.isfinite(np.delete(domain, 4)).all()


def test_domain_is_the_same_from_a_file_and_for_chosen_cells(
    frozen: Predictor, tmp_path: Path
) -> None:
    adata = cohort(SEED_OF_STRANGERS)
    frozen.save(tmp_path / "p.zip")
    again = Predictor.load(tmp_path / "p.zip")
    with open_cells(adata) as cells:
        whole = frozen.scorer(quiet=True).scores(cells, quiet=True).domain
        some = again.scorer(quiet=True).scores(cells, index=np.array([3, 50]), quiet=True).domain
    assert whole is not None
    np.testing.assert_array_equal(some, whole[[3, 50]])


def test_estimators_have_no_domain(estimator: Predictor) -> None:
    adata = cohort(SEED_OF_STRANGERS)
    annotate(adata, predicted(estimator, adata))
    assert adata.obs["scdrugmap_domain"].dtype == np.float32
    assert adata.obs["scdrugmap_domain"].isna().all()
