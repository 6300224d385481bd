"""GPT-4o-mini, or any OpenAI-compatible chat endpoint: what it is; imported at every start."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from scdrugmap.plugin import Options as BaseOptions
from scdrugmap.plugin import TextModelSpec, hookimpl

OPENAI = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"


def _pinned(value: str) -> str:
    from scdrugmap.modelkit.templates import pin_template

    return pin_template(value)


class Options(BaseOptions):
    """What is asked of whom; everything here can change an answer."""

    base_url: str = Field(
        OPENAI, description="address of the endpoint, as an OpenAI client takes it (ends in /v1)"
    )
    model: str = Field(
        "gpt-4o-mini-2024-07-18",
        min_length=1,
        description="name of the model at the endpoint; dated names do not move",
    )
    template: Annotated[str, AfterValidator(_pinned)] = Field(
        "chat-classify",
        validate_default=True,
        description="template of the prompt: id[:version], or a JSON file of your own",
    )
    top_k: int | None = Field(
        None, ge=1, le=2000, description="genes of a cell; none: as the template says"
    )
    fields: tuple[str, ...] | None = Field(
        None,
        description="facts that are sent where they are known, comma-separated: drug, tissue, "
        "cancer_type (columns of obs); none: drug, if the template tells it",
    )
    cells_per_request: int = Field(
        1, ge=1, le=20, description="cells that share a request; above 1 they influence each other"
    )
    seed: int = Field(
        0, ge=0, description="sent to the server; orders the cells, and mixes shared requests"
    )
    max_tokens: int = Field(32, ge=1, le=1024, description="most tokens of the answer on one cell")
    top_logprobs: int = Field(
        20, ge=0, le=20, description="alternatives asked for at each token; 0: no probabilities"
    )


SPEC = TextModelSpec(
    name="gpt4o_mini",
    title="GPT-4o-mini (or any OpenAI-compatible endpoint)",
    contract=1,
    numerics=1,
    remote=True,
    secrets=(KEY_VARIABLE,),
    options=Options,
    citation="OpenAI. GPT-4o mini: advancing cost-efficient intelligence (2024). "
    "https://openai.com/index/gpt-4o-mini-advancing-cost-efficient-intelligence/",
    code_licence="Apache-2.0 (the openai package: Apache-2.0)",
    homepage="https://platform.openai.com/docs/models/gpt-4o-mini",
    factory="scdrugmap_plugin_gpt4o_mini.model:build",
)


@hookimpl
def scdrugmap_models() -> list[TextModelSpec]:
    """Offer the chat endpoint."""
    return [SPEC]
