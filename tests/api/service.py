"""The service in this process: spoken to without a socket, or over a real one."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Coroutine, Iterator
from typing import Any, Self, TypeVar

import httpx
import uvicorn
from fastapi import FastAPI

from app.wire import b64

T = TypeVar("T")


class Service:
    """One application between the start and the end of its lifespan."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self._runner = asyncio.Runner()
        self._lifespan = app.router.lifespan_context(app)

    def __enter__(self) -> Self:
        try:
            yielded = self.run(self._lifespan.__aenter__())
        except BaseException:
            self._runner.close()
            raise
        self.state: dict[str, Any] = dict(yielded or {})
        transport = httpx.ASGITransport(self.asgi)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://service", timeout=60)
        return self

    def __exit__(self, *error: object) -> None:
        self.run(self.client.aclose())
        self.run(self._lifespan.__aexit__(None, None, None))
        self._runner.close()

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        """As a server calls the application: each request with a copy of the lifespan's state."""
        await self.app({**scope, "state": dict(self.state)}, receive, send)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(coroutine)

    def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        return self.run(self.client.request(method, url, **options))

    def get(self, url: str, **options: Any) -> httpx.Response:
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Any) -> httpx.Response:
        return self.request("POST", url, **options)

    def attest(self, nonce: bytes, **members: Any) -> dict[str, Any]:
        answer = self.post("/attest", json={"nonce": b64.encode(nonce), **members})
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def verify(self, nonce: bytes, evidence: Any, policy: Any = None) -> dict[str, Any]:
        body = {"nonce": b64.encode(nonce), "evidence": evidence, "policy": policy}
        answer = self.post("/verify", json=body)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document


def new_nonce() -> bytes:
    return os.urandom(64)


def outcomes(verdict: dict[str, Any]) -> dict[str, str]:
    return {finding["check"]: finding["outcome"] for finding in verdict["findings"]}


def problem(answer: httpx.Response) -> str:
    """The name of the problem that an answer is, after checking what all problems have in common."""
    document = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["status"] == answer.status_code
    assert document["instance"] == f"urn:svsm-attest:request:{answer.headers['x-request-id']}"
    assert document["title"]
    assert document["detail"]
    kind: str = document["type"]
    assert kind.startswith("urn:svsm-attest:problem:")
    return kind.removeprefix("urn:svsm-attest:problem:")


@contextlib.contextmanager
def served(app: FastAPI, options: dict[str, Any]) -> Iterator[str]:
    """The application behind uvicorn on a free port of the loopback; gives its URL."""
    server = uvicorn.Server(uvicorn.Config(app, **{**options, "port": 0}))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < deadline, "the server takes too long to start"
        time.sleep(0.01)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
