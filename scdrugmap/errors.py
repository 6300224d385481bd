"""The errors that scDrugMap raises on purpose, and the exit code of each.

An error says what is wrong, where, and (``hint``) what to do next. Misuse of a Python function is
a plain ``ValueError`` or ``TypeError``.
"""

from __future__ import annotations


class ScDrugMapError(Exception):
    """Root of all errors of this package; never raised itself.

    Parameters
    ----------
    message : str
        What is wrong and where, one line, with the values seen and expected.
    hint : str
        What the reader can do next; shown on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword arguments do not pickle by default, and ours cross processes.
        return _rebuild, (type(self), self.message, self.hint)


def _rebuild(kind: type[ScDrugMapError], message: str, hint: str) -> ScDrugMapError:
    return kind(message, hint=hint)


class UsageError(ScDrugMapError):
    """The command was called in a way that cannot work (a path, a column or an option)."""

    exit_code = 2


class DataError(ScDrugMapError):
    """The user's data cannot be used as they are."""

    exit_code = 3


class WeightsError(ScDrugMapError):
    """Weights are missing, damaged, of another version, or not what they claim to be."""

    exit_code = 4


class PluginError(ScDrugMapError):
    """A plugin is missing, broken, incompatible, or lacks a capability."""

    exit_code = 4


class ResourceError(ScDrugMapError):
    """Disk, memory, a lock or a permission is missing; a later try may succeed."""

    exit_code = 5


class ScDrugMapWarning(UserWarning):
    """Something a user should know that does not stop the work."""
