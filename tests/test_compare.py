"""Two models on the same cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from scdrugmap.errors import DataError, UsageError
from scdrugmap.evaluation.compare import compare_models
from scdrugmap.evaluation.design import Design
from scdrugmap.evaluation.splits import make_split
from scdrugmap.evaluation.standing import Votes, rank_gap
from scdrugmap.evaluation.tables import (
    COMPARISON_COLUMNS,
    read_comparisons,
    split_id,
    write_comparisons,
    write_predictions,
    write_splits,
)


def splits(protocol: str = "pooled-group", *, datasets: int = 1, donors: int = 12) -> pd.DataFrame:
    rows = [
        {
            "dataset": f"d{d}",
            "cell": f"c{donor}_{i}",
            "sample": f"s{donor}",
            "donor": f"p{donor}",
            "study": f"d{d}",
            "label": "sensitive" if donor % 2 else "resistant",
            "fingerprint": f"{d}_{donor}_{i}",
        }
        for d in range(datasets)
        for donor in range(donors)
        for i in range(20)
    ]
    return make_split(Design(pd.DataFrame(rows, dtype=object)), protocol, folds=3).table


def predict(
    table: pd.DataFrame, model: str, signal: float, *, seed: int = 0, noise: int = 0
) -> pd.DataFrame:
    chosen = table[table["role"] == "test"]
    random = np.random.default_rng([seed, noise])
    truth = (chosen["label"] == "sensitive").to_numpy()
    p = np.clip(signal * (truth - 0.5) + 0.5 + random.normal(0, 0.25, len(chosen)), 0, 1)
    return pd.DataFrame(
        {
            "dataset": chosen["dataset"],
            "cell": chosen["cell"],
            "sample": chosen["sample"],
            "model": model,
            "strategy": "frozen",
            "fold": chosen["fold"],
            "seed": seed,
            "role": "test",
            "p_sensitive": p,
            "threshold": 0.5,
            "state": "answered",
            "reason": "",
        }
    ).reset_index(drop=True)


def compare(table: pd.DataFrame, *parts: pd.DataFrame, **options: Any) -> pd.DataFrame:
    return compare_models(
        pd.concat(parts, ignore_index=True), table, **{"draws": 100, "permutations": 400, **options}
    )


def row(found: pd.DataFrame, metric: str = "auroc", **where: object) -> pd.Series:
    where = {"level": "cell", "test": "sign-flip", "metric": metric, **where}
    for column, value in where.items():
        found = found[found[column] == value]
    assert len(found) == 1, found
    return found.iloc[0]


def truth(table: pd.DataFrame, part: pd.DataFrame) -> np.ndarray:
    both = part.merge(table[["dataset", "cell", "fold", "label"]])
    return (both["label"] == "sensitive").to_numpy()


def test_better_model_is_found(tmp_path: Path) -> None:
    table = splits()
    good, poor = predict(table, "good", 0.5), predict(table, "poor", 0.1, noise=1)
    found = compare(table, good, poor)
    assert tuple(found.columns) == COMPARISON_COLUMNS
    for metric in ("auroc", "macro_f1", "mcc"):
        one = row(found, metric)
        assert one["difference"] > 0.1
        assert one["ci_low"] > 0
        assert one["p_value"] < 0.01
        assert (one["unit"], one["n_units"]) == ("group", 12)
        assert one["effect_size"] > 0.8
        assert one["share_better"] > 0.7
    brier = row(found, "brier")
    assert brier["difference"] < 0  # lower is better
    assert brier["share_better"] > 0.7
    write_comparisons(found, tmp_path / "c.tsv")
    found.attrs = {}
    pd.testing.assert_frame_equal(read_comparisons(tmp_path / "c.tsv"), found)


def test_figures_are_those_of_scikit_learn() -> None:
    table = splits()
    good, poor = predict(table, "good", 0.5), predict(table, "poor", 0.1, noise=1)
    found = compare(table, good, poor)
    y = truth(table, good)
    auroc, f1 = row(found), row(found, "macro_f1")
    for side, part in (("value_a", good), ("value_b", poor)):
        p = part["p_sensitive"].to_numpy()
        assert auroc[side] == pytest.approx(roc_auc_score(y, p))
        assert f1[side] == pytest.approx(f1_score(y, p >= 0.5, average="macro"))
    assert f1["threshold"] == 0.5
    mean = [part.groupby("sample")["p_sensitive"].mean() for part in (good, poor)]
    of_sample = table.groupby("sample")["label"].first().reindex(mean[0].index) == "sensitive"
    expected = np.subtract(*(roc_auc_score(of_sample, m) for m in mean))
    assert row(found, level="sample")["difference"] == pytest.approx(expected)


def test_equal_models_differ_by_chance_only() -> None:
    table = splits()
    small = 0
    for noise in range(20):
        parts = [predict(table, m, 0.3, noise=2 * noise + i) for i, m in enumerate("ab")]
        small += row(compare(table, *parts, draws=0, metrics=("auroc",)))["p_value"] <= 0.05
    assert small <= 3  # 1 expected


def test_what_groups_add_sums_to_the_difference_also_with_models_swapped() -> None:
    random = np.random.default_rng(0)
    truth = random.random(60) < 0.5
    group = random.integers(0, 6, 60)
    ranks = [random.permutation(60) / 60 for _ in range(2)]
    draw = np.zeros(60, np.int64)
    one, other = (Votes(rank, truth, group, draw) for rank in ranks)
    shares, _ = rank_gap(one, other, 6)
    for swapped in ([], [2], [0, 3, 4]):
        flip = np.isin(group, swapped)
        mixed = [np.where(flip, ranks[1 - i], ranks[i]) for i in range(2)]
        expected = np.subtract(*(roc_auc_score(truth, rank) for rank in mixed))
        signs = np.where(np.isin(np.arange(6), swapped), -1, 1)
        assert signs @ shares == pytest.approx(expected)


def test_models_swapped_give_the_mirrored_difference() -> None:
    table = splits()
    first, second = predict(table, "a", 0.4), predict(table, "b", 0.2, noise=1)
    one = compare(table, first, second)
    other = compare(table, first.assign(model="b"), second.assign(model="a"))
    for metric in ("auroc", "macro_f1", "brier"):
        a, b = row(one, metric), row(other, metric)
        assert a["difference"] == pytest.approx(-b["difference"])
        assert a["p_value"] == b["p_value"]
        assert a["ci_low"] == pytest.approx(-b["ci_high"], abs=1e-9)


def test_datasets_have_one_vote_each() -> None:
    table = splits(datasets=6)
    found = compare(table, predict(table, "a", 0.5), predict(table, "b", 0.1, noise=1))
    for name in ("sign-flip", "wilcoxon"):
        one = row(found, level="dataset_macro", test=name)
        assert (one["unit"], one["n_units"]) == ("dataset", 6)
        assert one["p_value"] == pytest.approx(2 / 2**6)


def test_p_values_are_corrected_over_all_pairs() -> None:
    table = splits()
    parts = [
        predict(table, m, s, noise=i)
        for i, (m, s) in enumerate(zip("abc", (0.5, 0.3, 0.28), strict=True))
    ]
    found = compare(table, *parts, metrics=("auroc",), draws=0)
    family = found[(found["level"] == "cell") & (found["test"] == "sign-flip")]
    assert list(family["n_comparisons"]) == [3, 3, 3]
    assert (family["p_holm"] >= family["p_value"]).all()
    assert family["p_holm"].min() == pytest.approx(3 * family["p_value"].min())


def test_reference_is_compared_with_all_others() -> None:
    table = splits()
    parts = [predict(table, m, 0.3, noise=i) for i, m in enumerate("abc")]
    found = compare(table, *parts, metrics=("auroc",), draws=0, reference="b:frozen")
    assert set(zip(found["model_a"], found["model_b"], strict=True)) == {("a", "b"), ("c", "b")}
    with pytest.raises(UsageError, match="'x' was not predicted") as stop:
        compare(table, *parts, reference="x")
    assert "a:frozen" in stop.value.hint


def test_seeds_are_averaged_and_their_spread_is_apart() -> None:
    table = splits()
    good = [predict(table, "a", 0.4, seed=seed) for seed in range(3)]
    other = predict(table, "b", 0.2, noise=9)
    found = row(compare(table, *good, other))
    values = [roc_auc_score(truth(table, part), part["p_sensitive"]) for part in good]
    assert found["value_a"] == pytest.approx(np.mean(values))
    assert found["seed_sd_a"] == pytest.approx(np.std(values, ddof=1))
    assert (found["n_seeds_a"], found["n_seeds_b"]) == (3, 1)
    assert np.isnan(found["seed_sd_b"])


def test_fewer_than_three_seeds_are_said() -> None:
    table = splits()
    found = compare(table, predict(table, "a", 0.4), predict(table, "b", 0.2, noise=1), draws=0)
    assert found["note"].str.contains("fewer than 3 seeds").all()


def test_paper_splits_have_the_corrected_fold_test_and_no_other() -> None:
    table = splits("paper-pooled")
    found = compare(table, predict(table, "a", 0.5), predict(table, "b", 0.1, noise=1))
    assert set(found["test"]) == {"nadeau-bengio"}
    assert set(found["unit"]) == {"fold"}
    sound = compare(splits(), predict(splits(), "a", 0.5), predict(splits(), "b", 0.1, noise=1))
    assert "nadeau-bengio" not in set(sound["test"])


def test_missing_answers_count_as_wrong_for_the_model_that_lacks_them() -> None:
    table = splits()
    full, gappy = predict(table, "a", 0.4), predict(table, "b", 0.4).iloc[:200]
    found = row(compare(table, full, gappy), "macro_f1")
    assert found["n"] == 240
    assert found["difference"] > 0
    assert "b:frozen: 40 test cells without prediction count as wrong" in found["note"]


def test_models_with_different_folds_are_compared_on_the_folds_of_both() -> None:
    table = splits()
    first, second = predict(table, "a", 0.4), predict(table, "b", 0.2, noise=1)
    found = row(compare(table, first, second[second["fold"] < 2], draws=0))
    assert found["n"] == 160
    assert "compared on the 160 predictions that both have" in found["note"]


def test_models_without_a_test_cell_in_common_are_named() -> None:
    table = splits()
    first, second = predict(table, "a", 0.4), predict(table, "b", 0.2, noise=1)
    found = compare(table, first[first["fold"] == 0], second[second["fold"] == 1], draws=0)
    assert len(found) == 0
    assert found.attrs["notices"] == ("a:frozen and b:frozen have no test cell in common",)


def test_few_shots_are_compared_over_draws() -> None:
    table = splits("few-shot-1", datasets=2, donors=8)
    first, second = predict(table, "a", 0.5), predict(table, "b", 0.1, noise=1)
    found = row(compare(table, first, second, draws=0, metrics=("auroc", "macro_f1")))
    assert found["difference"] > 0.2
    assert found["p_value"] < 0.05


def test_what_is_not_evaluable_has_no_p_value_and_says_why() -> None:
    table = splits(donors=4)
    keep = table[table["cell"].str.endswith(("_0", "_1", "_2"))].reset_index(drop=True)
    keep["split_id"] = split_id(keep, "pooled-group")
    found = row(compare(keep, predict(keep, "a", 0.5), predict(keep, "b", 0.1, noise=1)))
    assert np.isnan(found["p_value"])
    assert np.isnan(found["p_holm"])
    assert "not evaluable: 6 sensitive and 6 resistant cells, 30 needed" in found["note"]
    assert found["n_comparisons"] == 0


def test_one_model_gives_an_empty_table() -> None:
    table = splits()
    assert len(compare(table, predict(table, "a", 0.5))) == 0


def test_predictions_of_another_split_are_refused() -> None:
    table = splits()
    other = predict(table, "b", 0.2)
    other["fold"] = (other["fold"] + 1) % 3
    with pytest.raises(DataError, match="no test cells in this split"):
        compare(table, predict(table, "a", 0.5), other)


def test_command_writes_comparisons(cli: Any, tmp_path: Path) -> None:
    table = splits()
    write_splits(table, tmp_path / "s.tsv")
    write_predictions(
        pd.concat([predict(table, "a", 0.5), predict(table, "b", 0.2, noise=1)]), tmp_path / "p.tsv"
    )
    common = ["evaluate", tmp_path / "p.tsv", "--splits", tmp_path / "s.tsv", "--draws", 40]
    done = cli(*common, "-o", tmp_path / "m.tsv", "--comparisons", tmp_path / "c.tsv")
    assert done.code == 0, done.err
    assert len(read_comparisons(tmp_path / "c.tsv")) > 4
    again = cli(
        *common, "-o", tmp_path / "m2.tsv", "--comparisons", tmp_path / "c2.tsv", "--reference", "b"
    )
    assert set(read_comparisons(tmp_path / "c2.tsv")["model_b"]) == {"b"}
    assert again.code == 0
    lone = cli(*common, "-o", tmp_path / "m3.tsv", "--reference", "b")
    assert lone.code == 2
    assert "--comparisons" in lone.err
