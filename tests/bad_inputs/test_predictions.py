"""Cells and names that reach a predictor: cases 55, 79, 81, 88, 89, and hostile names (O32)."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from scdrugmap.evaluation.tables import read_predictions
from scdrugmap.testing import synthetic_adata

HOSTILE = ["a\tb", "a\nb", "=cmd()", "<script>alert(1)</script>", "../../etc/x", "é", "a b"]


@pytest.fixture(scope="module")
def cohort() -> anndata.AnnData:
    adata = synthetic_adata(96, 300)
    for column in ("patient", "response", "batch"):
        adata.obs[column] = adata.obs[column].astype(object)
    return adata


@pytest.fixture(scope="module")
def trained(tmp_path_factory, server, cohort) -> Path:
    """A folder with a cohort, its split, and a predictor of its first fold."""
    from .conftest import Child

    folder, child = tmp_path_factory.mktemp("trained"), Child(server)
    cohort.write_h5ad(folder / "cohort.h5ad")
    ended = child.cli(
        *("split", "cohort.h5ad", "--label", "response", "--group", "patient"),
        *("--folds", 2, "-o", "splits.tsv"),
        folder=folder,
    )
    assert ended.code == 0, ended.err
    ended = child.cli(
        *("train", "cohort.h5ad", "--splits", "splits.tsv", "--fold", 0),
        *("--estimator", "hvg-logreg", "-o", "predictor.zip"),
        folder=folder,
    )
    assert ended.code == 0, ended.err
    return folder


@pytest.fixture
def predict(child, trained, tmp_path):
    """Predict cells; give how that ended and the table."""

    def run(adata: anndata.AnnData, *options: object):
        adata.write_h5ad(tmp_path / "new.h5ad")
        predictor, output = trained / "predictor.zip", tmp_path / "p.tsv"
        ended = child.cli(
            "predict", tmp_path / "new.h5ad", "--predictor", predictor, *options, "-o", output
        )
        left = sorted(p.name for p in tmp_path.iterdir())
        assert left == ["new.h5ad", "p.tsv"], ended
        return ended, read_predictions(output)

    return run


@pytest.mark.case(55)
def test_empty_cell_gets_no_call(predict, cohort):
    adata = cohort.copy()
    values = adata.X.toarray()
    values[5] = 0
    adata.X = values
    ended, table = predict(adata)
    assert ended.code == 0
    assert table["state"].iloc[5] == "invalid"
    assert table["reason"].iloc[5] == "few_counts"
    assert np.isnan(table["p_sensitive"].iloc[5])
    assert (table["state"].drop(index=5) == "answered").all()


@pytest.mark.case(79)
def test_hostile_names_stay_single_harmless_fields(predict, cohort, tmp_path):
    adata = cohort[: len(HOSTILE)].copy()
    adata.obs_names = HOSTILE
    ended, table = predict(adata)
    assert ended.code == 0
    assert table["cell"].tolist() == HOSTILE
    lines = (tmp_path / "p.tsv").read_text(encoding="utf-8").split("\n")
    assert len(lines) == 1 + len(HOSTILE) + 1
    assert {line.count("\t") for line in lines[:-1]} == {lines[0].count("\t")}
    assert not any(field.startswith("=") for line in lines for field in line.split("\t"))


def test_cell_without_a_name_is_refused_before_any_work(child, trained, cohort, tmp_path):
    adata = cohort[:3].copy()
    adata.obs_names = ["a", "", "b"]
    adata.write_h5ad(tmp_path / "new.h5ad")
    predictor, output = trained / "predictor.zip", tmp_path / "p.tsv"
    ended = child.cli("predict", tmp_path / "new.h5ad", "--predictor", predictor, "-o", output)
    assert ended.code == 3
    assert ended.err.startswith("Error: new.h5ad: 1 of 3 cell names are empty (the first in row 1)")
    assert not output.exists()


@pytest.mark.case("O32")
def test_hostile_names_are_kept_as_they_are(make, read):
    names = [*HOSTILE, *(f"cell{i}" for i in range(20 - len(HOSTILE)))]
    cells, _ = read(make.h5ad(obs=pd.DataFrame(index=names)))
    assert cells.names == names


@pytest.mark.case(81)
def test_one_class_cannot_be_learned_but_predicted(child, trained, predict, cohort, tmp_path):
    adata = cohort.copy()
    adata.obs["response"] = "resistant"
    adata.write_h5ad(tmp_path / "new.h5ad")
    output = tmp_path / "splits.tsv"
    ended = child.cli(
        *("split", tmp_path / "new.h5ad", "--label", "response", "--group", "patient"),
        *("-o", output),
    )
    assert ended.code == 3
    assert "are resistant; a split needs both labels" in ended.err
    splits = pd.read_csv(trained / "splits.tsv", sep="\t", dtype=str)
    splits["label"] = "resistant"
    splits.to_csv(output, sep="\t", index=False)
    ended = child.cli(
        *("train", trained / "cohort.h5ad", "--splits", output, "--fold", 0),
        *("--estimator", "hvg-logreg", "-o", tmp_path / "o.zip"),
    )
    assert ended.code == 3, ended
    assert not (tmp_path / "o.zip").exists()
    output.unlink()
    ended, table = predict(adata)
    assert ended.code == 0
    assert len(table) == adata.n_obs


@pytest.mark.case(88)
def test_training_cells_met_again_are_marked_and_left_out(child, trained, predict, cohort):
    adata = cohort.copy()
    adata.obs_names = [f"renamed{i}" for i in range(adata.n_obs)]
    ended, table = predict(adata)
    assert ended.code == 0
    assert set(table["role"]) == {"train", "new"}
    child_args = ("predict", trained / "cohort.h5ad", "--predictor", trained / "predictor.zip")
    output = trained / "predictions.tsv"
    ended = child.cli(*child_args, "--splits", trained / "splits.tsv", "-o", output, "--overwrite")
    assert ended.code == 0, ended.err
    metrics = trained / "metrics.tsv"
    ended = child.cli(
        "evaluate", output, "--splits", trained / "splits.tsv", "-o", metrics, "--overwrite"
    )
    assert ended.code == 0, ended.err
    n_train = int((read_predictions(output)["role"] == "train").sum())
    assert n_train
    assert f"{n_train} " in ended.err
    assert "train" in ended.err


@pytest.mark.case(89)
def test_another_drug_gives_a_notice(predict, cohort):
    ended, table = predict(cohort, "--drug", "cisplatin")
    assert ended.code == 0
    assert "cisplatin" in ended.err
    assert "does not say which drug it was for, not on cisplatin" in " ".join(ended.err.split())
    assert len(table) == cohort.n_obs
