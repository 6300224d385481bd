"""The list of conformance checks, and how they are run and reported without pytest."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scdrugmap.errors import ScDrugMapError, UsageError
from scdrugmap.specs import Capability

if TYPE_CHECKING:
    from scdrugmap.testing.subject import Subject

Function = Callable[["Subject"], None]

_MODULES = ("contract_checks", "token_checks", "network_checks", "adapter_checks")


class CheckFailed(AssertionError):  # noqa: N818  says what happened, not what it is
    """A model does not keep its contract; the message says how, with the values seen."""


class CheckSkipped(Exception):  # noqa: N818
    """A check does not apply to a model; the message says why."""


@dataclass(frozen=True)
class Check:
    """One named check: ``function(subject)`` returns, or raises one of the two above."""

    name: str
    description: str
    function: Function
    capability: Capability | None = None

    def __call__(self, subject: Subject) -> None:
        """Run the check.

        Raises
        ------
        CheckFailed, CheckSkipped
        """
        if self.capability is not None and self.capability not in subject.spec.capabilities:
            raise CheckSkipped(f"the model does not declare {self.capability.value}")
        self.function(subject)


@dataclass(frozen=True)
class CheckResult:
    """What became of one check: ``passed``, ``failed`` or ``skipped``, and why."""

    name: str
    description: str
    status: str
    reason: str
    seconds: float


_CHECKS: list[Check] = []


def check(description: str, *, needs: Capability | None = None) -> Callable[[Function], Function]:
    """Enter a function ``check_xyz(subject)`` into the list, under the name ``xyz``."""

    def enter(function: Function) -> Function:
        name = function.__name__.removeprefix("check_")
        _CHECKS.append(Check(name, description, function, needs))
        return function

    return enter


def all_checks() -> tuple[Check, ...]:
    """Return all checks, in the order in which an author should look at them."""
    for module in _MODULES:
        importlib.import_module(f"scdrugmap.testing.{module}")
    order = {f"scdrugmap.testing.{module}": place for place, module in enumerate(_MODULES)}
    return tuple(sorted(_CHECKS, key=lambda entry: order[entry.function.__module__]))


def run_checks(subject: Subject, only: Collection[str] = ()) -> Iterator[CheckResult]:
    """Run the checks on a model, one result at a time.

    Parameters
    ----------
    subject : Subject
    only : collection of str
        Names of the checks to run; empty: all.

    Raises
    ------
    UsageError
        A name of `only` is no check.
    """
    checks = all_checks()
    unknown = sorted(set(only) - {entry.name for entry in checks})
    if unknown:
        raise UsageError(
            f"there is no check named {', '.join(unknown)}",
            hint=f"there are: {', '.join(entry.name for entry in checks)}",
        )
    for entry in checks:
        if not only or entry.name in only:
            yield _run(entry, subject)


def _run(entry: Check, subject: Subject) -> CheckResult:
    began = time.monotonic()
    status, reason = "passed", ""
    try:
        entry(subject)
    except CheckSkipped as skip:
        status, reason = "skipped", str(skip)
    except CheckFailed as failure:
        status, reason = "failed", str(failure)
    except ScDrugMapError as err:
        status, reason = "failed", err.message
    except Exception as err:  # the border to foreign code: whatever a model raises is its result
        status, reason = "failed", " ".join(f"{type(err).__name__}: {err}".split())
    return CheckResult(entry.name, entry.description, status, reason, time.monotonic() - began)
