"""How a network is fine-tuned: one frozen record for the command line, benchmarks and predictors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scdrugmap.errors import UsageError

FINE_TUNING = ("lora", "full")
"""Strategies that train the network itself."""

MODEL_STRATEGIES = ("frozen", *FINE_TUNING)
"""Strategies of embedding models."""


class FineTuning(BaseModel):
    """Settings of the strategies ``lora`` and ``full``; all that decides their result."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    targets: str | None = Field(
        None, description="regular expression of the adapted layers; default: the model's own"
    )
    r: int | None = Field(None, ge=1, description="rank of the adapters; default: the model's own")
    alpha: float | None = Field(
        None, gt=0, description="adapters are scaled by alpha / r; default: the model's own"
    )
    dropout: float | None = Field(
        None, ge=0, lt=1, description="dropout before the adapters; default: the model's own"
    )
    epochs: int = Field(10, ge=1, description="most times that every training cell is seen")
    max_steps: int | None = Field(
        None, ge=1, description="most optimiser steps; default: as many as the epochs have"
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        description="cells of an optimiser step, whatever the memory: they go through the network "
        "in smaller batches; default: 32, or 1024 for models whose cells see each other",
    )
    learning_rate: float | None = Field(
        None, gt=0, description="highest rate of the network; default: 1e-4 for lora, 2e-5 for full"
    )
    head_learning_rate: float = Field(1e-3, gt=0, description="highest rate of the head")
    weight_decay: float = Field(0.01, ge=0, description="of AdamW")
    warmup: float = Field(
        0.1, ge=0, lt=1, description="share of the steps in which the rate rises from zero"
    )
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="what the rate does after the warm-up: falls to zero, or stays"
    )
    clip_norm: float = Field(1.0, ge=0, description="most norm of the gradient; 0: no limit")
    patience: int = Field(
        3, ge=0, description="evaluations without a better one before training stops; 0: never"
    )
    evaluate_every: int | None = Field(
        None, ge=1, description="steps between two evaluations; default: an epoch"
    )
    hold_out: float = Field(
        0.2,
        gt=0,
        le=0.5,
        description="share of the training groups held out for early stopping where the split has "
        "no validation cells",
    )
    class_weights: bool = Field(False, description="weigh both labels alike in the loss")
    gradient_checkpointing: bool = Field(
        False, description="compute activations twice to hold fewer of them"
    )

    @property
    def names_adapters(self) -> bool:
        """Whether anything is said of adapters."""
        return any(value is not None for value in (self.targets, self.r, self.alpha, self.dropout))


def read_tuning(given: FineTuning | Mapping[str, Any] | None) -> FineTuning | None:
    """Turn settings by name into the record.

    Raises
    ------
    UsageError
        An unknown setting, or a value out of range.
    """
    if given is None or isinstance(given, FineTuning):
        return given
    try:
        return FineTuning.model_validate(dict(given))
    except ValidationError as err:
        first = err.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"fine-tuning: {name}: {first['msg']}",
            hint=f"it has: {', '.join(FineTuning.model_fields)}",
        ) from err
