"""How deep the tuples of a pickle are nested, found out without making one.

Python hashes a tuple by hashing what is in it, with nothing that stops it: a pickle of a million
tuples within each other, used as a key, ends the process without an exception. Lists and dicts need
no such care: they are no keys, and what recurses over them counts its depth.
"""

from __future__ import annotations

import pickle
import pickletools
from typing import Any

MOST_TUPLES = 64
"""Levels of tuples; what authors publish has two or three."""


class TupleDepth:
    """Follows what a pickle does with its stack, instruction by instruction."""

    def __init__(self) -> None:
        self._stack: list[int | None] = []  # depth of each value; None: a mark
        self._memo: dict[int, int] = {}

    def follow(self, instruction: pickletools.OpcodeInfo, argument: Any) -> None:
        """Take one instruction, as ``pickletools.genops`` gives it.

        Raises
        ------
        pickle.UnpicklingError
            It makes a tuple that is too deep, or takes values that are not there.
        """
        name = instruction.name
        taken = self._take(instruction.stack_before)
        depth = 0
        if name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            depth = 1 + max(taken, default=0)
            if depth > MOST_TUPLES:
                raise pickle.UnpicklingError(f"more than {MOST_TUPLES} levels of tuples")
        elif name in ("DUP", "MEMOIZE"):
            depth = taken[0]
        elif name.endswith("GET"):
            depth = self._memo.get(int(argument), 0)
        for kind in instruction.stack_after:
            self._stack.append(None if kind is pickletools.markobject else depth)
        if name == "MEMOIZE":
            self._memo[len(self._memo)] = depth
        elif name.endswith("PUT"):
            self._memo[int(argument)] = (self._stack[-1] or 0) if self._stack else 0

    def _take(self, kinds: list[pickletools.StackObject]) -> list[int]:
        """Remove what an instruction takes from the stack; return the depths of the values."""
        taken: list[int] = []
        n_single = len(kinds)
        if pickletools.markobject in kinds:
            n_single = kinds.index(pickletools.markobject)
            while (depth := self._pop()) is not None:
                taken.append(depth)
        taken += [self._pop() or 0 for _ in range(n_single)]
        return taken

    def _pop(self) -> int | None:
        if not self._stack:
            raise pickle.UnpicklingError("a value is missing")
        return self._stack.pop()
