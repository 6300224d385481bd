"""Tell how far long work is: a bar on a terminal, a line per 10 seconds elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from scdrugmap.plain import printable

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_TO_FIRST_LINE = 3.0
_SECONDS_WORTH_A_SUMMARY = 1.0


def say(message: str, *, quiet: bool = False) -> None:
    """Print a line of talk to stderr; results go to stdout or files.

    Names in it may be hostile: control characters are shown, not sent.
    """
    if not quiet:
        print(printable(message), file=sys.stderr, flush=True)


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
        self.skipped = 0
        self.extra: dict[str, float] = {}
        self._begin()
        self._bar: Any = None

    def _begin(self) -> None:
        self._began = time.monotonic()
        self._spoke = self._began + _SECONDS_TO_FIRST_LINE - _SECONDS_BETWEEN_LINES

    def __enter__(self) -> Progress:
        self._begin()
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[rates]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(printable(self.title), total=self.total, rates="")
            self._bar.start()
        return self

    def advance(self, steps: int, **counts: float) -> None:
        """Report finished steps; `counts` (``tokens=...``) are added up and shown as rates."""
        self.done += steps
        for name, count in counts.items():
            self.extra[name] = self.extra.get(name, 0.0) + count
        self._show()

    def skip(self, steps: int) -> None:
        """Report steps that cost nothing (they were in the cache): they do not count as speed."""
        self.skipped += steps
        self._show()

    def _show(self) -> None:
        if self._bar is not None:
            self._bar.update(
                self._task, completed=self.done + self.skipped, rates=self.rates() + self.left()
            )
        elif not self.quiet and time.monotonic() - self._spoke >= _SECONDS_BETWEEN_LINES:
            self._spoke = time.monotonic()
            say(
                f"{self.title}: {self.done + self.skipped:,}/{self.total:,} {self.unit}, "
                f"{self.rates()}{self.left()}"
            )

    def rates(self) -> str:
        """Return the rates so far, as text."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        rates = {self.unit: self.done, **self.extra}
        return ", ".join(f"{_short(count / seconds)} {name}/s" for name, count in rates.items())

    def left(self) -> str:
        """Return how long the rest will take at the rate so far, as text; empty if unknown."""
        rest = self.total - self.done - self.skipped
        if not self.done or rest <= 0:
            return ""
        return f", about {duration((time.monotonic() - self._began) / self.done * rest)} left"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        seconds = time.monotonic() - self._began
        if error is None and seconds >= _SECONDS_WORTH_A_SUMMARY:
            cached = f" ({self.skipped:,} from the cache)" if self.skipped else ""
            say(
                f"{self.title}: {self.done + self.skipped:,} {self.unit}{cached} "
                f"in {duration(seconds)}, {self.rates()}",
                quiet=self.quiet,
            )


def duration(seconds: float) -> str:
    """Return a time span as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
