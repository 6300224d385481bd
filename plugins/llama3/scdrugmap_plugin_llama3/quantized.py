"""Weights in 8 or 4 bits (bitsandbytes, a GPU): another model, for cards that hold no more.

The layers of the trunk are quantised when they are moved to the GPU; embeddings, norms and the
head stay in bfloat16.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from scdrugmap.errors import PluginError, ResourceError

if TYPE_CHECKING:
    from scdrugmap_plugin_llama3.model import Llama

QUANTIZED = ("8bit", "4bit")

_OUTLIER_THRESHOLD = 6.0  # LLM.int8 (Dettmers et al. 2022): larger activations stay in 16 bits


def require_quantization(load_in: str) -> None:
    """Refuse quantised weights where they cannot work.

    Raises
    ------
    ResourceError
        There is no CUDA GPU.
    PluginError
        bitsandbytes is not installed.
    """
    if load_in not in QUANTIZED:
        return
    if not torch.cuda.is_available():
        raise ResourceError(
            f"llama3: load_in={load_in} works on a CUDA GPU only; this machine has none",
            hint="use load_in=bfloat16 (half the memory of float32), or a machine with a GPU",
        )
    if find_spec("bitsandbytes") is None:
        raise PluginError(
            f"llama3: load_in={load_in} needs bitsandbytes, which is not installed",
            hint="pip install 'scdrugmap-plugin-llama3[quantized]'",
        )


def quantize(module: Llama, load_in: str) -> None:
    """Replace the linear layers of the trunk by quantised ones, in place; else do nothing."""
    if load_in not in QUANTIZED:
        return
    bitsandbytes = import_module("bitsandbytes")
    for name, part in list(module.layers.named_modules()):
        if isinstance(part, nn.Linear):
            parent, _, child = name.rpartition(".")
            holder = module.layers.get_submodule(parent)
            setattr(holder, child, _quantized(bitsandbytes, part, load_in))
    module.is_quantized = True
    setattr(module, f"is_loaded_in_{load_in}", True)  # what peft asks for before it adds adapters


def _quantized(bitsandbytes: Any, linear: nn.Linear, load_in: str) -> nn.Module:
    sizes = (linear.in_features, linear.out_features)
    bias = linear.bias is not None
    new: nn.Module
    if load_in == "4bit":
        new = bitsandbytes.nn.Linear4bit(
            *sizes,
            bias=bias,
            compute_dtype=torch.bfloat16,
            compress_statistics=True,
            quant_type="nf4",
        )
        new.weight = bitsandbytes.nn.Params4bit(
            linear.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4"
        )
    else:
        new = bitsandbytes.nn.Linear8bitLt(
            *sizes, bias=bias, has_fp16_weights=False, threshold=_OUTLIER_THRESHOLD
        )
        new.weight = bitsandbytes.nn.Int8Params(
            linear.weight.data, requires_grad=False, has_fp16_weights=False
        )
    if bias:
        new.bias = linear.bias
    return new
