"""What the strategies make of training cells, in one form: a scorer and what is to be said of it.

A further strategy is one more function here and one more module with its scorer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scdrugmap.errors import DataError
from scdrugmap.registry import get_registry
from scdrugmap.specs import Capability, EstimatorSpec, ModelSpec, Options, Values
from scdrugmap.train import selftest
from scdrugmap.train.domain import Domain
from scdrugmap.train.gather import Chosen, shared_genes
from scdrugmap.train.predictor import EMBEDDING_MEAN
from scdrugmap.train.record import PluginInfo, ReferenceInfo, WeightsInfo

if TYPE_CHECKING:
    from scdrugmap.data.cells import Cells
    from scdrugmap.data.genes import Genes
    from scdrugmap.model.load import LoadedModel
    from scdrugmap.train.checkpoint import Checkpoint
    from scdrugmap.train.frozen import Embedder
    from scdrugmap.train.heads import HeadName
    from scdrugmap.train.scores import Scorer
    from scdrugmap.train.settings import FineTuning

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


def fit_by_estimator(
    name: str, settings: Mapping[str, str], chosen: list[Chosen], seed: int, values: Values
) -> Fitted:
    """Fit an estimator; see :func:`scdrugmap.train.train.train_predictor`."""
    from scdrugmap.model.load import parse_options
    from scdrugmap.train.estimators import fit_estimator

    spec = get_registry().estimator(name)
    check_accepted(spec, chosen)
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


def fit_by_head(
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
    """Train a head on embeddings; `how` as :class:`scdrugmap.train.frozen.Embedder`."""
    from scdrugmap.train.frozen import Embedder, fit_frozen
    from scdrugmap.train.given import assign_files

    check_accepted(loaded.spec, chosen)
    files = assign_files(embeddings, [part.cells for part in chosen], loaded.name)
    embedder = Embedder(loaded, files=files, **how)
    scorer, used, x = fit_frozen(embedder, head, chosen, seed, quiet=quiet)
    scorer.domain = domain = Domain.of(x)
    return _on_embeddings(embedder, "frozen", head, scorer, used, domain, {}, scorer.head.notices)


def fit_by_tuning(
    loaded: LoadedModel,
    strategy: str,
    head: HeadName,
    chosen: list[Chosen],
    validation: list[Chosen],
    settings: FineTuning,
    seed: int,
    *,
    checkpoint: Checkpoint | None = None,
    quiet: bool,
    **how: Any,
) -> Fitted:
    """Fine-tune a model; see :func:`scdrugmap.train.tuned.fit_tuned`, `how` as for `fit_by_head`."""
    from scdrugmap.train.frozen import Embedder
    from scdrugmap.train.tuned import fit_tuned

    loaded.spec.require(Capability.FINETUNE)
    check_accepted(loaded.spec, [*chosen, *validation])
    found = fit_tuned(
        Embedder(loaded, **how),
        strategy,
        head,
        chosen,
        validation,
        settings,
        seed,
        checkpoint=checkpoint,
        quiet=quiet,
    )
    scorer = found.scorer
    about = {"tuning": found.info}
    return _on_embeddings(
        scorer.embedder, strategy, head, scorer, found.used, found.domain, about, found.notices
    )


def _on_embeddings(
    embedder: Embedder,
    strategy: str,
    head: HeadName,
    scorer: Scorer,
    used: list[Chosen],
    domain: Domain,
    about: dict[str, Any],
    notices: Sequence[str],
) -> Fitted:
    """Say what all strategies that read embeddings have to say."""
    loaded = embedder.loaded
    first = used[0].cells
    job = embedder.job(first, quiet=True)
    weights = loaded.weights
    genes, _ = shared_genes(used)
    mapped = first.genes.take(np.flatnonzero(job.coverage.matched))
    ensembl = mapped.ensembl[mapped.ensembl != ""]
    return Fitted(
        scorer,
        used,
        genes,
        int(job.coverage.n_matched),
        selftest.spread(ensembl if len(ensembl) else mapped.published, _MODEL_TEST_GENES),
        {
            **_about(loaded.spec, strategy, loaded.options),
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
                notice=weights.notice,
            ),
            "reference": ReferenceInfo(
                n_cells=sum(len(part.index) for part in used),
                distance_quantiles=tuple(domain.quantiles.tolist()),
            ),
            "notices": list(notices),
            **about,
        },
        {EMBEDDING_MEAN: domain.center},
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


def check_accepted(spec: EstimatorSpec | ModelSpec, chosen: Sequence[Chosen]) -> None:
    """Raise DataError where a file holds values that the model or estimator does not accept."""
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
