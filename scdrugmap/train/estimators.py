"""The strategy ``estimator``: a predictor trained from expression alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from scdrugmap.errors import DataError
from scdrugmap.specs import EstimatorSpec, Options, Values, load_object
from scdrugmap.train.gather import Chosen, read_rows, shared_genes
from scdrugmap.train.scores import FEW_COUNTS, NO_KNOWN_GENES, GeneCoverage, Scores, Trial
from scdrugmap.train.state import dump_state, load_state

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scdrugmap.baselines.estimator import Estimator
    from scdrugmap.data.cells import Cells
    from scdrugmap.data.genes import Genes

STATE_FILE = "estimator.skops"
MOST_MISSING = 0.2
"""Largest share of the needed genes that a file may lack."""

_SAMPLES_AT_ONCE = 256


class EstimatorScorer:
    """A fitted estimator and what it was fitted on.

    Parameters
    ----------
    spec : EstimatorSpec
    estimator : Estimator
    values : {"counts", "lognorm"}
        What the training cells held.
    """

    def __init__(self, spec: EstimatorSpec, estimator: Estimator, values: Values) -> None:
        self.spec, self.estimator, self.values = spec, estimator, values

    @classmethod
    def restored(
        cls, spec: EstimatorSpec, options: Options, seed: int, values: Values, state: bytes
    ) -> EstimatorScorer:
        """Return the scorer whose :meth:`files` held `state`.

        Raises
        ------
        DataError
            The state is damaged or of another estimator.
        """
        estimator: Estimator = load_object(spec.factory)(options, seed)
        content = load_state(state, STATE_FILE)
        try:
            estimator.restore(content)
        except (KeyError, TypeError, ValueError) as err:
            raise DataError(
                f"{STATE_FILE} is not the state of {spec.name}: {' '.join(str(err).split())}",
                hint="train the predictor again",
            ) from err
        return cls(spec, estimator, values)

    def files(self) -> dict[str, bytes]:
        """Return the state."""
        return {STATE_FILE: dump_state(self.estimator.state())}

    def scores(
        self,
        cells: Cells,
        *,
        index: np.ndarray | None = None,
        samples: np.ndarray | None = None,
        quiet: bool = False,
    ) -> Scores:
        """Predict cells of a file; see :class:`~scdrugmap.train.scores.Scorer`."""
        values = cast("Values", cells.matrix.values)
        coverage, notices = self._check_genes(cells)
        if index is None:
            index = np.arange(cells.n_cells)
        if self.spec.level == "sample" and samples is not None:
            p, empty = self._by_sample(cells, index, samples, values)
        else:
            if self.spec.level == "sample":
                notices.append(
                    f"{cells.name}: no samples are known, so {self.spec.name} takes each cell as a "
                    "sample of its own; name the column with --sample"
                )
            p, empty = self._by_cell(cells, index, values)
        words = np.array(["", NO_KNOWN_GENES, FEW_COUNTS], object)
        return Scores(
            np.where(empty, np.nan, p).astype(np.float32),
            words[np.where(empty, 2, np.isnan(p))],
            tuple(notices),
            coverage=coverage,
        )

    def trial(self, rows: csr_matrix, genes: Genes, names: np.ndarray) -> Trial:
        """Predict synthetic cells."""
        return Trial(self.estimator.predict(rows, genes, values=self.values))

    def _by_cell(
        self, cells: Cells, index: np.ndarray, values: Values
    ) -> tuple[np.ndarray, np.ndarray]:
        p = np.full(len(index), np.nan, np.float32)
        empty = np.zeros(len(index), bool)
        start = 0
        for block in cells.blocks(index=index):
            stop = start + len(block.index)
            p[start:stop] = self.estimator.predict(block.rows, cells.genes, values=values)
            empty[start:stop] = np.diff(block.rows.indptr) == 0
            start = stop
        return p, empty

    def _by_sample(
        self, cells: Cells, index: np.ndarray, samples: np.ndarray, values: Values
    ) -> tuple[np.ndarray, np.ndarray]:
        """Give each cell the probability of its sample's profile, some samples at a time."""
        code, _ = _codes(samples)
        alone = samples == ""
        code, _ = _codes(np.where(alone, -1 - np.arange(len(code)), code))
        p = np.full(len(index), np.nan, np.float32)
        empty = np.zeros(len(index), bool)
        order = np.argsort(code, kind="stable")
        borders = np.searchsorted(
            code[order], np.arange(0, code.max(initial=-1) + 1, _SAMPLES_AT_ONCE)
        )
        for part in np.split(order, borders[1:]):
            part = np.sort(part)  # file order reads fast
            codes = code[part] - code[part].min()
            total = None
            start = 0
            for block in cells.blocks(index=index[part]):
                stop = start + len(block.index)
                empty[part[start:stop]] = np.diff(block.rows.indptr) == 0
                summed = _sum_rows(block.rows, codes[start:stop], codes.max() + 1)
                total = summed if total is None else total + summed
                start = stop
            profiles = _profiles(total, codes, values)
            p[part] = self.estimator.predict(profiles, cells.genes, values=values)[codes]
        return p, empty

    def _check_genes(self, cells: Cells) -> tuple[GeneCoverage, list[str]]:
        """Count the genes that the file lacks, and say how many.

        Raises
        ------
        DataError
            More than 20 % are missing.
        """
        needed = self.estimator.genes
        missing = ~np.isin(needed.astype(str), cells.genes.identity().astype(str))
        n = int(missing.sum())
        coverage = GeneCoverage(cells.n_genes, len(needed) - n, len(needed))
        if n > MOST_MISSING * len(needed):
            raise DataError(
                f"{cells.name} lacks {n:,} of the {len(needed):,} genes that the predictor reads "
                f"({n / len(needed):.0%}; at most {MOST_MISSING:.0%} may be missing)",
                hint="give a file with all genes (not only variable ones), or try --gene-id",
            )
        notice = (
            f"{cells.name} lacks {n:,} of the {len(needed):,} genes that the predictor reads; the "
            "mean of the training cells stands for them"
        )
        return coverage, [notice] if n else []


