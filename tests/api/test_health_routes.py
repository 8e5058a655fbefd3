from collections.abc import Callable

import pytest

from app import __version__
from app.config import Settings
from app.main import create_app
from tests.api.service import Service, problem


def test_alive(cautious: Service) -> None:
    assert cautious.get("/livez").json() == {"status": "alive"}


def test_metrics_are_text_for_prometheus(cautious: Service) -> None:
    cautious.get("/livez")
    answer = cautious.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'svsm_attest_http_requests_total{method="GET",route="/livez",status="200"}' in answer.text
    assert f'version="{__version__}"' in answer.text
    assert "process_cpu_seconds_total" in answer.text


@pytest.mark.parametrize(
    "path", ["/", "/Verify", "/verify/", "//livez", "/attest/x", "/redoc", "/policies", "/ak/"]
)
def test_what_is_not_there_is_a_problem(cautious: Service, path: str) -> None:
    for method in ("GET", "POST"):
        answer = cautious.request(method, path)
        assert (answer.status_code, problem(answer)) == (404, "not-found")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/attest", "GET, POST"),
        ("/verify", "POST"),
        ("/ek", "GET"),
        ("/livez", "GET"),
        ("/docs", "GET"),
        ("/openapi.json", "GET"),
        ("/simulator/kds/vcek/v1/Genoa/crl", "GET"),
    ],
)
def test_other_methods_are_told_which_there_are(cautious: Service, path: str, allowed: str) -> None:
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "BREW"):
        answer = cautious.request(method, path)
        assert (answer.status_code, problem(answer)) == (405, "method-not-allowed")
        assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    ("role", "there", "not_there"),
    [
        ("attester", {"/attest", "/ek", "/simulator/ark.pem"}, {"/verify"}),
        ("verifier", {"/verify"}, {"/attest", "/ek", "/simulator/ark.pem"}),
    ],
)
def test_a_role_has_its_own_routes_only(
    new_settings: Callable[..., Settings], role: str, there: set[str], not_there: set[str]
) -> None:
    with Service(create_app(new_settings(role=role))) as service:
        for path in there | {"/livez", "/readyz", "/metrics", "/docs", "/openapi.json"}:
            assert service.request("PATCH", path).status_code == 405
        for path in not_there:
            assert service.request("PATCH", path).status_code == 404
        paths = set(service.get("/openapi.json").json()["paths"])
    assert there <= paths
    assert not paths & not_there
