"""One row per sample: how many of its cells are sensitive, and whether that can be relied on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.train.domain import EDGE, outside

if TYPE_CHECKING:
    import pandas as pd

MIN_CELLS = 30
"""Fewest answered cells of a sample that something is said about; as for metrics of cells."""

FAR_SHARE = 0.1
"""Share of cells outside the 99 % distance from which on a sample is warned about: ten times that
of the training cells."""

CONFIDENCE = 0.95

_MOST_NAMED = 5


def summarise(
    cells: pd.DataFrame,
    domain: np.ndarray,
    *,
    min_cells: int = MIN_CELLS,
    of_samples: bool = False,
) -> pd.DataFrame:
    """Sum predictions up per sample.

    Parameters
    ----------
    cells : pandas.DataFrame
        ``predictions.tsv``, text as it is or as categories in the order of their names.
    domain : (n,) float32
        Of each cell; NaN: not known.
    min_cells : int
        Samples with fewer answered cells get no figure.
    of_samples : bool
        The predictor answers for a whole sample: its cells are one answer, without an interval.

    Returns
    -------
    pandas.DataFrame
        Ordered by dataset and sample: ``dataset``, ``sample`` (``""``: cells of no known sample),
        ``n``, ``n_invalid``, ``n_sensitive``, ``share_sensitive`` with ``share_low`` and
        ``share_high`` (95 % Wilson interval: as if the sample were sequenced again, given the
        predictor), ``mean_p``, ``n_train`` (cells that were trained on), ``share_outside`` (cells
        further from the training cells than 99 % of those), ``state`` (``answered`` or
        ``refused``) and ``reason`` (``no_answer``, ``few_cells``). Figures are NaN where refused.
    """
    import pandas as pd

    answered = (cells["state"] == "answered").to_numpy()
    called = answered & (cells["p_sensitive"] >= cells["threshold"]).to_numpy()
    frame = pd.DataFrame(
        {
            "answered": answered,
            "called": called,
            "p": cells["p_sensitive"].where(answered),
            "train": (cells["role"] == "train").to_numpy(),
            "far": np.where(np.isnan(domain), np.nan, outside(domain)),
        }
    )
    keys = [cells[name].astype("category") for name in ("dataset", "sample")]
    groups = frame.groupby(keys, sort=True, observed=True)
    n, k, n_answered = groups.size(), groups["called"].sum(), groups["answered"].sum()
    enough = n_answered >= max(min_cells, 1)
    low, high = _wilson(k.to_numpy(), n_answered.to_numpy(), enough.to_numpy() & (not of_samples))
    table = pd.DataFrame(
        {
            "n": n,
            "n_invalid": n - n_answered,
            "n_sensitive": k,
            "share_sensitive": (k / n_answered).where(enough),
            "share_low": low,
            "share_high": high,
            "mean_p": groups["p"].mean().where(enough),
            "n_train": groups["train"].sum(),
            "share_outside": groups["far"].mean(),
            "state": np.where(enough, "answered", "refused"),
            "reason": np.where(enough, "", np.where(n_answered == 0, "no_answer", "few_cells")),
        }
    )
    return table.reset_index().astype({"dataset": object, "sample": object})


def _wilson(k: np.ndarray, n: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the interval of a share of `k` in `n`, NaN where not wanted ((m,) float each)."""
    from scipy.stats import binomtest

    low, high = np.full((2, len(k)), np.nan)
    for i in np.flatnonzero(wanted):
        found = binomtest(int(k[i]), int(n[i])).proportion_ci(CONFIDENCE, "wilson")
        low[i], high[i] = found.low, found.high
    return low, high


def sample_lines(samples: pd.DataFrame, min_cells: int, most: int = 20) -> list[str]:
    """Return the table of samples as lines for a terminal; at most `most` samples."""
    lines = []
    for row in samples.head(most).to_dict("records"):
        name, n, n_invalid = row["sample"] or "all cells", row["n"], row["n_invalid"]
        if row["reason"] == "no_answer":
            lines.append(f"{name}: {n:,} cells, none could be predicted")
            continue
        if row["reason"] == "few_cells":
            lines.append(
                f"{name}: {n - n_invalid:,} of {n:,} cells answered, too few to say anything of "
                f"the sample ({min_cells:,} needed, --min-cells)"
            )
            continue
        interval = ""
        if not np.isnan(row["share_low"]):
            interval = f", 95% interval {row['share_low']:.0%} to {row['share_high']:.0%}"
        invalid = f", {n_invalid:,} not predicted" if n_invalid else ""
        far = f", {row['share_outside']:.0%} far off" if row["share_outside"] > FAR_SHARE else ""
        lines.append(
            f"{name}: {row['n_sensitive']:,} of {n - n_invalid:,} cells sensitive "
            f"({row['share_sensitive']:.0%}{interval}), mean p {row['mean_p']:.2f}{invalid}{far}"
        )
    if len(samples) > most:
        lines.append(f"... and {len(samples) - most:,} more samples")
    return lines


def far_notices(samples: pd.DataFrame) -> list[str]:
    """Say in plain words which samples are unlike anything that was trained on.

    Samples of which nothing is said for want of cells are left out here, too.
    """
    far = samples.loc[(samples["share_outside"] > FAR_SHARE) & (samples["state"] == "answered")]
    if far.empty:
        return []
    named = [
        f"{row['sample'] or 'all cells'} ({row['share_outside']:.0%})"
        for row in far.head(_MOST_NAMED).to_dict("records")
    ]
    if len(far) > _MOST_NAMED:
        named.append(f"{len(far) - _MOST_NAMED:,} more")
    notice = (
        f"do not rely on what is predicted for {', '.join(named)}: more than {FAR_SHARE:.0%} of "
        f"the cells lie further from the training cells than {EDGE:.0%} of those do, so the "
        "predictor has seen little like them"
    )
    return [notice]
