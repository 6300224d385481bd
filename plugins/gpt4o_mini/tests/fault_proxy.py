"""A reverse proxy that passes requests on to a real server, or spoils them by plan."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Fault:
    """What happens to one request.

    Attributes
    ----------
    status : int
        Answered at once with this status; 0: see `kind`.
    kind : str
        ``real`` (no fault), ``hang`` (no answer for `seconds`), ``drop`` (the connection is closed), ``cut`` (half of
        the real answer), ``text`` (the real answer with `body` as what was said), ``json`` (`body`
        as the whole answer), ``strip`` (the real answer without log-probabilities).
    """

    status: int = 0
    kind: str = ""
    body: Any = None
    headers: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0


@dataclass
class Plan:
    """Faults of the next requests, in their order, then `always`; and what was asked."""

    faults: list[Fault] = field(default_factory=list)
    always: Fault | None = None
    seen: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    released: threading.Event = field(default_factory=threading.Event)

    def next(self, request: dict[str, Any], headers: dict[str, str]) -> Fault | None:
        """Note a request and return its fault."""
        with self.lock:
            self.seen.append(request)
            self.keys.append(headers.get("authorization", ""))
            self.headers.append(headers)
            return self.faults.pop(0) if self.faults else self.always


class FaultProxy(ThreadingHTTPServer):
    """The proxy; serves in a thread of its own inside ``with``."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.plan = upstream, Plan()

    @property
    def base_url(self) -> str:
        """What a client is given."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.plan.released.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that give up are what is tested."""


class _Handler(BaseHTTPRequestHandler):
    server: FaultProxy
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        fault = self.server.plan.next(json.loads(body), headers)
        if fault is None or fault.kind == "real":
            self._reply(*self._real(body))
        elif fault.status:
            self._reply(fault.status, json.dumps(fault.body or {}).encode(), fault.headers)
        elif fault.kind == "drop":
            self.close_connection = True
            self.connection.close()
        elif fault.kind == "hang":
            self.server.plan.released.wait(fault.seconds)
            self.close_connection = True
        elif fault.kind == "json":
            self._reply(200, json.dumps(fault.body).encode(), fault.headers)
        elif fault.kind == "cut":
            status, real, _ = self._real(body)
            self._reply(status, real[: len(real) // 2])
        else:
            status, real, _ = self._real(body)
            reply = json.loads(real)
            choice = reply["choices"][0]
            choice.pop("logprobs", None)
            if fault.kind == "text":
                choice["message"]["content"] = fault.body
                choice["finish_reason"] = "stop"
            self._reply(status, json.dumps(reply).encode(), fault.headers)

    def _real(self, body: bytes) -> tuple[int, bytes, tuple[tuple[str, str], ...]]:
        request = urllib.request.Request(
            self.server.upstream + self.path,
            body,
            {
                "Content-Type": "application/json",
                "Authorization": self.headers.get("Authorization", ""),
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return reply.status, reply.read(), ()
        except urllib.error.HTTPError as err:
            with err:
                return err.code, err.read(), ()

    def _reply(self, status: int, body: bytes, headers: Any = ()) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
