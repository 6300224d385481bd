"""What requests cost: prices, an estimate before the first one, and a budget that holds."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scdrugmap.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from scdrugmap.text.ledger import Ledger

TOKENS_PER_GENE = 3.4
"""Measured mean over 3,600 human symbols, blank included (o200k vocabulary: 3.36)."""

_CHARACTERS_PER_TOKEN = 4.0  # of English text, the usual rule of thumb
_TOKENS_OF_A_MESSAGE = 4  # role and separators around each


@dataclass(frozen=True)
class Price:
    """USD per million tokens."""

    read: float
    written: float

    def cost(self, n_read: float, n_written: float) -> float:
        """Return the price of so many tokens in USD."""
        return (n_read * self.read + n_written * self.written) / 1e6


FREE = Price(0.0, 0.0)


def read_price(text: str) -> tuple[float, float]:
    """Read ``READ/WRITTEN``, USD per million tokens.

    Raises
    ------
    ValueError
        It is not of that form, or no price.
    """
    try:
        read, written = (float(part) for part in text.split("/"))
    except ValueError as err:
        raise ValueError(f"{text!r} is not READ/WRITTEN, two numbers") from err
    if not (0 <= read < float("inf") and 0 <= written < float("inf")):
        raise ValueError(f"{text!r}: a price is 0 or more")
    return read, written


@dataclass(frozen=True)
class Usage:
    """Tokens of one or more requests."""

    n_read: float = 0.0
    n_written: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.n_read + other.n_read, self.n_written + other.n_written)


def estimated_tokens(texts: list[str], n_genes: int, genes_length: int) -> float:
    """Estimate the tokens of messages without any vocabulary.

    Parameters
    ----------
    texts : list of str
        The messages.
    n_genes : int
        Gene names in all of them.
    genes_length : int
        Characters of these names, which the estimate counts per gene instead.
    """
    rest = max(0, sum(map(len, texts)) - genes_length)
    return (
        n_genes * TOKENS_PER_GENE + rest / _CHARACTERS_PER_TOKEN + len(texts) * _TOKENS_OF_A_MESSAGE
    )


def most_tokens(texts: list[str]) -> int:
    """Return what messages have at most: no token is shorter than a byte."""
    return sum(len(text.encode()) + _TOKENS_OF_A_MESSAGE for text in texts)


class BudgetUsedUp(ResourceError):  # noqa: N818 (it is no fault, it is what was asked for)
    """The next request could cost more than what is left."""


class Budget:
    """Money to spend; every request reserves what it may cost at most, then settles.

    Parameters
    ----------
    most : float, optional
        USD; None: no limit.
    price : Price
    ledger : Ledger, optional
        What others spend of the same budget; None: it is nobody else's.

    Raises
    ------
    UsageError
        `most` is no number that could be exceeded.
    """

    def __init__(self, most: float | None, price: Price, ledger: Ledger | None = None) -> None:
        if most is not None and not most >= 0:
            raise UsageError(f"a budget is 0 USD or more, not {most}")
        self.most, self.price = most, price
        self._ledger = ledger if price != FREE else None
        self._lock = threading.Lock()
        self._spent = self._reserved = 0.0
        self.usage = Usage()

    @property
    def spent(self) -> float:
        """USD paid so far, by what the server reported."""
        return self._spent

    def reserve(self, most: Usage) -> float:
        """Set money aside; return how much.

        Raises
        ------
        BudgetUsedUp
            It would not be covered.
        """
        cost = self.price.cost(most.n_read, most.n_written)
        with self._lock:
            if self._ledger is not None:
                spent = self._ledger.add(cost, most=self.most)
            elif self.most is not None and self._spent + self._reserved + cost > self.most:
                spent = self._spent
            else:
                spent = None
            if spent is not None:
                raise BudgetUsedUp(
                    f"the budget of {self.most:g} USD is used up: {spent:.4f} USD are spent "
                    f"and the next request may cost {cost:.6f}",
                    hint="the answers so far are kept: run the same command again with a larger "
                    "--max-cost to go on",
                )
            self._reserved += cost
        return cost

    def settle(self, reserved: float, used: Usage) -> None:
        """Give back what was set aside and pay what was used."""
        cost = self.price.cost(used.n_read, used.n_written)
        with self._lock:
            self._reserved -= reserved
            self._spent += cost
            self.usage = self.usage + used
            if self._ledger is not None:
                self._ledger.add(cost - reserved)
