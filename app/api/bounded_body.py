"""Bounds on what a request may be: its URL, its headers, its body, and the time the body may take.

The whole body is in memory before anything below sees the request, so that a slow sender occupies
a connection and nothing else. Source: RFC 9110, sections 15.5.9 (408), 15.5.14 (413), 15.5.15
(414); RFC 6585, section 5 (431).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from http import HTTPStatus

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import problem_response

MAX_URL_BYTES = 0x1000
MAX_HEADER_BYTES = 0x4000
BODY_TIMEOUT_S = 15.0
# A sender that is refused while it sends would lose the answer to a reset connection: so much is
# still read from it, and thrown away.
_DRAIN_BYTES = 0x1000000
_DRAIN_TIMEOUT_S = 5.0
_MAX_DIGITS = 20


class _RefusedError(Exception):
    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class _SenderLeftError(Exception):
    """The sender closed the connection before the body was complete: nobody waits for an answer."""


class BoundedBody:
    """ASGI middleware that answers 408, 413, 414 and 431, and closes the connection with them.

    Args:
        app: what sees the requests that are within bounds.
        max_body_bytes: the largest body, however it is framed.
        body_timeout_s: from the end of the headers to the end of the body.
    """

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, body_timeout_s: float = BODY_TIMEOUT_S) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with aclosing(_parts(receive)) as parts:
                body = await self._read(Request(scope), parts)
        except _SenderLeftError:
            return
        except _RefusedError as refusal:
            response = problem_response(Request(scope), refusal.status, refusal.detail)
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    async def _read(self, request: Request, parts: AsyncIterator[bytes]) -> bytes:
        body = bytearray()
        try:
            _demand_short_head(request.scope)
            self._demand_small(_declared_size(request))
            async with asyncio.timeout(self._timeout_s):
                async for part in parts:
                    body += part
                    self._demand_small(len(body))
        except TimeoutError:
            detail = f"The body did not arrive within {self._timeout_s:g} s."
            raise _RefusedError(HTTPStatus.REQUEST_TIMEOUT, detail) from None
        except _RefusedError:
            if "expect" not in request.headers:  # who asks first has not begun to send
                await _drain(parts)
            raise
        return bytes(body)

    def _demand_small(self, size: int) -> None:
        if size > self._max_body_bytes:
            detail = f"The body is larger than {self._max_body_bytes} bytes."
            raise _RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)


def _demand_short_head(scope: Scope) -> None:
    url = len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"])
    if url > MAX_URL_BYTES:
        detail = f"The URL is longer than {MAX_URL_BYTES} bytes."
        raise _RefusedError(HTTPStatus.REQUEST_URI_TOO_LONG, detail)
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        detail = f"The headers have more than {MAX_HEADER_BYTES} bytes."
        raise _RefusedError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail)


def _declared_size(request: Request) -> int:
    """Content-Length, or 0 where there is none: what comes is counted anyway."""
    text = request.headers.get("content-length", "")
    return int(text[:_MAX_DIGITS]) if text.isascii() and text.isdecimal() else 0


async def _parts(receive: Receive) -> AsyncGenerator[bytes, None]:
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise _SenderLeftError
        more = message.get("more_body", False)
        yield message.get("body", b"")


async def _drain(parts: AsyncIterator[bytes]) -> None:
    taken = 0
    with suppress(TimeoutError, _SenderLeftError):
        async with asyncio.timeout(_DRAIN_TIMEOUT_S):
            async for part in parts:
                taken += len(part)
                if taken > _DRAIN_BYTES:
                    return


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body in one message, and then what the server says, which is when the sender leaves."""
    pending = [body]

    async def replay() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return replay
