"""Text of strangers without what moves a cursor, turns a line round or cannot be seen.

Names of cells, genes, samples and files stand in messages, tables on terminals and pages. Control
characters (among them those that begin an ANSI sequence), the marks that reverse the direction of
writing, and halves of characters are shown as the escapes that Python would write.
"""

from __future__ import annotations

import json
import re

UNSEEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff"
)
"""Ranges of such characters, for a regular expression; tab and line end are not among them."""

_UNSEEN = re.compile(f"[{UNSEEN}]")


def printable(text: str) -> str:
    """Return text as one line that a terminal shows as it is."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def printable_lines(text: str) -> str:
    r"""Return text of several lines so; only ``\n`` ends one."""
    return "\n".join(map(printable, text.split("\n")))


def visible(text: str) -> str:
    r"""Return text for a page: tabs, line ends and kinds of spaces stay."""
    return _UNSEEN.sub(lambda found: repr(found[0])[1:-1], text)


def ascii_escapes(text: str) -> str:
    r"""Return a JSON text that means the same, with ``\u`` escapes for what cannot be seen."""
    return _UNSEEN.sub(lambda found: json.dumps(found[0])[1:-1], text)
