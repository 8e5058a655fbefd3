import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from cryptography import x509

from app.config import Settings
from app.main import create_app
from app.trust.kds import KdsClient
from app.trust.names import VekKind
from app.wire import b64
from app.wire.product import ProductLine
from app.wire.report import AttestationReport
from app.wire.tcb import TcbVersion
from tests.api.backends import ScriptedBackend
from tests.api.service import Service, problem


def test_the_root_says_simulated(cautious: Service) -> None:
    answer = cautious.get("/simulator/ark.pem")
    assert answer.headers["content-type"] == "application/x-pem-file"
    root = x509.load_pem_x509_certificate(answer.content)
    assert "SIMULATED" in root.subject.rfc4514_string()
    assert "ARK-Genoa" in root.subject.rfc4514_string()


def test_a_kds_client_gets_everything(cautious: Service) -> None:
    report = AttestationReport.parse(b64.decode(cautious.attest(bytes(64))["report"]))
    line = ProductLine.GENOA

    async def fetch() -> tuple[Any, ...]:
        transport = httpx.ASGITransport(cautious.asgi)
        async with httpx.AsyncClient(transport=transport) as client:
            kds = KdsClient(client, "https://service/simulator/kds")
            tcb = TcbVersion.parse(report.reported_tcb, line.tcb_layout)
            return (
                await kds.fetch_vcek(line, report.chip_id, tcb),
                await kds.fetch_chain(VekKind.VCEK, line),
                await kds.fetch_crl(VekKind.VCEK, line),
            )

    leaf, (intermediate, root), crl = cautious.run(fetch())
    leaf.verify_directly_issued_by(intermediate)
    intermediate.verify_directly_issued_by(root)
    assert crl.is_signature_valid(root.public_key())


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("", 404, "not-found"),
        ("vcek/v1/Rome/cert_chain", 404, "not-found"),
        ("vcek/v1/Milan/cert_chain", 404, "not-found"),  # this simulator is a Genoa
        ("vcek/v1/Genoa/%2e%2e/Genoa/crl", 404, "not-found"),
        ("vcek/v1/Genoa/" + "00" * 64 + "?blSPL=1", 404, "not-found"),
        ("vlek/v1/Genoa/cert", 403, "forbidden"),
        ("%00", 404, "not-found"),
    ],
)
def test_what_amd_would_not_answer_is_a_problem_here(
    cautious: Service, path: str, status: int, kind: str
) -> None:
    answer = cautious.get(f"/simulator/kds/{path}")
    assert (answer.status_code, problem(answer)) == (status, kind)


@pytest.mark.parametrize("query", ["blSPL=x", "blSPL=256", "foo=1", "blSPL=1&blSPL=2", "blSPL", "%ff"])
def test_a_query_that_is_none_is_malformed(cautious: Service, query: str) -> None:
    report = AttestationReport.parse(b64.decode(cautious.attest(bytes(64))["report"]))
    answer = cautious.get(f"/simulator/kds/vcek/v1/Genoa/{report.chip_id.hex()}?{query}")
    assert (answer.status_code, problem(answer)) == (400, "malformed-request")


def test_hardware_has_no_such_routes(new_settings: Callable[..., Settings]) -> None:
    settings = new_settings(role="attester", backend="configfs")
    with Service(create_app(settings, backend=ScriptedBackend())) as service:
        assert service.get("/simulator/ark.pem").status_code == 404
        assert service.get("/simulator/kds/vcek/v1/Genoa/cert_chain").status_code == 404


def test_both_kinds_of_line_ends_are_passed_on_as_they_are(new_settings: Callable[..., Settings]) -> None:
    with Service(create_app(new_settings(role="attester", simulator_product="Turin"))) as service:
        answer = service.get("/simulator/kds/vcek/v1/Turin/cert_chain")
    assert b"\r\n" in answer.content
    assert len(x509.load_pem_x509_certificates(answer.content)) == 2


def test_many_may_ask_at_once(cautious: Service) -> None:
    async def crowd() -> list[httpx.Response]:
        paths = ["cert_chain", "crl", "x"] * 10
        return await asyncio.gather(
            *(cautious.client.get(f"/simulator/kds/vcek/v1/Genoa/{path}") for path in paths)
        )

    assert [answer.status_code for answer in cautious.run(crowd())] == [200, 200, 404] * 10
