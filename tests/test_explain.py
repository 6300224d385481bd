"""Explanations: attributions that add up, rankings, differential expression, and the verb."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix
from scipy.stats import ttest_ind

import scdrugmap
from scdrugmap.data.cells import Cells, open_cells
from scdrugmap.data.labels import LabelMap
from scdrugmap.data.simulate import simulate_cohort
from scdrugmap.errors import DataError, PluginError, UsageError
from scdrugmap.evaluation.design import read_design
from scdrugmap.evaluation.splits import make_split
from scdrugmap.explanation.differential import CELLS, SAMPLES, differential_expression
from scdrugmap.explanation.drawing import N_DRAWS, draw_cells, draw_evenly
from scdrugmap.explanation.explain import explain
from scdrugmap.explanation.expression import lognorm
from scdrugmap.explanation.gradients import Gradients
from scdrugmap.explanation.layout import token_places
from scdrugmap.explanation.methods import answers_of
from scdrugmap.explanation.permutation import Permutation, replaced
from scdrugmap.explanation.result import COLUMNS, CONSENSUS, Explanation
from scdrugmap.explanation.settings import Explaining
from scdrugmap.explanation.stability import compare_rankings
from scdrugmap.explanation.summed import ALL, Sums
from scdrugmap.model.load import load_model
from scdrugmap.modelkit import Tokens
from scdrugmap.tables import read_table
from scdrugmap.train.frozen import FrozenScorer
from scdrugmap.train.predictor import Predictor
from scdrugmap.train.settings import FineTuning
from scdrugmap.train.train import train_predictor

FEW = Explaining(max_cells=24, check_genes=6, steps=24, top=5)
HOW: dict[str, Any] = {"device": "cpu", "min_genes": 1, "quiet": True}
N_GENES = 120


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cohort") / "cohort.h5ad"
    simulate_cohort(8, 20, N_GENES, seed=3, signal=1.5, programme_genes=20).write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def splits(path: Path) -> pd.DataFrame:
    design = read_design(
        [path], label="response", labels=LabelMap.parse(), group="patient", cell_arguments={}
    )
    return make_split(design, "pooled-group", folds=2).table


@pytest.fixture
def cells(path: Path) -> Iterator[Cells]:
    with open_cells(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def trained(path: Path, splits: pd.DataFrame) -> Any:
    """Train a predictor by its name, once each."""
    made: dict[tuple[str, str, int], Predictor] = {}

    def train(name: str, strategy: str = "frozen", seed: int = 0) -> Predictor:
        if (name, strategy, seed) in made:
            return made[name, strategy, seed]
        how: dict[str, Any] = {"fold": 0, "quiet": True, "seed": seed, "sample": "patient"}
        if name in scdrugmap_models():
            settings = {} if name == "randproj" else {"variant": "tiny"}
            weights = None if name == "randproj" else "random"
            how |= {
                "model": load_model(name, settings=settings, weights=weights),
                "strategy": strategy,
                "device": "cpu",
                "min_genes": 1,
            }
            if strategy != "frozen":
                how["tuning"] = FineTuning(max_steps=2, batch_size=8, learning_rate=1e-3)
        else:
            how["estimator"] = name
        with open_cells(path) as opened:
            made[name, strategy, seed] = train_predictor([opened], splits, **how)
        return made[name, strategy, seed]

    return train


def scdrugmap_models() -> set[str]:
    from scdrugmap.registry import get_registry

    return set(get_registry().models)


def explained(path: Path, predictor: Predictor, settings: Explaining = FEW, **how: Any) -> Any:
    return explain(path, {"it": predictor}, settings=settings, **{**HOW, **how})


def rows_of(cells: Cells, n: int) -> tuple[csr_matrix, np.ndarray, np.ndarray]:
    return cells.rows(np.arange(n)), cells.names[:n], np.full(n, "", object)


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        ("scgpt", "frozen"),
        pytest.param("scgpt", "lora", marks=pytest.mark.slow),  # loading peft takes its time
        ("scgpt", "full"),
        ("geneformer", "frozen"),
        ("cellplm", "frozen"),
        ("randproj", "frozen"),
    ],
)
def test_gradients_add_up_to_the_answers(
    name: str, strategy: str, path: Path, trained: Any
) -> None:
    found = explained(path, trained(name, strategy), Explaining(max_cells=10, check_genes=0))
    part = found.parts[0]
    assert part.method == "gradients"
    assert part.error < 0.02
    assert (found.genes["attribution_abs"] > 0).any()


def test_gradients_of_a_linear_model_are_its_exact_contributions(
    cells: Cells, trained: Any
) -> None:
    scorer = trained("randproj").scorer(**HOW)
    rows, names, groups = rows_of(cells, 12)
    found = list(Gradients(scorer, cells.genes, steps=4).attribute(rows, names, groups))
    values = np.zeros((12, cells.n_genes))
    for part in found:
        values[part.cells] = part.values.toarray()
    model = scorer.embedder.loaded.model
    model.tokenizer.bind(cells.genes)
    tokens = model.tokenizer.encode(rows, names)
    weight = scorer.head.weight / scorer.head.scale
    of_token = tokens.flat["value"] * (model.module.vectors.numpy()[tokens.flat["gene"]] @ weight)
    expected = csr_matrix((of_token, tokens.flat["column"], tokens.start), values.shape).toarray()
    np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["scgpt", "randproj"])
def test_batches_decide_no_attribution(name: str, cells: Cells, trained: Any) -> None:
    scorer = trained(name).scorer(**HOW)
    rows, names, groups = rows_of(cells, 6)
    found = []
    for budget in (64, 100_000):
        method = Gradients(scorer, cells.genes, steps=8)
        method.budget = budget
        values = np.zeros((6, cells.n_genes))
        for part in method.attribute(rows, names, groups):
            values[part.cells] = part.values.toarray()
        found.append(values)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-5)


def test_network_is_left_as_it_was(cells: Cells, trained: Any) -> None:
    scorer = trained("scgpt").scorer(**HOW)
    module = scorer.embedder.loaded.model.module
    module.train()
    learning = {name: p.requires_grad for name, p in module.named_parameters()}
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    list(Gradients(scorer, cells.genes, steps=2).attribute(*rows_of(cells, 3)))
    assert module.training
    assert {name: p.requires_grad for name, p in module.named_parameters()} == learning
    assert all(torch.equal(p, before[name]) for name, p in module.named_parameters())
    assert all(p.grad is None for p in module.parameters())
    assert not module.gene_encoder._forward_hooks
    module.eval()


def test_cell_without_a_known_gene_is_left_out_and_said(
    path: Path, tmp_path: Path, trained: Any
) -> None:
    adata = anndata.read_h5ad(path)[:30].copy()
    adata.X = adata.X.toarray()
    adata.X[4] = 0
    adata.write_h5ad(tmp_path / "few.h5ad")
    found = explained(tmp_path / "few.h5ad", trained("scgpt"), Explaining(steps=2, check_genes=0))
    assert found.parts[0].n_unusable == 1
    assert found.genes["n_cells"].iloc[0] == 29
    assert "1 cells without a known gene are left out" in found.notices


def test_mean_baseline_needs_a_vector_per_gene(path: Path, trained: Any) -> None:
    with pytest.raises(UsageError, match="one vector per cell"):
        explained(path, trained("cellplm"), Explaining(baseline="mean"))
    mean = Explaining(baseline="mean", max_cells=10, check_genes=0)
    assert explained(path, trained("scgpt"), mean).parts[0].error < 0.05


def test_missing_captum_is_said(path: Path, trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(PluginError, match="captum") as caught:
        explained(path, trained("scgpt"))
    assert "scdrugmap[explain]" in caught.value.hint


def test_places_of_tokens_in_padded_and_packed_outputs() -> None:
    tokens = Tokens(np.array([0, 2, 5]), {}, {})
    keep = torch.tensor([[True, True, False], [True, True, True]])
    places = token_places(tokens, {"keep": keep}, (2, 3, 8), "m")
    assert places is not None
    assert places.tolist() == [0, 1, 3, 4, 5]
    unmasked = token_places(tokens, {}, (2, 4, 8), "m")
    assert unmasked is not None
    assert unmasked.tolist() == [0, 1, 4, 5, 6]
    packed = token_places(tokens, {}, (5,), "m")
    assert packed is not None
    assert packed.tolist() == [0, 1, 2, 3, 4]
    assert token_places(tokens, {}, (2, 8), "m") is None
    with pytest.raises(PluginError, match="cannot be told apart"):
        token_places(tokens, {}, (3, 8), "m")


@pytest.mark.parametrize("name", ["hvg-logreg", "pca-logreg"])
def test_contributions_and_intercept_are_the_log_odds(
    name: str, cells: Cells, trained: Any
) -> None:
    estimator = trained(name).scorer().estimator
    rows = cells.rows(np.arange(20))
    parts, bias = estimator.contributions(rows, cells.genes, values="counts")
    p = estimator.predict(rows, cells.genes, values="counts").astype(float)
    np.testing.assert_allclose(parts.sum(1) + bias, np.log(p / (1 - p)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["hvg-logreg", "pca-logreg"])
def test_linear_estimators_are_explained_by_their_weights(
    name: str, path: Path, trained: Any
) -> None:
    found = explained(path, trained(name), FEW.model_copy(update={"check_genes": 12}))
    genes = found.genes
    assert found.parts[0].method == "coefficients"
    assert found.parts[0].error < 1e-3
    assert found.parts[0].agreement > 0.8
    assert genes["permutation"].notna().sum() == 12
    known = genes[genes["direction"].notna()]
    assert (np.sign(known["direction"]) == np.sign(known["coefficient"])).all()


def test_replaced_column_leaves_the_others_alone() -> None:
    dense = np.array([[1.0, 0, 3], [0, 2, 0]], np.float32)
    changed = replaced(csr_matrix(dense), 1, np.array([5.0, 0.0]))
    assert changed.toarray().tolist() == [[1, 5, 3], [0, 0, 0]]
    assert changed.nnz == 3
    assert dense[0, 1] == 0


@pytest.mark.parametrize("name", ["gbt", "cellplm"])
def test_permutation_equals_predicting_every_cell_again(
    name: str, cells: Cells, trained: Any
) -> None:
    scorer = trained(name).scorer(**HOW)
    rows, names, groups = rows_of(cells, 30)
    answers = answers_of(scorer, cells)
    column = int(np.argmax(lognorm(rows, "counts").toarray().std(0)))
    grouped = name == "cellplm"
    method = Permutation(answers, np.array([column]), seed=5, grouped=grouped, quiet=True)
    p = np.asarray(answers(rows, names, groups), np.float64)
    found = method.changes(rows, names, groups, p).toarray()
    dense = rows.toarray()
    dense[:, column] = dense[np.random.default_rng([5, column]).permutation(30), column]
    again = answers(csr_matrix(dense), names, groups)
    np.testing.assert_allclose(found[:, column], p - again, atol=1e-6)
    assert not found[:, np.arange(cells.n_genes) != column].any()


def test_estimator_without_weights_is_explained_by_permutation(path: Path, trained: Any) -> None:
    found = explained(path, trained("gbt"), FEW.model_copy(update={"max_genes": 15}))
    assert found.parts[0].method == "permutation"
    assert len(found.genes) == 15
    assert any("the 15 most variable of" in notice for notice in found.notices)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("technical", "technical reads no single gene"),
        ("constant", "constant reads no single gene"),
        ("pseudobulk-logreg", "pseudobulk-logreg predicts whole samples"),
    ],
)
def test_predictor_without_genes_is_refused(
    name: str, message: str, path: Path, trained: Any
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        explained(path, trained(name))
    assert "hvg-logreg" in caught.value.hint


def test_text_model_is_refused(path: Path, trained: Any) -> None:
    asked = trained("hvg-logreg").info.model_copy(update={"strategy": "prompt", "name": "talker"})
    with pytest.raises(UsageError, match="talker was asked in words"):
        explained(path, Predictor(asked, {}, {}))


def test_method_that_a_predictor_has_not_is_refused(path: Path, trained: Any) -> None:
    with pytest.raises(UsageError, match=r"gbt \(estimator\) has no gradients"):
        explained(path, trained("gbt"), Explaining(method="gradients"))
    with pytest.raises(UsageError, match=r"scgpt \(frozen\) has no coefficients"):
        explained(path, trained("scgpt"), Explaining(method="coefficients"))


def test_cells_are_drawn_evenly_over_samples() -> None:
    units = np.repeat(["a", "b", "c"], [100, 3, 50])
    chosen, draw = draw_evenly(units, 43, np.random.default_rng(0))
    assert len(chosen) == 43
    assert {unit: int((units[chosen] == unit).sum()) for unit in "abc"} == {
        "a": 20,
        "b": 3,
        "c": 20,
    }
    assert (np.diff(chosen) > 0).all()
    assert np.bincount(draw[units[chosen] == "a"], minlength=N_DRAWS).tolist() == [4] * N_DRAWS
    again, _ = draw_evenly(units, 43, np.random.default_rng(0))
    assert again.tolist() == chosen.tolist()


def test_sums_do_not_depend_on_batches_and_are_right(cells: Cells) -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(9, cells.n_genes))
    expression = random.poisson(1.0, (9, cells.n_genes)).astype(float)
    members = [[ALL, ("class", "sensitive" if i % 2 else "resistant")] for i in range(9)]
    strata: Any = [ALL, ("class", "sensitive"), ("class", "resistant")]
    whole, parts = Sums(strata, cells.n_genes), Sums(strata, cells.n_genes)
    whole.add(members, csr_matrix(values), csr_matrix(expression))  # type: ignore[arg-type]
    for i in range(9):
        parts.add(members[i : i + 1], csr_matrix(values[i]), csr_matrix(expression[i]))  # type: ignore[arg-type]
    table = whole.table(("class", "sensitive"), cells.genes)
    pd.testing.assert_frame_equal(table, parts.table(("class", "sensitive"), cells.genes))
    assert (table["rank"] == np.arange(1, len(table) + 1)).all()
    first = int(table["column"].iloc[0])
    own = values[1::2, first]
    assert table["attribution_mean"].iloc[0] == pytest.approx(own.mean())
    assert table["attribution_sd"].iloc[0] == pytest.approx(own.std())
    assert table["direction"].iloc[0] == pytest.approx(
        np.corrcoef(own, expression[1::2, first])[0, 1]
    )
    assert table["share"].sum() == pytest.approx(1)


def test_differential_expression_of_samples_is_a_welch_test_of_profiles(cells: Cells) -> None:
    drawn = draw_cells(cells, most=20, seed=0, sample="patient", label="response")
    found = differential_expression(cells, drawn)
    assert found is not None
    assert (found.test, found.n_sensitive, found.n_resistant) == (SAMPLES, 4, 4)
    counts = pd.DataFrame(cells.rows(np.arange(cells.n_cells)).toarray())
    profile = counts.groupby(drawn.samples).sum()
    profile = np.log1p(profile.div(profile.sum(1), axis=0) * 1e4)
    label = pd.Series(drawn.labels).groupby(drawn.samples).first()
    gene = int(found.table["de_p"].argmin())
    a, b = (profile.loc[label == name, gene] for name in ("sensitive", "resistant"))
    assert found.table["de_effect"][gene] == pytest.approx(a.mean() - b.mean())
    assert found.table["de_p"][gene] == pytest.approx(ttest_ind(a, b, equal_var=False).pvalue)
    assert (found.table["de_q"] >= found.table["de_p"]).all()


def test_differential_expression_without_samples_is_over_cells_and_said(cells: Cells) -> None:
    drawn = draw_cells(cells, most=20, seed=0, label="response")
    found = differential_expression(cells, drawn)
    assert found is not None
    assert found.test == CELLS
    assert "p-values are too small" in found.notices[0]
    truth = simulate_cohort(8, 20, N_GENES, seed=3, signal=1.5, programme_genes=20).var["programme"]
    clear = (found.table["de_q"] < 1e-6).to_numpy()
    agrees = np.sign(found.table["de_effect"]) == np.sign(truth.to_numpy())
    assert agrees[clear & (truth != 0).to_numpy()].mean() > 0.9


def test_comparison_without_labels_or_samples_is_refused(cells: Cells) -> None:
    drawn = draw_cells(cells, most=20, seed=0, sample="patient")
    assert differential_expression(cells, drawn) is None
    with pytest.raises(UsageError, match="needs labels"):
        differential_expression(cells, drawn, unit="cell")
    labelled = draw_cells(cells, most=20, seed=0, label="response")
    with pytest.raises(UsageError, match="needs samples"):
        differential_expression(cells, labelled, unit="sample")
    few = draw_cells(
        cells.subset(np.arange(80)), most=20, seed=0, sample="patient", label="response"
    )
    with pytest.raises(DataError, match="too few for a test"):
        differential_expression(cells, few, unit="sample")


def test_equal_rankings_agree_and_reversed_ones_do_not() -> None:
    a = {f"g{i}": float(i) for i in range(40)}
    b = {gene: -value for gene, value in a.items()}
    table = compare_rankings({"a": a, "again": dict(a), "b": b})
    same = table[(table["first"] == "a") & (table["second"] == "again")]
    assert (same["spearman"] == 1).all()
    assert (same["overlap"] == 1).all()
    other = table[(table["first"] == "a") & (table["second"] == "b")]
    assert other["spearman"].iloc[0] == pytest.approx(-1)
    assert (other["overlap"] == 0).all()
    assert other["chance"].tolist() == [k / 40 for k in other["k"]]
    assert compare_rankings({"a": a}).empty


def test_several_predictors_are_compared_and_averaged(path: Path, trained: Any) -> None:
    predictors = {"one": trained("hvg-logreg"), "two": trained("pca-logreg")}
    found = explain(path, predictors, settings=FEW, label="response", **HOW)
    assert isinstance(found, Explanation)
    assert found.name == CONSENSUS
    assert set(found.table["predictor"]) == {CONSENSUS, "one", "two"}
    assert found.genes["share"].sum() == pytest.approx(1)
    assert (found.genes["rank"] == np.arange(1, len(found.genes) + 1)).all()
    record = found.record()
    assert record["stability"]["between"] == "predictors"
    assert record["stability"]["spearman"] > 0.2
    assert found.genes["model"].iloc[0] == "several"
    for part in predictors:
        own = found.table[(found.table["predictor"] == part) & (found.table["level"] == "sample")]
        assert own.groupby("stratum").size().max() == FEW.top


def test_same_call_gives_the_same_table(path: Path, trained: Any) -> None:
    first = explained(path, trained("scgpt"), label="response", sample="patient")
    again = explained(path, trained("scgpt"), label="response", sample="patient")
    pd.testing.assert_frame_equal(first.table, again.table)


@pytest.fixture
def predictor(trained: Any, tmp_path: Path) -> Path:
    trained("hvg-logreg").save(tmp_path / "predictor.zip")
    return tmp_path / "predictor.zip"


def test_verb_writes_table_figures_and_summary(
    cli: Any, path: Path, predictor: Path, tmp_path: Path
) -> None:
    done = cli(
        *("explain", path, "--predictor", predictor, "--label", "response"),
        *("--max-cells", 40, "--top", 4, "-o", tmp_path / "genes.tsv", "--json"),
        *("--figures", tmp_path / "figures", "--summary", tmp_path / "summary.json"),
    )
    assert done.code == 0, done.err
    table = read_table(tmp_path / "genes.tsv", COLUMNS)
    assert list(table.columns) == list(COLUMNS)
    assert set(table["level"]) == {"all", "class", "sample"}
    assert set(table.loc[table["level"] == "sample", "stratum"]) == {f"P0{i}" for i in range(1, 9)}
    assert (table.loc[table["level"] == "all", "de_p"] != "").any()
    names = sorted(file.name for file in (tmp_path / "figures").iterdir())
    assert names == [
        "explain_bars.svg",
        "explain_dots.svg",
        "explain_expression.svg",
        "explain_stability.svg",
    ]
    top = table["gene"].iloc[0]
    assert all(
        top in (tmp_path / "figures" / f"explain_{name}.svg").read_text("utf-8")
        for name in ("bars", "dots", "expression")
    )
    record = json.loads(done.out)
    assert record == json.loads((tmp_path / "summary.json").read_text("utf-8"))
    assert record["differential_expression"]["test"] == SAMPLES
    assert "40 of 160 cells are explained, drawn evenly over 8 samples" in done.err
    assert "was trained on" in done.err
    again = cli("explain", path, "--predictor", predictor, "-o", tmp_path / "genes.tsv")
    assert again.code == 2
    assert "exists" in again.err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--sensitive", "yes"), 2, "need the column they are of"),
        (("--de-unit", "sample"), 2, "needs labels"),
        (("--label", "respons"), 2, "has no column 'respons'"),
        (("--sample", "nobody"), 2, "has no column 'nobody'"),
        (("--label", "batch"), 3, "labels without a meaning"),
        (("--method", "gradients"), 2, "has no gradients"),
        (("--seed", "-1"), 2, "seed=-1"),
    ],
)
def test_verb_refuses_in_one_line(
    options: tuple[str, ...],
    code: int,
    message: str,
    cli: Any,
    path: Path,
    predictor: Path,
    tmp_path: Path,
) -> None:
    done = cli("explain", path, "--predictor", predictor, *options, "-o", tmp_path / "genes.tsv")
    assert done.code == code
    assert message in done.err
    assert not (tmp_path / "genes.tsv").exists()


def test_file_that_is_no_predictor_is_refused(cli: Any, path: Path, tmp_path: Path) -> None:
    done = cli("explain", path, "--predictor", path, "-o", tmp_path / "genes.tsv")
    assert done.code == 3
    twice = cli(
        *("explain", path, "--predictor", path, "--predictor", path, "-o", tmp_path / "genes.tsv")
    )
    assert twice.code == 2
    assert "given twice" in twice.err


def test_pictures_are_also_drawn_as_png(path: Path, trained: Any) -> None:
    found = explained(path, trained("hvg-logreg"))
    pictures = found.pictures("png")
    assert [picture.file for picture in pictures] == [
        "explain_bars",
        "explain_dots",
        "explain_stability",
    ]
    assert all(picture.image.startswith(b"\x89PNG") for picture in pictures)
    assert all(picture.alt for picture in pictures)


def test_anndata_gets_attributions_of_its_genes_and_samples(path: Path, predictor: Path) -> None:
    adata = anndata.read_h5ad(path)
    kept = adata.X.copy()
    how: dict[str, Any] = {"sample": "patient", "max_cells": 40, "check_genes": 0}
    assert scdrugmap.explain(adata, predictor, **how) is None
    found = scdrugmap.explain(path, predictor, **how)
    values = adata.var["scdrugmap_attribution"]
    assert values.dtype == np.float32
    own = found.genes.set_index("gene")["attribution_mean"]
    np.testing.assert_allclose(values.reindex(own.index), own, rtol=1e-5, atol=1e-7)
    assert adata.varm["scdrugmap_attribution"].shape == (adata.n_vars, 8)
    assert json.loads(adata.uns["scdrugmap"]["explain"])["samples"][0] == "P01"
    assert (kept != adata.X).nnz == 0
    scdrugmap.explain(adata, predictor, **how)  # what we wrote may be written again
    other = anndata.read_h5ad(path)
    other.var["scdrugmap_attribution"] = 1.0
    with pytest.raises(UsageError, match="nothing is overwritten"):
        scdrugmap.explain(other, predictor, **how)
    with pytest.raises(UsageError, match="cells=3") as caught:
        scdrugmap.explain(path, predictor, cells=3)
    assert "the settings are method" in caught.value.hint


def test_explained_model_gives_the_answers_of_predict(cells: Cells, trained: Any) -> None:
    scorer = trained("scgpt", "lora").scorer(**HOW)
    assert isinstance(scorer, FrozenScorer)
    found = list(Gradients(scorer, cells.genes, steps=2).attribute(*rows_of(cells, 8)))
    p = np.full(8, np.nan)
    for part in found:
        p[part.cells] = part.p
    np.testing.assert_allclose(p, scorer.scores(cells, quiet=True).p[:8], atol=1e-5)
