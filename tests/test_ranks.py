"""Critical differences: published values, and ranks only where there are enough datasets."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scdrugmap.report.ranks import rank_models, rank_values, ranking_picture, ranking_sentence
from scdrugmap.run.record import DatasetRecord, ModelRecord, ProtocolRecord, RunRecord

SOUND = ProtocolRecord(
    name="pooled-group", family="sound", status="evaluated", question="?", split_id="s"
)


def run_of(models: dict[str, str], datasets: list[str]) -> RunRecord:
    return RunRecord(
        name="r",
        config={},
        config_id="0",
        datasets=tuple(
            DatasetRecord(
                name=name,
                path=name,
                n_cells=1,
                n_used=1,
                n_sensitive=1,
                n_resistant=0,
                n_samples=1,
                n_groups=1,
                n_genes=1,
                values="counts",
                location="X",
                gene_id="symbol",
                gene_counts={},
            )
            for name in datasets
        ),
        models=tuple(
            ModelRecord(name=name, kind="estimator", strategy="estimator", title="", control=of)
            for name, of in models.items()
        ),
        protocols=(SOUND,),
        cell_map="",
        provenance={},
    )


def metrics_of(values: dict[str, list[float]], datasets: list[str]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "protocol": "pooled-group",
                "model": model,
                "strategy": "estimator",
                "dataset": dataset,
                "fold": "all",
                "seed": seed,
                "level": "cell",
                "metric": "auroc",
                "value": value,
                "facet": "",
            }
            for model, of in values.items()
            for dataset, value in zip(datasets, of, strict=True)
            for seed in (0, 1)
        ]
    )


@pytest.mark.parametrize(
    ("k", "n", "expected"),
    [(4, 14, 1.25), (5, 30, 2.728 * np.sqrt(5 * 6 / (6 * 30)))],
    ids=["worked example", "table of critical values"],
)
def test_critical_difference_is_that_of_demsar_2006(k: int, n: int, expected: float) -> None:
    random = np.random.default_rng(0)
    ranking = rank_values(random.random((n, k)), [f"m{i}" for i in range(k)])
    assert ranking.critical_difference == pytest.approx(expected, abs=0.005)  # printed digits


def test_mean_ranks_and_test_agree_with_scipy_and_ties_share_a_rank() -> None:
    values = np.array([[0.9, 0.8, 0.7], [0.9, 0.9, 0.5], [0.6, 0.8, 0.4], [0.8, 0.7, 0.7]] * 2)
    ranking = rank_values(values, ["a", "b", "c"])
    assert ranking.names == ("a", "b", "c")
    np.testing.assert_allclose(ranking.mean_rank, [1.375, 1.75, 2.875])
    expected = stats.friedmanchisquare(*values.T)
    assert ranking.p_value == pytest.approx(expected.pvalue)
    assert ranking.chi_square == pytest.approx(expected.statistic)


def test_models_that_always_lead_are_told_apart_and_equal_ones_are_joined() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(0, 0.05, (30, 4))
    ranking = rank_values(noise + np.array([2.0, 1.0, 1.0, 0.0]), ["best", "one", "other", "worst"])
    assert ranking.names[0] == "best"
    assert ranking.groups == ((1, 2),)
    assert "differ (Nemenyi" in ranking_sentence(ranking)


def test_nothing_is_told_apart_where_friedman_finds_nothing() -> None:
    cycle = np.array([[3.0, 2, 1], [1, 3, 2], [2, 1, 3]] * 2)
    for values in (cycle, np.ones((6, 3))):
        ranking = rank_values(values, ["a", "b", "c"])
        assert ranking.groups == ((0, 2),)
        assert "no pair is told apart" in ranking_sentence(ranking)


def test_too_few_datasets_or_models_give_the_reason() -> None:
    names = [f"d{i}" for i in range(5)]
    values = {"a": [0.9] * 5, "b": [0.8] * 5, "c": [0.7, 0.7, 0.7, 0.7, np.nan]}
    models = dict.fromkeys(values, "")
    found, reason = rank_models(run_of(models, names), metrics_of(values, names), "pooled-group")
    assert found is None
    assert reason == "4 datasets with a number for every model, 5 needed"
    two = {"a": "", "b": "", "c": "technical"}  # a control does not compete
    found, reason = rank_models(run_of(two, names), metrics_of(values, names), "pooled-group")
    assert found is None
    assert reason == "2 competing models, 3 needed"


def test_a_dataset_without_a_number_is_named_and_the_diagram_says_the_ranks() -> None:
    names = [f"d{i}" for i in range(6)]
    random = np.random.default_rng(1)
    values = {name: list(random.random(6) + at) for at, name in enumerate("abc")}
    values["<b>"] = [0.0, 0.1, 0.0, 0.1, 0.0, np.nan]
    run = run_of(dict.fromkeys(values, ""), names)
    ranking, _ = rank_models(run, metrics_of(values, names), "pooled-group")
    assert ranking is not None
    assert ranking.n_datasets == 5
    assert "Without d5" in ranking_sentence(ranking)
    picture = ranking_picture(ranking, SOUND)
    tree = ElementTree.fromstring(picture.image)
    words = ["".join(node.itertext()) for node in tree.iter() if node.tag.endswith("}text")]
    assert any("critical difference" in word for word in words)
    assert "<b>" in words
    assert picture.table["name"].tolist() == list(ranking.names)
    assert "1 is best" in picture.alt
    assert picture.image == ranking_picture(ranking, SOUND).image
