"""The report of a run whose tables are made by hand: what it says, and what it must never do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scdrugmap.run.record import (
    CELL_MAP_FILE,
    CoverageRecord,
    DatasetRecord,
    ModelRecord,
    ProtocolRecord,
    RunRecord,
    write_run,
)
from scdrugmap.tables import write_table

N_PATIENTS, N_CELLS = 12, 60  # cells per patient
SOUND = ProtocolRecord(
    name="pooled-group", family="sound", question="A new patient?", status="evaluated", n_folds=3
)
PAPER = ProtocolRecord(
    name="paper-pooled", family="paper", question="Random cells?", status="evaluated", n_folds=3
)
HOSTILE = "<script>alert(1)</script>$x^{$\t\"'"


def cells(n_patients: int = N_PATIENTS, names: str = "P{:02d}") -> pd.DataFrame:
    """Make the cells of patients, every other one sensitive."""
    patient = np.repeat(np.arange(n_patients), N_CELLS)
    return pd.DataFrame(
        {
            "dataset": "cohort",
            "cell": [f"c{i}" for i in range(len(patient))],
            "sample": [names.format(i) for i in patient],
            "donor": [names.format(i) for i in patient],
            "study": "",
            "label": np.where(patient % 2 == 0, "sensitive", "resistant"),
            "group": [names.format(i) for i in patient],
            "patient": patient,
        }
    )


def split_of(table: pd.DataFrame, protocol: str, folds: int = 3) -> pd.DataFrame:
    """Divide patients (sound) or cells (paper) into folds."""
    from scdrugmap.evaluate.tables import SPLIT_COLUMNS, split_id

    unit = table["patient"] // 2 if protocol == "pooled-group" else pd.Series(range(len(table)))
    parts = [
        table.assign(fold=fold, role=np.where(unit % folds == fold, "test", "train"))
        for fold in range(folds)
    ]
    rows = pd.concat(parts, ignore_index=True)
    rows["split_id"] = split_id(rows, protocol)
    return rows[list(SPLIT_COLUMNS)]


def predictions_of(
    splits: pd.DataFrame, model: str, strategy: str, signal: float, seeds: tuple[int, ...] = (0, 1)
) -> pd.DataFrame:
    """Predict the test cells of a split, `signal` better than chance."""
    from scdrugmap.evaluate.tables import PREDICTION_COLUMNS

    test = splits[splits["role"] == "test"]
    parts = []
    for seed in seeds:
        random = np.random.default_rng([seed, len(model)])
        y = np.where(test["label"] == "sensitive", 1.0, -1.0)
        p = 1 / (1 + np.exp(-(signal * y + random.normal(0, 1, len(test)))))
        parts.append(
            test[["dataset", "cell", "sample", "fold", "role"]].assign(
                model=model,
                strategy=strategy,
                seed=seed,
                p_sensitive=0.5 if signal == 0 and model == "constant" else p,
                threshold=0.5,
                state="answered",
                reason="",
            )
        )
    return pd.concat(parts, ignore_index=True)[list(PREDICTION_COLUMNS)]


MODELS: dict[str, dict[str, Any]] = {
    "constant": {"kind": "estimator", "strategy": "estimator", "title": "Majority class"},
    "technical": {"kind": "estimator", "strategy": "estimator", "title": "Technical covariates"},
    "hvg-logreg": {"kind": "estimator", "strategy": "estimator", "title": "Logistic regression"},
    "scgpt": {
        "kind": "model",
        "strategy": "frozen",
        "title": "scGPT",
        "weights": "random weights (untrained, means nothing)",
        "untrained": True,
        "citation": "Cui et al., Nature Methods 2024.",
        "coverage": (CoverageRecord(dataset="cohort", n_known=1200, n_genes=2000),),
    },
}
SIGNAL = {
    "pooled-group": {"constant": 0.0, "technical": 0.05, "hvg-logreg": 0.5, "scgpt": 0.1},
    "paper-pooled": {"constant": 0.0, "technical": 0.3, "hvg-logreg": 1.8, "scgpt": 0.8},
}


def make_run(
    folder: Path,
    *,
    names: str = "P{:02d}",
    signal: dict[str, dict[str, float]] = SIGNAL,
    protocols: tuple[ProtocolRecord, ...] = (SOUND, PAPER),
    **changes: Any,
) -> Path:
    """Fill a folder as a finished benchmark does."""
    from scdrugmap.evaluate.evaluate import evaluate
    from scdrugmap.evaluate.tables import write_metrics, write_predictions, write_splits

    folder.mkdir(parents=True, exist_ok=True)
    table = cells(names=names)
    metrics = []
    for item in protocols:
        if item.status == "refused":
            continue
        splits = split_of(table, item.name)
        predictions = pd.concat(
            [
                predictions_of(splits, model, MODELS[model]["strategy"], strength)
                for model, strength in signal[item.name].items()
            ],
            ignore_index=True,
        )
        write_splits(splits, folder / f"splits-{item.name}.tsv.gz")
        write_predictions(predictions, folder / f"predictions-{item.name}.tsv.gz")
        metrics.append(evaluate(predictions, splits, draws=50))
    write_metrics(pd.concat(metrics, ignore_index=True), folder / "metrics.tsv")
    random = np.random.default_rng(0)
    where = random.normal(0, 1, (N_PATIENTS, 2))[table["patient"]] * 4
    write_table(
        table[["dataset", "cell", "label", "group"]].assign(
            x=where[:, 0] + random.normal(0, 1, len(table)),
            y=where[:, 1] + random.normal(0, 1, len(table)),
        ),
        folder / CELL_MAP_FILE,
    )
    dataset = DatasetRecord(
        name="cohort",
        path="cohort.h5ad",
        n_cells=len(table),
        n_used=len(table),
        n_sensitive=int((table["label"] == "sensitive").sum()),
        n_resistant=int((table["label"] == "resistant").sum()),
        n_samples=N_PATIENTS,
        n_groups=N_PATIENTS,
        n_genes=2000,
        values="counts",
        location="X",
        gene_id="symbol",
        gene_counts={"exact": 1900, "alias": 60, "case": 0, "unmapped": 40, "joined": 3},
        notices=("3 duplicate gene names joined",),
    )
    values: dict[str, Any] = {
        "name": "hand-made",
        "config": {"folds": 3},
        "config_id": "0" * 64,
        "datasets": (dataset,),
        "models": tuple(ModelRecord(name=name, **MODELS[name]) for name in MODELS),
        "protocols": protocols,
        "cell_map": "First two principal components",
        "provenance": {"scdrugmap": "0.1.0"},
    }
    write_run(folder, RunRecord(**{**values, **changes}))
    return folder
