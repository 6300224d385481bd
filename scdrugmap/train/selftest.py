"""The self-test of a predictor: synthetic cells whose result is known and computed again first.

One mechanism that notices an edited tokenizer, other weights, and drift of a library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.errors import PluginError
from scdrugmap.train.record import SelfTestInfo

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scdrugmap.data.genes import Genes
    from scdrugmap.specs import Values
    from scdrugmap.train.scores import Scorer, Trial

N_CELLS = 8
STOP_ABOVE = 1e-3
WARN_ABOVE = 1e-5

_LIBRARY_SIZE = 1e4


def synthetic_values(n_genes: int, values: Values) -> np.ndarray:
    """Draw the cells ((8, n_genes) float32); they are stored, so nobody has to draw them again."""
    random = np.random.default_rng(0)
    counts = random.poisson(random.gamma(0.3, 3.0, (N_CELLS, n_genes))).astype(np.float32)
    counts[np.arange(N_CELLS), np.arange(N_CELLS) % n_genes] += 1  # no cell is empty
    if values == "lognorm":
        counts = np.log1p(counts / counts.sum(1, keepdims=True) * _LIBRARY_SIZE)
    return counts.astype(np.float32)


def spread(names: np.ndarray, most: int) -> np.ndarray:
    """Take at most `most` names, evenly spread."""
    if len(names) <= most:
        return names
    return names[np.linspace(0, len(names) - 1, most).astype(np.int64)]


def try_cells(scorer: Scorer, genes: tuple[str, ...], values: np.ndarray) -> Trial:
    """Predict the synthetic cells."""
    rows, columns = _cells(genes, values)
    return scorer.trial(
        rows, columns, np.array([f"self-test {i}" for i in range(len(values))], object)
    )


def describe(trial: Trial, genes: tuple[str, ...]) -> SelfTestInfo:
    """Record what came out."""
    p = tuple(None if np.isnan(value) else float(value) for value in trial.p)
    return SelfTestInfo(genes=genes, tokens=trial.tokens, p_sensitive=p)


def compare(trial: Trial, expected: SelfTestInfo, what: str) -> float:
    """Return the largest difference of a probability from what the predictor recorded.

    Raises
    ------
    PluginError
        The tokens differ, or a probability by more than 1e-3.
    """
    hint = "train it again, or install the versions that it names (`scdrugmap predictor show`)"
    if trial.tokens != expected.tokens:
        differ = sum(a != b for a, b in zip(trial.tokens, expected.tokens, strict=False))
        differ += abs(len(trial.tokens) - len(expected.tokens))
        raise PluginError(
            f"the self-test of {what} fails: {differ} of {len(expected.tokens)} synthetic cells "
            "have other tokens than when it was trained",
            hint=hint,
        )
    recorded = np.array([np.nan if p is None else p for p in expected.p_sensitive])
    if len(recorded) != len(trial.p) or (np.isnan(recorded) != np.isnan(trial.p)).any():
        raise PluginError(
            f"the self-test of {what} fails: other synthetic cells are usable", hint=hint
        )
    difference = float(np.nanmax(np.abs(recorded - trial.p), initial=0.0))
    if difference > STOP_ABOVE:
        raise PluginError(
            f"the self-test of {what} fails: p_sensitive of synthetic cells differs by "
            f"{difference:.2g} from when it was trained (at most {STOP_ABOVE:g})",
            hint=hint,
        )
    return difference


def _cells(genes: tuple[str, ...], values: np.ndarray) -> tuple[csr_matrix, Genes]:
    from scipy.sparse import csr_matrix

    from scdrugmap.data.genes import Genes

    rows = csr_matrix(values)
    rows.sort_indices()
    return rows, Genes.from_names(genes, kind="ensembl")
