"""One predictor explained on the cells of one file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scdrugmap.data.labels import RESISTANT, SENSITIVE
from scdrugmap.errors import DataError
from scdrugmap.explanation.drawing import N_DRAWS
from scdrugmap.explanation.expression import lognorm
from scdrugmap.explanation.methods import make_method, permutation_of
from scdrugmap.explanation.stability import spearman
from scdrugmap.explanation.summed import ALL, Stratum, Sums
from scdrugmap.progress import Progress
from scdrugmap.train.calibration import scale

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scdrugmap.data.cells import Cells
    from scdrugmap.data.genes import Genes
    from scdrugmap.explanation.attributed import Method
    from scdrugmap.explanation.drawing import Drawn
    from scdrugmap.explanation.settings import Explaining
    from scdrugmap.train.predictor import Predictor
    from scdrugmap.train.record import PredictorInfo
    from scdrugmap.train.scores import Scorer

MOST_SAMPLES = 100
"""Samples, those with most cells, that get a table of their own."""

ROUGH = 0.05
"""Median relative error of completeness above which attributions are warned about."""


@dataclass(frozen=True)
class Explained:
    """What is known of one predictor.

    Attributes
    ----------
    name : str
        Of the predictor among others.
    info : PredictorInfo
    method, unit : str
    sums : Sums
    genes : Genes
        Of the file.
    coefficients : (n_genes,) float64 or None
    permuted : (n_genes,) float64
        Mean absolute change of p_sensitive by a permutation of the gene; NaN: not tried.
    agreement : float
        Rank correlation of attributions and permutation over the genes that were tried.
    error : float
        Median over cells of the relative error of completeness; NaN: there is no such thing.
    n_cells, n_unusable, n_train : int
        Cells explained; those that cannot be predicted; those that it was trained on.
    notices : tuple of str
    """

    name: str
    info: PredictorInfo
    method: str
    unit: str
    sums: Sums
    genes: Genes
    coefficients: np.ndarray | None
    permuted: np.ndarray
    agreement: float
    error: float
    n_cells: int
    n_unusable: int
    n_train: int
    notices: tuple[str, ...]

    def importances(self, stratum: Stratum = ALL) -> dict[str, float]:
        """Return the mean absolute attribution of each gene that was read, by its identity."""
        read = np.flatnonzero(self.sums.read)
        names = self.genes.identity()[read]
        return dict(zip(names, self.sums.importance(stratum)[read].tolist(), strict=True))

    def record(self) -> dict[str, Any]:
        """Return what decided the attributions and how exact they are, JSON-able."""
        info = self.info
        return {
            "predictor": self.name,
            "model": info.name,
            "strategy": info.strategy,
            "seed": info.seed,
            "fold": info.split.fold,
            "split_id": info.split.split_id,
            "method": self.method,
            "unit": self.unit,
            "n_cells": self.n_cells,
            "n_unusable": self.n_unusable,
            "n_train": self.n_train,
            "n_genes": int(self.sums.read.sum()),
            "completeness_error": _number(self.error),
            "permutation": {
                "n_genes": int((~np.isnan(self.permuted)).sum()),
                "spearman": _number(self.agreement),
            },
            "notices": list(self.notices),
        }


def explain_cells(
    name: str,
    predictor: Predictor,
    scorer: Scorer,
    cells: Cells,
    drawn: Drawn,
    settings: Explaining,
    *,
    quiet: bool = False,
) -> Explained:
    """Explain one predictor on drawn cells, in bounded memory.

    Raises
    ------
    DataError
        None of the cells can be predicted.
    """
    info = predictor.info
    rows = cells.rows(drawn.index)
    names, groups = cells.names[drawn.index], drawn.samples[drawn.index]
    expression = lognorm(rows, cells.matrix.values)
    method, said = make_method(scorer, info, cells, expression, settings, quiet=quiet)
    notices = list(said)
    if method.grouped:
        notices.append(
            f"{info.name} reads cells together: they are explained among the drawn cells "
            f"{'of their sample' if drawn.has_samples else 'in file order'}, and what a gene does "
            "to the other cells counts too"
        )
    sums = Sums(_strata(drawn), cells.n_genes)
    errors, p = _sum_up(method, info, rows, names, groups, expression, drawn, sums, quiet=quiet)
    unusable = int(np.isnan(p).sum())
    if unusable == len(p):
        raise DataError(
            f"{info.name} can predict none of the {len(p):,} drawn cells of {cells.where}",
            hint="see `scdrugmap check` for the genes that it knows",
        )
    if unusable:
        notices.append(f"{unusable:,} cells without a known gene are left out")
    error = float(np.nanmedian(errors)) if not np.isnan(errors).all() else float("nan")
    if error > ROUGH:
        notices.append(
            f"the attributions of {info.name} miss the answers by {error:.0%} (median over cells): "
            "take more --steps, or --baseline mean"
        )
    permuted = np.full(cells.n_genes, np.nan)
    agreement = float("nan")
    if method.name == "permutation":
        read = sums.read
        permuted[read] = sums.importance()[read]
    elif settings.check_genes:
        columns = _genes_to_check(sums, settings)
        check = permutation_of(scorer, info, cells, columns, settings.seed, quiet=quiet)
        usable = np.flatnonzero(~np.isnan(p))
        changes = check.changes(rows[usable], names[usable], groups[usable], p[usable])
        permuted[columns] = np.abs(changes[:, columns].toarray()).mean(0)
        agreement = spearman(sums.importance()[columns], permuted[columns])
    trained_on = predictor.is_training_cell(cells.subset(drawn.index).hashes())
    return Explained(
        name,
        info,
        method.name,
        method.unit,
        sums,
        cells.genes,
        method.coefficients,
        permuted,
        agreement,
        error,
        len(p),
        unusable,
        int(trained_on.sum()),
        tuple(notices),
    )


def _sum_up(
    method: Method,
    info: PredictorInfo,
    rows: csr_matrix,
    names: np.ndarray,
    groups: np.ndarray,
    expression: csr_matrix,
    drawn: Drawn,
    sums: Sums,
    *,
    quiet: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Add all cells to the sums; return relative errors and probabilities ((n,) float64 each)."""
    n = len(names)
    errors, p = np.full((2, n), np.nan)
    labels = drawn.labels[drawn.index]
    temperature = info.calibration.temperature if info.calibration else 1.0
    # A permutation counts genes, and shows its own progress.
    quiet = quiet or method.name == "permutation"
    with Progress(f"explain {info.name}", n, "cells", quiet=quiet) as progress:
        for part in method.attribute(rows, names, groups):
            errors[part.cells], p[part.cells] = part.error, part.p
            usable = np.flatnonzero(~np.isnan(part.p))
            own = part.cells[usable]
            called = scale(part.p[usable].astype(np.float32), temperature) >= info.threshold.value
            classes = np.where(called, SENSITIVE, RESISTANT)
            if drawn.has_labels:
                classes = labels[own]
            members: list[list[Stratum]] = [
                [
                    ALL,
                    ("class", str(classes[place])),
                    ("sample", str(groups[cell])),
                    ("draw", str(drawn.draw[cell])),
                ]
                for place, cell in enumerate(own)
            ]
            sums.add(members, part.values[usable], expression[own])
            progress.advance(len(part.cells))
    return errors, p


def _strata(drawn: Drawn) -> list[Stratum]:
    """Return the sets of cells that are summed up; of many samples those with most cells."""
    found: list[Stratum] = [ALL, ("class", SENSITIVE), ("class", RESISTANT)]
    if drawn.has_samples:
        names, counts = np.unique(drawn.samples[drawn.index].astype(str), return_counts=True)
        order = np.argsort(-counts, kind="stable")[:MOST_SAMPLES]
        found += [("sample", str(name)) for name in np.sort(names[order]) if name]
    return found + [("draw", str(number)) for number in range(N_DRAWS)]


def _genes_to_check(sums: Sums, settings: Explaining) -> np.ndarray:
    """Return genes to permute: half the first of the ranking, half drawn among the others."""
    read = np.flatnonzero(sums.read)
    ranked = read[np.argsort(-sums.importance()[read], kind="stable")]
    first = min(len(ranked), (settings.check_genes + 1) // 2)
    random = np.random.default_rng(settings.seed)
    others = random.permutation(ranked[first:])[: settings.check_genes - first]
    return np.sort(np.concatenate([ranked[:first], others])).astype(np.int64)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(f"{value:.6g}")
