"""Find, read, convert and pin the weights of models; nothing is ever downloaded.

A folder of weights has one of two layouts: as its authors ship it (*published*), or converted once
by ``scdrugmap weights import`` (*imported*: ``model.safetensors``, ``config.json``,
``vocabulary.json``, ``manifest.json``). Both give the same :class:`~scdrugmap.modelkit.Weights`
and the same digest.
"""

from __future__ import annotations

from scdrugmap.weight_import import import_weights
from scdrugmap.weight_places import (
    RANDOM,
    WEIGHTS_VARIABLE,
    find_weights,
    how_to_get,
    places,
    state_of_weights,
    weight_set,
)
from scdrugmap.weight_reading import (
    NO_WEIGHTS,
    RANDOM_WEIGHTS,
    WeightsRecord,
    build_network,
    open_weights,
)

__all__ = [
    "NO_WEIGHTS",
    "RANDOM",
    "RANDOM_WEIGHTS",
    "WEIGHTS_VARIABLE",
    "WeightsRecord",
    "build_network",
    "find_weights",
    "how_to_get",
    "import_weights",
    "open_weights",
    "places",
    "state_of_weights",
    "weight_set",
]
