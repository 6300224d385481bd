"""Seeds that predict the same are scored once, and the table is that of scoring each."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scdrugmap.evaluation import evaluate as evaluation
from scdrugmap.evaluation.design import Design
from scdrugmap.evaluation.splits import make_split
from scdrugmap.run.score import score


@pytest.fixture
def splits() -> pd.DataFrame:
    n = 240
    frame = pd.DataFrame(
        {
            "dataset": "d",
            "cell": [f"c{i:03d}" for i in range(n)],
            "sample": np.repeat([f"P{i}" for i in range(8)], n // 8),
            "donor": np.repeat([f"P{i}" for i in range(8)], n // 8),
            "study": "d",
            "label": np.repeat(["sensitive", "resistant"] * 4, n // 8),
            "fingerprint": "",
        }
    )
    return make_split(Design(frame), "pooled-group", folds=2).table


def predictions(splits: pd.DataFrame) -> pd.DataFrame:
    """Return a model that does not depend on the seed, and one that does."""
    test = splits[splits["role"] == "test"]
    fixed = np.random.default_rng(9).random(len(test))
    parts = []
    for model in ("fixed", "varying"):
        for seed in (0, 1, 2):
            p = fixed if model == "fixed" else np.random.default_rng(seed).random(len(test))
            parts.append(
                test[["dataset", "cell", "sample", "fold", "role"]].assign(
                    model=model,
                    strategy="estimator",
                    seed=seed,
                    p_sensitive=p,
                    threshold=0.5,
                    state="answered",
                    reason="",
                )
            )
    return pd.concat(parts, ignore_index=True)


def test_the_table_is_the_one_of_scoring_every_seed(
    splits: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = predictions(splits)
    whole = evaluation.evaluate(table, splits, draws=20)
    scored: list[int] = []
    evaluate = evaluation.evaluate

    def counted(rows: pd.DataFrame, *args: object, **named: object) -> pd.DataFrame:
        scored.append(len(rows.drop_duplicates(["model", "seed"])))
        return evaluate(rows, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluation, "evaluate", counted)
    found = score(table, splits, 20)
    pd.testing.assert_frame_equal(found, whole)
    assert scored == [4]
    assert found.attrs["notices"] == whole.attrs["notices"]
