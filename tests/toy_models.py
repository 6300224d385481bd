"""A small correct model, and one deliberate fault per conformance check (`Options.fault`)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from scdrugmap.plugin import Capability, LoraDefaults, ModelOptions, ModelSpec, Variant


class Options(ModelOptions):
    """Options of the toy."""

    variant: str = Field("tiny", description="only tiny")
    max_length: int = Field(64, ge=1, description="most genes of a cell")
    fault: str = Field("", description="what is wrong with the model on purpose")


class ForgetfulOptions(Options):
    """Options that come back from JSON as something else."""

    places: Any = (1, 2)


SPEC = ModelSpec(
    name="toy",
    title="Toy",
    contract=1,
    numerics=1,
    gene_id="symbol",
    species=("human",),
    accepts=frozenset({"counts"}),
    capabilities=frozenset({Capability.EMBED, Capability.FINETUNE}),
    options=Options,
    variants=(Variant(name="tiny", sizes={"dim": 16}),),
    lora=LoraDefaults(
        targets=r"layers\.\d+\.(attention\.q_proj|attention\.v_proj|feed_forward\.linear1)"
    ),
    citation="none",
    code_licence="Apache-2.0",
    homepage="https://example.org",
    factory="toy_networks:build",
)
GROUP_SPEC = SPEC.model_copy(
    update={"name": "toy_group", "cell_batching": "group", "factory": "toy_networks:build_group"}
)
