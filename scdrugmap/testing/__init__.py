"""For authors of plugins: the conformance kit, synthetic cells, golden data, and a template.

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
    from scdrugmap.testing.golden import Cells, Payload, edit_saved, embed, encode, read_cells
    from scdrugmap.testing.subject import Subject
    from scdrugmap.testing.synthetic import synthetic_adata

_NAMES = {
    **dict.fromkeys(
        ("CheckFailed", "CheckResult", "CheckSkipped", "all_checks", "run_checks"),
        "scdrugmap.testing.checks",
    ),
    "ModelConformance": "scdrugmap.testing.conformance",
    **dict.fromkeys(
        ("Cells", "Payload", "edit_saved", "embed", "encode", "read_cells"),
        "scdrugmap.testing.golden",
    ),
    "Subject": "scdrugmap.testing.subject",
    "synthetic_adata": "scdrugmap.testing.synthetic",
}

__all__ = [
    "Cells",
    "CheckFailed",
    "CheckResult",
    "CheckSkipped",
    "ModelConformance",
    "Payload",
    "Subject",
    "all_checks",
    "edit_saved",
    "embed",
    "encode",
    "read_cells",
    "run_checks",
    "synthetic_adata",
]

__getattr__, __dir__ = lazy_names(__name__, _NAMES)
