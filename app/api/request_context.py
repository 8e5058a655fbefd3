"""What every request and every answer get: an id, a line in the log, a count, safe headers.

Also the last resort: an exception that nobody expected becomes a 500 that tells its request id and
nothing else.
"""

import time

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import TYPES, problem_response
from app.telemetry import request_id
from app.telemetry.metrics import Metrics

# Nothing that is answered here is to be kept, sniffed, framed or run.
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_SENDER_LEFT = 499  # counted, never sent: nobody waits for an answer
_ROUTINE = {"/livez", "/readyz", "/metrics"}  # polled for ever

_log = structlog.get_logger(__name__)


class RequestContext:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        request.state.request_id = request_id.request_id(request.headers.get(request_id.HEADER))
        with structlog.contextvars.bound_contextvars(request_id=request.state.request_id):
            await self._serve(request, receive, send)

    async def _serve(self, request: Request, receive: Receive, send: Send) -> None:
        scope = request.scope
        started = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[request_id.HEADER] = request.state.request_id
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            _log.exception("internal_error")
            if status:
                raise  # half an answer is out: the server has to break the connection off
            detail = "The log says more, under the request id."
            response = problem_response(request, TYPES["internal"], detail)
            await response(scope, receive, send_with_headers)
        finally:
            self._record(scope, status or _SENDER_LEFT, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, duration_s: float) -> None:
        route = getattr(scope.get("route"), "path_format", None)
        self._metrics.request(scope["method"], route, status, duration_s)
        log = _log.debug if route in _ROUTINE else _log.info
        log("request", method=scope["method"], route=route, status=status, duration_s=round(duration_s, 6))
