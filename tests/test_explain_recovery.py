"""Planted genes are found again by what was trained, and not by what was not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from scdrugmap.data.cells import Cells, open_cells
from scdrugmap.data.labels import LabelMap
from scdrugmap.data.simulate import simulate_cohort
from scdrugmap.evaluation.design import read_design
from scdrugmap.evaluation.splits import make_split
from scdrugmap.explanation.drawing import draw_cells
from scdrugmap.explanation.explain import explain
from scdrugmap.explanation.explained import explain_cells
from scdrugmap.explanation.settings import Explaining
from scdrugmap.model.load import load_model
from scdrugmap.train.frozen import Embedder, FrozenScorer
from scdrugmap.train.heads import make_head
from scdrugmap.train.predictor import Predictor
from scdrugmap.train.settings import FineTuning
from scdrugmap.train.train import train_predictor

SETTINGS = Explaining(max_cells=60, steps=8, check_genes=0)
HOW: dict[str, Any] = {"device": "cpu", "min_genes": 1, "quiet": True}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.Series]:
    """Sixteen patients who differ from each other in little but a clear programme of 10 genes."""
    adata = simulate_cohort(
        16,
        40,
        80,
        seed=1,
        signal=4.0,
        programme_genes=10,
        patient_effect=0.1,
        batch_effect=0.05,
        response_spread=0.2,
    )
    path = tmp_path_factory.mktemp("cohort") / "cohort.h5ad"
    adata.write_h5ad(path)
    return path, adata.var["programme"]


@pytest.fixture
def cells(cohort: tuple[Path, pd.Series]) -> Iterator[Cells]:
    with open_cells(cohort[0]) as opened:
        yield opened


@pytest.fixture(scope="module")
def splits(cohort: tuple[Path, pd.Series]) -> pd.DataFrame:
    design = read_design(
        [cohort[0]], label="response", labels=LabelMap.parse(), group="patient", cell_arguments={}
    )
    return make_split(design, "pooled-group", folds=4).table


def recovery(path: Path, truth: pd.Series, predictor: Predictor) -> tuple[float, float]:
    """Return AUROC of the ranking, and how many of the first 20 genes have the true direction."""
    found = explain(path, {"it": predictor}, settings=SETTINGS, label="response", **HOW)
    genes = found.genes.set_index("gene")
    importance = genes["attribution_abs"].reindex(truth.index).fillna(0.0)
    first = genes.head(20)
    planted = first[truth.reindex(first.index).to_numpy() != 0]
    agrees = np.sign(planted["direction"]) == np.sign(truth.reindex(planted.index))
    return float(roc_auc_score(truth != 0, importance)), float(agrees.mean())


def test_linear_estimator_finds_the_planted_genes(
    cohort: tuple[Path, pd.Series], cells: Cells, splits: pd.DataFrame
) -> None:
    path, truth = cohort
    made = train_predictor([cells], splits, fold=0, estimator="hvg-logreg", quiet=True)
    auroc, agrees = recovery(path, truth, made)
    assert auroc >= 0.9
    assert agrees == 1.0


@pytest.mark.slow
def test_trained_network_finds_the_planted_genes_and_an_untrained_one_does_not(
    cohort: tuple[Path, pd.Series], cells: Cells, splits: pd.DataFrame
) -> None:
    path, truth = cohort
    loaded = load_model("scgpt", settings={"variant": "tiny"}, weights="random")
    tuning = FineTuning(
        epochs=6, batch_size=64, learning_rate=4e-3, head_learning_rate=4e-3, patience=0
    )
    made = train_predictor(
        [cells], splits, fold=0, model=loaded, strategy="full", head="mlp", tuning=tuning, **HOW
    )
    auroc, agrees = recovery(path, truth, made)
    assert auroc >= 0.9
    assert agrees >= 0.8
    untrained = FrozenScorer(
        Embedder(loaded, min_genes=1, device="cpu"), make_head("mlp", loaded.model.traits.dim)
    )
    drawn = draw_cells(cells, most=SETTINGS.max_cells, seed=0, label="response")
    found = explain_cells("untrained", made, untrained, cells, drawn, SETTINGS, quiet=True)
    assert roc_auc_score(truth != 0, found.sums.importance()) <= 0.6
