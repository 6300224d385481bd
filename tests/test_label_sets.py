"""Conformal sets in evaluation: coverage and size, at each level, as computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scdrugmap.errors import DataError
from scdrugmap.evaluation.design import Design
from scdrugmap.evaluation.evaluate import describe_metrics, evaluate
from scdrugmap.evaluation.label_sets import SET_METRICS
from scdrugmap.evaluation.splits import make_split
from scdrugmap.evaluation.tables import (
    PREDICTION_COLUMNS,
    SET,
    SET_LEVEL,
    read_predictions,
    write_predictions,
)

N_DONORS = 12


def splits(datasets: int = 1) -> pd.DataFrame:
    """Divide donors of 10 to 21 cells, two of three sensitive, into three folds."""
    rows = [
        {
            "dataset": f"d{d}",
            "cell": f"c{donor}_{i}",
            "sample": f"s{donor}",
            "donor": f"d{d}p{donor}",
            "study": f"d{d}",
            "label": "sensitive" if donor % 3 else "resistant",
            "fingerprint": f"{d}_{donor}_{i}",
        }
        for d in range(datasets)
        for donor in range(N_DONORS)
        for i in range(10 + donor)
    ]
    return make_split(Design(pd.DataFrame(rows, dtype=object)), "pooled-group", folds=3).table


def predictions(table: pd.DataFrame, level: float = 0.9) -> pd.DataFrame:
    """Predict the test cells, with sets drawn from all four."""
    test = table[table["role"] == "test"]
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            **{name: test[name] for name in ("dataset", "cell", "sample", "fold", "role")},
            "model": "m",
            "strategy": "frozen",
            "seed": 0,
            "p_sensitive": random.random(len(test)),
            "threshold": 0.5,
            "state": "answered",
            "reason": "",
            SET: random.choice(
                ["sensitive", "resistant", "both", "none"], len(test), p=[0.4, 0.2, 0.3, 0.1]
            ),
            SET_LEVEL: level,
        }
    ).reset_index(drop=True)


def value(metrics: pd.DataFrame, metric: str, **where: object) -> pd.Series:
    where = {"fold": "all", "level": "cell", "facet": "", **where}
    chosen = metrics[metrics["metric"] == metric]
    for column, wanted in where.items():
        chosen = chosen[chosen[column] == wanted]
    assert len(chosen) == 1, chosen
    return chosen.iloc[0]


def by_hand(given: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return the label of each prediction, whether its set holds it, and the size of the set."""
    both = given.merge(table[["dataset", "cell", "fold", "label"]])
    covered = (both[SET] == "both") | (both[SET] == both["label"])
    size = both[SET].map({"none": 0, "sensitive": 1, "resistant": 1, "both": 2})
    return both.assign(covered=covered.astype(float), size=size.astype(float))


def test_coverage_and_size_are_those_counted_by_hand_at_each_level() -> None:
    table = splits(datasets=2)
    given = predictions(table)
    metrics = evaluate(given, table, draws=100)
    known = by_hand(given, table)
    cell = value(metrics, "set_coverage", dataset="all")
    assert cell["value"] == pytest.approx(known["covered"].mean())
    assert cell["threshold"] == 0.9
    assert cell["n"] == len(known)
    assert cell["n_sensitive"] == (known["label"] == "sensitive").sum()
    assert cell["ci_low"] < cell["value"] < cell["ci_high"]
    assert value(metrics, "set_size", dataset="all")["value"] == pytest.approx(known["size"].mean())
    for label in ("sensitive", "resistant"):
        expected = known.loc[known["label"] == label, "covered"].mean()
        found = value(metrics, f"set_coverage_{label}", dataset="all")["value"]
        assert found == pytest.approx(expected)
    of_samples = known.groupby(["dataset", "sample"])["covered"].mean()
    sample = value(metrics, "set_coverage", dataset="all", level="sample")
    assert sample["value"] == pytest.approx(of_samples.mean())
    assert sample["n"] == len(of_samples)
    assert sample["n_sensitive"] == 2 * 8
    assert sample["ci_low"] < sample["value"] < sample["ci_high"]
    macro = value(metrics, "set_coverage", dataset="all", level="dataset_macro")
    assert macro["value"] == pytest.approx(known.groupby("dataset")["covered"].mean().mean())
    assert macro["ci_low"] < macro["value"] < macro["ci_high"]
    fold = value(metrics, "set_coverage", fold="0", dataset="all")
    assert fold["value"] == pytest.approx(known.loc[known["fold"] == 0, "covered"].mean())


