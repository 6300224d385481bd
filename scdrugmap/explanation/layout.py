"""Where the tokens of a batch are in the output of the submodule that is differentiated.

B cells, T tokens, R sequences of a batch (one or several per cell), D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.errors import PluginError

if TYPE_CHECKING:
    from torch import Tensor

    from scdrugmap.modelkit.contract import CellModel
    from scdrugmap.modelkit.tokens import Tokens


def token_places(
    tokens: Tokens, batch: dict[str, Tensor], shape: tuple[int, ...], name: str
) -> np.ndarray | None:
    """Return where each token is among the vectors of an output.

    Parameters
    ----------
    tokens : Tokens
        B cells.
    batch : dict of str to tensor
        What ``collate`` made of them.
    shape : tuple of int
        Of the output: (R, T, D), (tokens of the batch, D), (tokens of the batch,), or (B, D) of
        models that add the genes of a cell up before anything else.
    name : str
        What errors call the model.

    Returns
    -------
    (n_tokens,) int64 or None
        Positions in the output with its leading axes flattened; None: one vector per cell.

    Raises
    ------
    PluginError
        The output has another shape.
    """
    n_tokens = int(tokens.start[-1])
    if len(shape) >= 3:
        rows, width = shape[:2]
        keep = batch.get("keep")
        if keep is not None and tuple(keep.shape) == (rows, width):
            places = np.flatnonzero(keep.cpu().numpy())
            if len(places) == n_tokens:
                return places
        elif rows * width == n_tokens:
            return np.arange(n_tokens)
        elif rows == tokens.n_cells and width >= tokens.lengths.max(initial=0):
            return np.flatnonzero(np.arange(width) < tokens.lengths[:, None])
    elif shape[0] == n_tokens:
        return np.arange(n_tokens)
    elif len(shape) == 2 and shape[0] == tokens.n_cells:
        return None
    raise PluginError(
        f"{name}: the output of its input module has the shape {shape} for {tokens.n_cells} cells "
        f"of {n_tokens} tokens, so its genes cannot be told apart"
    )


def value_places(
    model: CellModel, tokens: Tokens, batch: dict[str, Tensor]
) -> dict[str, np.ndarray]:
    """Find the tensors of a batch that hold a number per token, and of which token each is.

    Tokens are collated again with their numbers in place of their values.

    Returns
    -------
    dict of str to (m,) int64
        Tensor of the batch to the token of each of its entries.
    """
    n_tokens = int(tokens.start[-1])
    found: dict[str, np.ndarray] = {}
    for field, values in tokens.flat.items():
        if values.ndim != 1 or values.dtype.kind != "f":
            continue
        numbered = {**tokens.flat, field: np.arange(1, n_tokens + 1, dtype=np.float64)}
        for key, tensor in model.collate(tokens._replace(flat=numbered)).items():
            before = batch.get(key)
            if before is None or not before.is_floating_point() or tensor.ndim != 1:
                continue
            number = tensor.numpy().astype(np.int64) - 1
            if len(number) and number.min() >= 0 and number.max() < n_tokens:
                found[key] = number
    return found
