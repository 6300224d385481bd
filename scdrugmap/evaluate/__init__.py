"""Split labelled cells, score predictions, and say how sure the scores are.

The package has the name of the verb, so it can be called: ``scdrugmap.evaluate(predictions,
splits)`` is :func:`scdrugmap.api.evaluate`, whether or not the package was imported before.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from scdrugmap.api import evaluate

        return evaluate(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