def fit_estimator(
    spec: EstimatorSpec, options: Options, chosen: Sequence[Chosen], seed: int, values: Values
) -> tuple[EstimatorScorer, list[Chosen], Genes]:
    """Fit an estimator on training cells.

    Parameters
    ----------
    spec : EstimatorSpec
    options : Options
    chosen : sequence of Chosen
        Training cells of one or more files; both labels occur.
    seed : int
    values : {"counts", "lognorm"}

    Returns
    -------
    scorer : EstimatorScorer
    used : list of Chosen
        The cells without those that have no counts in the shared genes.
    genes : Genes
        The genes that all files share.

    Raises
    ------
    DataError
        The files share no gene, or one label is left.
    """
    genes, columns = shared_genes(chosen)
    rows = read_rows(chosen, columns)
    filled = np.diff(rows.indptr) > 0
    used = []
    start = 0
    for part in chosen:
        stop = start + len(part.index)
        used.append(part.take(np.flatnonzero(filled[start:stop])))
        start = stop
    rows = rows[np.flatnonzero(filled)]
    y = np.concatenate([part.y for part in used])
    groups = np.concatenate([part.groups for part in used])
    if not 0 < y.sum() < len(y):
        raise DataError(
            f"{int((~filled).sum()):,} training cells have no counts in the genes that all files "
            "share; those left have one label only",
            hint="look at the files with `scdrugmap check`",
        )
    if spec.level == "sample":
        samples = np.concatenate([part.samples for part in used])
        # A sample with cells of both labels is two profiles: a label belongs to all of a profile.
        marked = samples + np.where(y > 0, "\0s", "\0r").astype(object)
        code, first = _codes(marked)
        rows = _profiles(_sum_rows(rows, code, len(first)), code, values)
        y, groups = y[first], groups[first]
    estimator: Estimator = load_object(spec.factory)(options, seed)
    estimator.fit(rows, genes, y, groups.astype(str), values=values)
    return EstimatorScorer(spec, estimator, values), used, genes


def _codes(names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number names or numbers by first appearance.

    Returns
    -------
    code : (n,) int64
    first : (m,) int64
        Where each of the `m` different names comes first.
    """
    number: dict[object, int] = {}  # pandas takes two texts that differ behind a NUL for one
    code = np.fromiter((number.setdefault(name, len(number)) for name in names), np.int64)
    first = np.full(len(number), len(code))
    np.minimum.at(first, code, np.arange(len(code)))
    return code, first


def _sum_rows(rows: csr_matrix, code: np.ndarray, n: int) -> Any:
    """Add up rows of the same number: (n, n_genes) CSR float64."""
    from scipy.sparse import csr_matrix

    members = csr_matrix((np.ones(len(code)), (code, np.arange(len(code)))), (n, len(code)))
    return members @ rows


def _profiles(total: Any, code: np.ndarray, values: Values) -> csr_matrix:
    """Return sums of counts as they are, sums of log-normalised values as means; float32."""
    from scipy.sparse import csr_matrix, diags

    if values != "counts":
        total = diags(1.0 / np.bincount(code)) @ total
    profiles = csr_matrix(total, dtype=np.float32)
    profiles.sort_indices()
    return profiles
