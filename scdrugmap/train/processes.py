"""The processes that train one network together, as ``accelerate launch`` starts them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def is_main_process() -> bool:
    """Tell whether this process speaks and writes for all; true where there is only one."""
    return int(os.environ.get("RANK", "0")) == 0


class Processes:
    """All processes of a training, and the device of this one.

    Parameters
    ----------
    device : str
        As on the command line; with several processes on GPUs each gets its own.

    Attributes
    ----------
    number, count : int
    device : torch.device
    """

    def __init__(self, device: str = "auto") -> None:
        from accelerate import PartialState

        from scdrugmap.model.device import resolve_device

        self.device = resolve_device(device)
        state = PartialState(cpu=self.device.type == "cpu")
        self.number, self.count = int(state.process_index), int(state.num_processes)
        if self.count > 1:
            self.device = state.device

    def mine(self, number: int) -> bool:
        """Tell whether a piece of work, by its number, is this process's."""
        return number % self.count == self.number

    def sum_values(self, values: np.ndarray) -> np.ndarray:
        """Add up arrays of all processes ((n,) float64)."""
        if self.count == 1:
            return values
        import torch

        return self._sum(torch.from_numpy(values)).cpu().numpy()

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Add up the gradients of all processes, in place; one without any anywhere keeps None."""
        if self.count == 1:
            return
        import torch

        there = torch.tensor([float(p.grad is not None) for p in parameters])
        flat = [
            (torch.zeros_like(p) if p.grad is None else p.grad).detach().float().flatten()
            for p in parameters
        ]
        total = self._sum(torch.cat([there.to(flat[0].device), *flat]))
        start = len(parameters)
        for number, parameter in enumerate(parameters):
            part = total[start : start + parameter.numel()]
            start += parameter.numel()
            if total[number]:
                parameter.grad = part.view_as(parameter).to(parameter)

    def same(self, tensors: Sequence[torch.Tensor]) -> None:
        """Give all processes the tensors of the first, in place."""
        if self.count == 1:
            return
        import torch
        from accelerate.utils import broadcast

        with torch.no_grad():
            for tensor in tensors:
                tensor.copy_(broadcast(tensor.detach().to(self.device).clone()))

    def _sum(self, tensor: torch.Tensor) -> torch.Tensor:
        from accelerate.utils import reduce

        summed: torch.Tensor = reduce(tensor.to(self.device).clone(), reduction="sum")
        return summed
