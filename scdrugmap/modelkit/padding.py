"""Make rectangular batches of ragged tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

    from scdrugmap.modelkit.tokens import Tokens


def pad(tokens: Tokens, fill: Mapping[str, float | int]) -> dict[str, Tensor]:
    """Pad the named token fields to the longest cell.

    Parameters
    ----------
    tokens : Tokens
        B cells.
    fill : mapping of str to number
        Fields to take and the value that padding gets.

    Returns
    -------
    dict of str to (B, T) tensor
        The fields, and ``keep`` ((B, T) bool, True for real tokens), which is left out where all
        cells are equally long: attention without a mask is faster.
    """
    lengths = tokens.lengths
    longest = int(lengths.max(initial=0))
    keep = np.arange(longest) < lengths[:, None]
    equal = bool(keep.all())
    batch: dict[str, Tensor] = {}
    for name, value in fill.items():
        values = tokens.flat[name]
        if equal:
            shape = (tokens.n_cells, longest, *values.shape[1:])
            batch[name] = torch.from_numpy(values.reshape(shape).copy())
            continue
        padded = np.full((tokens.n_cells, longest, *values.shape[1:]), value, values.dtype)
        padded[keep] = values
        batch[name] = torch.from_numpy(padded)
    if not equal:
        batch["keep"] = torch.from_numpy(keep)
    return batch
