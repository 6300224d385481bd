"""Which way a predictor can be explained, and which predictors cannot."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

import numpy as np

from scdrugmap.errors import PluginError, UsageError
from scdrugmap.explanation.coefficients import Coefficients, is_additive
from scdrugmap.explanation.permutation import Answers, Permutation, most_variable
from scdrugmap.train.estimators import EstimatorScorer
from scdrugmap.train.frozen import FrozenScorer

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scdrugmap.data.cells import Cells
    from scdrugmap.explanation.attributed import Method
    from scdrugmap.explanation.settings import Explaining
    from scdrugmap.specs import Values
    from scdrugmap.train.record import PredictorInfo
    from scdrugmap.train.scores import Scorer

_INSTALL = "pip install 'scdrugmap[explain]'"


def refuse_unexplainable(info: PredictorInfo) -> None:
    """Refuse predictors of which no gene can be named, before anything is loaded.

    Raises
    ------
    UsageError
        A text model, or an estimator of whole samples.
    """
    if info.strategy == "prompt":
        raise UsageError(
            f"{info.name} was asked in words (strategy prompt): no gene's part in an answer is known",
            hint="explain a predictor of the strategy frozen, lora or full, or an estimator",
        )
    if info.level == "sample":
        raise UsageError(
            f"{info.name} predicts whole samples, and cells are explained",
            hint="explain hvg-logreg, trained on the same split",
        )


def make_method(
    scorer: Scorer,
    info: PredictorInfo,
    cells: Cells,
    expression: csr_matrix,
    settings: Explaining,
    *,
    quiet: bool = False,
) -> tuple[Method, list[str]]:
    """Return the way in which a predictor is explained, and what to say of it.

    Parameters
    ----------
    scorer : Scorer
    info : PredictorInfo
    cells : Cells
    expression : (n, n_genes) CSR float64
        Log-normalised cells that are explained; a permutation looks at their most variable genes.
    settings : Explaining
    quiet : bool

    Raises
    ------
    UsageError
        The predictor has no gradient, no coefficients, or reads no single gene.
    PluginError
        captum is not installed.
    """
    wanted = settings.method
    if isinstance(scorer, FrozenScorer) and wanted in ("auto", "gradients"):
        if find_spec("captum") is None:
            raise PluginError(
                "gradients need the package captum, which is not installed",
                hint=f"{_INSTALL}, or use --method permutation",
            )
        from scdrugmap.explanation.gradients import Gradients

        found = Gradients(
            scorer, cells.genes, steps=settings.steps, baseline=settings.baseline, where=cells.where
        )
        return found, []
    if isinstance(scorer, EstimatorScorer):
        # Totals, or nothing at all, are no property of a gene.
        if not (len(scorer.estimator.genes) and getattr(scorer.estimator, "single_genes", True)):
            raise UsageError(
                f"{info.name} reads no single gene, so there is nothing to explain",
                hint="explain a predictor that reads genes, such as hvg-logreg",
            )
        values = cast("Values", cells.matrix.values)
        if wanted in ("auto", "coefficients") and is_additive(scorer.estimator):
            return Coefficients(scorer.estimator, cells.genes, values), []
    if wanted in ("gradients", "coefficients"):
        raise UsageError(
            f"{info.name} ({info.strategy}) has no {wanted}",
            hint="leave --method out, or use --method permutation",
        )
    columns = most_variable(expression, readable_genes(scorer, cells), settings.max_genes)
    n = int((np.asarray(expression.sum(0)).ravel() > 0).sum())
    notices = []
    if len(columns) < n:
        notices.append(
            f"the {len(columns):,} most variable of {n:,} expressed genes are permuted (--max-genes)"
        )
    return permutation_of(scorer, info, cells, columns, settings.seed, quiet=quiet), notices


def permutation_of(
    scorer: Scorer,
    info: PredictorInfo,
    cells: Cells,
    columns: np.ndarray,
    seed: int,
    *,
    quiet: bool = False,
) -> Permutation:
    """Return the permutation of some genes ((k,) int64 columns), for any predictor of cells."""
    grouped = isinstance(scorer, FrozenScorer) and _is_grouped(scorer)
    return Permutation(
        answers_of(scorer, cells),
        columns,
        seed=seed,
        grouped=grouped,
        title=f"permute {info.name}",
        quiet=quiet,
    )


def readable_genes(scorer: Scorer, cells: Cells) -> np.ndarray:
    """Return which genes of a file a predictor reads ((n_genes,) bool)."""
    if isinstance(scorer, EstimatorScorer):
        return np.isin(cells.genes.identity().astype(str), scorer.estimator.genes.astype(str))
    if isinstance(scorer, FrozenScorer):
        return scorer.embedder.loaded.model.tokenizer.bind(cells.genes).matched
    raise TypeError(f"{type(scorer).__name__} reads no genes")


def answers_of(scorer: Scorer, cells: Cells) -> Answers:
    """Return a function from rows in memory to probabilities; NaN: the cell has no known gene."""
    if isinstance(scorer, EstimatorScorer):
        estimator, values = scorer.estimator, cast("Values", cells.matrix.values)
        return lambda rows, names, groups: estimator.predict(rows, cells.genes, values=values)
    if not isinstance(scorer, FrozenScorer):
        raise TypeError(f"{type(scorer).__name__} answers no rows")
    from scdrugmap.model.batching import Network
    from scdrugmap.model.device import resolve_device
    from scdrugmap.model.load import bind
    from scdrugmap.model.parts import group_indices

    embedder, head = scorer.embedder, scorer.head
    model, grouped = embedder.loaded.model, _is_grouped(scorer)
    bind(embedder.loaded, cells.genes, min_genes=embedder.min_genes, where=cells.where)
    network = Network(
        model,
        device=resolve_device(embedder.device),
        precision=embedder.precision,
        token_budget=embedder.token_budget,
        name=embedder.loaded.name,
    )

    def answer(rows: csr_matrix, names: np.ndarray, groups: np.ndarray) -> np.ndarray:
        sequences = group_indices(groups, len(names)) if grouped else None
        values = network.embed(model.tokenizer.encode(rows, names), sequences)
        p = np.full(len(names), np.nan, np.float32)
        usable = ~np.isnan(values).any(1)
        p[usable] = head.predict(values[usable])
        return p

    return answer


def _is_grouped(scorer: FrozenScorer) -> bool:
    return scorer.embedder.loaded.spec.cell_batching == "group"
