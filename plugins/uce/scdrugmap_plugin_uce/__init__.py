"""UCE (Rosen et al. 2023) for scDrugMap: what the model is; imported at every start."""

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

HOMEPAGE = "https://github.com/snap-stanford/UCE"

SPECIES = {
    "frog": "Xenopus_tropicalis.Xenopus_tropicalis_v9.1",
    "human": "Homo_sapiens.GRCh38",
    "macaca_fascicularis": "Macaca_fascicularis.Macaca_fascicularis_6.0",
    "macaca_mulatta": "Macaca_mulatta.Mmul_10",
    "mouse": "Mus_musculus.GRCm39",
    "mouse_lemur": "Microcebus_murinus.Mmur_3.0",
    "pig": "Sus_scrofa.Sscrofa11.1",
    "zebrafish": "Danio_rerio.GRCz11",
}
"""Species of the published token table, in its order, and their assemblies."""


def protein_file(species: str) -> str:
    """Return the path, inside a published folder, of the file that lists a species' genes."""
    return f"protein_embeddings/{SPECIES[species]}.gene_symbol_to_embedding_ESM2.pt"


class Options(ModelOptions):
    """Options of UCE; the defaults are the original's, made repeatable."""

    species: Literal[
        "human",
        "frog",
        "macaca_fascicularis",
        "macaca_mulatta",
        "mouse",
        "mouse_lemur",
        "pig",
        "zebrafish",
    ] = Field("human", description="whose genes the cells have; random weights know human ones")
    nhead: int | None = Field(
        None,
        ge=1,
        description="attention heads, which no published file states; none: 20, as published",
    )
    sample_size: int = Field(1024, ge=1, description="genes drawn per cell, with repeats")
    pad_length: int = Field(
        1536, ge=4, le=1536, description="most tokens of a sentence; a longer one is an error"
    )
    n_samples: int = Field(
        1, ge=1, le=100, description="sentences drawn per cell, whose embeddings are averaged"
    )
    sampler: Literal["per_cell", "legacy"] = Field(
        "per_cell",
        description="how genes are drawn: whatever the order of the file's columns, or (legacy) "
        "with the original's generator, in that order; either way by seed and cell name",
    )
    padding: Literal["mask", "legacy"] = Field(
        "mask",
        description="padding is masked, or (as the original) gets attention, so that an embedding "
        "depends on the other cells of its batch",
    )


SIZES: dict[str, int | float | str | bool] = {
    "dim": 1280,
    "n_heads": 20,
    "hidden": 5120,
    "decoder_dim": 1024,
    "out_dim": 1280,
    "n_layers": 4,
    "n_positions": 1536,
    "dropout": 0.05,
}
TINY = {
    **SIZES,
    "dim": 32,
    "n_heads": 4,
    "hidden": 64,
    "decoder_dim": 32,
    "out_dim": 32,
    "n_layers": 2,
}

CHECKPOINTS = {"4-layer": "4layer_model.torch", "33-layer": "33l_8ep_1024t_1280.torch"}
"""File of each published checkpoint."""

LAYERS = {"4-layer": 4, "33-layer": 33}


def _weights(name: str) -> WeightSet:
    files = (
        CHECKPOINTS[name],
        "species_chrom.csv",
        "species_offsets.pkl",
        protein_file("human"),
    )
    return WeightSet(
        name=name,
        files=tuple(WeightFile(path=path) for path in files),
        licence="not seen by us; a model page of CZI refers to the MIT licence of the code",
        homepage=HOMEPAGE,
        notes="it links the figshare record 'Universal Cell Embedding Model Files'; of other "
        "species add their files in protein_embeddings/",
    )


SPEC = ModelSpec(
    name="uce",
    title="UCE",
    contract=1,
    numerics=1,
    gene_id="symbol",
    species=("human", *(name for name in SPECIES if name != "human")),
    accepts={"counts"},
    capabilities={Capability.EMBED, Capability.FINETUNE},
    options=Options,
    variants=(
        Variant(
            name="4-layer",
            title="the smaller checkpoint, which the scDrugMap paper uses",
            sizes=SIZES,
        ),
        Variant(
            name="33-layer",
            title="the checkpoint of the UCE paper, whose embeddings are of another space",
            sizes={**SIZES, "n_layers": LAYERS["33-layer"]},
        ),
        Variant(name="tiny", title="for trials, random only", sizes=TINY, published=False),
    ),
    weights=tuple(_weights(name) for name in CHECKPOINTS),
    lora=LoraDefaults(targets=r"layers\.\d+\.attention\.out_proj"),
    citation="Rosen Y et al. Universal Cell Embeddings: A Foundation Model for Cell Biology. "
    "bioRxiv (2023). doi:10.1101/2023.11.28.568918",
    code_licence="Apache-2.0 (the original: MIT)",
    weights_licence="not seen; CZI's model page refers to MIT",
    homepage=HOMEPAGE,
    factory="scdrugmap_plugin_uce.model:build",
    weights_reader="scdrugmap_plugin_uce.weights:read_published",
)


@hookimpl
def scdrugmap_models() -> list[ModelSpec]:
    """Offer UCE."""
    return [SPEC]
