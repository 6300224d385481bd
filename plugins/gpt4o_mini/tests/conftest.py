"""A real OpenAI-compatible server on loopback, and a proxy before it that can spoil replies."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent

sys.path.insert(0, str(HERE))  # server and proxy are imported by name

from fault_proxy import FaultProxy  # noqa: E402
from gpt_places import CHECKPOINT, KEY  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [name for name in ("xllamacpp", "gguf") if importlib.util.find_spec(name) is None]
    for item in items:
        if item.get_closest_marker("needs_llm_server") is not None:
            item.add_marker(pytest.mark.allow_hosts(["127.0.0.1"]))
            if missing:
                item.add_marker(pytest.mark.skip(reason=f"{', '.join(missing)} is not installed"))


@pytest.fixture(scope="session")
def llm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of the server of llama.cpp with the tiny checkpoint; its key is KEY."""
    from tiny_gguf import write_gguf

    folder = tmp_path_factory.mktemp("llm")
    write_gguf(CHECKPOINT, folder / "tiny.gguf")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, HERE / "llm_server.py", folder / "tiny.gguf", str(port), KEY],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            assert server.poll() is None, (folder / "server.log").read_text()[-2000:]
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=5):
                    break
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        else:
            pytest.fail("the server does not start")
        yield address
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def proxy(llm_server: str) -> Iterator[FaultProxy]:
    """Give a proxy before the server, without any fault yet."""
    with FaultProxy(llm_server) as running:
        yield running
