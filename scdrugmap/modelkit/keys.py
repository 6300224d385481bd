"""Bring published tensors into our modules, strictly: every key and shape is accounted for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from scdrugmap.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

_MOST_LISTED = 8


@dataclass(frozen=True)
class KeyMap:
    r"""Table from published tensor names to ours.

    Parameters
    ----------
    rules : sequence of (pattern, target)
        ``pattern`` is matched with ``re.fullmatch``; ``target`` may use its groups (``\\1``). A
        tuple of targets splits the tensor's rows into equal parts (a fused q/k/v projection);
        None drops the tensor (a head that embeddings do not use). The first match wins.
    """

    rules: Sequence[tuple[str, str | tuple[str, ...] | None]]

    def apply(self, published: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """Rename and split tensors.

        Raises
        ------
        WeightsError
            A published name matches no rule, or two land on one of ours.
        """
        ours: dict[str, Tensor] = {}
        unknown: list[str] = []
        for key, tensor in published.items():
            found = self._find(str(key))
            if found is None:
                unknown.append(str(key))
                continue
            match, target = found
            if target is None:
                continue
            if not isinstance(tensor, torch.Tensor):
                raise WeightsError(f"{source}: {key} is a {type(tensor).__name__}, not a tensor")
            targets = (target,) if isinstance(target, str) else target
            for name, part in zip(targets, _rows(tensor, len(targets), key, source), strict=True):
                name = match.expand(name)
                if name in ours:
                    raise WeightsError(f"{source}: {key} and another tensor both mean {name}")
                ours[name] = part
        if unknown:
            raise WeightsError(
                f"{source}: {len(unknown)} tensors are not part of this model: {_list(unknown)}",
                hint="is this the folder of another model or version?",
            )
        return ours

    def _find(self, key: str) -> tuple[re.Match[str], str | tuple[str, ...] | None] | None:
        for pattern, target in self.rules:
            match = re.fullmatch(pattern, key)
            if match:
                return match, target
        return None


def _rows(tensor: Tensor, n_parts: int, key: str, source: str) -> Sequence[Tensor]:
    if n_parts == 1:
        return (tensor,)
    n_rows = len(tensor) if tensor.ndim else 0
    if not n_rows or n_rows % n_parts:
        raise WeightsError(f"{source}: {key} has {n_rows} rows, not {n_parts} equal parts")
    return tensor.chunk(n_parts)


def load_strict(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load tensors into a module; every name, shape and kind must fit and every value be finite.

    Raises
    ------
    WeightsError
        Lists the missing and unexpected names, or the shapes seen and expected.
    """
    expected = module.state_dict()
    missing = [key for key in expected if key not in tensors]
    unexpected = [key for key in tensors if key not in expected]
    if missing or unexpected:
        parts = []
        if missing:
            parts.append(f"{len(missing)} tensors are missing: {_list(missing)}")
        if unexpected:
            parts.append(f"{len(unexpected)} tensors do not belong here: {_list(unexpected)}")
        raise WeightsError(f"{source}: {'; '.join(parts)}")
    misfits = {key: _misfit(tensors[key], want) for key, want in expected.items()}
    wrong = [f"{key} {why}" for key, why in misfits.items() if why]
    if wrong:
        raise WeightsError(f"{source}: {len(wrong)} tensors do not fit: {_list(wrong)}")
    module.load_state_dict(dict(tensors), strict=True)


def _misfit(have: Tensor, want: Tensor) -> str:
    """Say why a tensor cannot become a parameter; empty if it can without loss of meaning."""
    if have.shape != want.shape:
        return f"is {tuple(have.shape)}, expected {tuple(want.shape)}"
    if _family(have.dtype) != _family(want.dtype):
        return f"is {have.dtype}, expected {want.dtype}"
    kept = have.to(want.dtype)  # what is finite in 64 bits may not be in 32
    if kept.dtype.is_floating_point:
        return "" if bool(torch.isfinite(kept).all()) else "holds NaN or infinite values"
    if kept.dtype != have.dtype and not torch.equal(kept.to(have.dtype), have):
        return f"holds numbers that {want.dtype} cannot"
    return ""


def _family(kind: torch.dtype) -> str:
    if kind == torch.bool:
        return "bool"
    return "floating" if kind.is_floating_point else "complex" if kind.is_complex else "integer"


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_LISTED])
    more = len(names) - _MOST_LISTED
    return f"{shown} and {more} more" if more > 0 else shown


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch inside the block and leave its global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def randomize(module: nn.Module, seed: int) -> None:
    """Replace every parameter by a random one of the same shape: the untrained control.

    Modules with ``reset_parameters`` use it, the inner ones first, so that a module has the last
    word over its parts; other parameters are drawn from N(0, 0.02) if they are matrices, and set
    to one (``weight``) or zero if they are vectors. A module whose buffers are learnt or drawn
    needs a ``reset_parameters`` of its own.
    """
    with seeded(seed), torch.no_grad():
        for part in reversed(list(module.modules())):
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()
                continue
            for name, parameter in part.named_parameters(recurse=False):
                if parameter.ndim > 1:
                    parameter.normal_(0.0, 0.02)
                else:
                    parameter.fill_(1.0 if name.endswith("weight") else 0.0)
