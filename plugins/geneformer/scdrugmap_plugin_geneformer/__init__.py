"""Geneformer (Theodoris et al. 2023) for scDrugMap: what the model is; imported at every start."""

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

HOMEPAGE = "https://huggingface.co/ctheodoris/Geneformer"
LICENCE = "Apache-2.0"


class Options(ModelOptions):
    """Options of Geneformer; the defaults are those of the original's embedding extractor."""

    emb_mode: Literal["auto", "cls", "cell"] = Field(
        "auto",
        description="state of <cls>, or the mean over the genes of the cell; auto: cls for V2, "
        "cell for V1, which has no <cls>",
    )
    emb_layer: int = Field(
        -1,
        ge=-1,
        le=0,
        description="layer that is read: -1 the second-to-last, 0 the last",
    )
    padding: Literal["mask", "legacy"] = Field(
        "mask",
        description="mask: padding is not seen; legacy: as in the scDrugMap paper's scripts, "
        "every cell is padded to the full length, padding is attended to and averaged",
    )


def _sizes(
    generation: int, dim: int, hidden: int, n_heads: int, n_layers: int, n_positions: int
) -> dict[str, int | float | str | bool]:
    dropout = 0.1 if generation == 2 else 0.02
    return {
        "generation": generation,
        "dim": dim,
        "hidden": hidden,
        "n_heads": n_heads,
        "n_layers": n_layers,
        "n_positions": n_positions,
        "dropout": dropout,
        "attention_dropout": dropout,
        "eps": 1e-12,
    }


V1_10M = _sizes(1, 256, 512, 4, 6, 2048)
V1_12L = _sizes(1, 512, 1024, 8, 12, 2048)
V2_104M = _sizes(2, 768, 3072, 12, 12, 4096)
V2_316M = _sizes(2, 1152, 4608, 18, 18, 4096)

CARDIOMYOPATHIES = "V1-10M_CellClassifier_cardiomyopathies_220224"

FOLDERS: dict[str, tuple[str, ...]] = {
    "V2-104M": ("Geneformer-V2-104M",),
    "V2-104M_CLcancer": ("Geneformer-V2-104M_CLcancer",),
    "V2-316M": ("Geneformer-V2-316M",),
    "V1-10M": ("Geneformer-V1-10M", "geneformer-6L-30M"),
    "V1-12L": ("geneformer-12L-30M",),
    CARDIOMYOPATHIES: (
        f"fine_tuned_models/Geneformer-{CARDIOMYOPATHIES}",
        "fine_tuned_models/geneformer-6L-30M_CellClassifier_cardiomyopathies_220224",
        "geneformer-6L-30M_CellClassifier_cardiomyopathies_220224",
    ),
}
"""Published checkpoint to its folder in the authors' repository, today and before."""

VARIANTS = (
    Variant(name="V2-104M", title="104 million cells, 12 layers", sizes=V2_104M),
    Variant(name="V2-104M_CLcancer", title="V2-104M, trained on to cancer", sizes=V2_104M),
    Variant(name="V2-316M", title="104 million cells, 18 layers", sizes=V2_316M),
    Variant(name="V1-10M", title="30 million cells, 6 layers", sizes=V1_10M),
    Variant(name="V1-12L", title="30 million cells, 12 layers", sizes=V1_12L),
    Variant(
        name=CARDIOMYOPATHIES,
        title="V1-10M as a classifier of heart diseases; what the scDrugMap paper used",
        sizes=V1_10M,
    ),
    Variant(
        name="tiny",
        title="for trials, random only",
        sizes=_sizes(2, 32, 64, 4, 2, 512),
        published=False,
    ),
    Variant(
        name="tiny-V1",
        title="for trials of the first generation, random only",
        sizes=_sizes(1, 32, 64, 4, 2, 512),
        published=False,
    ),
)

DICTIONARIES = (
    "token_dictionary",
    "gene_median_dictionary",
    "ensembl_mapping_dict",
    "gene_name_id_dict",
)
CORPUS = {1: "gc30M", 2: "gc104M"}
"""Part of the dictionaries' names, by generation of the model."""

DICTIONARY_FOLDERS = {1: "geneformer/gene_dictionaries_30m", 2: "geneformer"}

# As recorded by third parties.
N_BYTES = {"V2-104M": 417_571_156, "V2-104M_CLcancer": 417_571_156, "V2-316M": 1_265_455_076}


def _weights(variant: Variant) -> WeightSet:
    generation = int(variant.sizes["generation"])
    folder = FOLDERS[variant.name][0]
    tensors = "model.safetensors" if generation == 2 else "pytorch_model.bin"
    where = DICTIONARY_FOLDERS[generation]
    return WeightSet(
        name=variant.name,
        files=(
            WeightFile(path=f"{folder}/config.json"),
            WeightFile(path=f"{folder}/{tensors}", n_bytes=N_BYTES.get(variant.name)),
            *(WeightFile(path=f"{where}/{name}_{CORPUS[generation]}.pkl") for name in DICTIONARIES),
        ),
        licence=LICENCE,
        commercial_use=True,
        homepage=HOMEPAGE,
        notes="with their folders, as in the repository",
    )


SPEC = ModelSpec(
    name="geneformer",
    title="Geneformer",
    contract=1,
    numerics=1,
    gene_id="ensembl",
    species=("human",),
    accepts={"counts"},
    capabilities={Capability.EMBED, Capability.FINETUNE},
    options=Options,
    variants=VARIANTS,
    weights=tuple(_weights(variant) for variant in VARIANTS if variant.published),
    lora=LoraDefaults(targets=r"layers\.\d+\.attention\.(q_proj|k_proj|v_proj)"),
    citation="Theodoris CV et al. Transfer learning enables predictions in network biology. "
    "Nature 618, 616-624 (2023). doi:10.1038/s41586-023-06139-9; V2: Chen H et al. bioRxiv "
    "2024.08.16.608180 (2024)",
    code_licence="Apache-2.0 (the original: Apache-2.0)",
    weights_licence=LICENCE,
    homepage=HOMEPAGE,
    factory="scdrugmap_plugin_geneformer.model:build",
    weights_reader="scdrugmap_plugin_geneformer.weights:read_published",
)


@hookimpl
def scdrugmap_models() -> list[ModelSpec]:
    """Offer Geneformer."""
    return [SPEC]
