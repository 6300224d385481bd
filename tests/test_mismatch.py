"""Predictors made with another plugin or other weights: found, named, refused, or allowed aloud."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scdrugmap import __version__
from scdrugmap.data.cells import open_cells
from scdrugmap.data.labels import LabelMap
from scdrugmap.errors import PluginError, UsageError, WeightsError
from scdrugmap.evaluation.design import read_design
from scdrugmap.evaluation.splits import make_split
from scdrugmap.model.load import load_model
from scdrugmap.registry import get_registry
from scdrugmap.testing import synthetic_adata
from scdrugmap.train.predict import open_like_training, predict_cells
from scdrugmap.train.predicted import Predicted
from scdrugmap.train.predictor import Predictor
from scdrugmap.train.train import train_predictor
from scdrugmap.weights import import_weights

HERE = f"scdrugmap {__version__}"
CHECKPOINT = Path(__file__).parents[1] / "plugins/scgpt/tests/golden/checkpoint"

needs_scgpt = pytest.mark.skipif(
    "scgpt" not in get_registry().models, reason="the scgpt plugin is not installed"
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells whose genes are those of the small scGPT checkpoint."""
    adata = synthetic_adata(64, 300)
    names = [name for name in json.loads((CHECKPOINT / "vocab.json").read_text()) if name[0] != "<"]
    adata.var_names = names[:300]
    path = tmp_path_factory.mktemp("data") / "cohort.h5ad"
    adata.write_h5ad(path)
    return path


def train(path: Path, **options: Any) -> Predictor:
    design = read_design([path], label="response", labels=LabelMap.parse(), group="patient")
    splits = make_split(design, folds=2).table
    with open_cells(path) as cells:
        return train_predictor([cells], splits, fold=0, quiet=True, **options)


@pytest.fixture(scope="module")
def _estimator(path: Path) -> Predictor:
    return train(path, estimator="pca-logreg")


@pytest.fixture
def saved(_estimator: Predictor, tmp_path: Path) -> Path:
    _estimator.save(tmp_path / "predictor.zip")
    return tmp_path / "predictor.zip"


def edit(path: Path, **fields: Any) -> None:
    """Change fields of ``predictor.json``."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    info = {**json.loads(content["predictor.json"]), **fields}
    content["predictor.json"] = json.dumps(info).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def predict(predictor: Path, cells: Path, **options: Any) -> Predicted:
    with open_cells(cells) as source:
        return predict_cells(Predictor.load(predictor), source, **{"quiet": True, **options})


OTHERS = [
    ({"numerics": 99}, f"gives other numbers (numerics 1) than that of {HERE} (99)"),
    (
        {"plugin": {"name": "x", "distribution": "x-plugin", "version": "7"}},
        f"was made with pca-logreg of x-plugin 7; {HERE} is installed",
    ),
]


@pytest.mark.parametrize(("fields", "message"), OTHERS)
def test_other_plugin_is_named_and_refused(
    saved: Path, path: Path, fields: dict[str, Any], message: str
) -> None:
    edit(saved, **fields)
    with pytest.raises(PluginError) as caught:
        predict(saved, path)
    assert message in caught.value.message
    assert "install " in caught.value.hint
    assert caught.value.hint.endswith("--allow-mismatch")


def test_plugin_that_is_not_installed_is_named(saved: Path, path: Path) -> None:
    plugin = {"name": "x", "distribution": "x-plugin", "version": "7"}
    edit(saved, name="nobody", plugin=plugin)
    info = Predictor.load(saved).info
    for attempt in (lambda: predict(saved, path), lambda: open_like_training(path, info)):
        with pytest.raises(PluginError, match="there is no estimator named 'nobody'") as caught:
            attempt()
        assert "made with x-plugin 7: install that" in caught.value.hint


@pytest.mark.parametrize(("fields", "message"), OTHERS)
def test_allowed_mismatch_is_said_aloud_and_recorded(
    saved: Path,
    path: Path,
    fields: dict[str, Any],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    edit(saved, **fields)
    found = predict(saved, path, allow_mismatch=True)
    err = capsys.readouterr().err
    assert "WARNING: " in err
    assert message in err
    assert "do not trust these predictions" in err
    assert [message in text for text in found.record()["mismatches"]] == [True]


def test_same_numbers_of_another_version_are_only_noted(
    saved: Path, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(saved, plugin={"name": "scdrugmap", "distribution": "scdrugmap", "version": "0.0.1"})
    found = predict(saved, path, quiet=False)
    assert f"made with scdrugmap 0.0.1; {HERE} gives the same" in capsys.readouterr().err
    assert found.mismatches == ()


def test_unknown_contract_is_never_allowed(saved: Path, path: Path) -> None:
    edit(saved, contract=9)
    with pytest.raises(PluginError, match="speaks contract 9"):
        predict(saved, path, allow_mismatch=True)


def test_failed_self_test_can_be_allowed(saved: Path, path: Path) -> None:
    test = json.loads(zipfile.ZipFile(saved).read("predictor.json"))["self_test"]
    edit(saved, self_test={**test, "p_sensitive": [0.5] * 8})
    with pytest.raises(PluginError, match="self-test"):
        predict(saved, path)
    (text,) = predict(saved, path, allow_mismatch=True).mismatches
    assert "p_sensitive of synthetic cells differs" in text


@pytest.mark.parametrize(
    "calibration",
    [
        {"temperature": 0, "n_cells": 1, "n_groups": 1, "loss_before": 1, "loss_after": 1},
        {
            "temperature": float("nan"),
            "n_cells": 1,
            "n_groups": 1,
            "loss_before": 1,
            "loss_after": 1,
        },
        {"temperature": 2},
    ],
)
def test_damaged_calibration_is_refused(saved: Path, calibration: dict[str, Any]) -> None:
    from scdrugmap.errors import DataError

    edit(saved, calibration=calibration)
    with pytest.raises(DataError, match=r"predictor.json cannot be used: calibration"):
        Predictor.load(saved)


def test_sets_of_a_predictor_without_validation_cells_are_refused(saved: Path, path: Path) -> None:
    with pytest.raises(UsageError, match="has no conformal sets") as caught:
        predict(saved, path, conformal_level=0.9)
    assert "--validation" in caught.value.hint


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where weights are kept."""
    return Path(os.environ["SCDRUGMAP_WEIGHTS"]) / "scgpt"


