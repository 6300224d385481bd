"""A real HTTP server on loopback that lists and sends files, and breaks transfers when told to."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote


class FileServer(ThreadingHTTPServer):
    """Serves ``folder`` as GEO does: listings in HTML, ranges, ETags.

    ``faults`` holds what befalls the next requests for whole files, one by one: ``"cut"`` sends half
    and closes, ``"503"`` and ``"404"`` answer so, ``"ok"`` does nothing. ``log`` has method, path
    and range of each request for more than a byte.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.faults: list[str] = []
        self.log: list[tuple[str, str]] = []
        self.ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.server.folder / unquote(self.path).strip("/")
        wanted = self.headers.get("Range", "")
        if path.is_dir():
            self._list(path)
        elif not path.is_file():
            self.send_error(404)
        elif wanted == "bytes=0-0":
            self._send(path.read_bytes(), wanted, "ok")
        else:
            self.server.log.append((path.name, wanted))
            fault = self.server.faults.pop(0) if self.server.faults else "ok"
            if fault.isdigit():
                self.send_error(int(fault))
            else:
                self._send(path.read_bytes(), wanted, fault)

    def _list(self, folder: Path) -> None:
        names = [f"{p.name}/" if p.is_dir() else p.name for p in sorted(folder.iterdir())]
        links = "".join(f'<a href="{quote(name)}">{name}</a>\n' for name in names)
        page = f'<a href="../">Parent Directory</a>\n<a href="?C=N">Name</a>\n{links}'.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def _send(self, data: bytes, wanted: str, fault: str) -> None:
        tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        begin, whole = 0, len(data)
        same = self.headers.get("If-Range", tag) == tag
        if self.server.ranges and wanted and same:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            begin = int(first)
            if begin >= whole:
                self.send_error(416)
                return
            data = data[begin : int(last) + 1 if last else None]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{begin + len(data) - 1}/{whole}")
        else:
            self.send_response(200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if fault == "cut" else data)
        self.wfile.flush()
        self.close_connection = True


@contextmanager
def serve(folder: Path) -> Iterator[FileServer]:
    """Serve a folder until the block ends."""
    server = FileServer(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
