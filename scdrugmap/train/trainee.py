"""A network that is fine-tuned: what of it trains, the head on top, and whether training acts.

B cells of a batch, D width of the embedding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from scdrugmap.errors import DataError, PluginError, UsageError
from scdrugmap.model.lora import adapter_state, add_adapters, check_gradients, silent_adapters
from scdrugmap.modelkit.keys import seeded
from scdrugmap.train.heads import Head, LogisticHead, Perceptron, PerceptronHead
from scdrugmap.train.tensors import dump_tensors, load_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from scdrugmap.modelkit.contract import CellModel
    from scdrugmap.specs import LoraDefaults

ADAPTERS_FILE, NETWORK_FILE = "adapters.safetensors", "network.safetensors"

MOST_NETWORK_BYTES = 3 << 27
"""Most bytes of a fully fine-tuned network in a predictor (402,653,184), head and rest come on top."""

_LEAST_CHANGE = 1e-6
"""Relative change of the embeddings below which training did nothing: float32 rounds at 6e-8."""


class LinearHead(nn.Module):
    """Logistic regression on standardised embeddings, as a layer that trains on."""

    mean: Tensor
    scale: Tensor

    def __init__(self, start: LogisticHead) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(start.mean.copy()))
        self.register_buffer("scale", torch.from_numpy(start.scale.copy()))
        with seeded(0):
            self.out = nn.Linear(start.dim, 1)
        with torch.no_grad():
            self.out.weight.copy_(torch.from_numpy(start.weight)[None])
            self.out.bias.copy_(torch.from_numpy(start.bias))

    def forward(self, x: Tensor) -> Tensor:
        """Return the (B,) logits of sensitive for (B, D) embeddings."""
        return self.out((x - self.mean) / self.scale).squeeze(1)  # (B,)

    def learnt(self) -> Head:
        """Return what was learnt as the head that predictors hold."""
        head = LogisticHead(len(self.mean))
        head.mean, head.scale = _numpy(self.mean), _numpy(self.scale)
        head.weight, head.bias = _numpy(self.out.weight)[0], _numpy(self.out.bias)
        return head


class DeepHead(Perceptron):
    """The paper's network on top, as a layer that trains on."""

    def learnt(self) -> Head:
        """Return what was learnt as the head that predictors hold."""
        head = PerceptronHead(self.hidden_1.in_features)
        head.restore({name: _numpy(t) for name, t in self.state_dict().items()}, "the head")
        return head


def cell_losses(logits: Tensor, y: Tensor) -> Tensor:
    """Return the (B,) loss of each cell.

    Parameters
    ----------
    logits : (B,) or (B, 2) float
        Of a :class:`LinearHead` or a :class:`DeepHead`; of the latter each logit is held against
        the one-hot label, as the paper does.
    y : (B,) float
        1 for sensitive.
    """
    if logits.ndim == 1:
        return F.binary_cross_entropy_with_logits(logits, y, reduction="none")
    target = torch.stack([1 - y, y], 1)  # (B, 2)
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1)


