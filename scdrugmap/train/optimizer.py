"""The optimiser of fine-tuning, and its learning rate at each step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn

    from scdrugmap.train.settings import FineTuning

LEARNING_RATES = {"lora": 1e-4, "full": 2e-5}
"""Highest learning rate of the network by strategy; that of lora is the paper's."""


def make_optimizer(
    trainable: Mapping[str, nn.Parameter], rates: Mapping[str, float], *, weight_decay: float
) -> torch.optim.AdamW:
    """Return AdamW; biases and scales of normalisations do not decay.

    Parameters
    ----------
    trainable : mapping of str to parameter
        Named ``<part>.<name>``.
    rates : mapping of str to float
        Highest learning rate of each part; groups keep it as ``highest``.
    weight_decay : float
    """
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in trainable.items():
        groups.setdefault((name.partition(".")[0], parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": weight_decay if matrix else 0.0,
                "lr": rates[part],
                "highest": rates[part],
            }
            for (part, matrix), parameters in groups.items()
        ]
    )


def rate_share(step: int, n_steps: int, settings: FineTuning) -> float:
    """Return the learning rate of a step (from 0) as a share of the highest one.

    It rises linearly, then falls along half a cosine to zero, or stays.
    """
    warm = math.ceil(settings.warmup * n_steps)
    if step < warm:
        return (step + 1) / warm
    if settings.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(n_steps - warm, 1)))
