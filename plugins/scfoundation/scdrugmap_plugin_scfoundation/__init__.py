"""scFoundation (Hao et al. 2024) for scDrugMap: what the model is; imported at every start."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from scdrugmap.plugin import (
    Capability,
    LoraDefaults,
    ModelOptions,
    ModelSpec,
    Variant,
    WeightFile,
    WeightSet,
    hookimpl,
)

HOMEPAGE = "https://github.com/biomap-research/scFoundation"

LARGEST_TARGET = 20.0
"""Largest fixed T; the depth of a cell is a power of ten, and published ones lie between 3 and 6."""


class Options(ModelOptions):
    """Options of scFoundation; the defaults are those of the original's cell embedding."""

    model: Literal["cell", "rde", "gene"] = Field(
        "cell",
        description="which of the published networks: the one for cell embeddings, the one for "
        "enhancing the read depth, or the one for vectors of genes (`embed --genes`)",
    )
    target_resolution: str = Field(
        "t4",
        pattern=r"^(t|f|a-?)\d+(\.\d+)?$",
        description="read depth T that a cell is asked for: t4 (T is 4, so 10,000 counts), f2 (twice "
        "the cell's own counts), a1.5 (1.5 more than the logarithm, base 10, of its own counts)",
    )
    pool: Literal["all", "max"] = Field(
        "all",
        description="all: states of the own and the target depth, maximum and mean over the genes; "
        "max: maximum over all tokens",
    )
    pre_normalized: bool | None = Field(
        None,
        description="whether values are log-normalised already; none: each cell's own values tell, "
        "whole numbers being counts",
    )
    max_genes: int | None = Field(
        None, ge=1, description="read only so many genes of a cell, the highest; none: all"
    )

    @field_validator("target_resolution")
    @classmethod
    def _depth_is_positive(cls, text: str) -> str:
        kind, number = split_resolution(text)
        if kind != "a" and number <= 0:
            raise ValueError("the depth must be greater than 0")
        if kind == "t" and number > LARGEST_TARGET:
            raise ValueError(
                f"T is the logarithm, base 10, of a number of counts: at most {LARGEST_TARGET:g}"
            )
        return text


def split_resolution(text: str) -> tuple[str, float]:
    """Return the kind (``t``, ``f`` or ``a``) and the number of a target resolution."""
    return text[0], float(text[1:])


SIZES: dict[str, int | float | str | bool] = {
    "dim": 768,
    "n_heads": 12,
    "n_layers": 12,
    "n_bins": 100,
    "bin_alpha": 1.0,
    "decoder_dim": 512,
    "decoder_heads": 8,
    "decoder_head_dim": 64,
    "decoder_layers": 6,
}
TINY = {
    **SIZES,
    "dim": 32,
    "n_heads": 4,
    "n_layers": 2,
    "decoder_dim": 24,
    "decoder_heads": 2,
    "decoder_head_dim": 12,
    "decoder_layers": 2,
}

CHECKPOINT, GENES = "models.ckpt", "OS_scRNA_gene_index.19264.tsv"

LICENCE = "scFoundation Model License (non-commercial research)"

SPEC = ModelSpec(
    name="scfoundation",
    title="scFoundation",
    contract=1,
    numerics=1,
    gene_id="symbol",
    species=("human",),
    accepts={"counts", "lognorm"},
    capabilities={Capability.EMBED, Capability.FINETUNE, Capability.GENES},
    options=Options,
    variants=(
        Variant(name="100M", title="the published networks, cell and rde", sizes=SIZES),
        Variant(name="tiny", title="for trials, random only", sizes=TINY, published=False),
    ),
    weights=(
        WeightSet(
            name="100M",
            files=(
                WeightFile(
                    path=CHECKPOINT,
                    sha256="9f40bf324d3d0084c4b288d06f5af4fddd12206e2a3f022551d12e89e33a0ea9",
                ),
                WeightFile(
                    path=GENES,
                    sha256="bb337ea195d94e7b033543abc02a42e7060d6562eba97deb077f7dcecec62661",
                ),
            ),
            licence=LICENCE,
            commercial_use=False,
            homepage=HOMEPAGE,
            notes="model/README.md links the folder that holds models.ckpt; the gene list lies in "
            "model/ of the code",
        ),
    ),
    lora=LoraDefaults(targets=r"layers\.\d+\.attention\.(q_proj|v_proj|out_proj)"),
    citation="Hao M et al. Large-scale foundation model on single-cell transcriptomics. "
    "Nature Methods 21, 1481-1491 (2024). doi:10.1038/s41592-024-02305-7",
    code_licence="Apache-2.0 (the original: Apache-2.0)",
    weights_licence=LICENCE,
    homepage=HOMEPAGE,
    factory="scdrugmap_plugin_scfoundation.model:build",
    weights_reader="scdrugmap_plugin_scfoundation.weights:read_published",
)


@hookimpl
def scdrugmap_models() -> list[ModelSpec]:
    """Offer scFoundation."""
    return [SPEC]
