"""The service behind uvicorn: connections, senders that misbehave, and curl."""

import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import httpx
import pytest

from app.api.bounded_body import BoundedBody
from app.config import Settings
from app.main import create_app
from app.wire import b64
from tests.api.service import new_nonce, problem, served

TIMEOUT_S = 0.5


@pytest.fixture(scope="module")
def url(new_settings: Callable[..., Settings]) -> Iterator[str]:
    settings = new_settings(allow_simulator=True)
    app = create_app(settings)
    for middleware in app.user_middleware:
        if middleware.cls is BoundedBody:  # type: ignore[comparison-overlap]
            middleware.kwargs["body_timeout_s"] = TIMEOUT_S
    with served(app, settings.server_options()) as url:
        yield url


class Raw:
    """A connection that sends whatever it is told."""

    def __init__(self, url: str) -> None:
        address = httpx.URL(url)
        self.socket = socket.create_connection((address.host, address.port or 0), timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def send(self, raw: bytes) -> None:
        self.socket.sendall(raw)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self.socket.recv(1)
            assert byte, "closed without an answer"
            head += byte
        first, *lines = head.decode().split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = b""
        while len(body) < int(headers["content-length"]):
            body += self.socket.recv(65536)
        return int(first.split()[1]), headers, body

    def closed(self) -> bool:
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


HEAD = b"POST /verify HTTP/1.1\r\nHost: service\r\n"


def test_no_server_names_itself(url: str) -> None:
    answer = httpx.get(f"{url}/livez")
    assert answer.json() == {"status": "alive"}
    assert "server" not in answer.headers


def test_a_body_of_eight_mebibytes_is_refused_and_the_sender_learns_why(url: str) -> None:
    answer = httpx.post(f"{url}/verify", content=b"a" * (8 << 20))
    assert problem(answer) == "evidence-too-large"
    assert answer.headers["connection"] == "close"


def test_so_is_one_in_chunks(url: str) -> None:
    answer = httpx.post(f"{url}/verify", content=iter([b"a" * 65536] * 32))
    assert problem(answer) == "evidence-too-large"


def test_who_waits_for_100_continue_is_refused_at_once(url: str) -> None:
    with Raw(url) as raw:
        raw.send(HEAD + b"Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n")
        assert raw.answer()[0] == 413
        assert raw.closed()


def test_a_body_that_stops_is_given_up(url: str) -> None:
    with Raw(url) as raw:
        raw.send(HEAD + b'Content-Length: 100\r\n\r\n{"nonce"')
        status, headers, body = raw.answer()
        assert (status, headers["connection"]) == (408, "close")
        assert json.loads(body)["type"].endswith(":request-timeout")
        assert raw.closed()


def test_a_body_that_drips_is_given_up_too(url: str) -> None:
    with Raw(url) as raw:
        raw.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        status = 0
        raw.socket.settimeout(0.1)
        for _ in range(100):
            try:
                raw.send(b"1\r\na\r\n")
                status = raw.answer()[0]
                break
            except TimeoutError:
                continue
        assert status == 408


def test_who_leaves_in_the_middle_harms_nobody(url: str) -> None:
    for _ in range(20):
        with Raw(url) as raw:
            raw.send(HEAD + b"Content-Length: 100\r\n\r\n{")
    assert httpx.get(f"{url}/livez").status_code == 200


def test_an_error_keeps_the_connection_where_the_body_was_read(url: str) -> None:
    with Raw(url) as raw:
        for _ in range(3):
            raw.send(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
            assert raw.answer()[0] == 404
        raw.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert raw.answer()[0] == 200


def test_what_is_no_http_is_refused(url: str) -> None:
    with Raw(url) as raw:
        raw.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10 + b"\r\n\r\n")
        assert raw.socket.recv(12) == b"HTTP/1.1 400"


def test_a_head_without_end_is_cut_off(url: str) -> None:
    with Raw(url) as raw:
        raw.send(b"GET /livez HTTP/1.1\r\nX-A: " + b"a" * 200_000)
        assert raw.socket.recv(12) in (b"HTTP/1.1 400", b"HTTP/1.1 431")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_plain_curl(url: str, tmp_path: Path) -> None:
    def curl(*arguments: str) -> bytes:
        return subprocess.run(("curl", "-sS", *arguments), check=True, capture_output=True, timeout=60).stdout

    nonce = new_nonce()
    evidence = json.loads(curl("-d", f'{{"nonce": "{b64.encode(nonce)}"}}', f"{url}/attest"))
    assert json.loads(curl(f"{url}/attest?nonce={nonce.hex()}"))["nonce"] == evidence["nonce"]
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"nonce": b64.encode(nonce), "evidence": evidence}))
    assert json.loads(curl("-d", f"@{request}", f"{url}/verify"))["verdict"] == "affirming"
    refused = json.loads(curl("-d", "nonce=abc", f"{url}/attest"))
    assert refused["type"].endswith(":malformed-request")
