"""Try again what may succeed later: exponential waits with full jitter, and an end."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How often and how long to try again.

    Attributes
    ----------
    tries : int
        Attempts in all.
    first_wait_s : float
        Longest wait after the first failure; doubled after each further one.
    most_wait_s : float
        No single wait is longer, whatever the server asks for.
    total_s : float
        No attempt begins later than this after the first one.
    """

    tries: int = 6
    first_wait_s: float = 1.0
    most_wait_s: float = 60.0
    total_s: float = 600.0

    def wait_s(self, failures: int, random_share: float, asked_s: float | None) -> float:
        """Return how long to wait after so many failures.

        Parameters
        ----------
        failures : int
            At least 1.
        random_share : float
            Between 0 and 1: full jitter, so that many clients do not come back together.
        asked_s : float, optional
            What the server asked for (``retry-after``): the least wait.
        """
        drawn = random_share * self.first_wait_s * 2 ** (failures - 1)
        return min(max(drawn, asked_s or 0.0), self.most_wait_s)


class TemporaryError(Exception):
    """A failure that may not happen again.

    Parameters
    ----------
    reason : str
        What happened, a few words.
    retry_after_s : float, optional
        How long the server asks to wait.
    billed : bool
        The server may have done the work, and charge for it.
    """

    def __init__(
        self, reason: str, retry_after_s: float | None = None, *, billed: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason, self.retry_after_s, self.billed = reason, retry_after_s, billed


class StoppedError(Exception):
    """The run was stopped while an attempt waited."""


def persist(
    attempt: Callable[[], T],
    patience: Patience,
    *,
    jitter: random.Random,
    stop: threading.Event,
    waiting: Callable[[str, float], None] = lambda reason, seconds: None,
) -> T:
    """Call until it succeeds.

    Parameters
    ----------
    attempt : callable
        Raises :class:`TemporaryError` for what is worth another try; all else passes through.
    patience : Patience
    jitter : random.Random
        The run's generator of waiting times.
    stop : threading.Event
        Ends waits at once.
    waiting : callable
        Told the reason and the length of each wait.

    Raises
    ------
    TemporaryError
        The last one, after all tries.
    StoppedError
        `stop` was set.
    """
    began = time.monotonic()
    failures = 0
    while True:
        if stop.is_set():
            raise StoppedError
        try:
            return attempt()
        except TemporaryError as err:
            failures += 1
            wait = patience.wait_s(failures, jitter.random(), err.retry_after_s)
            late = time.monotonic() - began + wait > patience.total_s
            if failures >= patience.tries or late:
                raise
            waiting(err.reason, wait)
            if stop.wait(wait):
                raise StoppedError from err
