"""Ask many questions at a time: threads, a breaker, and an orderly end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Generic, TypeVar

from scdrugmap.errors import ResourceError
from scdrugmap.text.patience import StoppedError, TemporaryError

Task = TypeVar("Task")
Result = TypeVar("Result")

FAILURES_IN_A_ROW = 20
"""Requests that failed after all their tries, one after the other, before a run stops."""


class Dispatcher(Generic[Task, Result]):
    """Runs tasks in threads; results come as they are finished, whatever the order.

    Parameters
    ----------
    work : callable
        Does one task; :class:`TemporaryError` is that task's own failure, anything else ends
        the run.
    concurrency : int
        Tasks at a time.
    stop : threading.Event
        Set when the run ends early, so that `work` stops waiting.
    most_failures : int
        Failures in a row that end the run.
    """

    def __init__(
        self,
        work: Callable[[Task], Result],
        concurrency: int,
        stop: threading.Event,
        most_failures: int = FAILURES_IN_A_ROW,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"at least 1 request at a time, not {concurrency}")
        self._work, self._concurrency, self._stop = work, concurrency, stop
        self._most_failures = most_failures

    def run(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Result | TemporaryError]]:
        """Yield each task with its result, or with the failure that outlasted all tries.

        Tasks are started in their order, and only as many as run at a time: after the run has
        ended early nothing more is started, and what was under way is still yielded.

        Raises
        ------
        ResourceError
            So many tasks failed in a row that the server must be down.
        """
        waiting = iter(tasks)
        running: dict[Future[Result], Task] = {}
        ended: BaseException | None = None
        failures = 0
        try:
            while True:
                while ended is None and len(running) < self._concurrency:
                    task = next(waiting, None)
                    if task is None:
                        break
                    running[self._start(task)] = task
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    task = running.pop(future)
                    failure = future.exception()
                    if failure is None:
                        failures = 0
                        yield task, future.result()
                    elif isinstance(failure, TemporaryError):
                        failures += 1
                        if failures >= self._most_failures and ended is None:
                            ended = _broken(failures, failure)
                        yield task, failure
                    elif not isinstance(failure, StoppedError):
                        ended = ended or failure  # raised once all under way is collected
                    if ended is not None:
                        self._stop.set()
        except BaseException:  # Ctrl-C, or nobody wants the results any more
            self._stop.set()
            raise
        if ended is not None:
            raise ended

    def _start(self, task: Task) -> Future[Result]:
        """Do a task in a thread of its own.

        An executor would wait for its threads when the process ends; a server that hangs must not
        hold up who pressed Ctrl-C. A thread costs nothing beside a request.
        """
        future: Future[Result] = Future()

        def run() -> None:
            try:
                future.set_result(self._work(task))
            except BaseException as err:  # it belongs to whoever waits for the result
                future.set_exception(err)

        threading.Thread(target=run, daemon=True, name="scdrugmap-ask").start()
        return future


def _broken(failures: int, last: TemporaryError) -> ResourceError:
    return ResourceError(
        f"{failures} requests in a row failed, the last one with: {last.reason}",
        hint="the answers so far are kept: run the same command again when the server works",
    )
