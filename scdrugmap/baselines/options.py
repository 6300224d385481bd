"""Options of the built-in estimators: what ``train --estimator NAME --set key=value`` can name."""

from __future__ import annotations

from pydantic import Field

from scdrugmap.specs import Options

MOST_GENES = 2_000
"""Most genes that are ever held as a dense matrix."""


class GeneOptions(Options):
    """Options of estimators that read highly variable genes."""

    n_genes: int = Field(
        MOST_GENES, ge=1, le=MOST_GENES, description="highly variable genes, from training cells"
    )


class LogisticOptions(GeneOptions):
    """Options of logistic regression on genes."""

    C: float = Field(0.003, gt=0, description="inverse strength of the L2 penalty")


class PcaOptions(GeneOptions):
    """Options of logistic regression on principal components."""

    n_components: int = Field(50, ge=1, le=500, description="principal components")
    C: float = Field(0.1, gt=0, description="inverse strength of the L2 penalty")


class NeighbourOptions(GeneOptions):
    """Options of the nearest-prototype classifier."""

    n_components: int = Field(50, ge=1, le=500, description="principal components")
    n_prototypes: int = Field(50, ge=1, le=1_000, description="most prototypes of a class")
    k: int = Field(5, ge=1, le=100, description="nearest prototypes that vote")


class TreeOptions(GeneOptions):
    """Options of the gradient-boosted trees."""

    n_trees: int = Field(100, ge=1, le=2_000, description="trees")
    learning_rate: float = Field(0.1, gt=0, le=1, description="weight of each tree")
    max_leaves: int = Field(15, ge=2, le=255, description="most leaves of a tree")
