"""The service inside this process: in the foreground for `serve`, in a thread for `demo`.

The application is handed to the server by name, because it and the command line know nothing of
each other; settings reach it through the environment.
"""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import structlog
import uvicorn

from app.cli.failure import InputError
from app.config import PREFIX, Settings
from app.errors import AttestError

_log = structlog.get_logger(__name__)

APPLICATION = "app.main:create_app"
_BACKLOG = 2048
_START_S = 120.0  # the first start of a simulator makes RSA-4096 keys
_STOP_S = 35.0  # a little more than the server itself allows requests in flight

_Send = Callable[[dict[str, Any]], Awaitable[None]]
_Receive = Callable[[], Awaitable[dict[str, Any]]]


def export_settings(flags: Mapping[str, object]) -> None:
    """Put command line flags into the environment, where they win over everything else.

    Args:
        flags: settings by name; None and False leave a setting as it was.
    """
    for name, value in flags.items():
        if value is None or value is False:
            continue
        os.environ[PREFIX + name.upper()] = "true" if value is True else str(value)


class _StartupGuard:
    """Keeps the reason of a refused start, which a server would only print, with its traceback."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self.failure: AttestError | None = None

    async def __call__(self, scope: dict[str, Any], receive: _Receive, send: _Send) -> None:
        if scope["type"] != "lifespan":
            await self._application(scope, receive, send)
            return

        async def quietly(message: dict[str, Any]) -> None:
            await send({**message, "message": ""} if message["type"].endswith(".failed") else message)

        try:
            await self._application(scope, receive, quietly)
        except AttestError as error:
            self.failure = error


class LocalServer:
    """A server that is bound to its address, with its application loaded, and not running yet.

    Raises:
        AttestError: the settings, or what they name, cannot be used.
        InputError: the address cannot be bound, or TLS files cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        options = settings.server_options()
        try:
            self._config = uvicorn.Config(APPLICATION, factory=True, **options)
            self._config.load()
        except OSError as error:  # ssl.SSLError is one
            raise InputError(
                "tls_certificate", f"cannot be used: {error.strerror or error}", "Give PEM files that match."
            ) from error
        self._guard = _StartupGuard(self._config.loaded_app)
        self._config.loaded_app = self._guard
        self._socket = _bind(options["host"], options["port"])
        self._server = uvicorn.Server(self._config)
        scheme = "https" if settings.tls_certificate else "http"
        host = f"[{options['host']}]" if ":" in options["host"] else options["host"]
        self.url = f"{scheme}://{host}:{self._socket.getsockname()[1]}"

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM, either of which is a good end.

        Raises:
            AttestError: the application refused to start.
        """
        # The server handles both itself, and then passes them on to whoever listened before.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        _log.info("listening", url=self.url)
        with self._socket, contextlib.suppress(SystemExit):  # which is how it says that the start failed
            self._server.run(sockets=[self._socket])
        self._demand_started()

    @contextlib.contextmanager
    def in_thread(self) -> Iterator[None]:
        """Serve in a thread while the block runs.

        Raises:
            AttestError: the application refused to start.
        """
        thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="server", daemon=True
        )
        with self._socket:
            thread.start()
            pause = threading.Event()
            deadline = time.monotonic() + _START_S
            while thread.is_alive() and not self._server.started and time.monotonic() < deadline:
                pause.wait(0.01)
            try:
                self._demand_started()
                yield
            finally:
                self._server.should_exit = True
                thread.join(_STOP_S)

    def _demand_started(self) -> None:
        if self._guard.failure is not None:
            raise self._guard.failure
        if not self._server.started:
            raise InputError(self.url, "the service did not start", "SVSM_ATTEST_LOG_LEVEL=info says more.")


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        remedy = "Choose another --port (0: any free one), or stop what listens there."
        raise InputError(f"{host} port {port}", f"cannot be listened on: {reason}", remedy) from error
    # Connections inherit it. Without, the second part of an answer waits for the client's delayed ACK of
    # the first, 40 ms: asyncio sets it only on sockets whose protocol number it knows.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
