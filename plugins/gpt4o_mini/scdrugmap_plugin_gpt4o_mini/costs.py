"""What a run would send where, what it would cost, and whether the user agrees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scdrugmap.errors import UsageError
from scdrugmap.progress import duration
from scdrugmap.text.budget import FREE, Price, Usage
from scdrugmap_plugin_gpt4o_mini.prices import known_price

if TYPE_CHECKING:
    from scdrugmap.text.contract import Asking
    from scdrugmap_plugin_gpt4o_mini import Options
    from scdrugmap_plugin_gpt4o_mini.endpoint import Place

MANY_CELLS = 2_000
"""From here on a run asks first, even where it costs nothing."""

_SECONDS_PER_REQUEST = 1.0  # the usual order of magnitude of a small chat model


@dataclass(frozen=True)
class Forecast:
    """What a run would do.

    Attributes
    ----------
    place : Place
    model : str
        Name of the model at the endpoint.
    n_cells, n_kept, n_requests : int
        Cells; those whose reply is kept; requests that are left.
    usage : Usage
        Estimated tokens of these requests.
    price : Price or None
        None: not known.
    as_of : str
        Where the price is from.
    concurrency : int
    """

    place: Place
    model: str
    n_cells: int
    n_kept: int
    n_requests: int
    usage: Usage
    price: Price | None
    as_of: str
    concurrency: int

    @property
    def cost(self) -> float | None:
        """USD; None: the price is not known."""
        price = self.price
        return None if price is None else price.cost(self.usage.n_read, self.usage.n_written)

    def lines(self) -> list[str]:
        """Say it, one line each."""
        seconds = self.n_requests * _SECONDS_PER_REQUEST / self.concurrency
        kept = f"; {self.n_kept:,} are answered already" if self.n_kept else ""
        lines = [
            (
                f"{self.n_cells:,} cells, {self.n_requests:,} requests to {self.place.host} "
                f"(model {self.model}){kept}"
            ),
            (
                f"about {self.usage.n_read:,.0f} tokens to read and {self.usage.n_written:,.0f} to "
                f"write, {duration(seconds)} at {_SECONDS_PER_REQUEST:g} s per request"
            ),
        ]
        if self.cost is None:
            lines.append(f"the price of {self.model} is not known (give it with --price)")
        elif self.price != FREE:
            lines.append(f"about {self.cost:.4f} USD ({self.as_of})")
        return lines

    def check_agreed(self, asking: Asking) -> None:
        """Go on only if the user agrees to what it costs.

        Nothing is asked where nothing is sent, or where few cells go to this machine itself.

        Raises
        ------
        UsageError
            The user did not agree, or nobody is there to ask; a budget without a known price.
        """
        if not self.n_requests:
            return
        if self.price is None and asking.max_cost is not None:
            raise UsageError(
                f"--max-cost needs the price of {self.model}, which is not in the table",
                hint="give it with --price READ/WRITTEN, USD per million tokens",
            )
        if asking.yes or (self.place.local and self.n_cells <= MANY_CELLS):
            return
        if asking.confirm is None:
            raise UsageError(
                f"{self.n_requests:,} requests to {self.place.host} were not agreed to",
                hint="look at them with --dry-run, then add --yes",
            )
        if not asking.confirm(f"Send the expression of these cells to {self.place.host}?"):
            raise UsageError("nothing was sent", hint="as you wished")


def price_of(place: Place, options: Options, asking: Asking) -> tuple[Price | None, str]:
    """Return the price of a model and where it is from; servers on this machine are free."""
    if asking.price is not None:
        return Price(*asking.price), "price as given"
    if place.local:
        return FREE, ""
    price, as_of = known_price(options.model)
    return price, f"prices as of {as_of}"
