"""scGPT (Cui et al. 2024) for scDrugMap: what the model is; imported at every start."""

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

HOMEPAGE = "https://github.com/bowang-lab/scGPT"


class Options(ModelOptions):
    """Options of scGPT; the defaults are those of the original's cell embedding, made repeatable."""

    max_length: int = Field(1200, ge=2, description="most tokens of a cell, <cls> included")
    normalize: bool = Field(True, description="scale each embedding to length 1")
    overlong: Literal["sample", "first"] = Field(
        "sample",
        description="genes kept of a cell with too many: a random sample that depends on the seed "
        "and the cell's name, or the first in the order of the file",
    )
    bins: Literal["middle", "legacy"] = Field(
        "middle",
        description="bin of a value that several bins admit: the middle one, or (as the original) "
        "a random one, drawn per seed and cell name",
    )
    cut: Literal["after_binning", "before_binning"] = Field(
        "after_binning",
        description="bins are quantiles of all genes of a cell, or (as the paper's fine-tuning "
        "script) only of those kept",
    )


SIZES: dict[str, int | float | str | bool] = {
    "dim": 512,
    "n_heads": 8,
    "hidden": 512,
    "n_layers": 12,
    "dropout": 0.2,
}
TINY = {**SIZES, "dim": 32, "n_heads": 4, "hidden": 32, "n_layers": 2}

PUBLISHED = {
    "whole-human": "33 million normal human cells",
    "continual-pretrained": "whole-human, trained further for cell embeddings",
    "brain": "13.2 million brain cells",
    "blood": "10.3 million blood and bone marrow cells",
    "heart": "1.8 million heart cells",
    "lung": "2.1 million lung cells",
    "kidney": "814 thousand kidney cells",
    "pan-cancer": "5.7 million cells of cancers",
}
"""Checkpoints of the authors' model zoo, all of one architecture and one set of file names."""

FILES = ("args.json", "vocab.json", "best_model.pt")

HASHES = {
    "args.json": "c18e075e018140cb8b2d9029387b9de26607a5ce6a8ccabd6ead70cd76b95d60",
    "vocab.json": "acca93d114ca62c3f0f50debbd23e8c87f0714f4737764454f6b2b13f2e8580f",
    "best_model.pt": "6cb5d451ab5c4b33eb673adbe4fddc61d2389df1b89b7651a9fe2e557572b922",
}
"""Hashes of whole-human as third parties recorded them."""


def _weights(name: str) -> WeightSet:
    hashes = HASHES if name == "whole-human" else {}
    return WeightSet(
        name=name,
        files=tuple(WeightFile(path=path, sha256=hashes.get(path)) for path in FILES),
        licence="not stated by the authors (their code: MIT)",
        homepage=HOMEPAGE,
        notes=f"linked under 'Model Zoo' as {name}",
    )


SPEC = ModelSpec(
    name="scgpt",
    title="scGPT",
    contract=1,
    numerics=1,
    gene_id="symbol",
    species=("human",),
    accepts={"counts", "lognorm"},
    capabilities={Capability.EMBED, Capability.FINETUNE},
    options=Options,
    variants=(
        *(Variant(name=name, title=title, sizes=SIZES) for name, title in PUBLISHED.items()),
        Variant(name="tiny", title="for trials, random only", sizes=TINY, published=False),
    ),
    weights=tuple(_weights(name) for name in PUBLISHED),
    lora=LoraDefaults(targets=r"layers\.\d+\.attention\.(q_proj|k_proj|v_proj|out_proj)"),
    citation="Cui H et al. scGPT: toward building a foundation model for single-cell multi-omics "
    "using generative AI. Nature Methods 21, 1470-1480 (2024). doi:10.1038/s41592-024-02201-0",
    code_licence="Apache-2.0 (the original: MIT)",
    weights_licence="not stated by the authors",
    homepage=HOMEPAGE,
    factory="scdrugmap_plugin_scgpt.model:build",
    weights_reader="scdrugmap_plugin_scgpt.weights:read_published",
)


@hookimpl
def scdrugmap_models() -> list[ModelSpec]:
    """Offer scGPT."""
    return [SPEC]
