"""Switch off every dropout of a network in train(), so that it can be compared with eval()."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

_DROPOUTS = {
    F.dropout,
    F.dropout1d,
    F.dropout2d,
    F.dropout3d,
    F.alpha_dropout,
    F.feature_alpha_dropout,
    torch.dropout,
    torch.feature_dropout,
    torch.alpha_dropout,
    torch.feature_alpha_dropout,
}
_ATTENTION_DROPOUT = 4  # place of dropout_p among the arguments of scaled_dot_product_attention


class dropout_off(TorchFunctionMode):  # noqa: N801  used as a context manager
    """Inside the block, dropout passes its input on, whoever calls it and however."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace the calls that drop something."""
        named = dict(kwargs or {})
        if function in _DROPOUTS:
            return args[0] if args else named["input"]
        if function is F.scaled_dot_product_attention:
            args = (*args[:_ATTENTION_DROPOUT], 0.0, *args[_ATTENTION_DROPOUT + 1 :])[: len(args)]
            if "dropout_p" in named:
                named["dropout_p"] = 0.0
        return function(*args, **named)
