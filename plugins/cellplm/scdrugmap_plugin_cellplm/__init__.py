"""CellPLM (Wen et al. 2024) for scDrugMap: what the model is; imported at every start."""

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

HOMEPAGE = "https://github.com/OmicsML/CellPLM"


class Options(ModelOptions):
    """Options of CellPLM; the defaults are the original's, made repeatable."""

    cluster: Literal["argmax", "expected", "sampled"] = Field(
        "argmax",
        description="cluster that a cell is embedded in, of checkpoints with latent clusters: the "
        "most probable one; the mean over all, weighted by probability; or (as the original) one "
        "drawn at random, here by seed and cell name",
    )
    context: int | None = Field(
        None,
        ge=1,
        description="cells that see each other: windows of so many within a sample, in the order "
        "of the file (1: each cell alone, as in the paper's fine-tuning); none: the whole sample, "
        "see --sample",
    )
    max_genes: int | None = Field(
        None,
        ge=1,
        description="read only the first so many known genes of the file, in its order (the "
        "paper's fine-tuning: 2048); none: all",
    )


MIXTURE, PLAIN = "gmvae", "vae"
"""Kinds of latent space: with clusters, and without; the words of the published configuration."""

SIZES: dict[str, int | float | str | bool] = {
    "dim": 1024,
    "n_heads": 8,
    "n_layers": 4,
    "out_dim": 512,
    "n_clusters": 16,
    "latent": PLAIN,
    "dropout": 0.2,
}
TINY = {**SIZES, "dim": 32, "n_layers": 2, "out_dim": 32}

PUBLISHED = {
    "20231027_85M": "deterministic; that of the authors' tutorial on cell embeddings",
    "20230926_85M": "with latent clusters; that of the scDrugMap paper",
}
"""Published checkpoints: the first part of their file names."""

LATENT = {"20231027_85M": PLAIN, "20230926_85M": MIXTURE}
"""Latent space of each published checkpoint."""


def files(checkpoint: str) -> tuple[str, str]:
    """Return the names of a checkpoint's configuration and of its tensors."""
    return f"{checkpoint}.config.json", f"{checkpoint}.best.ckpt"


def _weights(name: str) -> WeightSet:
    return WeightSet(
        name=name,
        files=tuple(WeightFile(path=path) for path in files(name)),
        licence="not stated by the authors (their code: BSD 2-Clause)",
        homepage=HOMEPAGE,
        notes="it links a Dropbox folder of checkpoints",
    )


SPEC = ModelSpec(
    name="cellplm",
    title="CellPLM",
    contract=1,
    numerics=1,
    gene_id="ensembl",
    species=("human",),
    accepts={"counts"},
    capabilities={Capability.EMBED, Capability.FINETUNE},
    cell_batching="group",
    options=Options,
    variants=(
        *(
            Variant(name=name, title=title, sizes={**SIZES, "latent": LATENT[name]})
            for name, title in PUBLISHED.items()
        ),
        Variant(name="tiny", title="for trials, random only", sizes=TINY, published=False),
        Variant(
            name="tiny-clusters",
            title="for trials, random only, with latent clusters",
            sizes={**TINY, "latent": MIXTURE},
            published=False,
        ),
    ),
    weights=tuple(_weights(name) for name in PUBLISHED),
    lora=LoraDefaults(targets=r"layers\.\d+\.attention\.(q_proj|k_proj|v_proj)"),
    citation="Wen H et al. CellPLM: Pre-training of Cell Language Model Beyond Single Cells. "
    "ICLR (2024). doi:10.1101/2023.10.03.560734",
    code_licence="Apache-2.0 (the original: BSD-2-Clause)",
    weights_licence="not stated by the authors",
    homepage=HOMEPAGE,
    factory="scdrugmap_plugin_cellplm.model:build",
    weights_reader="scdrugmap_plugin_cellplm.weights:read_published",
)


@hookimpl
def scdrugmap_models() -> list[ModelSpec]:
    """Offer CellPLM."""
    return [SPEC]
