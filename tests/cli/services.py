"""Services for commands to talk to: a real one, and one that answers whatever a test says."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.cli.server import LocalServer
from app.config import Settings


@pytest.fixture(scope="module")
def service(simulator_state: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Both roles on the simulator, which is trusted."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("SVSM_ATTEST_") and name != "SVSM_ATTEST_VECTORS":
                patch.delenv(name)
        for name, value in {
            "PORT": "0",
            "ALLOW_SIMULATOR": "true",
            "SIMULATOR_STATE_DIR": str(simulator_state),
            "STORE": str(tmp_path_factory.mktemp("store")),
            "LOG_LEVEL": "error",
        }.items():
            patch.setenv(f"SVSM_ATTEST_{name}", value)
        server = LocalServer(Settings.load())
    with server.in_thread():
        yield server.url


class Scripted(BaseHTTPRequestHandler):
    """Answers what the test says, and remembers what it was asked."""

    answer: tuple[int, bytes] = (200, b"{}")
    asked: dict[str, Any]

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        type(self).asked = json.loads(self.rfile.read(length))
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        status, body = self.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def scripted() -> Iterator[tuple[str, type[Scripted]]]:
    """A service of our own making, at a URL."""
    handler = type("Handler", (Scripted,), {"asked": {}})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()
        thread.join()