@pytest.fixture
def finetuned(path: Path, home: Path, tmp_path: Path) -> Path:
    """A predictor on weights that were imported under a name of their own."""
    spec = get_registry().model("scgpt")
    folder = import_weights(spec, CHECKPOINT, name="mine", output=_made(home / "mine"))
    loaded = load_model(spec, weights=folder, settings={"max_length": "64"})
    train(path, model=loaded).save(tmp_path / "predictor.zip")
    return tmp_path / "predictor.zip"


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@needs_scgpt
def test_base_weights_are_found_by_hash_whatever_their_name(
    finetuned: Path, path: Path, home: Path
) -> None:
    damaged = home / "damaged"
    damaged.mkdir()
    (damaged / "manifest.json").write_text("{")
    expected = predict(finetuned, path, weights=home / "mine").cells
    (home / "mine").rename(home / "other")
    pd.testing.assert_frame_equal(predict(finetuned, path).cells, expected)


@needs_scgpt
def test_missing_base_weights_are_named(finetuned: Path, path: Path, home: Path) -> None:
    digest = json.loads((home / "mine" / "manifest.json").read_text())["digest"]
    (home / "mine").rename(home.parent / "elsewhere")
    with pytest.raises(WeightsError) as caught:
        predict(finetuned, path)
    assert f"needs the weights mine ({digest[:12]}) of scgpt" in caught.value.message
    assert "which it does not hold" in caught.value.message
    assert "weights import scgpt" in caught.value.hint
    assert "--weights" in caught.value.hint
    assert "random" not in caught.value.hint


@needs_scgpt
def test_other_weights_are_refused_or_allowed_aloud(
    finetuned: Path, path: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    import torch

    other = shutil.copytree(CHECKPOINT, tmp_path / "other")
    tensors = torch.load(other / "best_model.pt", weights_only=True)
    torch.save({name: tensor * 1.1 for name, tensor in tensors.items()}, other / "best_model.pt")
    with pytest.raises(WeightsError, match="was trained on mine") as caught:
        predict(finetuned, path, weights=other)
    assert caught.value.hint.endswith("--allow-mismatch")
    expected = predict(finetuned, path)
    found = predict(finetuned, path, weights=other, allow_mismatch=True)
    assert "WARNING: the predictor was trained on mine" in capsys.readouterr().err
    assert "these are other" in found.mismatches[0]
    assert not np.allclose(found.cells["p_sensitive"], expected.cells["p_sensitive"])
