"""scBERT (Yang et al. 2022) for scDrugMap: what the model is; imported at every start."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

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

HOMEPAGE = "https://github.com/TencentAILabHealthcare/scBERT"


class Options(ModelOptions):
    """Options of scBERT."""

    pool: Literal["mean", "last", "max"] = Field(
        "mean",
        description="vector of a cell: mean over all tokens, the closing token, or the maximum "
        "over all tokens",
    )
    stabilizer: Literal["cell", "batch"] = Field(
        "cell",
        description="largest key taken over each cell, or over the whole batch as the original "
        "does; then a cell's result depends on the cells beside it",
    )


SIZES: dict[str, int | float | str | bool] = {
    "dim": 200,
    "n_heads": 10,
    "head_dim": 64,
    "n_features": 266,
    "n_layers": 6,
    "hidden": 800,
}
TINY: dict[str, int | float | str | bool] = {
    "dim": 32,
    "n_heads": 2,
    "head_dim": 8,
    "n_features": 16,
    "n_layers": 2,
    "hidden": 64,
}

CHECKPOINT = "panglao_pretrain.pth"
GENE_LISTS = ("panglao_10000.h5ad", "panglao_human.h5ad", "vocab.json", "genes.txt")

LICENCE = "GPL-3.0 (marked for research purpose)"

SPEC = ModelSpec(
    name="scbert",
    title="scBERT",
    contract=1,
    numerics=1,
    gene_id="symbol",
    species=("human",),
    accepts={"counts"},
    capabilities={Capability.EMBED, Capability.FINETUNE},
    options=Options,
    variants=(
        Variant(name="panglao", title="pre-trained on PanglaoDB", sizes=SIZES),
        Variant(name="tiny", title="for trials, random only", sizes=TINY, published=False),
    ),
    weights=(
        WeightSet(
            name="panglao",
            files=(
                WeightFile(
                    path=CHECKPOINT,
                    sha256="aa27109136580b24a1b985f63d0ba31f22490d09e71b13d1793cbff38619dfe3",
                    n_bytes=87_631_538,
                ),
                WeightFile(path=GENE_LISTS[0]),
            ),
            licence=LICENCE,
            commercial_use=None,
            homepage=HOMEPAGE,
            needs_login=True,
            notes="the README of the code links both files; for the order of the genes, "
            f"{', '.join(GENE_LISTS[1:-1])} or {GENE_LISTS[-1]} (a symbol a line) serves as well",
        ),
    ),
    lora=LoraDefaults(targets=r"layers\.\d+\.attention\.(q_proj|k_proj|v_proj)"),
    citation="Yang F et al. scBERT as a large-scale pretrained deep language model for cell type "
    "annotation of single-cell RNA-seq data. Nature Machine Intelligence 4, 852-866 (2022). "
    "doi:10.1038/s42256-022-00534-z",
    code_licence="Apache-2.0 (the original: GPL-3.0)",
    weights_licence=LICENCE,
    homepage=HOMEPAGE,
    factory="scdrugmap_plugin_scbert.model:build",
    weights_reader="scdrugmap_plugin_scbert.weights:read_published",
)


@hookimpl
def scdrugmap_models() -> list[ModelSpec]:
    """Offer scBERT."""
    return [SPEC]
