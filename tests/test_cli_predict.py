"""``scdrugmap predict`` on new patients: what it writes beside the predictions, and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import anndata
import pandas as pd
import pytest

from scdrugmap.data.labels import LabelMap
from scdrugmap.evaluation.design import read_design
from scdrugmap.evaluation.splits import make_split
from scdrugmap.evaluation.tables import write_splits
from scdrugmap.tables import read_table
from scdrugmap.testing import synthetic_adata
from scdrugmap.train.conformal import SETS
from scdrugmap.train.from_files import train_files
from scdrugmap.train.predictor import Predictor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort, two new patients without a label whose cells differ, a split and a predictor."""
    folder = tmp_path_factory.mktemp("work")
    cohort = folder / "cohort.h5ad"
    synthetic_adata(192, 200, n_patients=16).write_h5ad(cohort)
    new = synthetic_adata(60, 200, n_patients=2, seed=3)
    new.obs = new.obs[["patient"]]
    new.write_h5ad(folder / "new.h5ad")
    design = read_design([cohort], label="response", labels=LabelMap.parse(), group="patient")
    write_splits(make_split(design, folds=2, validation=True).table, folder / "splits.tsv")
    train_files(
        [cohort], folder / "splits.tsv", fold=0, model="randproj", sample="patient", quiet=True
    ).save(folder / "predictor.zip")
    return folder


@pytest.fixture
def splits(folder: Path) -> Path:
    return folder / "splits.tsv"


@pytest.fixture
def predictor(folder: Path, tmp_path: Path) -> Path:
    """A copy, to spoil."""
    return Path(shutil.copy(folder / "predictor.zip", tmp_path))


@pytest.fixture
def predict(cli: Any, folder: Path, predictor: Path, tmp_path: Path) -> Any:
    def run(*options: object, source: str = "new") -> Any:
        return cli(
            *("predict", folder / f"{source}.h5ad", "--predictor", predictor),
            *("-o", tmp_path / "predictions.tsv", *options),
        )

    return run


def test_table_of_samples(predict: Any, tmp_path: Path) -> None:
    done = predict("--samples-table", tmp_path / "samples.tsv", "--min-cells", 10)
    assert done.code == 0, done.err
    table = pd.read_csv(tmp_path / "samples.tsv", sep="\t", keep_default_na=False)
    assert list(table) == [
        *("dataset", "sample", "n", "n_invalid", "n_sensitive", "share_sensitive", "share_low"),
        *("share_high", "mean_p", "n_train", "share_outside", "state", "reason"),
    ]
    assert table["sample"].tolist() == ["P01", "P02"]
    assert table["n"].sum() == 60
    assert (table["state"] == "answered").all()
    assert (table["share_low"].astype(float) <= table["share_sensitive"].astype(float)).all()


def test_samples_with_few_cells_are_refused(predict: Any, tmp_path: Path) -> None:
    done = predict("--samples-table", tmp_path / "samples.tsv", "--min-cells", 1000)
    assert done.code == 0
    assert "too few to say anything of the sample (1,000 needed, --min-cells)" in done.err
    table = read_table(tmp_path / "samples.tsv")
    assert set(table["state"]) == {"refused"}
    assert set(table["reason"]) == {"few_cells"}
    assert set(table["share_sensitive"]) == {""}


def test_cells_far_off_are_said_everywhere(predict: Any, tmp_path: Path) -> None:
    """The new patients come from another simulation: nothing like them was trained on."""
    summary, h5ad, samples = (tmp_path / name for name in ("s.json", "o.h5ad", "s.tsv"))
    done = predict("--summary", summary, "--h5ad", h5ad, "--samples-table", samples)
    assert done.code == 0
    share = json.loads(summary.read_text())["domain"]["share_outside"]
    assert share > 0.5
    assert f"{share:.1%} of the cells lie further from the training cells than 99%" in done.err
    assert "Notice: do not rely on what is predicted for P01 (" in done.err
    assert (read_table(samples)["share_outside"].astype(float) > 0.5).all()
    record = json.loads(anndata.read_h5ad(h5ad).uns["scdrugmap"]["predict"])
    assert record["domain"]["share_outside"] == share


def test_table_of_cells(predict: Any, tmp_path: Path) -> None:
    assert predict("--cells-table", tmp_path / "cells.tsv").code == 0
    table = read_table(tmp_path / "cells.tsv", numbers={"domain": "float64"})
    predictions = read_table(tmp_path / "predictions.tsv")
    assert table["cell"].tolist() == predictions["cell"].tolist()
    assert table["domain"].between(0, 1).all()
    assert set(table["prediction_set"]) <= set(SETS)
    assert set(table["call"]) <= {"sensitive", "resistant"}


