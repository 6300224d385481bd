"""tGPT (Shen et al. 2023) for scDrugMap: what the model is; imported at every start."""

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

PUBLISHED = "transcriptome-gpt-1024-8-16-64"
"""Name of the one published checkpoint: width, layers, heads, tokens."""

HOMEPAGE = f"https://huggingface.co/lixiangchun/{PUBLISHED}"


class Options(ModelOptions):
    """Options of tGPT; the defaults are those of the original's feature script."""

    max_length: int = Field(
        64, ge=3, description="most tokens of a cell, </b> and </s> included: 62 genes of 64"
    )
    token_types: bool = Field(
        True,
        description="add the vector of <pad> to every position, as in training; scripts on current "
        "releases of transformers leave it out unnoticed",
    )
    unknown: Literal["drop", "token"] = Field(
        "drop",
        description="genes the model does not know are left out before the cell is cut, or (as the "
        "original) become <unk> and use up places",
    )
    exclude_ribosomal: bool = Field(
        False,
        description="leave out genes called RPL or RPS and a digit, as the authors' examples do",
    )
    ties: Literal["token", "column"] = Field(
        "token",
        description="genes of equal expression stand in the order of the vocabulary, or in that of "
        "the file's columns",
    )
    pool: Literal["genes", "all", "last"] = Field(
        "genes",
        description="embedding: mean over the genes, mean over all tokens with </b> and </s>, or "
        "the state of the last gene",
    )


SIZES: dict[str, int | float | str | bool] = {
    "dim": 1024,
    "n_heads": 16,
    "hidden": 4096,
    "n_layers": 8,
    "n_positions": 1024,
    "dropout": 0.1,
}
TINY = {**SIZES, "dim": 32, "n_heads": 4, "hidden": 128, "n_layers": 2}

SPEC = ModelSpec(
    name="tgpt",
    title="tGPT",
    contract=1,
    numerics=1,
    gene_id="symbol",
    species=("human",),
    accepts={"counts", "lognorm"},
    capabilities={Capability.EMBED, Capability.FINETUNE},
    options=Options,
    variants=(
        Variant(name=PUBLISHED, title="22.3 million cells", sizes=SIZES),
        Variant(name="tiny", title="for trials, random only", sizes=TINY, published=False),
    ),
    weights=(
        WeightSet(
            name=PUBLISHED,
            files=tuple(
                WeightFile(path=path)
                for path in ("config.json", "pytorch_model.bin", "tokenizer.json")
            ),
            licence="not stated by the authors (their code: GPL-3.0)",
            homepage=HOMEPAGE,
        ),
    ),
    lora=LoraDefaults(targets=r"layers\.\d+\.attention\.(q_proj|k_proj|v_proj)"),
    citation="Shen H et al. Generative pretraining from large-scale transcriptomes for single-cell "
    "deciphering. iScience 26, 106536 (2023). doi:10.1016/j.isci.2023.106536",
    code_licence="Apache-2.0 (the original: GPL-3.0; nothing of it is in here)",
    weights_licence="not stated by the authors",
    homepage="https://github.com/deeplearningplus/tGPT",
    factory="scdrugmap_plugin_tgpt.model:build",
    weights_reader="scdrugmap_plugin_tgpt.weights:read_published",
)


@hookimpl
def scdrugmap_models() -> list[ModelSpec]:
    """Offer tGPT."""
    return [SPEC]
