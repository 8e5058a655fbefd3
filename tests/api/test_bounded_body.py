"""The bounds themselves; tests/api/test_connections.py has them behind a real server."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.api.bounded_body import MAX_HEADER_BYTES, MAX_URL_BYTES, BoundedBody

LIMIT = 100


class Sender:
    """What a server hands on of a body: parts, then silence or a disconnect."""

    def __init__(self, *parts: bytes, ends: bool = True, leaves: bool = False) -> None:
        self.parts = list(parts)
        self.ends = ends
        self.leaves = leaves
        self.asked = 0

    async def receive(self) -> dict[str, Any]:
        self.asked += 1
        if self.parts:
            body = self.parts.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(self.parts) or not self.ends}
        if not self.leaves:
            await asyncio.sleep(3600)
        return {"type": "http.disconnect"}


def serve(sender: Sender, *, timeout_s: float = 5.0, **scope: Any) -> tuple[bytes | None, dict[str, Any]]:
    """What the application below saw as the body, and what was answered instead."""
    seen: list[bytes] = []
    answer: dict[str, Any] = {}

    async def app(_scope: Any, receive: Callable[[], Awaitable[Any]], _send: Any) -> None:
        first = await receive()
        assert first["more_body"] is False
        seen.append(first["body"])
        if sender.leaves:
            assert (await receive())["type"] == "http.disconnect"

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer["status"] = message["status"]
            answer["headers"] = dict(message["headers"])
        else:
            answer["problem"] = json.loads(message["body"])["type"].rsplit(":", 1)[-1]

    whole = {"type": "http", "path": "/verify", "query_string": b"", "headers": [], "state": {}, **scope}
    bounded = BoundedBody(app, max_body_bytes=LIMIT, body_timeout_s=timeout_s)
    asyncio.run(asyncio.wait_for(bounded(whole, sender.receive, send), 30))
    return (seen[0] if seen else None), answer


def length(size: str) -> dict[str, Any]:
    return {"headers": [(b"content-length", size.encode())]}


@pytest.mark.parametrize("parts", [(b"",), (b"a" * LIMIT,), (b"a",) * LIMIT, (b"", b"ab", b"")])
def test_a_body_within_bounds_arrives_whole(parts: tuple[bytes, ...]) -> None:
    assert serve(Sender(*parts)) == (b"".join(parts), {})


def test_that_the_caller_left_is_passed_on() -> None:
    assert serve(Sender(b"a", leaves=True))[0] == b"a"


@pytest.mark.parametrize("parts", [(b"a" * (LIMIT + 1),), (b"a",) * (LIMIT + 1)])
def test_a_chunked_body_is_counted(parts: tuple[bytes, ...]) -> None:
    body, answer = serve(Sender(*parts))
    assert body is None
    assert (answer["status"], answer["problem"]) == (413, "evidence-too-large")
    assert answer["headers"][b"connection"] == b"close"


@pytest.mark.parametrize("declared", ["101", "9" * 400])
def test_a_declared_length_is_believed(declared: str) -> None:
    sender = Sender(b"a")
    assert serve(sender, **length(declared))[1]["status"] == 413


@pytest.mark.parametrize("declared", ["", "-1", "x", "0x10", "\uff11"])
def test_a_length_that_is_none_is_not_believed(declared: str) -> None:
    headers = [(b"content-length", declared.encode("utf-8"))]
    assert serve(Sender(b"abc"), headers=headers)[0] == b"abc"


def test_who_asks_before_sending_is_refused_without_being_read() -> None:
    sender = Sender(b"a", ends=False)
    headers = [(b"content-length", b"101"), (b"expect", b"100-continue")]
    assert serve(sender, headers=headers)[1]["status"] == 413
    assert sender.asked == 0


def test_who_sends_too_much_is_read_on_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.bounded_body._DRAIN_BYTES", 1000)
    sender = Sender(*[b"a" * 100] * 50)
    assert serve(sender, **length("5000"))[1]["status"] == 413
    assert sender.asked == 11


def test_but_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.bounded_body._DRAIN_TIMEOUT_S", 0.05)
    assert serve(Sender(b"a", ends=False), **length("5000"))[1]["status"] == 413


def test_who_is_refused_and_leaves_gets_no_answer_but_does_no_harm() -> None:
    assert serve(Sender(b"a", ends=False, leaves=True), **length("5000"))[1]["status"] == 413


def test_a_slow_body_is_given_up() -> None:
    body, answer = serve(Sender(b"a", ends=False), timeout_s=0.05)
    assert body is None
    assert (answer["status"], answer["problem"]) == (408, "request-timeout")
    assert answer["headers"][b"connection"] == b"close"


def test_who_leaves_in_the_middle_gets_no_answer() -> None:
    assert serve(Sender(b"a", ends=False, leaves=True)) == (None, {})


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("/" * MAX_URL_BYTES, b"", None),
        ("/" * (MAX_URL_BYTES - 9), b"nonce=abc", None),
        ("/" * (MAX_URL_BYTES + 1), b"", 414),
        ("/" * (MAX_URL_BYTES - 8), b"nonce=abc", 414),
    ],
)
def test_a_url_is_bounded(path: str, query: bytes, status: int | None) -> None:
    answer = serve(Sender(b""), path=path, query_string=query)[1]
    assert answer.get("status") == status
    assert answer.get("problem") in (None, "uri-too-long")


def test_a_url_is_measured_as_it_was_sent() -> None:
    assert serve(Sender(b""), raw_path=b"%41" * MAX_URL_BYTES)[1]["status"] == 414


@pytest.mark.parametrize(("size", "status"), [(MAX_HEADER_BYTES, None), (MAX_HEADER_BYTES + 1, 431)])
def test_headers_are_bounded_together(size: int, status: int | None) -> None:
    headers = [(b"x-a", b"a" * 1000), (b"x-b", b"b" * (size - 1006))]
    answer = serve(Sender(b""), headers=headers)[1]
    assert answer.get("status") == status
    assert answer.get("problem") in (None, "headers-too-large")


def test_other_protocols_pass() -> None:
    seen = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    asyncio.run(BoundedBody(app, max_body_bytes=1)({"type": "lifespan"}, nothing, nothing))
    assert seen == ["lifespan"]
