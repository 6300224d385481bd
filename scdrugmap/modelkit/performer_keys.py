"""Published tensors of Performers, whose originals all descend from one code, to our layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from scdrugmap.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor


def performer_rules(prefix: str) -> list[tuple[str, str | None]]:
    """Return rules of a :class:`~scdrugmap.modelkit.keys.KeyMap` for a stack of layers.

    Parameters
    ----------
    prefix : str
        Regular expression of what stands before ``performer.``; without groups of its own.

    Returns
    -------
    list of (pattern, target)
        To ``layers.{l}`` of :class:`~scdrugmap.modelkit.performer.PerformerLayer`.
    """
    stack = prefix + r"performer\."
    layer, ours = stack + r"net\.layers\.(\d+)\.", r"layers.\1."
    attention = layer + r"0\.fn\."
    return [
        (layer + r"0\.norm\.(weight|bias)", ours + r"norm1.\2"),
        (attention + r"fast_attention\.projection_matrix", ours + "attention.projection"),
        (attention + r"to_([qkv])\.(weight|bias)", ours + r"attention.\2_proj.\3"),
        (attention + r"to_out\.(weight|bias)", ours + r"attention.out_proj.\2"),
        (layer + r"1\.norm\.(weight|bias)", ours + r"norm2.\2"),
        (layer + r"1\.fn\.fn\.w([12])\.(weight|bias)", ours + r"feed_forward.linear\2.\3"),
        # Steps since the projections were last drawn; here they are never drawn again.
        (stack + r"calls_since_last_redraw", None),
    ]


def performer_sizes(tensors: Mapping[str, Tensor], source: str) -> dict[str, int]:
    """Read the sizes of a stack of layers off its tensors, which go by our names.

    Returns
    -------
    dict of str to int
        ``dim``, ``n_heads``, ``head_dim``, ``n_features``, ``n_layers`` and ``hidden``.

    Raises
    ------
    WeightsError
        A tensor that gives a size is missing or no matrix, or there is no whole number of heads.
    """
    inner, dim = matrix_shape(tensors, "layers.0.attention.q_proj.weight", source)
    n_features, head_dim = matrix_shape(tensors, "layers.0.attention.projection", source)
    hidden, _ = matrix_shape(tensors, "layers.0.feed_forward.linear1.weight", source)
    if inner % head_dim:
        raise WeightsError(
            f"{source}: to_q.weight has {inner} rows, no multiple of the {head_dim} columns of "
            "projection_matrix"
        )
    numbers = {name.split(".")[1] for name in tensors if name.startswith("layers.")}
    return {
        "dim": dim,
        "n_heads": inner // head_dim,
        "head_dim": head_dim,
        "n_features": n_features,
        "n_layers": len(numbers),
        "hidden": hidden,
    }


def matrix_shape(tensors: Mapping[str, Tensor], name: str, source: str) -> tuple[int, int]:
    """Return the shape of a matrix that sizes are read off.

    Raises
    ------
    WeightsError
        It is missing, or no matrix.
    """
    if name not in tensors:
        raise WeightsError(
            f"{source}: {name} is missing", hint="is this the checkpoint as its authors publish it?"
        )
    shape = tuple(tensors[name].shape)
    if len(shape) != 2 or 0 in shape:
        raise WeightsError(f"{source}: {name} is {shape}, not a matrix")
    return shape[0], shape[1]
