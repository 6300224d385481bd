"""Tests of training: which cells are learnt from, and what a predictor says about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from scdrugmap.data.cells import Cells, open_cells
from scdrugmap.data.labels import LabelMap
from scdrugmap.errors import DataError, UsageError
from scdrugmap.evaluation.design import read_design
from scdrugmap.evaluation.splits import make_split
from scdrugmap.model.load import load_model
from scdrugmap.testing import synthetic_adata
from scdrugmap.train.gather import choose_cells, draw_evenly, shared_genes
from scdrugmap.train.predictor import TRAINING_CELLS, Predictor, short_fingerprints
from scdrugmap.train.thresholds import best_threshold
from scdrugmap.train.train import train_predictor


def cohort(seed: int = 0, **changes: Any) -> anndata.AnnData:
    return synthetic_adata(96, 300, **{"seed": seed, **changes})


def split_of(*sources: Any, protocol: str = "pooled-group", **options: Any) -> pd.DataFrame:
    design = read_design(
        sources, label="response", labels=LabelMap.parse(), group="patient", cell_arguments={}
    )
    return make_split(design, protocol, **{"folds": 2, **options}).table


@pytest.fixture
def path(tmp_path: Path) -> Path:
    cohort().write_h5ad(tmp_path / "cohort.h5ad")
    return tmp_path / "cohort.h5ad"


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """Two files of other patients, whose lists of genes differ."""
    paths = []
    for seed, (name, genes) in enumerate({"a": slice(0, 280), "b": slice(20, 300)}.items()):
        adata = cohort(seed)[:, genes].copy()
        adata.obs["patient"] = [f"{name}{patient}" for patient in adata.obs["patient"]]
        paths.append(tmp_path / f"{name}.h5ad")
        adata.write_h5ad(paths[-1])
    return paths


def train(source: Any, splits: pd.DataFrame, **options: Any) -> Predictor:
    chosen = {"fold": 0, "quiet": True, **options}
    if "model" not in chosen:
        chosen = {"estimator": "hvg-logreg", **chosen}
    with open_cells(source) as cells:
        return train_predictor([cells], splits, **chosen)


def learnt(splits: pd.DataFrame, fold: int = 0, role: str = "train") -> pd.DataFrame:
    return splits[(splits["fold"] == fold) & (splits["role"] == role)]


def test_only_training_cells_of_the_fold_are_learnt_from(path: Path) -> None:
    splits = split_of(path)
    predictor = train(path, splits, fold=1)
    with open_cells(path) as cells:
        wanted = pd.Index(cells.names).isin(learnt(splits, 1)["cell"])
        prints = cells.fingerprints()[wanted]
    assert predictor.reference[TRAINING_CELLS].tolist() == sorted(short_fingerprints(prints))
    assert predictor.info.training.n_cells == len(learnt(splits, 1))
    assert predictor.info.split.split_id == splits["split_id"].iloc[0]
    assert predictor.info.split.fold == 1


def test_values_of_test_cells_change_nothing(path: Path, tmp_path: Path) -> None:
    splits = split_of(path)
    changed = cohort()
    test = changed.obs_names.isin(learnt(splits, role="test")["cell"])
    dense = changed.X.toarray()
    dense[test] = np.random.default_rng(9).poisson(5, dense[test].shape)
    changed.X = csr_matrix(dense.astype(np.float32))
    (tmp_path / "other").mkdir()
    changed.write_h5ad(tmp_path / "other" / "cohort.h5ad")
    for name in ("hvg-logreg", "pca-logreg", "technical"):
        first = train(path, splits, estimator=name)
        second = train(tmp_path / "other" / "cohort.h5ad", splits, estimator=name)
        assert first.files == second.files


def test_same_training_gives_the_same_file(path: Path, tmp_path: Path) -> None:
    splits = split_of(path)
    for name in ("one.zip", "two.zip"):
        train(path, splits, estimator="gbt", settings={"n_trees": "5"}).save(tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_only_genes_of_all_files_are_read(two: list[Path]) -> None:
    splits = split_of(*two)
    with open_cells(two[0]) as first, open_cells(two[1]) as second:
        predictor = train_predictor(
            [first, second], splits, fold=0, estimator="hvg-logreg", quiet=True
        )
        both = set(first.genes.identity()) & set(second.genes.identity())
    assert predictor.info.genes.n_genes == len(both) == 260
    assert predictor.info.notices == (
        "260 genes are in all training files (a 280, b 280); only those are read",
    )
    assert {item.name for item in predictor.info.training.datasets} == {"a", "b"}


def test_genes_that_one_file_lists_alone_change_nothing(two: list[Path], tmp_path: Path) -> None:
    splits = split_of(*two)
    trimmed = anndata.read_h5ad(two[0])[:, 20:].copy()
    (tmp_path / "less").mkdir()
    trimmed.write_h5ad(tmp_path / "less" / "a.h5ad")
    states = []
    for source in (two[0], tmp_path / "less" / "a.h5ad"):
        with open_cells(source) as first, open_cells(two[1]) as second:
            predictor = train_predictor(
                [first, second], splits, fold=0, estimator="hvg-logreg", quiet=True
            )
            states.append(predictor.files)
    assert states[0] == states[1]


def test_files_without_a_common_gene_are_refused(two: list[Path]) -> None:
    splits = split_of(*two)
    anndata.read_h5ad(two[0])[:, :20].copy().write_h5ad(two[0])
    with open_cells(two[0]) as first, open_cells(two[1]) as second:
        chosen = choose_cells([first, second], splits, 0, "train")
        with pytest.raises(DataError, match="share no gene") as caught:
            shared_genes(chosen)
    assert "--gene-id" in caught.value.hint


def test_files_with_counts_and_lognormalised_values_are_refused(two: list[Path]) -> None:
    splits = split_of(*two)
    adata = cohort(0, values="lognorm")[:, :280].copy()
    adata.obs["patient"] = [f"a{patient}" for patient in adata.obs["patient"]]
    adata.write_h5ad(two[0])
    with (
        open_cells(two[0]) as first,
        open_cells(two[1]) as second,
        pytest.raises(DataError, match="a: lognorm, b: counts"),
    ):
        train_predictor([first, second], splits, fold=0, estimator="hvg-logreg", quiet=True)


def test_one_class_among_training_cells_is_refused(path: Path) -> None:
    splits = split_of(path)
    one = splits[(splits["role"] != "train") | (splits["label"] == "resistant")]
    n = len(learnt(one))
    with pytest.raises(DataError, match=f"fold 0: all {n} training cells are resistant") as caught:
        train(path, one)
    assert "both labels" in caught.value.hint


def test_one_cell_per_patient_is_enough(tmp_path: Path) -> None:
    adata = cohort(n_patients=96)
    adata.write_h5ad(tmp_path / "many.h5ad")
    splits = split_of(tmp_path / "many.h5ad")
    assert train(tmp_path / "many.h5ad", splits).info.training.n_groups == 48
    predictor = train(tmp_path / "many.h5ad", splits, estimator="pseudobulk-logreg")
    assert predictor.info.level == "sample"


def test_cells_without_counts_are_left_out_and_counted(path: Path, tmp_path: Path) -> None:
    splits = split_of(path)
    adata = cohort()
    dense = adata.X.toarray()
    dense[adata.obs_names.isin(learnt(splits)["cell"].iloc[:3])] = 0
    adata.X = csr_matrix(dense)
    adata.write_h5ad(path)
    for options in ({}, {"model": load_model("randproj")}):
        info = train(path, splits, **options).info
        assert info.training.n_cells == len(learnt(splits)) - 3
        assert info.training.n_empty + info.training.n_unknown == 3
        assert info.notices[0].startswith("3 training cells without")


def test_cap_draws_the_same_share_of_every_group_and_label(path: Path) -> None:
    splits = split_of(path, protocol="paper-pooled")
    with open_cells(path) as cells:
        chosen = choose_cells([cells], splits, 0, "train")
        drawn = draw_evenly(chosen, 24, seed=0)
        assert [len(part.index) for part in draw_evenly(chosen, 10_000, 0)] == [48]
    before = chosen[0].table.groupby(["group", "label"]).size()
    after = drawn[0].table.groupby(["group", "label"]).size()
    assert list(after.index) == list(before.index)
    assert (after <= np.ceil(before / 2)).all()
    assert (after >= np.floor(before / 2)).all()


def test_cap_is_recorded_and_said(path: Path) -> None:
    info = train(path, split_of(path), max_cells=20).info
    assert info.training.max_cells == 20
    assert info.training.n_cells <= 20
    assert info.training.n_beyond_cap == 48 - info.training.n_cells
    assert "left out to bound the memory" in info.notices[0]


def test_unknown_fold_is_a_usage_error(path: Path) -> None:
    with pytest.raises(UsageError, match="no fold 7") as caught:
        train(path, split_of(path), fold=7)
    assert caught.value.hint == "its folds are 0, 1"


def test_other_files_than_those_of_the_split_are_a_usage_error(path: Path, two: list[Path]) -> None:
    with pytest.raises(UsageError, match="the split was made of cohort; the files given are a"):
        train(two[0], split_of(path))


def test_two_files_of_one_name_are_a_usage_error(path: Path) -> None:
    with (
        open_cells(path) as cells,
        pytest.raises(UsageError, match="two files are named cohort"),
    ):
        train_predictor([cells, cells], split_of(path), fold=0, estimator="constant")


def test_cells_that_the_file_lacks_are_refused(path: Path) -> None:
    splits = split_of(path)
    cohort()[:90].copy().write_h5ad(path)
    with pytest.raises(DataError, match="of 48 train cells of the split are not in the files"):
        train(path, splits)


def test_cells_of_files_whose_names_run_together_are_told_apart(tmp_path: Path) -> None:
    adata = cohort()
    adata.obs_names = [f"1{number}" for number in range(adata.n_obs)]
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata = cohort(1)
    adata.obs_names = [str(number) for number in range(adata.n_obs)]
    adata.write_h5ad(tmp_path / "a1.h5ad")
    files = [tmp_path / "a.h5ad", tmp_path / "a1.h5ad"]
    splits = split_of(*files)
    with open_cells(files[0]) as first, open_cells(files[1]) as second:
        chosen = choose_cells([first, second], splits, 0, "train")
        for part in chosen:
            assert set(part.table["dataset"]) == {part.cells.name}
            assert part.table["cell"].tolist() == part.cells.names[part.index].tolist()


def test_sample_with_cells_of_both_labels_is_two_profiles(tmp_path: Path) -> None:
    adata = cohort()
    adata.obs["response"] = np.repeat(["resistant", "sensitive"], 48)
    adata.obs["patient"] = [f"P{number % 6}" for number in range(96)]
    adata.write_h5ad(tmp_path / "mixed.h5ad")
    splits = split_of(tmp_path / "mixed.h5ad", protocol="paper-pooled")
    # With one profile each, all would have the label of their first cell: nothing to learn from.
    predictor = train(tmp_path / "mixed.h5ad", splits, estimator="pseudobulk-logreg")
    assert predictor.info.training.n_cells == len(learnt(splits))


def test_datasets_of_a_column_are_found(tmp_path: Path) -> None:
    adata = cohort()
    adata.obs["cohort"] = np.where(np.arange(96) < 48, "first", "second")
    adata.write_h5ad(tmp_path / "pool.h5ad")
    design = read_design(
        [tmp_path / "pool.h5ad"],
        label="response",
        labels=LabelMap.parse(),
        group="patient",
        dataset="cohort",
    )
    splits = make_split(design, folds=2).table
    assert train(tmp_path / "pool.h5ad", splits, dataset="cohort").info.training.n_cells == 48
    with pytest.raises(UsageError, match="made of first, second"):
        train(tmp_path / "pool.h5ad", splits)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_that_no_generator_takes_is_a_usage_error(path: Path, seed: int) -> None:
    with pytest.raises(UsageError, match=f"--seed {seed} is not between 0 and 4294967295"):
        train(path, split_of(path), seed=seed)


def test_neither_estimator_nor_model_is_a_usage_error(path: Path) -> None:
    with pytest.raises(UsageError, match="either an estimator or a model"):
        train(path, split_of(path), estimator=None)


def test_facts_of_the_training_cells_are_remembered(path: Path) -> None:
    splits = split_of(path)
    adata = cohort()
    trained = adata.obs_names.isin(learnt(splits)["cell"])
    adata.obs["drug"] = np.where(trained, "erlotinib", "never seen")
    adata.obs["tissue"] = "lung"
    adata.write_h5ad(path)
    info = train(path, splits).info
    assert info.drug == ("erlotinib",)
    assert info.tissue == ("lung",)
    assert info.cancer_type == ()


def test_threshold_comes_from_validation_cells(tmp_path: Path) -> None:
    adata = cohort(n_patients=16)
    adata.write_h5ad(tmp_path / "cohort.h5ad")
    splits = split_of(tmp_path / "cohort.h5ad", validation=True)
    info = train(tmp_path / "cohort.h5ad", splits).info
    assert info.threshold.source == "validation"
    assert info.threshold.n_validation == len(learnt(splits, role="validation"))
    assert info.training.n_cells == len(learnt(splits))
    assert train(tmp_path / "cohort.h5ad", split_of(tmp_path / "cohort.h5ad")).info.threshold == (
        info.threshold.__class__()
    )


@pytest.mark.parametrize(
    ("p", "y", "expected"),
    [
        ([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0], 0.5),
        ([0.4, 0.35, 0.3, 0.1], [1, 1, 0, 0], 0.325),
        ([0.9, 0.9, 0.7, 0.6], [1, 1, 0, 0], 0.8),
        ([0.6, 0.6, 0.6, 0.6], [1, 0, 1, 0], 0.5),
    ],
)
def test_best_threshold_lies_between_the_classes(
    p: list[float], y: list[int], expected: float
) -> None:
    assert best_threshold(np.array(p), np.array(y, float)) == pytest.approx(expected)


def test_best_threshold_is_that_of_all_candidates() -> None:
    from sklearn.metrics import f1_score

    random = np.random.default_rng(0)
    y = random.integers(0, 2, 200)
    p = np.round(np.clip(0.4 * y + random.random(200) * 0.6, 0, 1), 2)
    best = max(
        f1_score(y, p >= cut, average="macro", zero_division=0) for cut in np.unique([*p, 0, 1])
    )
    found = f1_score(y, p >= best_threshold(p, y.astype(float)), average="macro")
    assert found == pytest.approx(best)


def frozen(source: Path, splits: pd.DataFrame, **options: Any) -> Predictor:
    return train(source, splits, model=load_model("randproj"), **options)


def test_head_is_trained_on_the_embeddings_of_training_cells(path: Path) -> None:
    splits = split_of(path)
    info = frozen(path, splits).info
    assert info.strategy == "frozen"
    assert info.head == "logistic"
    assert info.weights is not None
    assert info.weights.label == "needs no weights"
    assert info.reference is not None
    assert info.reference.n_cells == len(learnt(splits))
    quantiles = info.reference.distance_quantiles
    assert len(quantiles) == 101
    assert sorted(quantiles) == list(quantiles)
    assert info.reference.distance_99 == quantiles[99]


def test_split_of_the_papers_family_takes_the_papers_head(path: Path) -> None:
    splits = split_of(path, protocol="paper-pooled")
    assert frozen(path, splits).info.head == "mlp"
    assert frozen(path, splits, head="logistic").info.head == "logistic"


def embed(cli: Any, source: Path, target: Path, *options: str) -> Path:
    done = cli("embed", source, "--model", "randproj", *options, "-o", target)
    assert done.code == 0, done.err
    return target


def test_given_embeddings_are_taken(cli: Any, path: Path, tmp_path: Path) -> None:
    splits = split_of(path)
    target = embed(cli, path, tmp_path / "e.h5ad")
    given = frozen(path, splits, embeddings=[target])
    assert given.files == frozen(path, splits).files


def test_embeddings_made_with_other_options_are_refused(
    cli: Any, path: Path, tmp_path: Path
) -> None:
    from scdrugmap.baselines.randproj import Options

    option = next(name for name in Options.model_fields if name != "variant")
    target = embed(cli, path, tmp_path / "e.h5ad", "--set", f"{option}=7")
    with pytest.raises(DataError, match=f"model.options.{option} is 7, here"):
        frozen(path, split_of(path), embeddings=[target])


def test_embeddings_of_other_genes_are_refused(cli: Any, path: Path, tmp_path: Path) -> None:
    target = embed(cli, path, tmp_path / "e.h5ad")
    cohort()[:, :250].copy().write_h5ad(path)
    with pytest.raises(DataError, match=r"made in another way: genes\.names"):
        frozen(path, split_of(path), embeddings=[target])


def test_file_without_embeddings_is_refused(path: Path) -> None:
    with pytest.raises(DataError, match="holds no randproj embeddings") as caught:
        frozen(path, split_of(path), embeddings=[path])
    assert "scdrugmap embed" in caught.value.hint


def test_every_training_file_needs_its_embeddings(
    cli: Any, two: list[Path], tmp_path: Path
) -> None:
    target = embed(cli, two[0], tmp_path / "e.h5ad")
    with (
        open_cells(two[0]) as first,
        open_cells(two[1]) as second,
        pytest.raises(UsageError, match="no file has randproj embeddings of b; given: a"),
    ):
        train_predictor(
            [first, second],
            split_of(*two),
            fold=0,
            model=load_model("randproj"),
            embeddings=[target],
            quiet=True,
        )


def test_values_that_the_estimator_does_not_accept_are_refused(path: Path) -> None:
    from scdrugmap.registry import get_registry
    from scdrugmap.train.strategies import check_accepted

    spec = get_registry().estimator("hvg-logreg")
    counts_only = spec.model_copy(update={"accepts": frozenset({"counts"})})
    cohort(values="lognorm").write_h5ad(path)
    splits = split_of(path)
    with open_cells(path) as cells:
        chosen = choose_cells([cells], splits, 0, "train")
        with pytest.raises(DataError, match="accepts counts only"):
            check_accepted(counts_only, chosen)


def test_sources_are_left_as_they_were(path: Path) -> None:
    before = path.read_bytes()
    train(path, split_of(path))
    assert path.read_bytes() == before


def test_cells_of_an_anndata_are_trained_on_too() -> None:
    adata = cohort()
    cells: Cells
    with open_cells(adata, name="memory") as cells:
        splits = split_of(adata).assign(dataset="memory")
        predictor = train_predictor([cells], splits, fold=0, estimator="constant", quiet=True)
    assert predictor.info.training.datasets[0].name == "memory"