def test_interval_of_coverage_is_that_of_a_plain_bootstrap_over_groups() -> None:
    table = splits()
    given = predictions(table)
    covering = given["sample"].isin(["s1", "s2", "s4"])  # whole donors are covered, or are not
    given[SET] = np.where(covering, "both", "none")
    found = value(evaluate(given, table, draws=2000), "set_coverage")
    known = by_hand(given, table).groupby("sample")["covered"].agg(["sum", "size"]).to_numpy()
    random = np.random.default_rng(1)
    taken = random.integers(0, N_DONORS, (4000, N_DONORS))
    share = known[taken, 0].sum(1) / known[taken, 1].sum(1)
    low, high = np.quantile(share, [0.025, 0.975])
    assert found["ci_low"] == pytest.approx(low, abs=0.03)  # of draws
    assert found["ci_high"] == pytest.approx(high, abs=0.03)


def test_cells_without_a_set_are_left_out_and_counted() -> None:
    table = splits()
    given = predictions(table)
    given.loc[:9, [SET, "state", "reason"]] = ["", "invalid", "few_counts"]
    given.loc[:9, [SET_LEVEL, "p_sensitive"]] = np.nan
    found = value(evaluate(given, table, draws=0), "set_coverage")
    assert found["n"] == len(given) - 10
    assert "10 cells without such a set left out" in found["note"]
    assert found["value"] == pytest.approx(by_hand(given[10:], table)["covered"].mean())


def test_sets_of_two_levels_have_rows_of_their_own() -> None:
    table = splits()
    given = predictions(table)
    given[SET_LEVEL] = np.where(given["fold"] == 0, 0.8, 0.9)
    metrics = evaluate(given, table, draws=0)
    of_cells = metrics[
        (metrics["metric"] == "set_coverage")
        & (metrics["fold"] == "all")
        & (metrics["level"] == "cell")
    ]
    assert of_cells["threshold"].tolist() == [0.8, 0.9]
    assert of_cells["n"].sum() == len(given)


def test_too_few_cells_of_a_label_are_no_number_with_the_reason() -> None:
    table = splits()
    given = predictions(table)
    resistant = given["sample"].isin(["s0", "s3", "s6", "s9"])
    few = given[~resistant | (given["sample"] == "s0")]  # 10 resistant cells
    found = value(evaluate(few.assign(), table, draws=20), "set_coverage_resistant")
    assert np.isnan(found["value"])
    assert np.isnan(found["ci_low"])
    assert found["note"].startswith("not evaluable: 10 cells, 30 needed")


def test_predictions_without_sets_have_no_such_rows() -> None:
    table = splits()
    plain = predictions(table)[list(PREDICTION_COLUMNS)]
    assert not set(SET_METRICS) & set(evaluate(plain, table, draws=0)["metric"])


def test_sets_pass_through_a_file_and_tables_without_them_can_be_joined(tmp_path: Path) -> None:
    given = predictions(splits())
    plain = given[list(PREDICTION_COLUMNS)].assign(model="plain")
    path = tmp_path / "predictions.tsv"
    write_predictions(pd.concat([given, plain], ignore_index=True), path)
    back = read_predictions(path)
    assert list(back.columns) == [*PREDICTION_COLUMNS, SET, SET_LEVEL]
    assert back.loc[back["model"] == "m", SET].tolist() == given[SET].tolist()
    assert set(back.loc[back["model"] == "plain", SET]) == {""}
    metrics = evaluate(back, splits(), draws=0)
    assert set(metrics.loc[metrics["metric"] == "set_size", "model"]) == {"m"}


@pytest.mark.parametrize(
    ("column", "wrong", "message"),
    [
        (SET, "maybe", "column prediction_set: 'maybe' is none of"),
        (SET_LEVEL, 1.5, "column set_level: 1.5 is no level of a set"),
        (SET_LEVEL, np.nan, "column set_level: nan is no level of a set"),
    ],
)
def test_sets_that_cannot_be_are_refused(column: str, wrong: object, message: str) -> None:
    given = predictions(splits())
    given.loc[3, column] = wrong
    with pytest.raises(DataError, match=message):
        evaluate(given, splits(), draws=0)


def test_evaluate_tells_what_the_sets_were_worth() -> None:
    table = splits()
    lines = describe_metrics(evaluate(predictions(table), table, draws=20))
    assert any(line.startswith("  sets at level 0.9 hold the label of 0.") for line in lines)
