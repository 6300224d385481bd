"""The simulated cohort: its truth is known, and it punishes a confounded evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData, read_h5ad

from scdrugmap.data.simulate import Simulation, simulate_cohort, write_cohort
from scdrugmap.errors import UsageError


def small(**parameters: float) -> AnnData:
    return simulate_cohort(6, 10, 80, **{"programme_genes": 10, **parameters})


def auroc(adata: AnnData, *, grouped: bool, seed: int) -> float:
    """Pooled out-of-fold AUROC of logistic regression on the most variable genes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    counts = adata.X.toarray()
    x = np.log1p(counts / counts.sum(1, keepdims=True) * 1e4)
    y = (adata.obs["response"] == "sensitive").to_numpy()
    fold = StratifiedGroupKFold if grouped else StratifiedKFold
    groups = adata.obs["patient"].to_numpy() if grouped else None
    p = np.zeros(len(y))
    for train, test in fold(5, shuffle=True, random_state=seed).split(x, y, groups):
        genes = np.argsort(-x[train].var(0))[:1000]
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
        p[test] = model.fit(x[train][:, genes], y[train]).predict_proba(x[test][:, genes])[:, 1]
    return float(roc_auc_score(y, p))


@pytest.mark.slow
def test_a_random_split_looks_excellent_and_a_patient_split_does_not() -> None:
    cohorts = [simulate_cohort(seed=seed) for seed in range(5)]
    random = [auroc(cohort, grouped=False, seed=i) for i, cohort in enumerate(cohorts)]
    grouped = [auroc(cohort, grouped=True, seed=i) for i, cohort in enumerate(cohorts)]

    assert min(random) > 0.95
    assert 0.45 < np.mean(grouped) < 0.72
    assert max(grouped) < min(random) - 0.15


@pytest.mark.slow
def test_a_strong_response_is_found_in_new_patients_too() -> None:
    found = [auroc(simulate_cohort(seed=s, signal=1.2), grouped=True, seed=s) for s in range(3)]

    assert np.mean(found) > 0.85


def test_the_default_cohort_is_about_a_thousand_cells_of_two_thousand_genes() -> None:
    adata = simulate_cohort()

    assert adata.shape == (1008, 2000)
    assert adata.obs["patient"].nunique() == 14
    assert adata.obs.groupby("patient", observed=True)["response"].nunique().max() == 1
    assert (adata.obs.groupby("response", observed=True)["batch"].nunique() > 1).all()
    assert set(adata.obs["drug"]) == {"simulated"}
    assert adata.uns["x_content"] == "simulated counts"


def test_counts_are_whole_numbers_with_a_realistic_mitochondrial_share() -> None:
    adata = simulate_cohort()
    share = adata[:, adata.var["mitochondrial"].to_numpy()].X.sum() / adata.X.sum()

    assert adata.X.dtype == np.float32
    assert (adata.X.data == np.rint(adata.X.data)).all()
    assert 0.01 < share < 0.15
    assert adata.var_names[adata.var["mitochondrial"]].str.startswith("MT-").all()


def test_the_same_parameters_give_the_same_cells_and_another_seed_others() -> None:
    first, again, other = small(seed=1), small(seed=1), small(seed=2)

    assert (first.X != again.X).nnz == 0
    assert first.obs.equals(again.obs)
    assert first.var.equals(again.var)
    assert list(first.var_names) != list(other.var_names)


def test_no_global_random_state_is_touched() -> None:
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    small()

    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_all_parameters_are_stored_and_give_the_cohort_back() -> None:
    adata = small(seed=3, signal=0.7, dispersion=0.5)
    stored = json.loads(adata.uns["simulation"])

    assert stored["signal"] == 0.7
    assert (simulate_cohort(**stored).X != adata.X).nnz == 0


def test_the_true_programme_is_in_var_and_raises_its_genes() -> None:
    adata = simulate_cohort(8, 60, 300, signal=3.0, programme_genes=20, patient_effect=0.1)
    programme = adata.var["programme"].to_numpy()
    sensitive = (adata.obs["response"] == "sensitive").to_numpy()
    change = np.log(
        (adata[sensitive].X.mean(0).A1 + 0.01) / (adata[~sensitive].X.mean(0).A1 + 0.01)
    )

    assert sorted(set(programme)) == [-3.0, 0.0, 3.0]
    assert np.corrcoef(programme, change)[0, 1] > 0.7


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_patients": 2}, "n_patients must be at least 4"),
        ({"n_genes": 10}, "exceeds n_genes"),
        ({"n_genes": 10**6}, "at most"),
        ({"dispersion": 0.0}, "dispersion must be positive"),
        ({"patient_genes": 2.0}, "must be a share"),
    ],
)
def test_an_impossible_parameter_is_refused(parameters: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate_cohort(**parameters)


def test_a_written_cohort_reads_back_equal(tmp_path: Path) -> None:
    settings = Simulation(n_patients=6, cells_per_patient=5, n_genes=80, programme_genes=10)
    write_cohort(settings, tmp_path / "cohort.h5ad")

    adata = read_h5ad(tmp_path / "cohort.h5ad")

    assert (adata.X != simulate_cohort(6, 5, 80, programme_genes=10).X).nnz == 0
    with pytest.raises(UsageError, match="exists"):
        write_cohort(settings, tmp_path / "cohort.h5ad")
