"""Named arrays as safetensors, read with limits: they may come from strangers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scdrugmap.errors import DataError

_MOST_HEADER_BYTES = 1 << 20


def dump_tensors(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Write arrays; the same arrays give the same bytes."""
    from safetensors.numpy import save

    return bytes(save({name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}))


def load_tensors(data: bytes, where: str) -> dict[str, np.ndarray]:
    """Read what :func:`dump_tensors` wrote.

    Raises
    ------
    DataError
        The data are damaged, or a floating-point array holds NaN or infinite values.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if int.from_bytes(data[:8], "little") > _MOST_HEADER_BYTES:
        raise DataError(f"{where} is damaged: its header is too long")
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError) as err:
        raise DataError(f"{where} is damaged: {err}", hint="train the predictor again") from err
    for name, values in tensors.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DataError(f"{where} is damaged: {name} holds NaN or infinite values")
    return dict(tensors)
