"""Train a predictor on the training cells of one fold.

A strategy is one module that gives a :class:`~scdrugmap.train.scores.Scorer`; what it was trained
on, its threshold, its self-test and the bundle around it are the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from scdrugmap import __version__
from scdrugmap.errors import DataError, UsageError
from scdrugmap.progress import say
from scdrugmap.registry import get_registry
from scdrugmap.specs import EstimatorSpec, ModelSpec, Options, Values
from scdrugmap.train import selftest
from scdrugmap.train.gather import (
    Chosen,
    check_classes,
    choose_cells,
    draw_evenly,
    one_kind_of_values,
    shared_genes,
)
from scdrugmap.train.predictor import (
    EMBEDDING_MEAN,
    SELF_TEST,
    TRAINING_CELLS,
    Predictor,
    short_fingerprints,
)
from scdrugmap.train.record import (
    DatasetInfo,
    GenesInfo,
    PluginInfo,
    PredictorInfo,
    ReferenceInfo,
    SplitInfo,
    TrainingInfo,
    WeightsInfo,
)
from scdrugmap.train.thresholds import tune_threshold

if TYPE_CHECKING:
    import pandas as pd

    from scdrugmap.data.cells import Cells
    from scdrugmap.data.genes import Genes
    from scdrugmap.model.load import LoadedModel
    from scdrugmap.run.store import Store
    from scdrugmap.train.heads import HeadName
    from scdrugmap.train.scores import Scorer

MAX_CELLS = 50_000
"""Most training cells of estimators and of the logistic head, which hold them as one matrix."""

STRATEGIES = ("frozen",)
"""Strategies for models, beside ``estimator``."""

FACTS = ("drug", "cancer_type", "tissue", "label_basis")
"""Columns of obs whose values a predictor remembers."""

_MOST_FACTS = 20
_ESTIMATOR_TEST_GENES = 2_000
_MODEL_TEST_GENES = 512


@dataclass(frozen=True)
class Fitted:
    """What a strategy made of the training cells.

    Attributes
    ----------
    scorer : Scorer
    used : list of Chosen
        The cells that were learnt from.
    genes : Genes
        The genes that all training files share.
    needed : int
        How many of them matter.
    test_genes : (G,) str
        Identities of the genes of the self-test.
    about : dict
        Fields of ``predictor.json`` that this strategy fills.
    reference : dict of str to array
        Further arrays of ``reference.safetensors``.
    """

    scorer: Scorer
    used: list[Chosen]
    genes: Genes
    needed: int
    test_genes: np.ndarray
    about: dict[str, Any]
    reference: dict[str, np.ndarray]


def train_predictor(
    sources: Sequence[Cells],
    splits: pd.DataFrame,
    *,
    fold: int,
    seed: int = 0,
    estimator: str | None = None,
    model: LoadedModel | None = None,
    strategy: str = "frozen",
    head: HeadName | None = None,
    settings: Mapping[str, str] | None = None,
    embeddings: Sequence[Path] = (),
    store: Store | None = None,
    device: str = "auto",
    precision: Literal["float32", "bfloat16"] = "float32",
    token_budget: int | None = None,
    sample: str | None = None,
    dataset: str | None = None,
    min_genes: int | None = None,
    max_cells: int = MAX_CELLS,
    quiet: bool = False,
) -> Predictor:
    """Train on the cells of role ``train`` of one fold; no other cell is looked at.

    Cells of role ``validation``, if there are any, choose the threshold and nothing else.

    Parameters
    ----------
    sources : sequence of Cells
        The files that the split was made of.
    splits : pandas.DataFrame
        ``splits.tsv``.
    fold : int
    seed : int
    estimator : str, optional
        Name of an estimator; or
    model : LoadedModel, optional
        a model, whose embeddings are classified.
    strategy : str
        For models: ``frozen``.
    head : {"logistic", "mlp"}, optional
        Default: logistic regression; the paper's network for splits of the paper's family.
    settings : mapping of str to str
        Options of the estimator.
    embeddings : sequence of Path
        Files of ``scdrugmap embed`` to take instead of computing.
    store : Store, optional
        Where embeddings are kept; None: the default one.
    device, precision, token_budget
        As for embedding.
    sample : str, optional
        Column of obs with the sample, for models whose cells see each other.
    dataset : str, optional
        Column of obs with the dataset, if the split was made with one.
    min_genes : int, optional
        Fewest genes that the model must know.
    max_cells : int
        Most training cells of an estimator or the logistic head, drawn evenly over groups.
    quiet : bool

    Returns
    -------
    Predictor

    Raises
    ------
    UsageError
        Neither or both of `estimator` and `model`; no such fold; other files than the split's.
    DataError
        One label only, no shared gene, values that cannot be used, or embeddings of another model.
    """
    if (estimator is None) == (model is None):
        raise UsageError(
            "name either an estimator or a model", hint="--estimator NAME or --model NAME"
        )
    chosen = choose_cells(sources, splits, fold, "train", dataset=dataset)
    check_classes(chosen, fold)
    values = cast("Values", one_kind_of_values([part.cells for part in chosen]))
    n_all = sum(len(part.index) for part in chosen)
    if estimator is not None:
        if embeddings or head:
            raise UsageError("--embeddings and --head are for models, not for estimators")
        drawn = draw_evenly(chosen, max_cells, seed)
        fitted = _fit_estimator(estimator, settings or {}, drawn, seed, values)
        cap: int | None = max_cells
    else:
        assert model is not None
        if strategy not in STRATEGIES:
            raise UsageError(
                f"there is no strategy {strategy!r}", hint=f"use {', '.join(STRATEGIES)}"
            )
        head = head or default_head(splits)
        cap = max_cells if head == "logistic" else None
        drawn = draw_evenly(chosen, max_cells, seed) if cap else list(chosen)
        fitted = _fit_frozen(
            model,
            head,
            drawn,
            seed,
            values,
            embeddings=embeddings,
            store=store,
            device=device,
            precision=precision,
            token_budget=token_budget,
            sample=sample,
            min_genes=min_genes,
            quiet=quiet,
        )
    n_drawn = sum(len(part.index) for part in drawn)
    n_used = sum(len(part.index) for part in fitted.used)
    n_left_out = n_drawn - n_used
    training = TrainingInfo(
        datasets=tuple(
            DatasetInfo(
                name=part.cells.name,
                n_cells=len(part.index),
                values_location=part.cells.matrix.location,
            )
            for part in fitted.used
        ),
        n_cells=n_used,
        n_sensitive=int(sum(part.y.sum() for part in fitted.used)),
        n_groups=len({group for part in fitted.used for group in part.groups}),
        n_empty=n_left_out if estimator is not None else 0,
        n_unknown=n_left_out if estimator is None else 0,
        n_beyond_cap=n_all - n_drawn,
        max_cells=cap,
    )
    threshold, threshold_notices = tune_threshold(
        fitted.scorer,
        choose_cells(sources, splits, fold, "validation", dataset=dataset),
        quiet=quiet,
    )
    test_genes = tuple(map(str, fitted.test_genes))
    test_values = selftest.synthetic_values(len(test_genes), values)
    trial = selftest.try_cells(fitted.scorer, test_genes, test_values)
    notices = [*_notices(training), *fitted.about.pop("notices"), *threshold_notices]
    info = PredictorInfo(
        scdrugmap=__version__,
        seed=seed,
        values=values,
        sample_column=sample or "",
        min_genes=min_genes,
        genes=GenesInfo(
            n_genes=len(fitted.genes),
            digest=fitted.genes.digest(),
            n_needed=fitted.needed,
            counts={part.cells.name: dict(part.cells.mapping.counts) for part in fitted.used},
        ),
        training=training,
        split=SplitInfo(split_id=str(splits["split_id"].iloc[0]), fold=fold),
        threshold=threshold,
        self_test=selftest.describe(trial, test_genes),
        notices=tuple(notices),
        **_facts(fitted.used),
        **fitted.about,
    )
    for notice in notices:
        say(f"Notice: {notice}", quiet=quiet)
    fingerprints = np.concatenate([part.cells.fingerprints()[part.index] for part in fitted.used])
    reference = {
        TRAINING_CELLS: np.sort(short_fingerprints(fingerprints)),
        SELF_TEST: test_values,
        **fitted.reference,
    }
    return Predictor(info, fitted.scorer.files(), reference, fitted.scorer)


def default_head(splits: pd.DataFrame) -> HeadName:
    """Return the head of a split's protocol family: the paper's network under ``paper``."""
    from scdrugmap.evaluate.protocols import PROTOCOLS
    from scdrugmap.evaluate.tables import protocol_of

    protocol = PROTOCOLS.get(protocol_of(splits))
    return "mlp" if protocol is not None and protocol.family == "paper" else "logistic"


def _fit_estimator(
    name: str, settings: Mapping[str, str], chosen: list[Chosen], seed: int, values: Values
) -> Fitted:
    from scdrugmap.model.load import parse_options
    from scdrugmap.train.estimators import fit_estimator

    spec = get_registry().estimator(name)
    _check_accepted(spec, chosen)
    options = parse_options(spec.options, settings, name)
    scorer, used, genes = fit_estimator(spec, options, chosen, seed, values)
    needed = scorer.estimator.genes
    about = {
        **_about(spec, "estimator", options),
        "level": spec.level,
        "notices": [
            *_lost_genes([part.cells for part in used], genes),
            *scorer.estimator.notices,
        ],
    }
    test_genes = selftest.spread(needed if len(needed) else genes.identity(), _ESTIMATOR_TEST_GENES)
    return Fitted(scorer, used, genes, len(needed), test_genes, about, {})


def _fit_frozen(
    loaded: LoadedModel,
    head: HeadName,
    chosen: list[Chosen],
    seed: int,
    values: Values,
    *,
    embeddings: Sequence[Path],
    quiet: bool,
    **how: Any,
) -> Fitted:
    from scdrugmap.train.frozen import Embedder, fit_frozen
    from scdrugmap.train.given import assign_files

    _check_accepted(loaded.spec, chosen)
    files = assign_files(embeddings, [part.cells for part in chosen], loaded.name)
    embedder = Embedder(loaded, files=files, **how)
    scorer, used, x = fit_frozen(embedder, head, chosen, seed, quiet=quiet)
    center = x.mean(0, dtype=np.float64).astype(np.float32)
    distance = np.sqrt(((x - center).astype(np.float64) ** 2).sum(1))
    job = embedder.job(chosen[0].cells, quiet=True)
    weights = loaded.weights
    about = {
        **_about(loaded.spec, "frozen", loaded.options),
        "embedding_seed": loaded.seed,
        "precision": job.precision,
        "head": head,
        "dim": embedder.dim,
        "weights": WeightsInfo(
            source=weights.source,
            digest=weights.digest,
            label=weights.label,
            licence=weights.licence,
            commercial_use=weights.commercial_use,
            randomize=weights.randomize,
            homepage=loaded.spec.homepage,
        ),
        "reference": ReferenceInfo(
            n_cells=len(x),
            distance_quantiles=tuple(
                float(f"{value:.9g}") for value in np.quantile(distance, np.linspace(0, 1, 101))
            ),
        ),
        "notices": list(scorer.head.notices),
    }
    genes, _ = shared_genes(used)
    matched = chosen[0].cells.genes.take(np.flatnonzero(job.coverage.matched))
    mapped = matched.ensembl[matched.ensembl != ""]
    test_genes = selftest.spread(mapped if len(mapped) else matched.published, _MODEL_TEST_GENES)
    return Fitted(
        scorer,
        used,
        genes,
        int(job.coverage.n_matched),
        test_genes,
        about,
        {EMBEDDING_MEAN: center},
    )


def _about(spec: EstimatorSpec | ModelSpec, strategy: str, options: Options) -> dict[str, Any]:
    """Return the fields of ``predictor.json`` that name the model or estimator."""
    kind = "estimator" if isinstance(spec, EstimatorSpec) else "model"
    plugin = get_registry().provided(kind, spec.name).plugin
    return {
        "name": spec.name,
        "title": spec.title,
        "strategy": strategy,
        "plugin": PluginInfo(
            name=plugin.name, distribution=plugin.distribution, version=plugin.version
        ),
        "contract": spec.contract,
        "numerics": spec.numerics,
        "options": options.model_dump(mode="json"),
    }


def _check_accepted(spec: EstimatorSpec | ModelSpec, chosen: Sequence[Chosen]) -> None:
    for part in chosen:
        if part.cells.matrix.values not in spec.accepts:
            raise DataError(
                f"{part.cells.name} holds {part.cells.matrix.values} in "
                f"{part.cells.matrix.location}; {spec.name} accepts "
                f"{' or '.join(sorted(spec.accepts))} only",
                hint="name the layer with raw counts with --layer",
            )


def _lost_genes(sources: Sequence[Cells], genes: Genes) -> list[str]:
    """Say how many genes the join of several files left out."""
    if len({cells.name for cells in sources}) < 2:
        return []
    sizes = ", ".join(f"{cells.name} {cells.n_genes:,}" for cells in sources)
    return [f"{len(genes):,} genes are in all training files ({sizes}); only those are read"]


def _notices(training: TrainingInfo) -> list[str]:
    notices = []
    if training.n_empty:
        notices.append(f"{training.n_empty:,} training cells without counts were left out")
    if training.n_unknown:
        notices.append(f"{training.n_unknown:,} training cells without a known gene were left out")
    if training.n_beyond_cap:
        notices.append(
            f"{training.n_cells:,} training cells were drawn evenly over groups; "
            f"{training.n_beyond_cap:,} were left out to bound the memory (--max-cells)"
        )
    return notices


def _facts(used: Sequence[Chosen]) -> dict[str, tuple[str, ...]]:
    """Return the values of drug, cancer type and so on among the training cells."""
    facts = {}
    for column in FACTS:
        values: set[str] = set()
        for part in used:
            if column in part.cells.obs.columns:
                seen = part.cells.obs[column].iloc[part.index].dropna().unique()
                values |= {str(value).strip() for value in seen}
        facts[column] = tuple(sorted(values - {""})[:_MOST_FACTS])
    return facts


def train_files(
    inputs: Sequence[Path],
    splits: Path,
    *,
    model: str | None = None,
    weights: str | None = None,
    randomize: int | None = None,
    seed: int = 0,
    estimator: str | None = None,
    settings: Mapping[str, str] | None = None,
    sample: str | None = None,
    where: Sequence[tuple[str, str]] = (),
    layer: str | None = None,
    values: str | None = None,
    gene_id: str | None = None,
    round_counts: bool = False,
    transpose: bool = False,
    quiet: bool = False,
    **how: Any,
) -> Predictor:
    """Train on files; what ``scdrugmap train`` does.

    Parameters
    ----------
    inputs : sequence of Path
        The files that the split was made of.
    splits : Path
        ``splits.tsv``.
    model, weights, randomize
        See :func:`scdrugmap.model.load.load_model`.
    settings : mapping of str to str
        Options of the model or estimator.
    sample, where, layer, values, gene_id, round_counts, transpose
        See :func:`scdrugmap.data.cells.open_cells`.
    seed, estimator, quiet, how
        See :func:`train_predictor`.
    """
    from contextlib import ExitStack

    from scdrugmap.data.cells import open_cells
    from scdrugmap.evaluate.tables import read_splits
    from scdrugmap.model.load import load_model

    table = read_splits(splits)
    if (estimator is None) == (model is None):
        raise UsageError(
            "name either --estimator or --model", hint="`scdrugmap models list` shows both"
        )
    loaded = None
    if model is not None:
        loaded = load_model(
            model, settings=settings, weights=weights, randomize=randomize, seed=seed
        )
    elif weights is not None or randomize is not None:
        raise UsageError("--weights and --randomize are for models, not for estimators")
    spec = loaded.spec if loaded is not None else get_registry().estimator(estimator or "")
    with ExitStack() as stack:
        sources = [
            stack.enter_context(
                open_cells(
                    path,
                    accepts=sorted(spec.accepts),
                    sample=sample,
                    where=where,
                    layer=layer,
                    values=values,
                    gene_id=gene_id,
                    round_counts=round_counts,
                    transpose=transpose,
                )
            )
            for path in inputs
        ]
        for cells in sources:
            for notice in cells.notices:
                say(f"Notice: {notice}", quiet=quiet)
        return train_predictor(
            sources,
            table,
            seed=seed,
            estimator=estimator,
            model=loaded,
            settings=settings if model is None else None,
            sample=sample,
            quiet=quiet,
            **how,
        )
