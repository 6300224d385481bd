"""What the properties are tried on: how often, and strategies for cells, names and labels.

``HYPOTHESIS_PROFILE=long`` tries 200 random examples of each property; otherwise a few, the same
in every run.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from hypothesis import Phase, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from scdrugmap.data.genes import gene_table

EXAMPLES_OF_LONG = 200
IS_LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"


def tried(examples: int) -> settings:
    """Try a property so often in CI, and 200 times in the long form, which also shrinks failures."""
    return settings(
        phases=list(Phase) if IS_LONG else [Phase.explicit, Phase.generate],
        max_examples=EXAMPLES_OF_LONG if IS_LONG else examples,
        derandomize=not IS_LONG,
        deadline=None,
        database=None,
    )


QUICK, SLOW, FILES = tried(25), tried(8), tried(3)
"""For arithmetic; for what runs models or writes files; for what opens files of cells, each of which
is looked at by a process of its own."""

KNOWN_GENES = gene_table().names("symbol")[2000:2600]

seeds = st.integers(0, 2**32 - 1)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
"""Any text that UTF-8 can hold, control characters included."""

hostile_names = st.one_of(
    texts.filter(bool),
    st.sampled_from(
        [
            *("a\tb", "a\nb", "\r", "=cmd()", "+1", "-1", "@x", "'=x", "''", "\\t", "\\", "#"),
            *("<script>alert(1)</script>", "../../etc", "nan", "NA", "null", "0012", "1e5", "True"),
            *(" lead", "trail ", "\ufeffmark", "\u202eturn", '"', "a,b", "\x00", "\x1b[31m"),
        ]
    ),
)
"""Names that break tables which are written without care."""

cell_names = hostile_names.filter(lambda name: "\0" not in name)
"""Names of cells, samples, models and the like: those with a NUL are refused where they are read."""

numbers = st.floats(allow_nan=False, allow_infinity=False)
probabilities = st.floats(0, 1, width=32)


def counts(n_cells: int, n_genes: int, seed: int, *, empty: bool = False) -> np.ndarray:
    """Make counts ((n, G) float32), most of them zero; no cell without any unless `empty`."""
    random = np.random.default_rng(seed)
    made = random.poisson(0.8, (n_cells, n_genes)) * random.integers(1, 4, (n_cells, n_genes))
    if not empty:
        made[:, random.integers(n_genes)] += 1
    return made.astype(np.float32)


def cells(
    n_cells: int = 9, n_genes: int = 40, seed: int = 0, matrix: Any = None, **obs: Any
) -> AnnData:
    """Make cells of known genes; `matrix` replaces the counts."""
    names = [f"cell {number}" for number in range(n_cells)]
    return AnnData(
        csr_matrix(counts(n_cells, n_genes, seed)) if matrix is None else matrix,
        obs=pd.DataFrame(obs, index=names),
        var=pd.DataFrame(index=list(KNOWN_GENES[:n_genes])),
    )


@st.composite
def orders(draw: st.DrawFn, n: int) -> np.ndarray:
    """Draw an order of `n` things."""
    return np.array(draw(st.permutations(range(n))), np.int64)


@st.composite
def scored(draw: st.DrawFn, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Draw truth ((n,) bool, both classes) and probabilities ((n,) float64, with ties)."""
    n = draw(st.integers(2 * least, 40))
    truth = np.array([True] * least + [False] * least + [draw(st.booleans()) for _ in range(n)])
    p = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]) | probabilities
    return truth, np.array([draw(p) for _ in truth], np.float64)
