"""The tables behind the figures: curves, bins and counts of one model under one protocol."""

from __future__ import annotations

import numpy as np
import pandas as pd

MOST_POINTS = 160
"""Points kept of a curve: more cannot be seen at the size it is drawn."""

MIN_CELLS_PER_SAMPLE = 10
"""Fewest cells of a sample for a share to be shown."""

_Z = 1.959964  # 95 % of a normal distribution


def score_table(predictions: pd.DataFrame, splits: pd.DataFrame) -> pd.DataFrame:
    """Join the test rows of predictions with their labels.

    Parameters
    ----------
    predictions : DataFrame
        Rows of ``predictions.tsv`` of one protocol.
    splits : DataFrame
        Its ``splits.tsv``.

    Returns
    -------
    DataFrame
        The predictions with ``label``, ``group``, ``y`` (1.0 = sensitive) and ``p``: p_sensitive,
        0.5 where a cell has no answer.
    """
    from scdrugmap.data.labels import target

    known = splits.loc[splits["role"] == "test", ["dataset", "cell", "fold", "label", "group"]]
    scored = predictions[predictions["role"] == "test"].merge(
        known, on=["dataset", "cell", "fold"], how="inner", validate="many_to_one"
    )
    answered = scored["state"] == "answered"
    scored["p"] = scored["p_sensitive"].where(answered, 0.5).fillna(0.5)
    scored["y"] = target(scored["label"].to_numpy(object))
    return scored


def roc_points(scored: pd.DataFrame) -> pd.DataFrame:
    """Return ROC points per fold and of all folds together (fold ``all``)."""
    from sklearn.metrics import roc_curve

    return _per_fold(
        scored,
        lambda y, p: roc_curve(y, p)[:2],
        ("false_positive_rate", "true_positive_rate"),
    )


def precision_recall_points(scored: pd.DataFrame) -> pd.DataFrame:
    """Return precision and recall of the sensitive class per fold and of all folds together."""
    from sklearn.metrics import precision_recall_curve

    def curve(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        precision, recall, _ = precision_recall_curve(y, p)
        return recall[::-1], precision[::-1]

    return _per_fold(scored, curve, ("recall", "precision"))


def _per_fold(scored: pd.DataFrame, curve: object, names: tuple[str, str]) -> pd.DataFrame:
    assert callable(curve)
    parts = []
    folds: list[tuple[str, pd.DataFrame]] = [
        (str(fold), rows) for fold, rows in scored.groupby("fold", sort=True)
    ]
    for fold, rows in [*folds, ("all", scored)]:
        y = rows["y"].to_numpy(float)
        if len(np.unique(y)) < 2:
            continue  # no curve without both classes; the metrics table says why
        first, second = curve(y, rows["p"].to_numpy(float))
        keep = np.unique(np.linspace(0, len(first) - 1, MOST_POINTS).astype(int))
        parts.append(
            pd.DataFrame(
                {"fold": fold, names[0]: first[keep].round(5), names[1]: second[keep].round(5)}
            )
        )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["fold", *names])


def calibration_bins(scored: pd.DataFrame) -> pd.DataFrame:
    """Return the bins of the calibration error: p_mean, share_sensitive, low, high, n."""
    from scdrugmap.evaluation.metrics import reliability

    bins = reliability(
        truth=(scored["y"] == 1).to_numpy(bool), p_sensitive=scored["p"].to_numpy(float)
    )
    sides = [
        wilson(float(share), int(n))
        for share, n in zip(bins["share_sensitive"], bins["n"], strict=True)
    ]
    bins.insert(2, "low", [low for low, _ in sides])
    bins.insert(3, "high", [high for _, high in sides])
    return bins


def confusion_counts(scored: pd.DataFrame) -> pd.DataFrame:
    """Return four rows: label, call, n, share_of_label. A cell without an answer is called wrong."""
    called = (scored["p"] >= scored["threshold"]).to_numpy()
    truth = (scored["y"] == 1).to_numpy()
    unanswered = (scored["state"] != "answered").to_numpy()
    called = np.where(unanswered, ~truth, called)
    rows = []
    for label, is_label in (("sensitive", truth), ("resistant", ~truth)):
        for call, is_call in (("sensitive", called), ("resistant", ~called)):
            n = int((is_label & is_call).sum())
            rows.append((label, call, n, n / is_label.sum() if is_label.any() else np.nan))
    return pd.DataFrame(rows, columns=["label", "call", "n", "share_of_label"])


def sample_bars(scored: pd.DataFrame) -> pd.DataFrame:
    """Return per sample the share of cells called sensitive with a 95 % interval over its cells.

    Columns dataset, sample, label, n, share, low, high; NaN under `MIN_CELLS_PER_SAMPLE` cells.
    Sensitive samples first, in each class by falling share.
    """
    called = (scored["p"] >= scored["threshold"]).astype(float)
    rows = []
    for (dataset, sample), part in scored.assign(called=called).groupby(["dataset", "sample"]):
        n = len(part)
        share = float(part["called"].mean()) if n >= MIN_CELLS_PER_SAMPLE else np.nan
        low, high = wilson(share, n)
        label = str(part["label"].mode().iloc[0]) if part["label"].nunique() == 1 else "mixed"
        rows.append((str(dataset), str(sample), label, n, share, low, high))
    bars = pd.DataFrame(rows, columns=["dataset", "sample", "label", "n", "share", "low", "high"])
    return bars.sort_values(
        ["label", "share", "sample"], ascending=[False, False, True], ignore_index=True
    )


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share of n; NaN for a NaN share."""
    if n == 0 or not np.isfinite(share):
        return float("nan"), float("nan")
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))
