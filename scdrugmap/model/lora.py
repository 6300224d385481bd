"""Low-rank adapters (Hu et al. 2021, LoRA) in a plain network: the glue to peft.

peft accepts targets that never act, drops tensors of wrong name without a word, and stacks
adapters on adapters. Here each of these is an error.

An adapted module computes ``W x + alpha / r * B A x``; only A and B train, and B begins at zero.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from scdrugmap.errors import PluginError, WeightsError
from scdrugmap.files import atomic_path
from scdrugmap.modelkit.keys import seeded

if TYPE_CHECKING:
    from torch import Tensor

    from scdrugmap.specs import LoraDefaults

_ADAPTER = "default"  # peft's name for the only adapter of a module
_MATRICES = ("lora_A", "lora_B")
_MOST_LISTED = 8
_LEAST_GRADIENT = 1e-6
"""Of the median over adapters; one that a network passed by had 5e-8 of the others."""

# These read the weights of their parts instead of calling them, at least in eval(): adapters on
# the parts get no gradient, or vanish when predictions are made.
_BYPASSING = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


def add_adapters(module: nn.Module, lora: LoraDefaults, *, seed: int = 0) -> tuple[str, ...]:
    """Put adapters on the linear layers of a network, in place; nothing else stays trainable.

    Parameters
    ----------
    module : nn.Module
        Network without adapters.
    lora : LoraDefaults
        ``targets`` is matched (``re.fullmatch``) against the names of ``nn.Linear`` and of
        transformers' ``Conv1D`` submodules.
    seed : int
        Seed of the matrices A; the global generator is left as it was.

    Returns
    -------
    tuple of str
        Names of the adapted submodules, in the order of the network.

    Raises
    ------
    ValueError
        The network has adapters already.
    PluginError
        The expression is none, matches nothing, or names a layer whose adapter would not act.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if adapted(module):
        raise ValueError("the network has adapters already; build it again to start anew")
    targets = find_targets(module, lora.targets)
    transposed = {_is_conv1d(module.get_submodule(name)) for name in targets}
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        bias="none",
        fan_in_fan_out=transposed == {True},
        # A list would also match longer names that end alike.
        target_modules="|".join(re.escape(name) for name in targets),
    )
    training = module.training
    with seeded(seed), warnings.catch_warnings():
        # peft corrects the setting for each layer where both kinds are adapted, and says so.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        inject_adapter_in_model(config, module, adapter_name=_ADAPTER)
    module.train(training)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(_is_adapter(name))
        if parameter.requires_grad:
            # On weights held in 16 bits or fewer: small steps would be lost in rounding.
            parameter.data = parameter.data.float()
    return tuple(adapted(module))


def find_targets(module: nn.Module, pattern: str) -> tuple[str, ...]:
    """Return the names of the linear layers that a regular expression names.

    Raises
    ------
    PluginError
        It is no regular expression, matches no linear layer, or names a layer inside a stock
        attention or encoder module of torch, where an adapter does not act.
    """
    try:
        expression = re.compile(pattern)
    except re.error as err:
        raise PluginError(f"adapter targets {pattern!r} are no regular expression: {err}") from err
    linear = [name for name, part in module.named_modules() if _is_linear(part)]
    targets = tuple(name for name in linear if expression.fullmatch(name))
    if not targets:
        raise PluginError(
            f"adapter targets {pattern!r} match none of the {len(linear)} linear layers",
            hint=f"it has: {_listed(linear)}",
        )
    for name in targets:
        holder = _bypassing_parent(module, name)
        if holder:
            raise PluginError(
                f"adapter {name} has no effect: {holder} uses the weights of its parts without "
                "calling them",
                hint="build the layer from nn.Linear modules, as scdrugmap.modelkit.Attention does",
            )
    return targets


def adapted(module: nn.Module) -> dict[str, Any]:
    """Return peft's layers by the name of the submodule they stand in for."""
    return {
        name: part
        for name, part in module.named_modules()
        if all(hasattr(part, matrix) for matrix in _MATRICES) and hasattr(part, "base_layer")
    }


def adapter_state(module: nn.Module) -> dict[str, Tensor]:
    """Return the adapters' matrices: ``<submodule>.lora_A`` (r, in), ``<submodule>.lora_B`` (out, r).

    The tensors are those of the network, detached, not copies.
    """
    return {name: parameter.detach() for name, parameter in _matrices(module).items()}


