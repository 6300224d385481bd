"""scDrugMap: predict, per single cell, whether it is sensitive or resistant to a drug."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdrugmap.lazy import lazy_names

if TYPE_CHECKING:
    from scdrugmap.api import benchmark, check, embed, evaluate, explain, predict
    from scdrugmap.errors import (
        DataError,
        PluginError,
        ResourceError,
        ScDrugMapError,
        ScDrugMapWarning,
        UsageError,
        WeightsError,
    )
    from scdrugmap.evaluation.compare import compare_models
    from scdrugmap.text.contract import Asking
    from scdrugmap.text.fit import ask_model
    from scdrugmap.text.scorer import Prompting

__version__ = "0.1.0"

_NAMES = {
    **dict.fromkeys(
        ("benchmark", "check", "embed", "evaluate", "explain", "predict"), "scdrugmap.api"
    ),
    **dict.fromkeys(
        (
            "DataError",
            "PluginError",
            "ResourceError",
            "ScDrugMapError",
            "ScDrugMapWarning",
            "UsageError",
            "WeightsError",
        ),
        "scdrugmap.errors",
    ),
    "Asking": "scdrugmap.text.contract",
    "compare_models": "scdrugmap.evaluation.compare",
    "Prompting": "scdrugmap.text.scorer",
    "ask_model": "scdrugmap.text.fit",
}

__all__ = [
    "Asking",
    "DataError",
    "PluginError",
    "Prompting",
    "ResourceError",
    "ScDrugMapError",
    "ScDrugMapWarning",
    "UsageError",
    "WeightsError",
    "__version__",
    "ask_model",
    "benchmark",
    "check",
    "compare_models",
    "embed",
    "evaluate",
    "explain",
    "predict",
]

__getattr__, __dir__ = lazy_names(__name__, _NAMES)
