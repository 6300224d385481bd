"""Checks of fine-tuning: every adapter acts, in eval() as in train(), and survives a file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.errors import WeightsError
from scdrugmap.specs import Capability, LoraDefaults
from scdrugmap.testing.checks import CheckFailed, check
from scdrugmap.testing.comparison import require_close
from scdrugmap.testing.dropout import dropout_off
from scdrugmap.testing.network_checks import loss_of
from scdrugmap.testing.subject import Subject, mode

if TYPE_CHECKING:
    from scdrugmap.modelkit.contract import CellModel

_LEAST_SHARE = 1e-3  # of the median gradient norm over the adapters
_LEAST_CHANGE = 1e-4  # of the output by adapters that are filled, relative to its largest value
_SPREAD = 0.05  # standard deviation of the filled B
_EFFECT_TOLERANCE = 0.01  # between what adapters do in train() and in eval()
_MERGE_TOLERANCE = 1e-4  # merging adds rounding to every weight


@check(
    "every adapter target exists and is a layer on which an adapter acts", needs=Capability.FINETUNE
)
def check_lora_targets_exist(subject: Subject) -> None:
    """Put adapters where the spec says."""
    from scdrugmap.model.lora import add_adapters

    model = subject.build()
    before = sum(p.numel() for p in model.module.parameters() if p.requires_grad)
    add_adapters(model.module, _defaults(subject), seed=0)
    after = sum(p.numel() for p in model.module.parameters() if p.requires_grad)
    if not 0 < after < before:
        raise CheckFailed(f"adapters have {after} parameters, the network has {before}")


@check("every adapter gets a gradient at the first step", needs=Capability.FINETUNE)
def check_lora_gradients(subject: Subject) -> None:
    """Do one backward pass over 8 cells of one group and compare the gradients of the B."""
    from scdrugmap.model.lora import adapted, check_gradients

    model = _with_adapters(subject, filled=False)
    with mode(model, training=True), dropout_off():
        output = subject.forward(model)
        if not output.requires_grad:
            raise CheckFailed("no adapter enters the graph: the output needs no gradient")
        loss_of(output).backward()
    check_gradients(model.module)
    layers = adapted(model.module)
    norms = {n: float(layer.lora_B["default"].weight.grad.norm()) for n, layer in layers.items()}
    median = float(np.median(list(norms.values())))
    weak = [name for name, norm in norms.items() if norm < _LEAST_SHARE * median]
    if weak:
        raise CheckFailed(
            f"adapter {weak[0]} gets a gradient of {norms[weak[0]]:.2g}; the median is {median:.2g}"
        )
    for name, layer in layers.items():
        gradient = layer.lora_A["default"].weight.grad
        if gradient is not None and bool(gradient.any()):
            raise CheckFailed(f"adapter {name}: A gets a gradient although B is zero")


@check("adapters change the output of eval() as much as that of train()", needs=Capability.FINETUNE)
def check_lora_acts_in_eval(subject: Subject) -> None:
    """Compare what filled adapters add, with dropout off."""
    plain, filled = subject.build(), _with_adapters(subject)
    effects = {}
    for training in (True, False):
        effects[training] = _output(subject, filled, training) - _output(subject, plain, training)
    least = _LEAST_CHANGE * float(np.abs(_output(subject, plain, False)).max())
    if np.abs(effects[False]).max() < least:
        raise CheckFailed(
            f"filled adapters change the output of eval() by {np.abs(effects[False]).max():.2g} only"
        )
    gap = float(np.abs(effects[True] - effects[False]).max())
    if gap > _EFFECT_TOLERANCE * float(np.abs(effects[True]).max()):
        raise CheckFailed(
            f"adapters change the output of train() by {np.abs(effects[True]).max():.3g}, that of "
            f"eval() by {np.abs(effects[False]).max():.3g}; the two effects differ by {gap:.3g}"
        )


@check("short cuts of the network give what the full path gives", needs=Capability.FINETUNE)
def check_lora_short_cuts(subject: Subject) -> None:
    """With filled adapters, compare inference mode, recorded gradients, and the core's own loop."""
    import torch

    model = _with_adapters(subject)
    full = _output(subject, model, training=False)
    with mode(model, training=False):
        with torch.inference_mode():
            inference = subject.forward(model).numpy()
        with torch.no_grad():
            without = subject.forward(model).numpy()
    require_close(full, inference, "in inference mode, the output")
    require_close(full, without, "without gradients, the output")
    looped = subject.embed(subject.one_group(), model)
    require_close(full, looped, "in the loop that embeds, the output")


@check("merged adapters give what unmerged ones give", needs=Capability.FINETUNE)
def check_lora_merge(subject: Subject) -> None:
    """Add filled adapters to the weights, and take them out again."""
    from scdrugmap.model.lora import merge, unmerge

    model = _with_adapters(subject)
    unmerged = _output(subject, model, training=False)
    merge(model.module)
    require_close(
        unmerged,
        _output(subject, model, training=False),
        "with merged adapters, the output",
        _MERGE_TOLERANCE,
    )
    unmerge(model.module)
    require_close(
        unmerged,
        _output(subject, model, training=False),
        "after unmerging, the output",
        _MERGE_TOLERANCE,
    )


@check("adapters come back from a file, and wrong names are refused", needs=Capability.FINETUNE)
def check_lora_file_round_trip(subject: Subject) -> None:
    """Save adapters, load them into another build that has been used, and compare."""
    from safetensors.torch import load_file, save_file

    from scdrugmap.model.lora import load_adapters, save_adapters

    source, target = _with_adapters(subject), _with_adapters(subject, filled=False)
    _output(subject, target, training=False)  # a network that caches what it computed is caught
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapters.safetensors"
        save_adapters(source.module, path)
        load_adapters(target.module, path)
        require_close(
            _output(subject, source, training=False),
            _output(subject, target, training=False),
            "with adapters from a file, the output",
        )
        tensors = load_file(path)
        name = next(iter(tensors))
        tensors[f"other.{name}"] = tensors.pop(name)
        save_file(tensors, path)
        try:
            load_adapters(target.module, path)
        except WeightsError:
            return
        raise CheckFailed(f"an adapter file with other.{name} instead of {name} was loaded")


def _defaults(subject: Subject) -> LoraDefaults:
    if subject.spec.lora is None:
        raise CheckFailed("the spec declares finetune, but its `lora` is None")
    return subject.spec.lora


def _with_adapters(subject: Subject, *, filled: bool = True) -> CellModel:
    """Build the model with adapters; `filled` ones have a B that is not zero."""
    import torch

    from scdrugmap.model.lora import adapter_state, add_adapters

    model = subject.build()
    add_adapters(model.module, _defaults(subject), seed=0)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in adapter_state(model.module).items():
        if filled and name.endswith(".lora_B"):
            tensor.normal_(0.0, _SPREAD, generator=generator)
    return model


def _output(subject: Subject, model: CellModel, training: bool) -> np.ndarray:
    """Run the network on one group with gradients recorded and dropout off: (B, D)."""
    with mode(model, training=training):
        if not training:  # the mode below would hide torch's fused paths
            return subject.forward(model).detach().numpy()
        with dropout_off():
            return subject.forward(model).detach().numpy()
