"""For authors of plugins: the conformance kit, synthetic cells, and the template of a plugin.

``ModelConformance`` needs pytest; ``run_checks`` (what ``scdrugmap plugins check`` calls) does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdrugmap.lazy import lazy_names

if TYPE_CHECKING:
    from scdrugmap.testing.synthetic import synthetic_adata

_NAMES = {
    "synthetic_adata": "scdrugmap.testing.synthetic",
}

__all__ = ["synthetic_adata"]

__getattr__, __dir__ = lazy_names(__name__, _NAMES)