def test_summary_is_what_the_record_holds(predict: Any, tmp_path: Path) -> None:
    summary, h5ad = tmp_path / "s.json", tmp_path / "o.h5ad"
    assert predict("--summary", summary, "--h5ad", h5ad).code == 0
    found = json.loads(summary.read_text())
    assert [row["sample"] for row in found.pop("samples")] == ["P01", "P02"]
    assert found.pop("min_cells") == 30
    record = json.loads(anndata.read_h5ad(h5ad).uns["scdrugmap"]["predict"])
    assert found == record
    assert found["genes"]["n_file"] == 200
    assert found["genes"]["n_read"] == found["genes"]["n_training"]
    assert found["cells"] == {"n": 60, "n_answered": 60, "n_train": 0, "reasons": {}}
    assert found["predictor"]["calibration"]["n_groups"] == 2


def test_sets_are_in_the_h5ad_at_the_level_asked_for(predict: Any, tmp_path: Path) -> None:
    sizes = []
    assert "promises nothing for the cells of new samples" in predict().err
    for level in (0.6, 0.95):
        target = tmp_path / f"{level}.h5ad"
        done = predict("--h5ad", target, "--conformal-level", level, "--overwrite")
        assert done.code == 0, done.err
        assert f"conformal sets at level {level:g}: " in done.err
        sets = anndata.read_h5ad(target).obs["scdrugmap_set"]
        assert tuple(sets.cat.categories) == SETS
        sizes.append(sets.map({"none": 0, "sensitive": 1, "resistant": 1, "both": 2}).astype(int))
    assert (sizes[0] <= sizes[1]).all()
    assert sizes[0].sum() < sizes[1].sum()


def test_coverage_of_test_cells_is_said_where_the_split_knows_labels(
    predict: Any, splits: Path, tmp_path: Path
) -> None:
    done = predict("--splits", splits, "--summary", tmp_path / "s.json", source="cohort")
    assert done.code == 0, done.err
    tested = json.loads((tmp_path / "s.json").read_text())["conformal"]["test"]
    assert (tested["n_cells"], tested["n_groups"]) == (96, 8)
    assert f"{tested['coverage']:.0%} have their label in the set" in done.err


@pytest.mark.parametrize("level", ["0.905", "1.5", "nan", "0"])
def test_level_without_sets_is_a_usage_error(predict: Any, tmp_path: Path, level: str) -> None:
    done = predict("--conformal-level", level)
    assert done.code == 2
    assert "choose a whole percentage, 0.5 to 0.99" in done.err
    assert not (tmp_path / "predictions.tsv").exists()


def test_sets_without_validation_cells_are_a_usage_error(
    predict: Any, predictor: Path, tmp_path: Path
) -> None:
    info = Predictor.load(predictor).info
    plain = Predictor.load(predictor)
    plain.info = info.model_copy(update={"conformal": None, "calibration": None})
    plain.save(predictor, overwrite=True)
    done = predict("--conformal-level", "0.9")
    assert done.code == 2
    assert "it was trained without validation cells" in done.err
    assert not (tmp_path / "predictions.tsv").exists()
    assert predict("--h5ad", tmp_path / "o.h5ad").code == 0
    assert "scdrugmap_set" not in anndata.read_h5ad(tmp_path / "o.h5ad").obs


@pytest.mark.parametrize("option", ["--samples-table", "--cells-table", "--summary", "--h5ad"])
def test_every_output_is_checked_before_any_work(
    predict: Any, folder: Path, tmp_path: Path, option: str
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("precious")
    done = predict(option, taken)
    assert (done.code, taken.read_text()) == (2, "precious")
    assert "exists" in done.err
    done = predict(option, folder / "new.h5ad", "--overwrite")
    assert done.code == 2
    assert "both input and output" in done.err
    done = predict(option, tmp_path / "predictions.tsv")
    assert done.code == 2
    assert "predictions.tsv is given for two outputs" in done.err
    assert not (tmp_path / "predictions.tsv").exists()


def test_mismatch_is_refused_unless_allowed(predict: Any, predictor: Path, tmp_path: Path) -> None:
    bundle = Predictor.load(predictor)
    bundle.info = bundle.info.model_copy(update={"numerics": 99})
    bundle.save(predictor, overwrite=True)
    done = predict()
    assert done.code == 4
    assert "gives other numbers" in done.err
    assert "--allow-mismatch" in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "predictions.tsv").exists()
    done = predict("--allow-mismatch", "--quiet", "--summary", tmp_path / "s.json")
    assert done.code == 0
    assert done.err.startswith("WARNING: randproj of scdrugmap")
    assert "gives other numbers" in json.loads((tmp_path / "s.json").read_text())["mismatches"][0]


@pytest.mark.parametrize("keep", [0, 10, 500, -30])
def test_damaged_zip_is_one_line(predict: Any, predictor: Path, tmp_path: Path, keep: int) -> None:
    predictor.write_bytes(predictor.read_bytes()[:keep])
    done = predict()
    assert done.code == 3
    assert done.err.splitlines()[0].startswith(f"Error: {predictor} is damaged or no zip file")
    assert len(done.err.splitlines()) == 2
    assert not (tmp_path / "predictions.tsv").exists()
