"""Tell how far long work is: a bar on a terminal, a line per 10 seconds elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_TO_FIRST_LINE = 3.0


def say(message: str, *, quiet: bool = False) -> None:
    """Print a line of talk to stderr; results go to stdout or files."""
    if not quiet:
        print(message, file=sys.stderr, flush=True)


class Progress:
    """Progress of one piece of work, with rates and the expected end.

    Parameters
    ----------
    title : str
        What is being done.
    total : int
        Number of steps.
    unit : str
        What a step is, plural (``cells``).
    quiet : bool
        Say nothing.
    """

    def __init__(self, title: str, total: int, unit: str = "cells", *, quiet: bool = False) -> None:
        self.title, self.total, self.unit, self.quiet = title, total, unit, quiet
        self.done = 0
        self.extra: dict[str, float] = {}
        self._began = self._spoke = time.monotonic()
        self._spoke += _SECONDS_TO_FIRST_LINE - _SECONDS_BETWEEN_LINES
        self._bar = None

    def __enter__(self) -> Progress:
        self._began = time.monotonic()
        self._spoke = self._began + _SECONDS_TO_FIRST_LINE - _SECONDS_BETWEEN_LINES
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}"),
                TextColumn("{task.fields[rates]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(self.title, total=self.total, rates="")
            self._bar.start()
        return self

    def advance(self, steps: int, **counts: float) -> None:
        """Report finished steps; `counts` (``tokens=...``) are added up and shown as rates."""
        self.done += steps
        for name, count in counts.items():
            self.extra[name] = self.extra.get(name, 0.0) + count
        if self._bar is not None:
            self._bar.update(self._task, advance=steps, rates=self.rates())
        elif not self.quiet and time.monotonic() - self._spoke >= _SECONDS_BETWEEN_LINES:
            self._spoke = time.monotonic()
            say(
                f"{self.title}: {self.done:,}/{self.total:,} {self.unit}, {self.rates()}{self._left()}"
            )

    def rates(self) -> str:
        """Return the rates so far, as text."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        rates = {self.unit: self.done, **self.extra}
        return ", ".join(f"{count / seconds:,.3g} {name}/s" for name, count in rates.items())

    def _left(self) -> str:
        if not self.done or self.done >= self.total:
            return ""
        seconds = (time.monotonic() - self._began) / self.done * (self.total - self.done)
        return (
            f", about {seconds / 60:.0f} min left"
            if seconds > 90
            else f", about {seconds:.0f} s left"
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
