"""Predictions against the split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from scdrugmap.errors import DataError, UsageError
from scdrugmap.evaluation.design import Design
from scdrugmap.evaluation.evaluate import describe_metrics, evaluate, evaluate_files
from scdrugmap.evaluation.splits import make_split
from scdrugmap.evaluation.tables import (
    METRIC_COLUMNS,
    headline,
    split_id,
    write_metrics,
    write_predictions,
    write_splits,
)

N_DONORS, N_CELLS = 12, 20


def splits(datasets: int = 1, folds: int = 3, protocol: str = "pooled-group") -> pd.DataFrame:
    rows = [
        {
            "dataset": f"d{d}",
            "cell": f"c{donor}_{i}",
            "sample": f"s{donor}",
            "donor": f"p{donor}",
            "study": f"d{d}",
            "label": "sensitive" if donor % 3 else "resistant",
            "fingerprint": f"{d}_{donor}_{i}",
        }
        for d in range(datasets)
        for donor in range(N_DONORS)
        for i in range(N_CELLS)
    ]
    design = Design(pd.DataFrame(rows, dtype=object))
    return make_split(design, protocol, folds=folds).table


def predict(
    table: pd.DataFrame,
    *,
    model: str = "m",
    seed: int = 0,
    signal: float = 0.3,
    constant: float | None = None,
    roles: tuple[str, ...] = ("test",),
) -> pd.DataFrame:
    """Predict with noise of a fixed seed, or the same for all."""
    chosen = table[table["role"].isin(roles)]
    random = np.random.default_rng(seed)
    sensitive = (chosen["label"] == "sensitive").to_numpy()
    p = np.clip(signal * sensitive + random.random(len(chosen)) * (1 - signal), 0, 1)
    return pd.DataFrame(
        {
            "dataset": chosen["dataset"],
            "cell": chosen["cell"],
            "sample": chosen["sample"],
            "model": model,
            "strategy": "estimator",
            "fold": chosen["fold"],
            "seed": seed,
            "role": chosen["role"],
            "p_sensitive": p if constant is None else constant,
            "threshold": 0.5,
            "state": "answered",
            "reason": "",
        }
    ).reset_index(drop=True)


def score(predictions: pd.DataFrame, table: pd.DataFrame, **options: object) -> pd.DataFrame:
    return evaluate(predictions, table, **{"draws": 50, **options})  # type: ignore[arg-type]


def row(metrics: pd.DataFrame, metric: str, **where: object) -> pd.Series:
    where = {"fold": "all", "level": "cell", "facet": "", **where}
    chosen = metrics[metrics["metric"] == metric]
    for column, value in where.items():
        chosen = chosen[chosen[column] == value]
    assert len(chosen) == 1, chosen
    return chosen.iloc[0]


def truth_and_p(predictions: pd.DataFrame, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    both = predictions.merge(table[["dataset", "cell", "fold", "label"]])
    return (both["label"] == "sensitive").to_numpy(), both["p_sensitive"].to_numpy()


def test_table_has_the_pinned_columns_and_can_be_written(tmp_path: Path) -> None:
    metrics = score(predict(splits()), splits())
    assert list(metrics.columns) == [*METRIC_COLUMNS, "facet"]
    assert set(metrics["facet"]) == {""}
    write_metrics(metrics, tmp_path / "metrics.tsv")


def test_pooled_figures_are_those_of_all_test_cells() -> None:
    table = splits()
    predictions = predict(table)
    metrics = score(predictions, table)
    truth, p = truth_and_p(predictions, table)
    assert row(metrics, "auroc")["value"] == pytest.approx(roc_auc_score(truth, p))
    f1 = row(metrics, "macro_f1")
    assert f1["value"] == pytest.approx(f1_score(truth, p >= 0.5, average="macro"))
    assert (f1["n"], f1["n_sensitive"], f1["n_groups"], f1["threshold"]) == (240, 160, 12, 0.5)
    assert f1["protocol"] == "pooled-group"
    assert f1["ci_low"] < f1["value"] < f1["ci_high"]


def test_each_fold_has_rows_of_its_own_cells() -> None:
    table = splits(folds=2)
    predictions = predict(table)
    metrics = score(predictions, table)
    truth, p = truth_and_p(predictions[predictions["fold"] == 1], table)
    assert row(metrics, "auroc", fold="1")["value"] == pytest.approx(roc_auc_score(truth, p))
    assert set(metrics["fold"]) == {"0", "1", "all"}


def test_sample_level_gives_one_vote_per_sample() -> None:
    table = splits()
    predictions = predict(table)
    mean = predictions.groupby("sample")["p_sensitive"].mean()
    truth = table.groupby("sample")["label"].first() == "sensitive"
    found = row(score(predictions, table), "auroc", level="sample")
    assert found["value"] == pytest.approx(roc_auc_score(truth, mean.reindex(truth.index)))
    assert (found["n"], found["n_sensitive"], found["n_groups"]) == (12, 8, 12)


def test_sample_with_both_labels_is_left_out_and_counted() -> None:
    table = splits()
    table.loc[table["cell"] == "c0_0", "label"] = "sensitive"
    table["split_id"] = split_id(table, "pooled-group")
    found = row(score(predict(table), table), "auroc", level="sample")
    assert found["n"] == 11
    assert "1 samples with both labels left out" in found["note"]


def test_constant_predictor_has_no_skill() -> None:
    table = splits()
    metrics = score(predict(table, constant=2 / 3), table)
    assert row(metrics, "macro_f1")["value"] == pytest.approx(0.8 / 2)  # 2p/(1+p), p = 2/3
    assert row(metrics, "f1_sensitive")["value"] == pytest.approx(0.8)
    expected = {"mcc": 0, "auroc": 0.5, "auprc_sensitive": 2 / 3, "ece": 0, "brier": 2 / 9}
    for name, value in expected.items():
        assert row(metrics, name)["value"] == pytest.approx(value, abs=1e-12)
    for name in ("macro_f1", "mcc", "auroc", "brier", "balanced_accuracy", "auprc_resistant"):
        assert row(metrics, f"skill_{name}")["value"] == pytest.approx(0, abs=1e-12)


def test_order_of_rows_changes_no_byte(tmp_path: Path) -> None:
    table = splits(2)
    predictions = predict(table)
    random = {"frac": 1, "random_state": 1}
    for name, p, s in (
        ("a", predictions, table),
        ("b", predictions.sample(**random), table.sample(**random)),
    ):
        write_metrics(score(p, s), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_seed_moves_intervals_only() -> None:
    table = splits()
    one, other = (score(predict(table), table, seed=seed) for seed in (0, 1))
    assert one["value"].equals(other["value"])
    assert not one["ci_low"].equals(other["ci_low"])


def test_small_fold_is_not_evaluable_but_counts_in_the_pool() -> None:
    table = splits(folds=4)  # 20 resistant cells a fold
    metrics = score(predict(table), table)
    fold = row(metrics, "auroc", fold="0")
    assert np.isnan(fold["value"])
    assert fold["note"].startswith("not evaluable: 20 resistant cells, 30 needed")
    assert row(metrics, "auroc")["value"] > 0.5


def test_fold_with_one_group_of_a_class_has_no_sample_metrics() -> None:
    table = splits(folds=4)
    found = row(score(predict(table), table), "auroc", fold="0", level="sample")
    assert np.isnan(found["value"])
    assert "not evaluable: 1 resistant groups, 2 needed" in found["note"]


def test_fewer_than_five_groups_give_no_interval() -> None:
    table = splits(folds=4)
    table = table[table["donor"].isin(["p0", "p1", "p2", "p3"])].reset_index(drop=True)
    table["split_id"] = split_id(table, "pooled-group")
    found = row(score(predict(table), table), "auroc")
    assert found["value"] > 0
    assert np.isnan(found["ci_low"])
    assert "no interval: 4 groups, 5 needed" in found["note"]


def test_intervals_can_be_left_out() -> None:
    metrics = score(predict(splits()), splits(), draws=0)
    assert metrics["ci_low"].isna().all()
    assert "no interval asked for" in row(metrics, "auroc")["note"]


def test_missing_predictions_count_as_wrong() -> None:
    table = splits()
    predictions = predict(table, constant=1.0)
    metrics = score(predictions.iloc[24:], table)
    found = row(metrics, "f1_sensitive")
    assert (found["n"], found["n_invalid"]) == (240, 24)
    assert "24 test cells without prediction count as wrong" in found["note"]
    assert found["value"] < row(score(predictions, table), "f1_sensitive")["value"]


@pytest.mark.parametrize("state", ["invalid", "abstained"])
def test_cells_without_answer_count_as_wrong_and_as_one_half(state: str) -> None:
    table = splits()
    predictions = predict(table)
    sensitive = np.flatnonzero(predictions.merge(table)["label"] == "sensitive")[:30]
    predictions.loc[sensitive, ["state", "reason"]] = [state, "no_known_genes"]
    predictions.loc[sensitive, "p_sensitive"] = np.nan
    metrics = score(predictions, table)
    truth, p = truth_and_p(predictions, table)
    gone = np.isnan(p)
    assert row(metrics, "auroc")["value"] == pytest.approx(
        roc_auc_score(truth, np.where(gone, 0.5, p))
    )
    call = np.where(gone, ~truth, p >= 0.5)
    assert row(metrics, "f1_sensitive")["value"] == pytest.approx(f1_score(truth, call))
    assert row(metrics, "auroc")["n_invalid"] == 30


def test_cells_without_answer_can_be_excluded_and_stay_counted() -> None:
    table = splits()
    predictions = predict(table)
    predictions.loc[:9, "state"] = "abstained"
    metrics = score(predictions, table, exclude_invalid=True)
    truth, p = truth_and_p(predictions.iloc[10:], table)
    found = row(metrics, "auroc")
    assert found["value"] == pytest.approx(roc_auc_score(truth, p))
    assert (found["n"], found["n_invalid"]) == (230, 10)
    assert "10 cells without answer left out" in found["note"]


def test_two_models_with_different_gaps_are_scored_on_the_same_cells() -> None:
    table = splits()
    one, other = predict(table, model="a").iloc[5:], predict(table, model="b").iloc[:-9]
    metrics = score(pd.concat([one, other]), table)
    rows = [row(metrics, "auroc", model=model) for model in ("a", "b")]
    assert [r["n"] for r in rows] == [240, 240]
    assert [r["n_invalid"] for r in rows] == [5, 9]


def test_models_and_seeds_are_scored_apart() -> None:
    table = splits()
    parts = [predict(table, model=m, seed=s) for m in ("a", "b") for s in (0, 1)]
    together = score(pd.concat(parts), table)
    alone = score(parts[2], table)
    assert len(together) == 4 * len(alone)
    assert row(together, "auroc", model="b", seed=0)["value"] == row(alone, "auroc")["value"]
    assert row(together, "auroc", model="b", seed=0)["ci_low"] == row(alone, "auroc")["ci_low"]


def test_folds_that_were_not_predicted_are_named_and_not_counted_as_wrong() -> None:
    table = splits()
    predictions = predict(table)
    metrics = score(predictions[predictions["fold"] == 1], table)
    found = row(metrics, "auroc")
    assert (found["n"], found["n_invalid"]) == (80, 0)
    assert "folds not predicted: 0, 2" in found["note"]


def test_several_datasets_are_scored_together_apart_and_on_average() -> None:
    table = splits(2)
    metrics = score(predict(table), table)
    each = [row(metrics, "auroc", dataset=name)["value"] for name in ("d0", "d1")]
    macro = row(metrics, "auroc", level="dataset_macro")
    assert macro["value"] == pytest.approx(np.mean(each))
    assert macro["ci_low"] <= macro["value"] <= macro["ci_high"]
    assert "mean of 2 of 2 datasets" in macro["note"]
    assert row(metrics, "auroc", dataset="all")["n"] == 480
    assert set(headline(metrics)["dataset"]) == {"all"}


def test_dataset_that_is_too_small_is_left_out_of_the_mean_and_counted() -> None:
    table = splits(2)
    few = (table["dataset"] == "d0") | (table["cell"].str.endswith("_0"))
    table = table[few].reset_index(drop=True)
    table["split_id"] = split_id(table, "pooled-group")
    metrics = score(predict(table), table)
    macro = row(metrics, "auroc", level="dataset_macro")
    assert macro["value"] == row(metrics, "auroc", dataset="d0")["value"]
    assert "mean of 1 of 2 datasets" in macro["note"]


def test_single_dataset_needs_no_mean() -> None:
    metrics = score(predict(splits()), splits())
    assert set(metrics["level"]) == {"cell", "sample"}
    assert set(metrics["dataset"]) == {"d0"}


def test_tuned_threshold_stands_beside_one_half() -> None:
    table = splits()
    predictions = predict(table).assign(threshold=0.7)
    metrics = score(predictions, table)
    truth, p = truth_and_p(predictions, table)
    for threshold in (0.5, 0.7):
        expected = f1_score(truth, p >= threshold)
        assert row(metrics, "f1_sensitive", threshold=threshold)["value"] == pytest.approx(expected)
    assert row(metrics, "skill_macro_f1", threshold=0.7)["value"] != 0


def test_thresholds_tuned_per_fold_are_used_per_fold() -> None:
    table = splits()
    predictions = predict(table)
    predictions["threshold"] = predictions["fold"].map({0: 0.4, 1: 0.5, 2: 0.6})
    metrics = score(predictions, table)
    pooled = metrics[(metrics["metric"] == "macro_f1") & (metrics["fold"] == "all")]
    tuned = pooled[pooled["threshold"].isna()].iloc[0]
    assert "threshold tuned per fold, 0.4 to 0.6" in tuned["note"]
    truth, p = truth_and_p(predictions, table)
    expected = f1_score(truth, p >= predictions["threshold"], average="macro")
    assert tuned["value"] == pytest.approx(expected)


def test_training_cells_are_left_out_and_counted() -> None:
    table = splits()
    everything = predict(table, roles=("test", "train"))
    metrics = score(everything, table)
    assert row(metrics, "auroc")["n"] == 240
    assert "480 predictions are of no test cell" in metrics.attrs["notices"][0]


def test_predictions_of_training_cells_alone_are_refused() -> None:
    table = splits()
    with pytest.raises(DataError, match="none of the 480 predictions is of a test cell") as stop:
        score(predict(table, roles=("train",)), table)
    assert "--in-sample" in stop.value.hint


def test_in_sample_scores_training_cells_and_says_so_in_every_row() -> None:
    table = splits()
    metrics = score(predict(table, roles=("train",)), table, in_sample=True)
    assert metrics["note"].str.contains("in-sample").all()


def test_cells_the_predictor_has_seen_are_no_test_cells() -> None:
    table = splits()
    predictions = predict(table).assign(role="new")
    predictions.loc[:6, "role"] = "train"  # recognised by content
    found = row(score(predictions, table), "auroc")
    assert (found["n"], found["n_invalid"]) == (233, 0)
    assert "7 test cells that the predictor was trained on left out" in found["note"]


def test_predictor_that_has_seen_all_its_test_cells_is_not_scored() -> None:
    table = splits()
    seen = predict(table, model="seen").assign(role="train")
    metrics = score(pd.concat([predict(table), seen]), table)
    assert set(metrics["model"]) == {"m"}
    assert any("seen (estimator): trained on all" in n for n in metrics.attrs["notices"])


def test_test_cells_of_another_split_are_refused() -> None:
    table = splits()
    predictions = predict(table)
    predictions["fold"] = (predictions["fold"] + 1) % 3
    with pytest.raises(DataError, match="240 predictions are of test cells that are no test cells"):
        score(predictions, table)


def test_unknown_cells_are_refused() -> None:
    table = splits()
    predictions = predict(table)
    predictions.loc[0, "cell"] = "stranger"
    with pytest.raises(DataError, match="1 predictions are of cells that the split does not have"):
        score(predictions, table)


def test_unknown_dataset_is_refused_with_the_known_ones() -> None:
    table = splits()
    with pytest.raises(DataError, match="the split has no dataset 'other'") as stop:
        score(predict(table).assign(dataset="other"), table)
    assert "d0" in stop.value.hint


def test_unlabelled_cells_of_a_file_are_left_out_and_counted() -> None:
    table = splits()
    predictions = predict(table)
    extra = predictions.iloc[:3].assign(cell=["u1", "u2", "u3"], role="new")
    metrics = score(pd.concat([predictions, extra]), table)
    assert row(metrics, "auroc")["n"] == 240
    assert metrics.attrs["notices"][0].startswith("3 predictions are of cells without a part")


def test_cells_of_another_fold_of_within_are_left_out() -> None:
    table = splits(2, protocol="within")
    predictions = predict(table)
    foreign = predictions[predictions["fold"] == 0].assign(dataset="d1", role="new")
    metrics = score(pd.concat([predictions, foreign]), table)
    assert row(metrics, "auroc", dataset="all")["n"] == 480
    assert set(metrics.loc[metrics["fold"] == "0", "dataset"]) == {"d0"}


def test_a_prediction_that_stands_twice_is_refused() -> None:
    predictions = predict(splits())
    with pytest.raises(DataError, match="occurs twice"):
        score(pd.concat([predictions, predictions.iloc[[0]]]), splits())


def test_nothing_answered_leaves_nothing_to_exclude() -> None:
    predictions = predict(splits()).assign(state="abstained")
    with pytest.raises(DataError, match="no cell with an answer is left"):
        score(predictions, splits(), exclude_invalid=True)
    assert row(score(predictions, splits()), "auroc")["value"] == 0.5


@pytest.mark.parametrize("option", ["draws", "seed"])
def test_negative_numbers_are_refused(option: str) -> None:
    with pytest.raises(UsageError, match="must not be negative"):
        score(predict(splits()), splits(), **{option: -1})


def test_input_is_not_modified() -> None:
    table = splits()
    predictions = predict(table)
    before = predictions.copy(), table.copy()
    score(predictions, table)
    pd.testing.assert_frame_equal(predictions, before[0])
    pd.testing.assert_frame_equal(table, before[1])


def test_files_give_the_same_as_tables(tmp_path: Path) -> None:
    table = splits()
    one, other = predict(table, model="a"), predict(table, model="b")
    write_splits(table, tmp_path / "splits.tsv.gz")
    for name, part in (("a.tsv", one), ("b.tsv.gz", other)):
        write_predictions(part, tmp_path / name)
    files = [tmp_path / "a.tsv", tmp_path / "b.tsv.gz"]
    pd.testing.assert_frame_equal(
        evaluate_files(files, tmp_path / "splits.tsv.gz", draws=20),
        evaluate(pd.concat([one, other]), table, draws=20),
    )


def test_description_shows_the_constant_beside_each_model() -> None:
    lines = describe_metrics(score(predict(splits()), splits()))
    assert "constant" in lines[0]
    assert "m (estimator, seed 0)" in lines[1]
    assert " 0.400 " in lines[1]


def test_description_says_what_is_not_evaluable() -> None:
    table = splits(folds=4)
    predictions = predict(table)
    lines = describe_metrics(score(predictions[predictions["fold"] == 0], table))
    assert "not evaluable" in lines[1]
    assert "folds not predicted: 1, 2, 3" in lines[2]


def few_shots(protocol: str = "few-shot-1") -> pd.DataFrame:
    rows = [
        {
            "dataset": f"d{d}",
            "cell": f"c{donor}_{i}",
            "sample": f"s{donor}",
            "donor": f"p{donor}",
            "study": f"d{d}",
            "label": "sensitive" if donor % 2 else "resistant",
            "fingerprint": f"{d}_{donor}_{i}",
            "cancer_type": "Melanoma" if d else "Leukemia",
        }
        for d in range(2)
        for donor in range(8)
        for i in range(15)
    ]
    return make_split(Design(pd.DataFrame(rows, dtype=object)), protocol).table


def test_results_are_grouped_by_what_the_split_knows() -> None:
    table = few_shots("lodo")
    predictions = predict(table)
    metrics = score(predictions, table)
    assert set(metrics["facet"]) == {"", "cancer_type=Leukemia", "cancer_type=Melanoma"}
    truth, p = truth_and_p(predictions[predictions["dataset"] == "d1"], table)
    found = row(metrics, "auroc", facet="cancer_type=Melanoma")
    assert found["value"] == pytest.approx(roc_auc_score(truth, p))
    assert set(headline(metrics)["facet"]) == {""}


def test_target_that_is_no_dataset_has_rows_of_its_own() -> None:
    table = splits(2)
    table["target"] = np.where(table["cell"].str.startswith("c1"), "drug a", "drug b")
    table["split_id"] = split_id(table, "lodrug")
    facets = set(score(predict(table), table)["facet"])
    assert facets == {"", "target=drug a", "target=drug b"}


def test_figure_of_few_shots_is_the_mean_over_draws() -> None:
    table = few_shots()
    predictions = predict(table)
    metrics = score(predictions, table)
    values = []
    for _, part in predictions.merge(table[["dataset", "cell", "fold", "draw"]]).groupby("draw"):
        truth, p = truth_and_p(part, table)
        values.append(roc_auc_score(truth, p))
    found = row(metrics, "auroc", dataset="all")
    assert len(values) == 10
    assert found["value"] == pytest.approx(np.mean(values))
    assert found["ci_low"] < found["value"] < found["ci_high"]
    spread = f"AUROC with standard deviation {np.std(values, ddof=1):.3f}"
    assert f"mean of 10 of 10 draws of labelled samples, {spread}" in found["note"]
    assert found["n"] == 2 * (8 - 2) * 15  # each cell counts once


def test_each_target_of_few_shots_is_averaged_by_itself() -> None:
    table = few_shots()
    predictions = predict(table)
    own = predictions.merge(table[["dataset", "cell", "fold", "draw"]])
    own = own[own["dataset"] == "d1"]
    values = [roc_auc_score(*truth_and_p(part, table)) for _, part in own.groupby("draw")]
    found = row(score(predictions, table), "auroc", dataset="d1")
    assert found["value"] == pytest.approx(np.mean(values))
    macro = row(score(predictions, table), "auroc", level="dataset_macro")
    assert "mean of 2 of 2 datasets; mean of 10 draws" in macro["note"]


def test_samples_are_summed_up_in_three_ways() -> None:
    table = splits()
    predictions = predict(table)
    found = row(score(predictions, table), "auroc_share_above", level="sample")
    by_sample = predictions.assign(above=predictions["p_sensitive"] > 0.5).groupby("sample")
    truth = table.groupby("sample")["label"].first() == "sensitive"
    expected = roc_auc_score(truth, by_sample["above"].mean().reindex(truth.index))
    assert found["value"] == pytest.approx(expected)
    trimmed = by_sample["p_sensitive"].agg(lambda p: np.sort(p)[2:-2].mean())  # of 20 cells
    found = row(score(predictions, table), "auroc_trimmed_mean", level="sample")
    assert found["value"] == pytest.approx(roc_auc_score(truth, trimmed.reindex(truth.index)))
