"""Keep below the rate that a server allows: token buckets, shared by all threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_SECONDS_OF_BURST = 6.0  # a bucket holds a tenth of its minute: no burst, no stutter


class Bucket:
    """A rate limit: so many units per minute, spent ahead and paid back by waiting.

    Parameters
    ----------
    per_minute : float, optional
        None: no limit, until :meth:`correct` learns one.
    clock : callable
        Seconds, never going back.
    """

    def __init__(
        self, per_minute: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if per_minute is not None and per_minute <= 0:
            raise ValueError(f"a rate is above 0, not {per_minute}")
        self._rate = None if per_minute is None else per_minute / 60
        self._clock = clock
        self._lock = threading.Lock()
        self._level = 0.0 if self._rate is None else self._rate * _SECONDS_OF_BURST
        self._seen = clock()
        self._closed_until = 0.0

    def take(self, amount: float) -> float:
        """Spend some units; return how many seconds to wait before they may be used."""
        with self._lock:
            now = self._clock()
            wait = max(0.0, self._closed_until - now)
            if self._rate is None:
                return wait
            most = self._rate * _SECONDS_OF_BURST
            self._level = min(most, self._level + (now - self._seen) * self._rate)
            self._seen = now
            self._level -= amount
            # More than a bucket holds must pass too, so the level may fall below zero.
            return max(wait, -self._level / self._rate)

    def correct(self, remaining: float, reset_s: float) -> None:
        """Believe the server: when nothing remains, nobody takes before it resets."""
        if remaining <= 0 and reset_s > 0:
            with self._lock:
                self._closed_until = max(self._closed_until, self._clock() + reset_s)
