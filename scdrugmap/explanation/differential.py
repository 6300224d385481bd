"""Which genes are expressed differently in sensitive and resistant cells, whatever a model says.

Cells of one patient are not independent, and a test over cells takes them for it: its p-values are
far too small (Squair et al., Confronting false discoveries in single-cell differential expression,
Nature Communications 2021). So the units are samples wherever there are enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.baselines.expression import LIBRARY_SIZE
from scdrugmap.data.labels import RESISTANT, SENSITIVE
from scdrugmap.errors import DataError, UsageError
from scdrugmap.explanation.drawing import draw_evenly
from scdrugmap.explanation.expression import lognorm

if TYPE_CHECKING:
    import pandas as pd

    from scdrugmap.data.cells import Cells
    from scdrugmap.explanation.drawing import Drawn
    from scdrugmap.explanation.settings import TestUnit

SAMPLES, CELLS = "Welch t over samples", "Wilcoxon over cells"

LEAST_SAMPLES = 3
"""Samples of each label for a test over samples."""

LEAST_CELLS = 10
"""Cells of each label for a test over cells."""

MOST_CELLS = 2_000
"""Cells, drawn evenly over samples, of a test over cells: it needs them all at once."""

_GENES_AT_ONCE = 512


@dataclass(frozen=True)
class Differential:
    """Differences of expression.

    Attributes
    ----------
    table : pandas.DataFrame
        One row per gene of the file: ``de_effect`` (sensitive minus resistant, mean log1p of
        counts scaled to 10,000), ``de_statistic``, ``de_p``, ``de_q`` (Benjamini-Hochberg); NaN
        for genes that do not vary.
    test : str
        :data:`SAMPLES` or :data:`CELLS`.
    n_sensitive, n_resistant : int
        Units of the test.
    notices : tuple of str
    """

    table: pd.DataFrame
    test: str
    n_sensitive: int
    n_resistant: int
    notices: tuple[str, ...]


def differential_expression(
    cells: Cells, drawn: Drawn, *, unit: TestUnit = "auto", seed: int = 0
) -> Differential | None:
    """Compare the labels of a file, gene by gene.

    Parameters
    ----------
    cells : Cells
    drawn : Drawn
        Samples and labels of all its cells.
    unit : {"auto", "sample", "cell"}
        ``auto``: samples where each label has at least 3, else cells.
    seed : int
        Draws the cells of a test over cells.

    Returns
    -------
    Differential or None
        None without labels, or with too few of one, where nothing was asked for.

    Raises
    ------
    UsageError
        A unit is asked for, and there are no labels or no samples.
    DataError
        A unit is asked for, and there are too few of one label.
    """
    if not drawn.has_labels:
        if unit != "auto":
            raise UsageError(
                "a comparison with differential expression needs labels",
                hint="name their column: --label COLUMN",
            )
        return None
    if unit == "sample" and not drawn.has_samples:
        raise UsageError(
            "a test over samples needs samples", hint="name their column: --sample COLUMN"
        )
    labelled = np.flatnonzero(drawn.labels != "")
    names, labels = drawn.samples[labelled], drawn.labels[labelled]
    profiles = sorted(set(zip(names, labels, strict=True)) if drawn.has_samples else ())
    if unit != "cell":
        n = [sum(label == wanted for _, label in profiles) for wanted in (SENSITIVE, RESISTANT)]
        if min(n) >= LEAST_SAMPLES:
            return _over_samples(cells, labelled, names, labels, profiles)
        if unit == "sample":
            raise DataError(
                f"{n[0]} sensitive and {n[1]} resistant samples are too few for a test "
                f"({LEAST_SAMPLES} of each needed)",
                hint="try --de-unit cell, whose p-values are too small",
            )
    n = [int((labels == wanted).sum()) for wanted in (SENSITIVE, RESISTANT)]
    if min(n) < LEAST_CELLS:
        if unit == "cell":
            raise DataError(
                f"{n[0]} sensitive and {n[1]} resistant cells are too few for a test "
                f"({LEAST_CELLS} of each needed)"
            )
        return None
    return _over_cells(cells, labelled, names, labels, seed)


def _over_samples(
    cells: Cells,
    labelled: np.ndarray,
    names: np.ndarray,
    labels: np.ndarray,
    profiles: list[tuple[str, str]],
) -> Differential:
    from scipy.sparse import csr_matrix
    from scipy.stats import ttest_ind_from_stats

    place = {profile: number for number, profile in enumerate(profiles)}
    code = np.array([place[pair] for pair in zip(names, labels, strict=True)])
    total = np.zeros((len(profiles), cells.n_genes))
    start = 0
    for block in cells.blocks(index=labelled):
        stop = start + len(block.index)
        own = (np.ones(stop - start), (code[start:stop], np.arange(stop - start)))
        total += (csr_matrix(own, (len(profiles), stop - start)) @ block.rows).toarray()
        start = stop
    if cells.matrix.values == "counts":
        depth = total.sum(1, keepdims=True)
        x = np.log1p(total / np.maximum(depth, 1) * LIBRARY_SIZE)
    else:
        x = total / np.bincount(code, minlength=len(profiles))[:, None]
    sensitive = np.array([label == SENSITIVE for _, label in profiles])
    a, b = x[sensitive], x[~sensitive]
    varies = (a.std(0) > 0) | (b.std(0) > 0)
    statistic, p = np.full((2, cells.n_genes), np.nan)
    found = ttest_ind_from_stats(
        a.mean(0)[varies],
        a.std(0, ddof=1)[varies],
        len(a),
        b.mean(0)[varies],
        b.std(0, ddof=1)[varies],
        len(b),
        equal_var=False,
    )
    statistic[varies], p[varies] = found.statistic, found.pvalue
    table = _table(a.mean(0) - b.mean(0), statistic, p)
    return Differential(table, SAMPLES, len(a), len(b), ())


def _over_cells(
    cells: Cells, labelled: np.ndarray, names: np.ndarray, labels: np.ndarray, seed: int
) -> Differential:
    from scipy.stats import mannwhitneyu

    units = [f"{name}\0{label}" for name, label in zip(names, labels, strict=True)]
    chosen, _ = draw_evenly(units, MOST_CELLS, np.random.default_rng(seed))
    rows = lognorm(cells.rows(labelled[chosen]), cells.matrix.values).tocsc()
    sensitive = labels[chosen] == SENSITIVE
    effect, statistic, p = np.full((3, cells.n_genes), np.nan)
    for start in range(0, cells.n_genes, _GENES_AT_ONCE):
        block = rows[:, start : start + _GENES_AT_ONCE].toarray()
        a, b = block[sensitive], block[~sensitive]
        here = slice(start, start + block.shape[1])
        effect[here] = a.mean(0) - b.mean(0)
        varies = np.flatnonzero(block.std(0) > 0)
        if not len(varies):
            continue
        found = mannwhitneyu(a[:, varies], b[:, varies], axis=0, method="asymptotic")
        # As the chance that a sensitive cell has more of it, from -1 (never) to 1 (always).
        statistic[start + varies] = 2 * found.statistic / (len(a) * len(b)) - 1
        p[start + varies] = found.pvalue
    notice = (
        "differential expression is tested over cells, as if cells of one sample were independent: "
        "its p-values are too small"
    )
    n = int(sensitive.sum())
    return Differential(_table(effect, statistic, p), CELLS, n, len(sensitive) - n, (notice,))


def _table(effect: np.ndarray, statistic: np.ndarray, p: np.ndarray) -> pd.DataFrame:
    import pandas as pd
    from scipy.stats import false_discovery_control

    q = np.full(len(p), np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        q[tested] = false_discovery_control(p[tested])
    return pd.DataFrame({"de_effect": effect, "de_statistic": statistic, "de_p": p, "de_q": q})
