"""``scdrugmap train``, ``predict`` and ``predictor`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata
import pandas as pd
import pytest

from scdrugmap.evaluation.tables import read_predictions
from scdrugmap.testing import synthetic_adata
from scdrugmap.train.predictor import Predictor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    synthetic_adata(128, 300).write_h5ad(folder / "cohort.h5ad")
    return folder


@pytest.fixture
def splits(cli: Any, folder: Path, tmp_path: Path) -> Path:
    done = cli(
        *("split", folder / "cohort.h5ad", "--label", "response", "--group", "patient"),
        *("--folds", 2, "-o", tmp_path / "splits.tsv"),
    )
    assert done.code == 0, done.err
    return tmp_path / "splits.tsv"


@pytest.fixture
def cohort(folder: Path) -> Path:
    return folder / "cohort.h5ad"


def train(cli: Any, cohort: Path, splits: Path, *options: object) -> Any:
    target = splits.parent / "predictor.zip"
    chosen = options or ("--estimator", "hvg-logreg")
    return cli("train", cohort, "--splits", splits, "--fold", 0, *chosen, "-o", target)


@pytest.fixture
def predictor(cli: Any, cohort: Path, splits: Path) -> Path:
    done = train(cli, cohort, splits)
    assert done.code == 0, done.err
    return splits.parent / "predictor.zip"


def test_train_writes_a_predictor(predictor: Path) -> None:
    info = Predictor.load(predictor).info
    assert (info.name, info.strategy, info.split.fold) == ("hvg-logreg", "estimator", 0)


def test_options_of_an_estimator_are_set(cli: Any, cohort: Path, splits: Path) -> None:
    options = ("--estimator", "hvg-logreg", "--set", "n_genes=50", "--set", "hvg-logreg.C=2")
    assert train(cli, cohort, splits, *options).code == 0
    info = Predictor.load(splits.parent / "predictor.zip").info
    assert info.options == {"n_genes": 50, "C": 2.0}


@pytest.mark.parametrize(
    ("setting", "message"),
    [("n_gene=5", "did you mean n_genes?"), ("n_genes=0", "greater than or equal to 1")],
)
def test_wrong_option_of_an_estimator_is_a_usage_error(
    cli: Any, cohort: Path, splits: Path, setting: str, message: str
) -> None:
    done = train(cli, cohort, splits, "--estimator", "hvg-logreg", "--set", setting)
    assert done.code == 2
    assert message in done.err
    assert not (splits.parent / "predictor.zip").exists()


def test_predict_writes_a_table_and_a_summary(
    cli: Any, cohort: Path, splits: Path, predictor: Path, tmp_path: Path
) -> None:
    output = tmp_path / "predictions.tsv"
    options = ("--predictor", predictor, "--splits", splits, "-o", output)
    done = cli("predict", cohort, *options)
    assert done.code == 0, done.err
    assert done.out == ""
    table = read_predictions(output)
    assert table["role"].value_counts().to_dict() == {"train": 64, "test": 64}
    assert "P01: " in done.err
    assert "64 of these cells were trained on" in done.err


def test_predictions_go_on_to_evaluate(
    cli: Any, cohort: Path, splits: Path, predictor: Path, tmp_path: Path
) -> None:
    output = tmp_path / "predictions.tsv"
    cli("predict", cohort, "--predictor", predictor, "--splits", splits, "-o", output)
    metrics = tmp_path / "metrics.tsv"
    done = cli("evaluate", output, "--splits", splits, "--draws", 10, "-o", metrics)
    assert done.code == 0, done.err
    rows = pd.read_csv(metrics, sep="\t")
    auroc = rows[(rows["metric"] == "auroc") & (rows["level"] == "cell")]["value"]
    assert auroc.between(0, 1).all()


def test_quiet_says_nothing(cli: Any, cohort: Path, predictor: Path, tmp_path: Path) -> None:
    options = ("--predictor", predictor, "-o", tmp_path / "p.tsv", "--quiet")
    done = cli("predict", cohort, *options)
    assert (done.code, done.out, done.err) == (0, "", "")


def test_h5ad_holds_the_cells_and_the_answers(
    cli: Any, cohort: Path, predictor: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out.h5ad"
    options = ("--predictor", predictor, "-o", tmp_path / "p.tsv", "--h5ad", target)
    done = cli("predict", cohort, *options, "--key-added", "mine")
    assert done.code == 0, done.err
    adata = anndata.read_h5ad(target)
    source = anndata.read_h5ad(cohort)
    assert adata.obs_names.tolist() == source.obs_names.tolist()
    assert adata.obs["patient"].tolist() == source.obs["patient"].tolist()
    assert {"mine_p_sensitive", "mine_call", "mine_reason"} <= set(adata.obs)
    assert list(adata.obs["mine_call"].cat.categories) == [
        "resistant",
        "sensitive",
        "abstain",
        "invalid",
    ]
    assert adata.X is None
    assert json.loads(adata.uns["mine"]["predict"])["predictor"]["name"] == "hvg-logreg"
    assert len(adata.uns["mine_call_colors"]) == 4


def test_taken_prefix_is_refused_before_any_work(cli: Any, predictor: Path, tmp_path: Path) -> None:
    adata = synthetic_adata(20, 300, seed=3)
    adata.obs["scdrugmap_call"] = "mine"
    adata.write_h5ad(tmp_path / "taken.h5ad")
    output, h5ad = tmp_path / "p.tsv", tmp_path / "o.h5ad"
    options = ("--predictor", predictor, "-o", output, "--h5ad", h5ad)
    done = cli("predict", tmp_path / "taken.h5ad", *options)
    assert done.code == 2
    assert "--key-added" in done.err
    assert not output.exists()
    assert not h5ad.exists()


def test_another_drug_gives_a_notice(
    cli: Any, cohort: Path, predictor: Path, tmp_path: Path
) -> None:
    options = ("--predictor", predictor, "-o", tmp_path / "p.tsv", "--drug", "cisplatin")
    done = cli("predict", cohort, *options)
    assert done.code == 0
    assert "does not say which drug it was for, not on cisplatin" in done.err


@pytest.mark.parametrize("verb", ["train", "predict"])
def test_existing_output_is_refused_before_any_work(
    cli: Any, cohort: Path, splits: Path, predictor: Path, tmp_path: Path, verb: str
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("precious")
    if verb == "train":
        options: tuple[object, ...] = ("--splits", splits, "--fold", 0, "--estimator", "constant")
    else:
        options = ("--predictor", predictor)
    done = cli(verb, cohort, *options, "-o", taken)
    assert done.code == 2
    assert "exists" in done.err
    assert "--overwrite" in done.err
    assert taken.read_text() == "precious"
    assert cli(verb, cohort, *options, "-o", taken, "--overwrite").code == 0


def test_output_that_is_an_input_is_refused(cli: Any, cohort: Path, predictor: Path) -> None:
    done = cli("predict", cohort, "--predictor", predictor, "-o", cohort, "--overwrite")
    assert done.code == 2
    assert "both input and output" in done.err


def test_one_class_is_a_data_error(cli: Any, splits: Path, cohort: Path, tmp_path: Path) -> None:
    from scdrugmap.evaluation.tables import read_splits, split_id, write_splits

    table = read_splits(splits)
    table = table[(table["role"] != "train") | (table["label"] == "resistant")]
    table = table.assign(split_id=split_id(table, "pooled-group"))
    write_splits(table, tmp_path / "one.tsv")
    done = train(cli, cohort, tmp_path / "one.tsv")
    assert done.code == 3
    assert "all 32 training cells are resistant" in done.err
    assert "Traceback" not in done.err
    assert not (splits.parent / "predictor.zip").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--estimator", "hvg-logrek"), 4, "did you mean hvg-logreg?"),
        (("--model", "scgtp"), 4, "there is no model named 'scgtp'"),
        (("--model", "randproj", "--estimator", "constant"), 2, "either --estimator or --model"),
        (("--estimator", "constant", "--weights", "random"), 2, "are for models"),
        (("--estimator", "constant", "--head", "mlp"), 2, "are for models"),
        (("--estimator", "constant", "--fold", 9), 2, "no fold 9"),
    ],
)
def test_wrong_use_says_what_next(
    cli: Any, cohort: Path, splits: Path, options: tuple[object, ...], code: int, message: str
) -> None:
    done = train(cli, cohort, splits, *options)
    assert done.code == code
    assert message in done.err
    assert not (splits.parent / "predictor.zip").exists()


def test_model_is_trained_and_predicts(
    cli: Any, cohort: Path, splits: Path, tmp_path: Path
) -> None:
    assert train(cli, cohort, splits, "--model", "randproj", "--head", "mlp").code == 0
    predictor = splits.parent / "predictor.zip"
    assert Predictor.load(predictor).info.head == "mlp"
    output = tmp_path / "p.tsv"
    assert cli("predict", cohort, "--predictor", predictor, "-o", output).code == 0
    assert set(read_predictions(output)["strategy"]) == {"frozen"}


def test_damaged_predictor_is_a_data_error(
    cli: Any, cohort: Path, predictor: Path, tmp_path: Path
) -> None:
    predictor.write_bytes(predictor.read_bytes()[:500])
    output = tmp_path / "p.tsv"
    done = cli("predict", cohort, "--predictor", predictor, "-o", output)
    assert done.code == 3
    assert "predictor.zip is damaged" in done.err
    assert "Traceback" not in done.err
    assert not output.exists()


def test_show_prints_the_card(cli: Any, predictor: Path) -> None:
    done = cli("predictor", "show", predictor)
    assert done.code == 0
    assert "# Logistic regression on highly variable genes" in done.out
    assert "research only" in done.out


def test_show_prints_json(cli: Any, predictor: Path) -> None:
    done = cli("predictor", "show", predictor, "--json")
    assert json.loads(done.out) == Predictor.load(predictor).info.model_dump(mode="json")


def test_list_names_the_predictors_of_a_folder(cli: Any, predictor: Path) -> None:
    (predictor.parent / "other.zip").write_bytes(b"no zip at all")
    done = cli("predictor", "list", predictor.parent)
    assert done.code == 0
    assert [line.split()[:4] for line in done.out.splitlines()] == [
        ["file", "name", "strategy", "fold"],
        ["predictor.zip", "hvg-logreg", "estimator", "0"],
    ]
    assert "other.zip is damaged or no zip file" in done.err
    found = json.loads(cli("predictor", "list", predictor.parent, "--json").out)
    assert found[0]["cells"] == 64


def test_list_of_no_folder_is_a_usage_error(cli: Any, tmp_path: Path) -> None:
    done = cli("predictor", "list", tmp_path / "none")
    assert done.code == 2
    assert "is no folder" in done.err


@pytest.mark.parametrize("verb", ["train", "predict", "predictor"])
def test_help_ends_with_an_example(cli: Any, verb: str) -> None:
    done = cli(verb, "--help")
    assert done.code == 0
    assert f"Example: scdrugmap {verb}" in done.out
