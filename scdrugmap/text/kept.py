"""Replies are kept in the run store by the hash of the request: a repeated run sends nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scdrugmap.files import hash_json, remove, write_json

if TYPE_CHECKING:
    from scdrugmap.run.store import Store

KIND = "answer"
_FILE = "reply.json"


class KeptReplies:
    """Replies of servers, each an entry of the store; none is kept without a store.

    Parameters
    ----------
    store : Store, optional
    """

    def __init__(self, store: Store | None) -> None:
        self._store = store

    @property
    def writable(self) -> bool:
        """Whether replies outlive the process."""
        return self._store is not None and self._store.writable

    def get(self, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the reply to a request, or None; a damaged entry counts as none.

        Parameters
        ----------
        identity : mapping
            Everything that the reply depends on, JSON-able, without any secret.
        """
        if self._store is None:
            return None
        path = self._store.get(KIND, hash_json(identity))
        if path is None:
            return None
        kept: dict[str, Any] = json.loads((path / _FILE).read_text("utf-8"))
        return kept["reply"]

    def put(self, identity: Mapping[str, Any], reply: Mapping[str, Any]) -> None:
        """Keep a reply; it replaces an older one to the same request."""
        if self._store is None or not self._store.writable:
            return
        key = hash_json(identity)
        before = self._store.get(KIND, key)
        if before is not None:
            remove(before)

        def write(folder: Path) -> None:
            write_json(folder / _FILE, {"reply": dict(reply), "time": time.time()})

        self._store.put(KIND, key, write, identity)
