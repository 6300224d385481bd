"""For authors of plugins: the conformance kit, synthetic cells, and the template of a plugin.

``ModelConformance`` needs pytest; ``run_checks``, which `scdrugmap plugins check` calls, does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdrugmap.lazy import lazy_names

if TYPE_CHECKING:
    from scdrugmap.testing.checks import (
        CheckFailed,
        CheckResult,
        CheckSkipped,
        all_checks,
        run_checks,
    )
    from scdrugmap.testing.conformance import ModelConformance
    from scdrugmap.testing.subject import Subject
    from scdrugmap.testing.synthetic import synthetic_adata

_NAMES = {
    **dict.fromkeys(
        ("CheckFailed", "CheckResult", "CheckSkipped", "all_checks", "run_checks"),
        "scdrugmap.testing.checks",
    ),
    "ModelConformance": "scdrugmap.testing.conformance",
    "Subject": "scdrugmap.testing.subject",
    "synthetic_adata": "scdrugmap.testing.synthetic",
}

__all__ = [
    "CheckFailed",
    "CheckResult",
    "CheckSkipped",
    "ModelConformance",
    "Subject",
    "all_checks",
    "run_checks",
    "synthetic_adata",
]

__getattr__, __dir__ = lazy_names(__name__, _NAMES)
