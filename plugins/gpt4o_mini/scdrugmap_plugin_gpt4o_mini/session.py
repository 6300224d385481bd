"""One run against an endpoint: every request passes cache, limits, budget and retries here."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scdrugmap.progress import say
from scdrugmap.text.budget import Budget, Usage
from scdrugmap.text.kept import KeptReplies
from scdrugmap.text.limits import Bucket
from scdrugmap.text.patience import StoppedError, TemporaryError, persist
from scdrugmap_plugin_gpt4o_mini.endpoint import Endpoint

if TYPE_CHECKING:
    from scdrugmap.text.budget import Price
    from scdrugmap.text.contract import Asking
    from scdrugmap_plugin_gpt4o_mini.endpoint import Place

_SECONDS_BETWEEN_LINES = 10.0


class Session:
    """Sends requests; safe to share between threads.

    Parameters
    ----------
    place : Place
    asking : Asking
    price : Price
        Of the endpoint's model.
    """

    def __init__(self, place: Place, asking: Asking, price: Price) -> None:
        self.endpoint = Endpoint(place, asking)
        self.kept = KeptReplies(asking.store)
        self.budget = Budget(asking.max_cost, price, asking.ledger)
        self.stop = threading.Event()
        self._asking = asking
        self._requests = Bucket(asking.requests_per_minute)
        self._tokens = Bucket(asking.tokens_per_minute)
        self._lock = threading.Lock()
        self._jitter = random.Random(asking.seed)
        self._spoke = -_SECONDS_BETWEEN_LINES
        self._likely = self._used = Usage()
        self._n_measured = 0

    def close(self) -> None:
        """Stop waiting attempts, and close the connections."""
        self.stop.set()
        self.endpoint.close()

    def send(self, body: Mapping[str, Any], likely: Usage, most: Usage) -> dict[str, Any]:
        """Ask until there is a reply.

        Parameters
        ----------
        body : mapping
            The request.
        likely, most : Usage
            Tokens that it may use, as estimated and at most.

        Raises
        ------
        TemporaryError
            There is no reply after all tries.
        TooLongError, RefusedFieldError
            See :meth:`Endpoint.send`.
        ScDrugMapError
            No further request can succeed, or the budget is used up.
        """
        return persist(
            lambda: self._attempt(body, likely, most),
            self._asking.patience,
            jitter=self._jitter,
            stop=self.stop,
            waiting=self._say_wait,
        )

    def correction(self) -> tuple[int, float]:
        """Return how many replies reported their tokens, and read tokens over estimated ones."""
        with self._lock:
            ratio = self._used.n_read / self._likely.n_read if self._likely.n_read else 1.0
            return self._n_measured, ratio

    def _attempt(self, body: Mapping[str, Any], likely: Usage, most: Usage) -> dict[str, Any]:
        wait = max(self._requests.take(1), self._tokens.take(likely.n_read + likely.n_written))
        if self.stop.wait(wait):
            raise StoppedError
        reserved = self.budget.reserve(most)
        used = Usage()
        # What a server does not tell counts as the most it can be where there is a limit.
        untold = likely if self.budget.most is None else most
        try:
            reply, limits = self.endpoint.send(body)
            used = _usage(reply) or untold
        except TemporaryError as err:
            if err.billed:
                used = untold
            raise
        finally:
            self.budget.settle(reserved, used)
        self._requests.correct(limits.requests, limits.requests_reset_s)
        self._tokens.correct(limits.tokens, limits.tokens_reset_s)
        with self._lock:
            if _usage(reply) is not None:
                self._likely, self._used = self._likely + likely, self._used + used
                self._n_measured += 1
        return reply

    def _say_wait(self, reason: str, seconds: float) -> None:
        with self._lock:
            now = time.monotonic()
            if now - self._spoke < _SECONDS_BETWEEN_LINES:
                return
            self._spoke = now
        say(
            f"Notice: {self.endpoint.place.host}: {reason}; next try in {seconds:.1f} s",
            quiet=self._asking.quiet,
        )


def _usage(reply: Mapping[str, Any]) -> Usage | None:
    """Return the tokens that a server counted; None if it did not."""
    usage = reply.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    read, written = counts.get("prompt_tokens"), counts.get("completion_tokens")
    if not isinstance(read, int) or not isinstance(written, int) or read < 0 or written < 0:
        return None
    return Usage(read, written)
