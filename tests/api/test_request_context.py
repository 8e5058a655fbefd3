import json
import re
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog
from fastapi import FastAPI
from starlette.responses import StreamingResponse

from app.api.request_context import RequestContext
from app.telemetry.logs import configure_logging
from app.telemetry.metrics import Metrics
from tests.api.service import Service, problem

LOCAL = "c2VjcmV0IG5vbmNl"


@pytest.fixture
def service() -> Iterator[Service]:
    app = FastAPI()
    metrics = Metrics()
    app.add_middleware(RequestContext, metrics=metrics)

    @app.get("/fine/{name}")
    async def fine(name: str) -> str:
        structlog.get_logger().info("inside", name_length=len(name))
        return name

    @app.get("/broken")
    async def broken() -> None:
        nonce = LOCAL
        raise RuntimeError("this is not for the caller" + nonce[:0])

    @app.get("/half")
    async def half() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"half"
            raise RuntimeError("in the middle")

        return StreamingResponse(parts())

    with Service(app) as service:
        service.state = {"metrics": metrics}
        yield service


@pytest.mark.parametrize("offered", ["a", "A-Za.z_0-9", "x" * 128, "018f4a2e-7c1b-7e3a"])
def test_an_id_of_the_caller_is_kept(service: Service, offered: str) -> None:
    answer = service.get("/fine/a", headers={"X-Request-Id": offered})
    assert answer.headers["x-request-id"] == offered


@pytest.mark.parametrize("offered", ["", "x" * 129, "a b", "a\tb", "ä", "<script>", "a;b", "a/b", "${jndi}"])
def test_any_other_is_replaced(service: Service, offered: str) -> None:
    answer = service.get("/fine/a", headers={"X-Request-Id": offered.encode("latin-1")})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_every_request_without_one_gets_its_own(service: Service) -> None:
    assert len({service.get("/fine/a").headers["x-request-id"] for _ in range(5)}) == 5


@pytest.mark.parametrize("path", ["/fine/a", "/nowhere", "/broken"])
def test_every_answer_has_safe_headers(service: Service, path: str) -> None:
    headers = service.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "default-src 'none'" in headers["content-security-policy"]


def test_an_unforeseen_exception_is_told_to_the_log_only(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info", "json")
    answer = service.get("/broken", headers={"X-Request-Id": "the-broken-one"})
    assert answer.status_code == 500
    assert problem(answer) == "internal"
    assert "not for the caller" not in answer.text
    assert "Traceback" not in answer.text
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    told = next(line for line in lines if line["event"] == "internal_error")
    assert told["request_id"] == "the-broken-one"
    assert told["exception"][0]["exc_value"] == "this is not for the caller"
    assert LOCAL not in json.dumps(lines)  # a traceback with local variables would show it


def test_the_id_is_in_every_line_of_the_request_and_in_no_other(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info", "json")
    service.get("/fine/a?nonce=geheim", headers={"X-Request-Id": "first"})
    service.get("/fine/b", headers={"X-Request-Id": "second"})
    structlog.get_logger().info("afterwards")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line.get("request_id")) for line in lines] == [
        ("inside", "first"),
        ("request", "first"),
        ("inside", "second"),
        ("request", "second"),
        ("afterwards", None),
    ]
    request = lines[1]
    assert (request["method"], request["route"], request["status"]) == ("GET", "/fine/{name}", 200)
    assert request["duration_s"] >= 0
    assert "geheim" not in json.dumps(lines)


def test_half_an_answer_is_broken_off(service: Service) -> None:
    with pytest.raises(RuntimeError, match="in the middle"):
        service.get("/half")


def test_requests_are_counted_by_route_and_status(service: Service) -> None:
    for path in ("/fine/a", "/fine/b", "/nowhere", "/other", "/broken"):
        service.get(path)
    service.request("BREW", "/fine/a")
    registry = service.state["metrics"].registry

    def count(method: str, route: str, status: str) -> float | None:
        labels = {"method": method, "route": route, "status": status}
        value: float | None = registry.get_sample_value("svsm_attest_http_requests_total", labels)
        return value

    assert count("GET", "/fine/{name}", "200") == 2
    assert count("GET", "none", "404") == 2
    assert count("GET", "/broken", "500") == 1
    assert count("other", "/fine/{name}", "405") == 1
    labels = {"method": "GET", "route": "/fine/{name}"}
    assert registry.get_sample_value("svsm_attest_http_request_duration_seconds_count", labels) == 2
