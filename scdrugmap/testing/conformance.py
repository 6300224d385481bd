"""The conformance kit as a pytest class."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from scdrugmap.errors import ScDrugMapError
from scdrugmap.specs import ModelOptions, ModelSpec
from scdrugmap.testing.checks import Check, CheckSkipped, all_checks
from scdrugmap.testing.subject import Subject


class ModelConformance:
    """Run all conformance checks on a model; subclass it in a plugin's tests.

    Attributes
    ----------
    spec : ModelSpec
    options : ModelOptions, optional
        Default: the variant ``tiny``.
    weights : Path, optional
        Folder of weights; default: random tensors.
    expected_failures : dict of str to str
        Name of a check to the reason why the model does not pass it. A check that is listed and
        passes is a failure.
    """

    spec: ClassVar[ModelSpec]
    options: ClassVar[ModelOptions | None] = None
    weights: ClassVar[Path | None] = None
    expected_failures: ClassVar[dict[str, str]] = {}

    @classmethod
    def subject(cls) -> Subject:
        """Return the model under test, built once for all checks of a class."""
        if cls not in _SUBJECTS:
            _SUBJECTS[cls] = Subject(cls.spec, cls.options, cls.weights)
        return _SUBJECTS[cls]

    @pytest.mark.parametrize("check", all_checks(), ids=lambda check: check.name)
    def test_conformance(self, check: Check) -> None:
        """Run one check."""
        unknown = set(self.expected_failures) - {known.name for known in all_checks()}
        assert not unknown, f"expected_failures names no check: {', '.join(sorted(unknown))}"
        reason = self.expected_failures.get(check.name)
        try:
            check(self.subject())
        except CheckSkipped as skip:
            pytest.skip(str(skip))
        except (AssertionError, ScDrugMapError):
            if reason is None:
                raise
            pytest.xfail(reason)
        if reason is not None:
            pytest.fail(f"{check.name} passes, but expected_failures says: {reason}")


_SUBJECTS: dict[type[ModelConformance], Subject] = {}
