"""A disk that keeps what was flushed and nothing else: replays the calls of a command.

At any moment the power may go. A file or folder that has its final name must then have all its
content: it was flushed, with all that is in it, before it got the name, and nothing is written under a
final name but journals. At the end the names too are flushed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from scdrugmap.run.journal import HISTORY_FILE, LOCK_FILE
from scdrugmap.temporary_names import TEMPORARY_SUFFIX

JOURNALS = (HISTORY_FILE,)
"""Files that are written in place, a line at a time; a cut line stays by itself."""

_OF_SAFETENSORS = re.compile(r"\.tmp\w{6}")
"""What safetensors writes first; it renames by a call of the kernel that no library sees."""


OUTSIDE = ("tmp", "cache/locks")
MAPPED = re.compile(r"\.embeddings-.*")
"""Files that are written to through memory maps: the embeddings of a benchmark's networks."""


@dataclass
class Node:
    """A file or folder of the model: whether anything in it would be lost, and its own changes.

    Attributes
    ----------
    lost : bool
        Of a file: it was written to, or mapped to be written to, since it was flushed.
    unflushed : set of str
        Of a folder: names that were made in it since it was flushed.
    """

    folder: bool
    lost: bool = False
    unflushed: set[str] = field(default_factory=set)


class Disk:
    """Replays calls; `problems` says at which of them a loss of power would do harm.

    Parameters
    ----------
    root : str
        The folder that is there before.
    outside : tuple of str
        Names in it of which nothing is asked: places for temporary files, and locks.
    cache : str
        The folder in it that may vanish as a whole, or any entry of it, but never be half.
    """

    def __init__(self, root: str, outside: tuple[str, ...] = (), cache: str = "cache") -> None:
        self.root, self.cache = root, f"{root}/{cache}"
        self.nodes: dict[str, Node] = {root: Node(folder=True)}
        self.outside = tuple(f"{root}/{name}" for name in outside)
        self.problems: list[str] = []
        self.named: dict[str, str] = {}
        """What got a final name, and which folder must be flushed before the next one does."""
        self.aside: dict[str, str] = {}
        """What lost its final name, and which folder must be flushed before it may go."""

    def replay(self, calls: Iterable[tuple[str, str]], there: Iterable[str] = ()) -> None:
        """Go through calls; folders in `there` are on the disk already."""
        for path in there:
            self.nodes[path] = Node(folder=True)
        source = ""
        for kind, path in calls:
            if path.endswith(" (deleted)") or path.startswith(self.outside):
                continue
            if kind == "from":
                source = path
            elif kind == "rename":
                self._rename(source, path)
            elif kind == "create" and path not in self.nodes:
                self._make(path, Node(folder=False, lost=True))
            elif kind == "mkdir" and path not in self.nodes:
                self._make(path, Node(folder=True))
            elif kind in ("write", "map"):
                self._write(kind, path)
            elif kind == "fsync":
                self._flush(path)
            elif kind == "unlink":
                self._unlink(path)
        self._check_end()

    def _make(self, path: str, node: Node) -> None:
        self.nodes[path] = node
        parent = self.nodes.get(_parent(path))
        if parent is not None:
            parent.unflushed.add(_name(path))

    def _write(self, kind: str, path: str) -> None:
        node = self.nodes.setdefault(path, Node(folder=False))
        node.lost = True
        if self._final(path) and not path.endswith(JOURNALS):
            self.problems.append(f"{kind} in place: {self._told(path)}")

    def _flush(self, path: str) -> None:
        for name in self._below(_parent(path)):
            if _parent(name) == _parent(path) and _OF_SAFETENSORS.fullmatch(_name(name)):
                self._move(name, path)
        node = self.nodes.get(path)
        if node is not None:
            node.lost = False
            node.unflushed.clear()
        self.named = {name: folder for name, folder in self.named.items() if folder != path}
        self.aside = {name: folder for name, folder in self.aside.items() if folder != path}

    def _rename(self, source: str, target: str) -> None:
        moved = self._below(source)
        if self._final(target):
            for name, folder in self.named.items():
                self.problems.append(
                    f"{self._told(target)} gets its name before {self._told(folder)} is flushed, "
                    f"which names {self._told(name)}"
                )
            for path in moved:
                node = self.nodes[path]
                if node.lost or node.unflushed:
                    self.problems.append(f"renamed before it was flushed: {self._told(path)}")
            self.named[target] = _parent(target)
        elif self._final(source):
            self.aside[target] = _parent(source)
        self._move(source, target)

    def _move(self, source: str, target: str) -> None:
        self._forget(target)
        for path in self._below(source):
            self.nodes[target + path[len(source) :]] = self.nodes.pop(path)
        if target in self.nodes:
            self._make(target, self.nodes[target])
        if (parent := self.nodes.get(_parent(source))) is not None:
            parent.unflushed.discard(_name(source))

    def _unlink(self, path: str) -> None:
        for aside, folder in self.aside.items():
            if f"{path}/".startswith(f"{aside}/"):
                self.problems.append(
                    f"{self._told(path)} goes before {self._told(folder)} is flushed"
                )
        self._forget(path)

    def _forget(self, path: str) -> None:
        for inner in self._below(path):
            del self.nodes[inner]
        if (parent := self.nodes.get(_parent(path))) is not None:
            parent.unflushed.discard(_name(path))

    def _check_end(self) -> None:
        for name, folder in self.named.items():
            self.problems.append(f"{self._told(folder)} is not flushed after {self._told(name)}")
        for path, node in self.nodes.items():
            if not self._final(path):
                continue
            if node.lost and not path.endswith((*JOURNALS, LOCK_FILE)):
                self.problems.append(f"not flushed at the end: {self._told(path)}")
            kept = {name for name in node.unflushed if self._counts(f"{path}/{name}")}
            if kept:
                self.problems.append(f"names not flushed: {self._told(path)}: {sorted(kept)}")

    def _counts(self, path: str) -> bool:
        rebuilt = f"{path}/".startswith(f"{self.cache}/")
        return self._final(path) and not rebuilt and not path.endswith((*JOURNALS, LOCK_FILE))

    def _below(self, path: str) -> list[str]:
        return [name for name in self.nodes if name == path or name.startswith(f"{path}/")]

    def _final(self, path: str) -> bool:
        return TEMPORARY_SUFFIX not in path[len(self.root) :]

    def _told(self, path: str) -> str:
        return path[len(self.root) + 1 :] or "."


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _name(path: str) -> str:
    return path.rpartition("/")[2]
