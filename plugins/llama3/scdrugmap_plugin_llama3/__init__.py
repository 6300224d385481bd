"""LLaMA-3 for scDrugMap: what the model is; imported at every start."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from scdrugmap.modelkit.templates import load_template, pin_template
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

HOMEPAGE = "https://huggingface.co/meta-llama/Meta-Llama-3-8B"
LICENCE = "Meta Llama 3 Community License"

NOTICE = (
    "Built with Meta Llama 3. The Meta Llama 3 Community License and its Acceptable Use Policy "
    "hold: no medical advice without a licence to give it, no inference of health data without "
    "consent; a model made with it and passed on must have a name beginning with `Llama 3`; "
    "answers must not be used to improve other language models"
)

BASE, INSTRUCT, CUSTOM = "Meta-Llama-3-8B", "Meta-Llama-3-8B-Instruct", "custom"


class Options(ModelOptions):
    """Options of LLaMA: how a cell becomes a text, what is read, and how answers are scored."""

    template: str = Field(
        "names",
        validate_default=True,
        description="text that is embedded: id, id:version, or a JSON file of your own",
    )
    top_k: int | None = Field(
        None, ge=1, description="most genes in that text; none: as the template says"
    )
    max_tokens: int | None = Field(
        None, ge=8, description="longest text in tokens, begin included; none: as the template says"
    )
    pool: Literal["mean", "mean_no_bos", "last"] = Field(
        "mean",
        description="mean over all tokens, over all but the begin token, or the last token",
    )
    layer: int = Field(
        -1, le=-1, description="layer that is read; -1: the last, after the final norm"
    )
    load_in: Literal["float32", "bfloat16", "8bit", "4bit"] = Field(
        "float32",
        description="how the weights are held in memory; 8bit and 4bit (bitsandbytes, GPU only) "
        "are other models: their embeddings mix with no others",
    )
    question: str = Field(
        "",
        validate_default=True,
        description="template of questions; empty: scdrugmap-classify, of Instruct "
        "scdrugmap-classify-chat",
    )
    question_top_k: int | None = Field(
        None, ge=1, description="most genes in a question; none: as the template says"
    )
    question_max_tokens: int | None = Field(
        None, ge=16, description="longest question with its examples; none: as the template says"
    )
    calibrate: bool = Field(
        True, description="subtract the scores of the same question without genes"
    )
    per_token: bool = Field(
        False, description="divide scores by the number of tokens of the answer"
    )
    orders: Literal["auto", "given", "swapped", "both"] = Field(
        "auto",
        description="order of the two words in the question; both: the mean of the two; auto: both "
        "in a chat, else given",
    )

    @field_validator("template")
    @classmethod
    def _pin_template(cls, value: str) -> str:
        if load_template(pin_template(value)).kind != "embed":
            raise ValueError(f"{value} is a question, not a text to embed (kind embed)")
        return pin_template(value)

    @field_validator("question")
    @classmethod
    def _pin_question(cls, value: str, info: ValidationInfo) -> str:
        chat = info.data.get("variant") == INSTRUCT
        value = value or ("scdrugmap-classify-chat" if chat else "scdrugmap-classify")
        template = load_template(pin_template(value))
        if template.kind == "embed" or template.order != "rank":
            raise ValueError(f"{value} asks no question about ranked genes (kind completion, chat)")
        return pin_template(value)


# config.json of Meta-Llama-3-8B and of -Instruct.
LLAMA3_8B: dict[str, int | float | str | bool] = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "vocab_size": 128256,
}

TINY = {
    **LLAMA3_8B,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
del TINY["vocab_size"]  # as many as there are genes in the packaged table, and a few words

VARIANTS = (
    Variant(name=BASE, title="base model: continues texts", sizes=LLAMA3_8B),
    Variant(name=INSTRUCT, title="answers in a chat", sizes=LLAMA3_8B),
    Variant(name=CUSTOM, title="any other checkpoint with model_type llama", sizes=LLAMA3_8B),
    Variant(name="tiny", title="for trials, random only", sizes=TINY, published=False),
)

INDEX = "model.safetensors.index.json"
SHARDS = tuple(f"model-{number:05d}-of-00004.safetensors" for number in range(1, 5))
OTHER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")


def _published(name: str) -> WeightSet:
    return WeightSet(
        name=name,
        files=tuple(WeightFile(path=path) for path in (*OTHER_FILES, INDEX, *SHARDS)),
        licence=LICENCE,
        commercial_use=True,
        homepage=HOMEPAGE if name == BASE else f"{HOMEPAGE}-Instruct",
        needs_login=True,
        redistributable=False,
        notes="accept the licence there first; original/ is not needed",
        notice=NOTICE,
    )


WEIGHTS = (
    _published(BASE),
    _published(INSTRUCT),
    WeightSet(
        name=CUSTOM,
        files=tuple(WeightFile(path=path) for path in (*OTHER_FILES, "model.safetensors")),
        licence="that of the checkpoint, see its own page",
        homepage="https://huggingface.co/models?other=llama",
        notes="the folder of a checkpoint whose config.json says model_type llama",
    ),
)

SPEC = ModelSpec(
    name="llama3",
    title="Llama 3",  # a name that its licence asks of whatever is made with it
    contract=1,
    numerics=1,
    gene_id="symbol",
    species=("human",),
    accepts={"counts", "lognorm"},  # the order of the genes is all that is read
    capabilities={Capability.EMBED, Capability.FINETUNE, Capability.CLASSIFY},
    options=Options,
    variants=VARIANTS,
    weights=WEIGHTS,
    lora=LoraDefaults(targets=r"layers\.\d+\.self_attn\.(q|k|v|o)_proj"),
    min_genes=150,  # as many as a text names
    citation="AI@Meta. Llama 3 Model Card (2024). Texts of ranked genes: Levine D et al. "
    "Cell2Sentence. ICML (2024)",
    code_licence="Apache-2.0 (transformers: Apache-2.0)",
    weights_licence=LICENCE,
    homepage=HOMEPAGE,
    factory="scdrugmap_plugin_llama3.model:build",
    weights_reader="scdrugmap_plugin_llama3.weights:read_published",
)


@hookimpl
def scdrugmap_models() -> list[ModelSpec]:
    """Offer LLaMA-3."""
    return [SPEC]