def save_adapters(module: nn.Module, path: Path) -> None:
    """Write the adapters to a safetensors file, whole or not at all.

    Raises
    ------
    ValueError
        The network has no adapters.
    """
    from safetensors.torch import save_file

    state = adapter_state(module)
    if not state:
        raise ValueError("the network has no adapters to save")
    tensors = {name: tensor.cpu().contiguous() for name, tensor in state.items()}
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    metadata = {"scaling": _scaling(module), "format": "pt"}
    with atomic_path(Path(path), n_bytes=n_bytes) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def load_adapters(module: nn.Module, path: Path) -> None:
    """Read adapters into a network that has adapters of the same names and sizes.

    Raises
    ------
    WeightsError
        The file cannot be read, lists other names, other shapes or another scaling, or holds
        values that are not finite. The network is unchanged then.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as handle:
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
            scaling = (handle.metadata() or {}).get("scaling")
    except (SafetensorError, OSError) as err:
        raise WeightsError(f"{path} cannot be read as adapters: {err}") from err
    if scaling is not None and scaling != _scaling(module):
        raise WeightsError(
            f"{path}: alpha / r is {scaling} in the file and {_scaling(module)} in the network"
        )
    load_adapter_state(module, tensors, str(path))


def load_adapter_state(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy matrices as :func:`adapter_state` names them into the adapters of a network.

    Raises
    ------
    WeightsError
        Lists missing and unexpected names, or shapes seen and expected; nothing is copied then.
    """
    expected = _matrices(module)
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    if missing or unexpected:
        parts = []
        if missing:
            parts.append(f"{len(missing)} adapter tensors are missing: {_listed(missing)}")
        if unexpected:
            parts.append(f"{len(unexpected)} do not belong here: {_listed(unexpected)}")
        raise WeightsError(
            f"{source}: {'; '.join(parts)}", hint="was it made for another model or other targets?"
        )
    for name, parameter in expected.items():
        tensor = tensors[name]
        if tensor.shape != parameter.shape:
            raise WeightsError(
                f"{source}: {name} is {tuple(tensor.shape)}, expected {tuple(parameter.shape)}"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"{source}: {name} holds NaN or infinite values")
    with torch.no_grad():
        for name, parameter in expected.items():
            parameter.copy_(tensors[name])


def merge(module: nn.Module) -> None:
    """Add the adapters to the weights, in place: the same results, faster.

    Raises
    ------
    ValueError
        The network has no adapters, or they are merged already.
    """
    for layer in _layers(module, merged=False):
        layer.merge(safe_merge=True)


def unmerge(module: nn.Module) -> None:
    """Undo :func:`merge`, up to rounding.

    Raises
    ------
    ValueError
        The network has no adapters, or they are not merged.
    """
    for layer in _layers(module, merged=True):
        layer.unmerge()


def check_gradients(module: nn.Module) -> None:
    """Raise unless every adapter learns; call it after the first backward pass.

    B gets the gradient of the first step (A gets none: B is zero). A network that reads a weight
    itself, but calls its module for something that hardly matters, gives a gradient that is not
    zero and yet nothing beside the others.

    Raises
    ------
    PluginError
        An adapter got no gradient, one that is not finite, or less than a millionth of the median.
    """
    norms: dict[str, float] = {}
    for name, layer in adapted(module).items():
        gradient = layer.lora_B[_ADAPTER].weight.grad
        if gradient is None or not bool(gradient.any()):
            raise PluginError(
                f"adapter {name} has no effect: it got no gradient",
                hint="the network must call the module, not read its weight",
            )
        if not bool(torch.isfinite(gradient).all()):
            raise PluginError(f"adapter {name}: its gradient is not finite")
        norms[name] = float(gradient.norm())
    median = sorted(norms.values())[len(norms) // 2] if norms else 0.0
    for name, norm in norms.items():
        if norm < _LEAST_GRADIENT * median:
            raise PluginError(
                f"adapter {name} has no effect: its gradient is {norm:.2g}, that of others "
                f"{median:.2g}",
                hint="the network must call the module, not read its weight",
            )


def silent_adapters(module: nn.Module, output: Callable[[], np.ndarray]) -> tuple[str, ...]:
    """Return the adapters without which the output is exactly the same.

    Parameters
    ----------
    module : nn.Module
        Trained: no B is zero.
    output : callable
        Gives what the network computes in ``eval()`` of some cells; called once per adapter.
    """
    whole = output()
    silent = []
    for name, layer in adapted(module).items():
        scaling = layer.scaling[_ADAPTER]
        layer.scaling[_ADAPTER] = 0.0
        try:
            if np.array_equal(output(), whole):
                silent.append(name)
        finally:
            layer.scaling[_ADAPTER] = scaling
    return tuple(silent)


def _layers(module: nn.Module, *, merged: bool) -> list[Any]:
    layers = list(adapted(module).values())
    if not layers:
        raise ValueError("the network has no adapters")
    if any(layer.merged != merged for layer in layers):
        raise ValueError(f"the adapters are {'not merged' if merged else 'merged already'}")
    return layers


def _matrices(module: nn.Module) -> dict[str, nn.Parameter]:
    return {
        f"{name}.{matrix}": getattr(layer, matrix)[_ADAPTER].weight
        for name, layer in adapted(module).items()
        for matrix in _MATRICES
    }


def _scaling(module: nn.Module) -> str:
    """Return alpha / r of the adapters; the shapes give r, and nothing else of a file alpha."""
    return " ".join(sorted({f"{layer.scaling[_ADAPTER]:g}" for layer in adapted(module).values()}))


def _is_adapter(parameter: str) -> bool:
    return any(f".{matrix}." in parameter for matrix in _MATRICES)


def _is_linear(part: nn.Module) -> bool:
    return isinstance(part, nn.Linear) or _is_conv1d(part)


def _is_conv1d(part: nn.Module) -> bool:
    # By name: importing transformers takes seconds, and a network without it has no such layer.
    return any(
        base.__name__ == "Conv1D" and base.__module__.startswith("transformers.")
        for base in type(part).__mro__
    )


def _bypassing_parent(module: nn.Module, name: str) -> str:
    """Return the class name of the stock module around a submodule, if there is one."""
    parts = name.split(".")
    for depth in range(len(parts)):
        parent = module.get_submodule(".".join(parts[:depth]))
        if isinstance(parent, _BYPASSING):
            return f"{type(parent).__module__}.{type(parent).__qualname__}"
    return ""


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_LISTED
    return ", ".join(names[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
