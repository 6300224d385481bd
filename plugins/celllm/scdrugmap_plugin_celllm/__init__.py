"""CellLM (Zhao et al. 2023) for scDrugMap: what the model is; imported at every start."""

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

HOMEPAGE = "https://github.com/PharMolix/OpenBioMed"


class Options(ModelOptions):
    """Options of CellLM."""

    input: Literal["lognorm", "counts"] = Field(
        "lognorm",
        description="what is cut to whole levels, 0 to 5: the logarithm of counts scaled to 10,000 "
        "per cell, or the counts themselves as in the paper of scDrugMap",
    )
    max_seq_len: int | None = Field(
        None,
        ge=2,
        description="tokens of a cell, padding included; the network reads how much of it there "
        "is, so this changes results; none: as the checkpoint says (6000)",
    )
    pool: Literal["cls", "mean"] = Field(
        "cls", description="vector of a cell: the first token, or the mean over all but padding"
    )
    key_max: Literal["cell", "batch"] = Field(
        "cell",
        description="largest key taken over each cell, or over the whole batch as the original "
        "does; then a cell's result depends on the cells beside it",
    )


SIZES: dict[str, int | float | str | bool] = {
    "dim": 512,
    "n_heads": 16,
    "head_dim": 64,
    "n_features": 266,
    "n_layers": 10,
    "hidden": 2048,
    "n_levels": 8,
    "max_seq_len": 6000,
}
TINY: dict[str, int | float | str | bool] = {
    **SIZES,
    "dim": 32,
    "n_heads": 2,
    "head_dim": 8,
    "n_features": 16,
    "n_layers": 2,
    "hidden": 64,
}

CONFIG = "cellLM.json"
CHECKPOINTS = ("checkpoint4_fixed.pth", "CellLM.pth", "nocls_fixed.pth", "ckpt.pth")
GENE_LISTS = ("celllm_genes.txt", "zheng68k_hgnc.h5ad")

LICENCE = "none stated by the authors"

SPEC = ModelSpec(
    name="celllm",
    title="CellLM",
    contract=1,
    numerics=1,
    gene_id="symbol",
    species=("human",),
    accepts={"counts", "lognorm"},
    capabilities={Capability.EMBED, Capability.FINETUNE},
    options=Options,
    variants=(
        Variant(name="50M", title="pre-trained on normal and tumour cells", sizes=SIZES),
        Variant(name="tiny", title="for trials, random only", sizes=TINY, published=False),
    ),
    weights=(
        WeightSet(
            name="50M",
            files=(
                WeightFile(path=CHECKPOINTS[0]),
                WeightFile(path=CONFIG),
                WeightFile(path=GENE_LISTS[0]),
            ),
            licence=LICENCE,
            commercial_use=None,
            homepage=HOMEPAGE,
            needs_login=True,
            notes="docs/ctc.md of releases up to early 2024 links the folder that holds the "
            f"checkpoint ({', '.join(CHECKPOINTS[1:-1])} or {CHECKPOINTS[-1]} serves as well); "
            f"{CONFIG} lies in configs/ctc of the code; {GENE_LISTS[0]} is yours to write: the "
            f"genes in the order of the checkpoint, a symbol a line ({GENE_LISTS[1]}, whose "
            "columns they are, serves as well)",
        ),
    ),
    lora=LoraDefaults(targets=r"layers\.\d+\.attention\.(q_proj|k_proj|v_proj)"),
    citation="Zhao S, Zhang J, Nie Z. Large-scale cell representation learning via "
    "divide-and-conquer contrastive learning. arXiv 2306.04371 (2023)",
    code_licence="Apache-2.0 (the original: MIT)",
    weights_licence=LICENCE,
    homepage=HOMEPAGE,
    factory="scdrugmap_plugin_celllm.model:build",
    weights_reader="scdrugmap_plugin_celllm.weights:read_published",
)


@hookimpl
def scdrugmap_models() -> list[ModelSpec]:
    """Offer CellLM."""
    return [SPEC]
