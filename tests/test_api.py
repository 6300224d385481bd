"""The Python functions: AnnData is edited in place or copied, and nobody's keys are overwritten."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pytest

import scdrugmap
from scdrugmap.data.cells import open_cells
from scdrugmap.data.labels import LabelMap
from scdrugmap.errors import ScDrugMapWarning, UsageError
from scdrugmap.evaluation.design import read_design
from scdrugmap.evaluation.splits import make_split
from scdrugmap.evaluation.tables import read_predictions, write_splits
from scdrugmap.testing import synthetic_adata
from scdrugmap.train.from_files import train_files
from scdrugmap.train.train import train_predictor

if TYPE_CHECKING:
    from anndata import AnnData


@pytest.fixture
def adata() -> AnnData:
    return synthetic_adata(160, 600, n_patients=8)


@pytest.fixture
def file(adata: AnnData, tmp_path: Path) -> Path:
    adata.write_h5ad(tmp_path / "cohort.h5ad")
    return tmp_path / "cohort.h5ad"


@pytest.fixture
def splits(file: Path, tmp_path: Path) -> Path:
    design = read_design([file], label="response", labels=LabelMap.parse(), group="patient")
    write_splits(make_split(design, folds=2).table, tmp_path / "splits.tsv")
    return tmp_path / "splits.tsv"


@pytest.fixture
def predictor(file: Path, splits: Path, tmp_path: Path) -> Path:
    from scdrugmap.evaluation.tables import read_splits

    with open_cells(file) as cells:
        made = train_predictor(
            [cells], read_splits(splits), fold=0, estimator="pca-logreg", quiet=True
        )
    made.save(tmp_path / "predictor.zip")
    return tmp_path / "predictor.zip"


def snapshot(adata: AnnData) -> tuple[bytes, bytes, list[str], list[str]]:
    return adata.X.data.tobytes(), adata.X.indices.tobytes(), [*adata.layers], [*adata.obsp]


def test_embed_edits_in_place_and_returns_nothing(adata: AnnData) -> None:
    adata.layers["mine"] = adata.X.copy()
    before = snapshot(adata)
    assert scdrugmap.embed(adata, "randproj") is None
    assert adata.obsm["X_randproj"].dtype == np.float32
    assert adata.obsm["X_randproj"].shape[0] == 160
    assert np.isfinite(adata.obsm["X_randproj"]).all()
    assert json.loads(adata.uns["scdrugmap"]["embed_randproj"])["dataset"] == "adata"
    assert snapshot(adata) == before
    assert adata.raw is None


def test_embed_says_which_genes_the_model_knows(adata: AnnData) -> None:
    names = adata.var_names.to_numpy().astype(object)
    names[[3, 5]] = ["no-such-gene", names[4]]  # one unknown name, one repeated
    adata.var_names = names
    scdrugmap.embed(adata, "scgpt", weights="random", variant="tiny")
    known = adata.var["scdrugmap_in_vocab_scgpt"]
    assert known.dtype == bool
    assert list(np.flatnonzero(~known)) == [3]


def test_embed_from_raw_says_nothing_of_the_genes_of_var(adata: AnnData) -> None:
    adata.raw = adata.copy()
    adata.X = adata.X * 0.3
    scdrugmap.embed(adata, "randproj", reading={"layer": "raw"})
    assert list(adata.var.columns) == list(adata.raw.var.columns)


def test_embed_with_copy_leaves_the_original_alone(adata: AnnData) -> None:
    made = scdrugmap.embed(adata, "randproj", copy=True)
    assert "X_randproj" in made.obsm
    assert list(adata.obsm) == []
    assert list(adata.uns) == []


def test_embed_of_a_path_gives_the_values_of_the_anndata(adata: AnnData, file: Path) -> None:
    result = scdrugmap.embed(file, "randproj")
    scdrugmap.embed(adata, "randproj")
    assert np.array_equal(result.values, adata.obsm["X_randproj"])
    assert result.to_adata().obsm["X_randproj"].shape == result.values.shape
    assert list(result.cells.index) == list(adata.obs_names)


def test_embed_takes_options_of_the_model_and_weights(adata: AnnData) -> None:
    scdrugmap.embed(adata, "scgpt", weights="random", variant="tiny", max_length=32)
    assert adata.obsm["X_scgpt"].shape == (160, 32)
    with pytest.raises(UsageError, match="colour"):
        scdrugmap.embed(adata, "randproj", colour="red")


def test_embed_overwrites_its_own_key_and_nobody_elses(adata: AnnData) -> None:
    scdrugmap.embed(adata, "randproj")
    scdrugmap.embed(adata, "randproj")  # our own
    adata.obsm["X_mine"] = np.zeros((160, 2))
    with pytest.raises(UsageError, match="X_mine"):
        scdrugmap.embed(adata, "randproj", key_added="X_mine")
    assert (adata.obsm["X_mine"] == 0).all()
    scdrugmap.embed(adata, "randproj", key_added="X_second")
    assert np.array_equal(adata.obsm["X_second"], adata.obsm["X_randproj"])
    with pytest.raises(UsageError, match="cannot be a key"):
        scdrugmap.embed(adata, "randproj", key_added="a/b")
    adata.uns["scdrugmap"] = "a word of mine"
    with pytest.raises(UsageError, match="did not write"):
        scdrugmap.embed(adata, "randproj", key_added="X_third")


def test_an_anndata_is_read_row_for_row(adata: AnnData) -> None:
    with pytest.raises(UsageError, match="where="):
        scdrugmap.embed(adata, "randproj", reading={"where": [("patient", "P01")]})
    with pytest.raises(UsageError, match="copy=True"):
        scdrugmap.embed("cohort.h5ad", "randproj", copy=True)


def test_reading_chooses_the_layer(adata: AnnData) -> None:
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X * 0.5  # neither counts nor logs of them
    scdrugmap.embed(adata, "randproj", reading={"layer": "counts"})
    record = json.loads(adata.uns["scdrugmap"]["embed_randproj"])
    assert record["what"]["matrix"]["location"] == "layers/counts"


def test_predict_writes_the_documented_keys(adata: AnnData, predictor: Path) -> None:
    before = snapshot(adata)
    assert scdrugmap.predict(adata, predictor) is None
    assert adata.obs["scdrugmap_p_sensitive"].dtype == np.float32
    assert list(adata.obs["scdrugmap_call"].cat.categories) == [
        "resistant",
        "sensitive",
        "abstain",
        "invalid",
    ]
    assert "scdrugmap_reason" in adata.obs
    assert json.loads(adata.uns["scdrugmap"]["predict"])
    assert len(adata.uns["scdrugmap_call_colors"]) == 4
    assert snapshot(adata) == before
    scdrugmap.predict(adata, predictor, key_added="second")
    assert "second_call" in adata.obs


def test_predict_and_embed_share_their_record(adata: AnnData, predictor: Path) -> None:
    scdrugmap.embed(adata, "randproj")
    scdrugmap.predict(adata, predictor)
    assert set(adata.uns["scdrugmap"]) == {"embed_randproj", "predict"}


def test_predict_never_overwrites_a_column(adata: AnnData, predictor: Path) -> None:
    adata.obs["scdrugmap_call"] = "mine"
    with pytest.raises(UsageError, match="nothing is overwritten"):
        scdrugmap.predict(adata, predictor)
    assert set(adata.obs["scdrugmap_call"]) == {"mine"}


def test_predict_with_copy_leaves_the_original_alone(adata: AnnData, predictor: Path) -> None:
    made = scdrugmap.predict(adata, predictor, copy=True)
    assert "scdrugmap_call" in made.obs
    assert "scdrugmap_call" not in adata.obs


def test_predict_of_a_path_gives_tables(
    file: Path, predictor: Path, splits: Path, tmp_path: Path
) -> None:
    result = scdrugmap.predict(file, predictor, splits=splits)
    assert len(result.cells) == 160
    assert set(result.samples.columns) >= {"sample", "n", "share_sensitive", "mean_p"}
    assert result.metrics is not None
    assert "auroc" in set(result.metrics["metric"])
    result.to_table(tmp_path / "tables")
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == [
        "details.tsv",
        "metrics.tsv",
        "predictions.tsv",
        "samples.tsv",
        "summary.json",
    ]
    written = read_predictions(tmp_path / "tables" / "predictions.tsv")
    assert list(written["cell"]) == list(result.cells["cell"])
    with pytest.raises(UsageError, match="exists"):
        result.to_table(tmp_path / "tables")
    assert "scdrugmap_call" in result.to_adata().obs


def test_predict_says_how_far_to_trust_a_model(file: Path, tmp_path: Path) -> None:
    design = read_design([file], label="response", labels=LabelMap.parse(), group="patient")
    write_splits(make_split(design, folds=2, validation=True).table, tmp_path / "v.tsv")
    predictor = train_files([file], tmp_path / "v.tsv", fold=0, model="randproj", quiet=True)
    known = anndata.read_h5ad(file)
    scdrugmap.predict(known, predictor, min_cells=5, conformal_level=0.6)
    assert known.obs["scdrugmap_domain"].between(0, 1).all()
    assert list(known.obs["scdrugmap_set"].cat.categories) == [
        "resistant",
        "sensitive",
        "both",
        "none",
    ]
    record = json.loads(known.uns["scdrugmap"]["predict"])
    assert record["conformal"]["level"] == 0.6
    assert record["domain"]["share_outside"] < 0.1

    strange = synthetic_adata(60, 600, seed=9)
    with pytest.warns(ScDrugMapWarning, match="do not rely on what is predicted for"):
        scdrugmap.predict(strange, predictor, sample="patient", min_cells=5)
    notices = json.loads(strange.uns["scdrugmap"]["predict"])["notices"]
    assert any("do not rely on" in notice for notice in notices)
    with pytest.raises(UsageError, match=r"no conformal sets for level 0\.3"):
        scdrugmap.predict(strange, predictor, key_added="second", conformal_level=0.3)


def test_names_in_a_notebook_are_escaped(adata: AnnData, predictor: Path, tmp_path: Path) -> None:
    adata.obs["patient"] = adata.obs["patient"].astype(str).replace("P01", "<script>x</script>")
    adata.write_h5ad(tmp_path / "odd.h5ad")
    result = scdrugmap.predict(tmp_path / "odd.h5ad", predictor, sample="patient")
    assert "<script>" not in result._repr_html_()
    assert "&lt;script&gt;" in result._repr_html_()


def test_evaluate_takes_results_frames_and_paths(
    file: Path, predictor: Path, splits: Path, tmp_path: Path
) -> None:
    result = scdrugmap.predict(file, predictor, splits=splits)
    result.to_table(tmp_path / "tables")
    one = scdrugmap.evaluate(result, splits, draws=10)
    two = scdrugmap.evaluate(result.cells, splits, draws=10)
    three = scdrugmap.evaluate(tmp_path / "tables" / "predictions.tsv", splits, draws=10)
    assert one.equals(two)
    assert one.equals(three)


def test_check_looks_at_an_anndata_without_touching_it(adata: AnnData) -> None:
    before = snapshot(adata)
    found = scdrugmap.check(adata)
    assert found.facts["n_cells"] == 160
    assert snapshot(adata) == before


def test_benchmark_takes_fields_or_a_file(file: Path, tmp_path: Path) -> None:
    run = scdrugmap.benchmark(
        data=str(file),
        label="response",
        group="patient",
        models=("constant", "technical"),
        controls=False,
        seeds=0,
        folds=2,
        draws=0,
        output=tmp_path / "run",
    )
    assert set(run.metrics["model"]) == {"constant", "technical"}
    again = scdrugmap.benchmark(
        run.folder / "config.yaml", models=("constant",), output=tmp_path / "again"
    )
    assert set(again.metrics["model"]) == {"constant"}


def test_evaluate_is_a_function_before_and_after_its_package_is_imported() -> None:
    import subprocess
    import sys

    code = (
        "import scdrugmap; assert callable(scdrugmap.evaluate); "
        "import scdrugmap.evaluation.tables; assert callable(scdrugmap.evaluate)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
