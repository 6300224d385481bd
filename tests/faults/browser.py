"""A real Chromium that tells what a page does: dialogs, requests, errors, breaches of its policy.

It is spoken to over two pipes in its own protocol
(https://chromedevtools.github.io/devtools-protocol/), so that nothing has to be installed.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FIRST_FREE = 10  # the browser wants its pipes as 3 and 4
_SECONDS = 60.0
_MOST_POINTED_AT = 10
_BOX = """(() => { const part = document.querySelectorAll(%s)[%d];
  if (!part) return null;
  part.scrollIntoView({block: "center", behavior: "instant"});
  const box = part.getBoundingClientRect(); return [box.x, box.y, box.width, box.height]; })()"""


@dataclass
class Visit:
    """What happened on one page."""

    dialogs: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    """Exceptions of scripts, and whatever the console calls an error."""
    requests: list[str] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    """What the expressions gave."""

    @property
    def fetched(self) -> list[str]:
        """Requests that leave the page."""
        return [url for url in self.requests if not url.startswith(("data:", "blob:"))]


class Browser:
    """One browser process."""

    def __init__(self, profile: Path) -> None:
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, _FIRST_FREE) for end in (to_read, to_write)]
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        self._process = subprocess.Popen(
            [
                *("bash", "-c", f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}', "bash", str(CHROMIUM)),
                *flags,
                *("--disable-background-networking", "--disable-dev-shm-usage"),
                *("--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"),
            ],
            pass_fds=ends,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (to_read, to_write, *ends):
            os.close(end)
        self._rest = b""
        self._number = 0

    def close(self) -> None:
        """End the browser."""
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def visit(
        self, url: str, *expressions: str, point_at: str = "", settle_s: float = 1.0
    ) -> Visit:
        """Open a page in a new tab, evaluate expressions one after the other, listen all the time.

        Parameters
        ----------
        url : str
        expressions : str
            JavaScript; promises are waited for.
        point_at : str
            Selector of what the pointer is moved over in the end, at most ten of them.
        settle_s : float
            How long to listen after loading and after each expression.
        """
        seen = Visit()
        target = self._ask("Target.createTarget", seen, url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", seen, targetId=target, flatten=True)
        session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            self._ask(f"{domain}.enable", seen, session)
        self._ask("Page.navigate", seen, session, url=url)
        self._listen(seen, settle_s, until="Page.loadEventFired")
        for expression in expressions:
            seen.answers.append(self._evaluate(expression, seen, session))
            self._listen(seen, settle_s)
        for number in range(_MOST_POINTED_AT if point_at else 0):
            box = self._evaluate(_BOX % (json.dumps(point_at), number), seen, session)
            for share in (0.3, 0.5, 0.7) if box else ():
                x, y = (start + share * size for start, size in zip(box[:2], box[2:], strict=True))
                where = {"type": "mouseMoved", "x": x, "y": y}
                self._ask("Input.dispatchMouseEvent", seen, session, **where)
                self._listen(seen, 0.05)
        self._ask("Target.closeTarget", seen, targetId=target)
        return seen

    def _evaluate(self, expression: str, seen: Visit, session: str) -> Any:
        found = self._ask(
            "Runtime.evaluate",
            seen,
            session,
            expression=expression,
            returnByValue=True,
            awaitPromise=True,
        )
        return found["result"].get("value")

    def _ask(
        self, method: str, seen: Visit, session: str | None = None, **parameters: Any
    ) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        number, end = self._number, time.monotonic() + _SECONDS
        while (answer := self._next(end)) is not None:
            if answer.get("id") == number:
                assert "error" not in answer, answer
                found: dict[str, Any] = answer["result"]
                return found
            self._hear(answer, seen)
        raise AssertionError(f"the browser does not answer to {method}")

    def _listen(self, seen: Visit, seconds: float, until: str = "") -> None:
        """Note what happens: until an event, and some time longer."""
        if until:
            end = time.monotonic() + _SECONDS
            while (event := self._next(end)) is not None:
                self._hear(event, seen)
                if event.get("method") == until:
                    break
            else:
                raise AssertionError("the page does not load")
        end = time.monotonic() + seconds
        while (event := self._next(end)) is not None:
            self._hear(event, seen)

    def _next(self, end: float) -> dict[str, Any] | None:
        while b"\0" not in self._rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._read], [], [], left)[0]:
                return None
            piece = os.read(self._read, 1 << 20)
            assert piece, "the browser has ended"
            self._rest += piece
        raw, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        return message

    def _hear(self, event: dict[str, Any], seen: Visit) -> None:
        about = event.get("params", {})
        match event.get("method"):
            case "Page.javascriptDialogOpening":
                seen.dialogs.append(about["message"])
                self._ask("Page.handleJavaScriptDialog", seen, event["sessionId"], accept=True)
            case "Network.requestWillBeSent":
                seen.requests.append(about["request"]["url"])
            case "Runtime.exceptionThrown":
                seen.errors.append(str(about["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if about["type"] in ("error", "assert"):
                seen.errors.append(str(about["args"]))
            case "Log.entryAdded" if about["entry"]["level"] == "error":
                seen.errors.append(about["entry"]["text"])
            case "Audits.issueAdded":
                issue = about["issue"]
                if issue["code"] == "ContentSecurityPolicyIssue":
                    seen.violations.append(str(issue["details"]))


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Give a browser with a profile of its own."""
    started = Browser(profile)
    try:
        yield started
    finally:
        started.close()
