"""Gradient checkpointing: hold the inputs of each layer and compute what is inside it twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from scdrugmap.errors import PluginError


@contextmanager
def recomputed_layers(module: nn.Module) -> Iterator[None]:
    """Recompute the trunk's layers in the backward pass, inside the block; dropout is the same.

    Parameters
    ----------
    module : nn.Module
        Network whose trunk is ``layers``, as the contract of a model says.

    Raises
    ------
    PluginError
        It has no such trunk.
    """
    trunk = getattr(module, "layers", None)
    if not isinstance(trunk, nn.ModuleList) or not len(trunk):
        raise PluginError(
            f"{type(module).__name__} has no list of layers named `layers`",
            hint="train it without --gradient-checkpointing",
        )
    for layer in trunk:
        layer.forward = partial(_forward, layer.forward)
    try:
        yield
    finally:
        for layer in trunk:
            del layer.forward


def _forward(inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return inner(*args, **kwargs)
    return checkpoint(inner, *args, use_reentrant=False, **kwargs)
