"""Temperature: what validation cells say about how sure to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from scdrugmap.data.cells import open_cells
from scdrugmap.data.labels import LabelMap
from scdrugmap.evaluation.design import read_design
from scdrugmap.evaluation.splits import make_split
from scdrugmap.model.load import load_model
from scdrugmap.registry import get_registry
from scdrugmap.testing import synthetic_adata
from scdrugmap.train.calibration import NOT_CALIBRATED, Answers, fit_temperature, scale
from scdrugmap.train.card import model_card
from scdrugmap.train.predict import predict_cells
from scdrugmap.train.predictor import Predictor
from scdrugmap.train.settings import FineTuning
from scdrugmap.train.train import train_predictor

needs_scgpt = pytest.mark.skipif(
    "scgpt" not in get_registry().models, reason="the scgpt plugin is not installed"
)


def answers(temperature: float, n_groups: int = 20, n_cells: int = 300, seed: int = 0) -> Answers:
    """Cells whose logits are too large by a factor; groups differ."""
    random = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), n_cells)
    z = random.normal(0, 1.5, len(group)) + random.normal(0, 0.5, n_groups)[group]
    y = (random.random(len(z)) < expit(z)).astype(float)
    names = np.array([f"P{number}" for number in group], object)
    return Answers(expit(z * temperature).astype(np.float32), y, names)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_known_temperature_is_found(temperature: float) -> None:
    found, notices = fit_temperature(answers(temperature))
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    assert found.loss_after <= found.loss_before
    assert (found.n_cells, found.n_groups, notices) == (6000, 20, [])


def test_every_group_counts_the_same() -> None:
    sure, doubtful = answers(1, seed=1), answers(4, seed=2)
    few = np.arange(0, len(sure.p), 10)
    both = [
        Answers(
            np.concatenate([sure.p[rows], doubtful.p]),
            np.concatenate([sure.y[rows], doubtful.y]),
            np.concatenate([sure.groups[rows], "other " + doubtful.groups]),
        )
        for rows in (np.arange(len(sure.p)), few)
    ]
    whole, thinned = (fit_temperature(one)[0].temperature for one in both)
    assert thinned == pytest.approx(whole, rel=0.1)


def test_few_groups_are_said() -> None:
    _, notices = fit_temperature(answers(2, n_groups=3))
    assert len(notices) == 1
    assert "rests on 3 validation groups only (fewer than 5)" in notices[0]


def test_cells_told_apart_without_error_calibrate_nothing() -> None:
    p = np.array([0.9, 0.8, 0.2, 0.1], np.float32)
    found, notices = fit_temperature(
        Answers(p, np.array([1.0, 1, 0, 0]), np.array(list("abcd"), object))
    )
    assert found.temperature == 1
    assert "stay as they are" in notices[0]


def test_cells_not_told_apart_are_drawn_to_one_half() -> None:
    p = np.array([0.9, 0.8, 0.2, 0.1], np.float32)
    found, notices = fit_temperature(
        Answers(p, np.array([0.0, 0, 1, 1]), np.array(list("abcd"), object))
    )
    assert found.temperature == 10
    assert "not told apart" in notices[0]


def test_probabilities_of_one_half_stay() -> None:
    p = np.full(4, 0.5, np.float32)
    found, _ = fit_temperature(Answers(p, np.array([0.0, 0, 1, 1]), np.array(list("abcd"), object)))
    assert found.temperature == 1


def test_scaling_divides_the_logit_and_keeps_the_order() -> None:
    p = np.array([0.0, 1e-9, 0.2, 0.5, 0.7, 1.0, np.nan], np.float32)
    scaled = scale(p, 2.0)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled[2:5], expit(logit(p[2:5].astype(float)) / 2), rtol=1e-6)
    assert scaled[3] == 0.5
    assert (np.diff(scaled[:6]) >= 0).all()
    assert 0 < scaled[0] < scaled[5] < 1
    assert np.isnan(scaled[6])
    assert scale(p, 1.0) is p


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "cohort.h5ad"
    synthetic_adata(192, 200, n_patients=16).write_h5ad(path)
    return path


def split_of(path: Path, **options: Any) -> pd.DataFrame:
    design = read_design([path], label="response", labels=LabelMap.parse(), group="patient")
    return make_split(design, folds=2, **options).table


def train(path: Path, splits: pd.DataFrame, **options: Any) -> Predictor:
    with open_cells(path) as cells:
        return train_predictor([cells], splits, fold=0, **{"quiet": True, **options})


@pytest.fixture(scope="module")
def calibrated(path: Path) -> Predictor:
    return train(path, split_of(path, validation=True), model=load_model("randproj"))


def test_predictions_are_scaled(calibrated: Predictor, path: Path) -> None:
    info = calibrated.info
    assert info.calibration is not None
    assert info.calibration.temperature != 1
    with open_cells(path) as cells:
        raw = calibrated.scorer(quiet=True).scores(cells, quiet=True).p
        table = predict_cells(calibrated, cells, quiet=True).cells
    expected = scale(raw, info.calibration.temperature)
    np.testing.assert_allclose(table["p_sensitive"], expected, rtol=1e-6)


def test_calibration_comes_back_from_the_file(
    calibrated: Predictor, path: Path, tmp_path: Path
) -> None:
    calibrated.save(tmp_path / "p.zip")
    loaded = Predictor.load(tmp_path / "p.zip")
    assert loaded.info == calibrated.info
    with open_cells(path) as cells:
        pd.testing.assert_frame_equal(
            predict_cells(loaded, cells, quiet=True).details,
            predict_cells(calibrated, cells, quiet=True).details,
        )


def test_without_validation_cells_nothing_is_calibrated_and_it_is_said(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor = train(path, split_of(path), estimator="pca-logreg", quiet=False)
    assert predictor.info.calibration is None
    assert predictor.info.conformal is None
    assert f"Notice: {NOT_CALIBRATED}" in capsys.readouterr().err
    assert NOT_CALIBRATED in model_card(predictor.info)
    with open_cells(path) as cells:
        found = predict_cells(predictor, cells, quiet=True)
    assert any("not calibrated" in line for line in found.lines())


def test_card_says_temperature_sets_and_distance(calibrated: Predictor) -> None:
    card = model_card(calibrated.info)
    assert "divided by a temperature of" in card
    assert "conformal sets at level 0.9: only" in card
    assert "promises nothing for the cells of new samples" in card
    assert "99 % of" in card


def test_validation_cells_of_trained_groups_are_said(path: Path) -> None:
    design = read_design([path], label="response", labels=LabelMap.parse(), group="patient")
    splits = make_split(design, "paper-pooled", folds=2, validation=True).table
    predictor = train(path, splits, estimator="pca-logreg")
    assert predictor.info.conformal is not None
    assert not predictor.info.conformal.apart
    assert any("were trained on too" in notice for notice in predictor.info.notices)


@pytest.mark.slow
@needs_scgpt
def test_fine_tuning_that_stopped_by_validation_cells_is_calibrated_roughly(path: Path) -> None:
    loaded = load_model("scgpt", settings={"variant": "tiny", "max_length": "64"}, weights="random")
    splits = split_of(path, validation=True)
    tuning = FineTuning(max_steps=2)
    predictor = train(path, splits, model=loaded, strategy="lora", tuning=tuning, min_genes=50)
    assert predictor.info.conformal is not None
    assert predictor.info.conformal.stopped
    with open_cells(path) as cells:
        found = predict_cells(predictor, cells, quiet=True, min_genes=50)
    assert np.isfinite(found.domain).all()
    assert found.coverage is not None
    assert found.coverage.n_read == predictor.info.genes.n_needed
