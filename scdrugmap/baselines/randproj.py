"""``randproj``: an embedding without any learning, the floor below every foundation model.

Imported at every start, so it holds the spec only; the work is in
:mod:`scdrugmap.baselines.projection`.
"""

from __future__ import annotations

from pydantic import Field

from scdrugmap.plugin import CONTRACT, Capability, ModelOptions, ModelSpec, Variant


class Options(ModelOptions):
    """Options of ``randproj``."""

    dim: int | None = Field(
        None, ge=2, le=4096, description="width of the embedding; empty: that of the variant"
    )


SPEC = ModelSpec(
    name="randproj",
    title="Random projection of log-normalised expression (no weights, nothing learnt)",
    contract=CONTRACT,
    numerics=1,
    gene_id="ensembl",
    species=("human",),
    accepts=frozenset({"counts", "lognorm"}),
    capabilities=frozenset({Capability.EMBED}),
    options=Options,
    variants=(
        Variant(name="default", title="256 wide", sizes={"dim": 256}),
        Variant(name="tiny", title="32 wide, for trials", sizes={"dim": 32}, published=False),
    ),
    min_genes=1,
    citation=(
        "Johnson WB, Lindenstrauss J. Extensions of Lipschitz mappings into a Hilbert space. "
        "Contemporary Mathematics 26, 189-206 (1984). doi:10.1090/conm/026/737400"
    ),
    code_licence="Apache-2.0",
    homepage="https://doi.org/10.1090/conm/026/737400",
    factory="scdrugmap.baselines.projection:build",
)
