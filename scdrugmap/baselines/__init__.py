"""Predictors that need no foundation model: what every model has to beat.

Imported at every start, so it holds specs only. ``factory(options, seed)`` of each spec returns a
:class:`scdrugmap.baselines.estimator.Estimator`.
"""

from __future__ import annotations

from scdrugmap.baselines.options import (
    GeneOptions,
    LogisticOptions,
    NeighbourOptions,
    PcaOptions,
    TreeOptions,
)
from scdrugmap.baselines.randproj import SPEC as RANDPROJ
from scdrugmap.plugin import CONTRACT, EstimatorSpec, ModelSpec, hookimpl

__all__ = [
    "GeneOptions",
    "LogisticOptions",
    "NeighbourOptions",
    "PcaOptions",
    "TreeOptions",
    "scdrugmap_estimators",
    "scdrugmap_models",
]

ESTIMATORS = (
    EstimatorSpec(
        name="constant",
        title="Share of sensitive training cells, for every cell",
        contract=CONTRACT,
        numerics=1,
        factory="scdrugmap.baselines.trivial:build_constant",
    ),
    EstimatorSpec(
        name="stratified",
        title="A random call with the class shares of the training cells",
        contract=CONTRACT,
        numerics=1,
        factory="scdrugmap.baselines.trivial:build_stratified",
    ),
    EstimatorSpec(
        name="technical",
        title="Total counts, detected genes and mitochondrial share: wins if data are confounded",
        contract=CONTRACT,
        numerics=1,
        factory="scdrugmap.baselines.technical:build",
    ),
    EstimatorSpec(
        name="hvg-logreg",
        title="Logistic regression on highly variable genes",
        contract=CONTRACT,
        numerics=1,
        options=LogisticOptions,
        factory="scdrugmap.baselines.linear:build_genes",
    ),
    EstimatorSpec(
        name="pca-logreg",
        title="Logistic regression on principal components of highly variable genes",
        contract=CONTRACT,
        numerics=1,
        options=PcaOptions,
        factory="scdrugmap.baselines.linear:build_components",
    ),
    EstimatorSpec(
        name="knn",
        title="Nearest prototypes (k-means centres of each class) in principal components",
        contract=CONTRACT,
        numerics=1,
        options=NeighbourOptions,
        factory="scdrugmap.baselines.neighbours:build",
    ),
    EstimatorSpec(
        name="gbt",
        title="Gradient-boosted trees on highly variable genes",
        contract=CONTRACT,
        numerics=1,
        options=TreeOptions,
        factory="scdrugmap.baselines.trees:build",
    ),
    EstimatorSpec(
        name="pseudobulk-logreg",
        title="Logistic regression on the summed profile of each sample",
        contract=CONTRACT,
        numerics=1,
        level="sample",
        options=LogisticOptions,
        factory="scdrugmap.baselines.linear:build_genes",
    ),
)


@hookimpl
def scdrugmap_estimators() -> list[EstimatorSpec]:
    """Return the built-in estimators."""
    return list(ESTIMATORS)


@hookimpl
def scdrugmap_models() -> list[ModelSpec]:
    """Return the built-in embedding model."""
    return [RANDPROJ]
