"""The table of samples: figures, intervals, refusals, and how far off the cells are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from scdrugmap.train.domain import Domain, outside
from scdrugmap.train.samples import far_notices, sample_lines, summarise


def table(**changes: Any) -> pd.DataFrame:
    """Sample a: three cells, one invalid; sample b: one invalid training cell."""
    frame = pd.DataFrame(
        {
            "dataset": "d",
            "sample": ["b", "a", "a", "a"],
            "role": ["train", "new", "new", "new"],
            "p_sensitive": [np.nan, 0.9, 0.5, np.nan],
            "threshold": 0.6,
            "state": ["invalid", "answered", "answered", "invalid"],
        }
    )
    return frame.assign(**changes)


def summary(cells: pd.DataFrame, **options: Any) -> pd.DataFrame:
    return summarise(cells, np.full(len(cells), np.nan, np.float32), **options)


def cells(n: int, n_sensitive: int, sample: str = "a") -> pd.DataFrame:
    p = np.where(np.arange(n) < n_sensitive, 0.8, 0.1)
    return pd.DataFrame(
        {
            "dataset": "d",
            "sample": sample,
            "role": "new",
            "p_sensitive": p,
            "threshold": 0.5,
            "state": "answered",
        }
    )


def test_cells_are_counted_per_sample() -> None:
    rows = summary(table(), min_cells=1).set_index("sample")
    assert rows.index.tolist() == ["a", "b"]
    a = rows.loc["a"]
    assert a[["n", "n_invalid", "n_sensitive", "n_train"]].tolist() == [3, 1, 1, 0]
    assert a["mean_p"] == pytest.approx(0.7)
    assert a["share_sensitive"] == 0.5
    assert (a["state"], a["reason"]) == ("answered", "")
    assert rows.loc["b", "n_train"] == 1


def test_sample_with_few_cells_gets_no_figure() -> None:
    row = summary(cells(29, 10)).iloc[0]
    assert (row["state"], row["reason"]) == ("refused", "few_cells")
    assert row["n"] == 29
    assert row[["share_sensitive", "share_low", "share_high", "mean_p"]].isna().all()
    assert summary(cells(30, 10)).iloc[0]["state"] == "answered"


def test_sample_without_an_answer_gets_no_figure() -> None:
    row = summary(table(), min_cells=1).set_index("sample").loc["b"]
    assert (row["state"], row["reason"]) == ("refused", "no_answer")


def test_interval_is_that_of_wilson() -> None:
    row = summary(cells(100, 10)).iloc[0]
    # 0.1 of 100 with z = 1.96: center 0.1148, half width 0.0596 (Wilson 1927).
    assert row["share_low"] == pytest.approx(0.0552, abs=1e-4)
    assert row["share_high"] == pytest.approx(0.1744, abs=1e-4)
    none = summary(cells(50, 0)).iloc[0]
    assert none["share_low"] == 0
    assert 0 < none["share_high"] < 0.1


def test_answer_for_a_whole_sample_has_no_interval() -> None:
    row = summary(cells(100, 100), of_samples=True).iloc[0]
    assert row["share_sensitive"] == 1
    assert np.isnan(row["share_low"])


def test_samples_of_one_name_in_two_datasets_stay_apart() -> None:
    both = pd.concat([cells(40, 40), cells(40, 0).assign(dataset="e")])
    assert summary(both)["share_sensitive"].tolist() == [1, 0]


def test_lines_say_what_the_table_holds() -> None:
    rows = summary(pd.concat([cells(100, 10), table(sample=["b", "c", "c", "c"])]))
    assert sample_lines(rows, 30) == [
        "a: 10 of 100 cells sensitive (10%, 95% interval 6% to 17%), mean p 0.17",
        "b: 1 cells, none could be predicted",
        "c: 2 of 3 cells answered, too few to say anything of the sample (30 needed, --min-cells)",
    ]
    unnamed = summary(cells(30, 30, sample=""))
    assert sample_lines(unnamed, 30)[0].startswith("all cells: 30 of 30 cells sensitive")


def test_lines_are_not_endless() -> None:
    many = pd.concat([cells(1, 1, sample=f"s{number}") for number in range(25)])
    lines = sample_lines(summary(many), 30)
    assert len(lines) == 21
    assert lines[-1] == "... and 5 more samples"


def test_samples_far_from_the_training_cells_are_named() -> None:
    both = pd.concat([cells(40, 20), cells(40, 20, sample="far")])
    domain = np.where(np.arange(80) < 77, 0.5, 1.0).astype(np.float32)
    assert far_notices(summarise(both, domain)) == []
    domain[70:] = 1.0
    rows = summarise(both, domain)
    assert rows["share_outside"].tolist() == [0, 0.25]
    (notice,) = far_notices(rows)
    assert notice.startswith("do not rely on what is predicted for far (25%): more than 10% of")
    assert sample_lines(rows, 30)[1].endswith("25% far off")


def test_far_samples_of_which_nothing_is_said_are_not_named() -> None:
    few = cells(5, 3, sample="few")
    rows = summarise(few, np.ones(5, np.float32))
    assert rows["state"].tolist() != ["answered"]
    assert rows["share_outside"].tolist() == [1.0]
    assert far_notices(rows) == []


def test_unknown_distance_is_unknown_for_the_sample() -> None:
    rows = summary(cells(40, 20))
    assert rows["share_outside"].isna().all()
    assert far_notices(rows) == []


def test_edge_of_equal_distances_is_not_outside() -> None:
    quantiles = np.concatenate([np.linspace(0, 1, 90), np.full(11, 2.0)])
    domain = Domain(np.zeros(1, np.float32), quantiles)
    placed = domain.place(np.array([[0.0], [2.0], [2.1], [np.nan]], np.float32))
    np.testing.assert_allclose(placed, [0.0, 0.9, 1.0, np.nan], atol=1e-6)
    assert outside(placed).tolist() == [False, False, True, False]


def test_hundredth_of_the_training_cells_is_outside() -> None:
    values = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
    placed = Domain.of(values).place(values)
    assert outside(placed).sum() == 10
    assert placed.dtype == np.float32
