"""Prepare the next piece of work in a thread while the network is busy with this one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, cast

T = TypeVar("T")

_POLL_S = 0.1
_END = object()


class Prefetched(Generic[T]):
    """Items of a generator that runs in a thread of its own.

    A thread, not a process: what is prepared is large arrays, and NumPy, HDF5 and torch let other
    threads run while they compute. Use it in a ``with`` block, which ends the thread.

    Parameters
    ----------
    produce : callable
        Called in the thread with a function that tells whether to stop; gives the items. What it
        raises is raised to whoever takes the items.
    depth : int
        Items that wait at most, besides the one that is being made.
    """

    def __init__(
        self, produce: Callable[[Callable[[], bool]], Iterator[T]], depth: int = 1
    ) -> None:
        self._items: queue.Queue[object] = queue.Queue(maxsize=depth)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._run, args=(produce,), name="scdrugmap-prefetch", daemon=True
        )

    def _run(self, produce: Callable[[Callable[[], bool]], Iterator[T]]) -> None:
        try:
            for item in produce(self._stop.is_set):
                if not self._put(item):
                    return
        except BaseException as err:
            self._error = err
        self._put(_END)

    def _put(self, item: object) -> bool:
        while not self._stop.is_set():
            try:
                self._items.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False

    def __enter__(self) -> Prefetched[T]:
        self._thread.start()
        return self

    def __iter__(self) -> Iterator[T]:
        while True:
            item = self._items.get()
            if item is _END:
                if self._error is not None:
                    raise self._error
                return
            yield cast("T", item)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