class Trainee:
    """A copy of a model whose network trains, wholly or by adapters, with a head.

    Parameters
    ----------
    model : CellModel
        Left as it is.
    lora : LoraDefaults, optional
        Where adapters go; None: the whole network trains.
    seed : int
        Of the first adapters and the first head.
    name : str
        What errors call the model.
    named : bool
        The user named the layers: a mismatch is then an error of usage, not of the plugin.

    Attributes
    ----------
    model : CellModel
        The copy.
    adapted : tuple of str
        Names of the layers with adapters.
    head : LinearHead or DeepHead
        Set by :meth:`start_head`.
    """

    head: LinearHead | DeepHead

    def __init__(
        self,
        model: CellModel,
        lora: LoraDefaults | None,
        *,
        seed: int,
        name: str,
        named: bool = False,
    ) -> None:
        self.model = copy.deepcopy(model)
        self.lora, self.seed, self.name = lora, seed, name
        self._before = {} if lora else _parameters(model.module)
        self.adapted: tuple[str, ...] = ()
        if lora is not None:
            try:
                self.adapted = add_adapters(self.model.module, lora, seed=seed)
            except PluginError as err:
                if not named:
                    raise
                raise UsageError(f"--lora-targets: {err.message}", hint=err.hint) from err
        else:
            n_bytes = 4 * sum(p.numel() for p in self._before.values())
            if n_bytes > MOST_NETWORK_BYTES:
                raise UsageError(
                    f"{name} has {n_bytes:,} bytes of trainable tensors; a predictor of a fully "
                    f"fine-tuned network holds at most {MOST_NETWORK_BYTES:,}",
                    hint="use --strategy lora",
                )

    @property
    def module(self) -> nn.Module:
        """The network."""
        return self.model.module

    def start_head(self, kind: str, x: np.ndarray, y: np.ndarray) -> None:
        """Make the head: fitted to embeddings of the network as it is, or (``mlp``) drawn.

        A linear head that begins fitted does not first pull the network in random directions
        (Kumar et al., Fine-Tuning can Distort Pretrained Features, ICLR 2022).

        Parameters
        ----------
        kind : {"logistic", "mlp"}
        x : (n, D) float32
        y : (n,) float
        """
        if kind == "logistic":
            start = LogisticHead(x.shape[1])
            start.fit(x, y, self.seed)
            self.head = LinearHead(start)
            return
        with seeded(self.seed):
            self.head = DeepHead(x.shape[1])

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return what trains: ``network.<name>`` and ``head.<name>``."""
        parts = {"network": self.module, "head": self.head}
        return {
            f"{part}.{name}": parameter
            for part, module in parts.items()
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }

    def state(self) -> dict[str, Tensor]:
        """Return copies, on the CPU, of all that training changes, and the scale of the head."""
        buffers = {f"head.{name}": buffer for name, buffer in self.head.named_buffers()}
        tensors = {**self.trainable(), **buffers}
        return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put a state back.

        Raises
        ------
        DataError
            Names or shapes are not those of this network.
        """
        own = {**self.trainable()}
        own |= {f"head.{name}": buffer for name, buffer in self.head.named_buffers()}  # type: ignore[misc]
        found = {name: tuple(tensor.shape) for name, tensor in state.items()}
        expected = {name: tuple(tensor.shape) for name, tensor in own.items()}
        if found != expected:
            strange = sorted(set(found.items()) ^ set(expected.items()))
            raise DataError(f"the state is of another network: {strange[:3]}")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state[name])

    def train(self) -> None:
        """Switch to training; running statistics of normalisations stay as they are."""
        self.module.train()
        for part in self.module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eval()

    def check_gradients(self) -> None:
        """Raise PluginError unless the network learns; after the first backward pass."""
        if self.lora is not None:
            check_gradients(self.module)
        elif not any(p.grad is not None and bool(p.grad.any()) for p in self.module.parameters()):
            raise PluginError(f"{self.name}: no tensor of the network gets a gradient")

    def require_finite(self) -> None:
        """Raise PluginError where a step drove a tensor out of all bounds."""
        trainable = self.trainable()
        wrong = [name for name, p in trainable.items() if not bool(torch.isfinite(p).all())]
        if wrong:
            raise PluginError(
                f"{self.name}: after a step {len(wrong)} of {len(trainable)} tensors that train are "
                f"not finite, {wrong[0]} among them",
                hint="use a lower --learning-rate, or --precision float32",
            )

    def require_acting_adapters(self, output: Callable[[], np.ndarray]) -> None:
        """Raise PluginError where an adapter changes nothing in ``eval()``.

        Parameters
        ----------
        output : callable
            Gives the (m, D) embeddings of some cells in ``eval()``.
        """
        silent = silent_adapters(self.module, output)
        if silent:
            raise PluginError(
                f"adapter {silent[0]} has no effect when predictions are made: without it "
                f"the network gives the same ({len(silent)} of {len(self.adapted)} adapters)",
                hint="the network must call the layer in eval() too; leave it out with "
                "--lora-targets",
            )

    def learnt_file(self) -> tuple[str, bytes]:
        """Return the adapters, or the tensors of the network that changed, as a file."""
        if self.lora is not None:
            state = adapter_state(self.module)
            return ADAPTERS_FILE, dump_tensors({name: _numpy(t) for name, t in state.items()})
        changed = {
            name: _numpy(tensor)
            for name, tensor in _parameters(self.module).items()
            if not torch.equal(tensor.detach().cpu(), self._before[name].detach().cpu())
        }
        return NETWORK_FILE, dump_tensors(changed)


def restore_network(
    model: CellModel, lora: LoraDefaults | None, data: bytes, where: str
) -> CellModel:
    """Return a copy of a model with what :meth:`Trainee.learnt_file` holds.

    Raises
    ------
    DataError
        The file is damaged, or has tensors that the network has not.
    """
    from scdrugmap.errors import WeightsError
    from scdrugmap.model.lora import load_adapter_state

    tuned = copy.deepcopy(model)
    tensors = {name: torch.from_numpy(t.copy()) for name, t in load_tensors(data, where).items()}
    if lora is not None:
        add_adapters(tuned.module, lora)
        try:
            load_adapter_state(tuned.module, tensors, where)
        except WeightsError as err:
            raise DataError(err.message, hint="train the predictor again") from err
        return tuned
    own = _parameters(tuned.module)
    wrong = [n for n, t in tensors.items() if n not in own or own[n].shape != t.shape]
    if wrong or not tensors:
        raise DataError(
            f"{where} is damaged: it holds {len(tensors)} tensors, {len(wrong)} of which the "
            f"network has not{f' ({wrong[0]})' if wrong else ''}",
            hint="train the predictor again",
        )
    _copy(tuned.module, tensors)
    return tuned


def require_change(before: np.ndarray, after: np.ndarray, what: str) -> float:
    """Return how much training changed embeddings: median over cells of |after - before| / |before|.

    Parameters
    ----------
    before, after : (n, D) float32
        Of the same cells in ``eval()``.
    what : str
        ``the adapters`` or ``the training``, for the message.

    Raises
    ------
    PluginError
        They are the same up to rounding.
    """
    change = np.linalg.norm(after - before, axis=1) / np.linalg.norm(before, axis=1).clip(1e-12)
    if not change.max() > _LEAST_CHANGE:
        raise PluginError(
            f"{what} did not change the output of the network: the largest relative change of "
            f"{len(change)} cells is {change.max():.2g} (in eval mode)",
            hint="train for more steps or with a higher --learning-rate; if that does not help, "
            "the network does not call the layers that train",
        )
    return float(np.median(change))


def _parameters(module: nn.Module) -> dict[str, Tensor]:
    """Return the trainable tensors of a network by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def _copy(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    own = dict(module.named_parameters())
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def _numpy(tensor: Any) -> np.ndarray:
    array: np.ndarray = tensor.detach().float().cpu().numpy().copy()
    return array
