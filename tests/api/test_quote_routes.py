"""Quotes over HTTP, alone and in one session with a report, bound to a channel or not."""

import base64
import hashlib
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.config import Settings
from app.errors import ConfigError
from app.evidence.simulator.backend import SimulatorBackend
from app.main import create_app
from app.wire import b64
from app.wire.evidence import MEDIA_TYPE
from app.wire.report import AttestationReport
from app.wire.session import NO_CHANNEL, Channel, ChannelType, Session
from tests.api.service import Service, new_nonce, problem, served
from tests.api.tpm_exchange import KINDS, NONCE, TEXT, demand_valid, part
from tests.interop.software_tpm import demand

EVERY = [str(number) for number in range(24)]


@pytest.fixture(scope="module")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A server's certificate and its key."""
    demand("openssl")
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    files = ["-out", "certificate.pem", "-keyout", "key.pem", "-subj", "/CN=localhost", "-days", "1"]
    subprocess.run([*command, *files], check=True, cwd=folder, capture_output=True)
    return folder / "certificate.pem", folder / "key.pem"


@pytest.fixture
def service(trusting: Service) -> Service:
    demand("swtpm")
    return trusting


# Quotes


@pytest.mark.parametrize("key", KINDS)
def test_a_quote_alone(service: Service, key: str) -> None:
    quote = service.post("/quote", json={"nonce": TEXT, "key": key}).json()
    ak = part(quote, "ak_public")
    expected = Session(NONCE, ak.name, NO_CHANNEL).qualifying_data(None)
    demand_valid(quote, expected)
    assert b64.decode(quote["qualifying_data"]) == expected
    assert (quote["construction"], quote["channel_binding"]) == ("svsm-attest/session/1", "none")
    assert (quote["key"], quote["backend"], quote["simulated"]) == (key, "simulator", True)
    assert list(quote["pcrs"]) == ["sha256"]
    assert list(quote["pcrs"]["sha256"]) == EVERY
    assert quote["event_log"] is None


def test_exactly_the_registers_that_were_asked_for(service: Service) -> None:
    wanted = {"sha384": [23, 0], "sha256": [7, 14, 1]}
    quote = service.post("/quote", json={"nonce": TEXT, "pcrs": wanted, "event_log": True}).json()
    found = [(bank, list(registers)) for bank, registers in quote["pcrs"].items()]
    assert found == [("sha384", ["0", "23"]), ("sha256", ["1", "7", "14"])]
    demand_valid(quote, b64.decode(quote["qualifying_data"]))
    assert b"Spec ID Event03" in b64.decode(quote["event_log"])


@pytest.mark.parametrize(
    ("members", "pointer"),
    [
        ({"pcrs": {}}, "/pcrs"),
        ({"pcrs": {"sha1": [0]}}, "/pcrs"),
        ({"pcrs": {"sha256": []}}, "/pcrs"),
        ({"pcrs": {"sha256": [24]}}, "/pcrs"),
        ({"pcrs": {"sha256": [0, 0]}}, "/pcrs"),
        ({"pcrs": {"sha256": ["0"]}}, "/pcrs"),
        ({"pcrs": {"sha256": [True]}}, "/pcrs"),
        ({"pcrs": {"sha256": [0.5]}}, "/pcrs"),
        ({"pcrs": {"sha256": {"0": ""}}}, "/pcrs"),
        ({"pcrs": [0]}, "/pcrs"),
        ({"event_log": 1}, "/event_log"),
        ({"event_log": "true"}, "/event_log"),
        ({"key": "ecc"}, "/key"),
        ({"channel_binding": "tls-exporter"}, "/channel_binding"),
        ({"channel_binding": {"type": "none"}}, "/channel_binding"),
        ({"end_point": "AQEB"}, "/end_point"),  # a value of the client's is none of the attester's
    ],
)
def test_a_quote_that_nobody_can_ask_for(service: Service, members: dict[str, Any], pointer: str) -> None:
    for path, body, prefix in (
        ("/quote", {"nonce": TEXT, **members}, ""),
        ("/attest", {"nonce": TEXT, "quote": members}, "/quote"),
    ):
        answer = service.post(path, json=body)
        assert (answer.status_code, problem(answer)) == (400, "malformed-request")
        if not (prefix and pointer in {"/channel_binding", "/end_point"}):
            assert answer.json()["errors"][0]["pointer"] == prefix + pointer
    assert problem(service.post("/quote", json={"nonce": "AQEB"})) == "nonce-invalid"


def test_a_whole_number_may_be_written_with_a_point(service: Service) -> None:
    body = f'{{"nonce": "{TEXT}", "pcrs": {{"sha256": [7.0]}}}}'
    assert list(service.post("/quote", content=body).json()["pcrs"]["sha256"]) == ["7"]


# Evidence with a quote


@pytest.mark.parametrize("key", KINDS)
def test_report_and_quote_are_of_one_session(service: Service, key: str) -> None:
    nonce = new_nonce()
    body = {"nonce": b64.encode(nonce), "service": "all", "quote": {"key": key, "event_log": True}}
    answer = service.post("/attest", json=body)
    assert answer.headers["content-type"] == MEDIA_TYPE
    document = answer.json()
    assert document["binding"] == {
        "type": "session",
        "construction": "svsm-attest/session/1",
        "channel_binding": "none",
    }
    assert b64.decode(document["nonce"]) == nonce
    report, manifest = (b64.decode(document[name]) for name in ("report", "manifest"))
    session = Session(nonce, part(document["quote"], "ak_public").name)
    expected = hashlib.sha512(session.report_nonce + manifest).digest()
    assert AttestationReport.parse(report).report_data == expected
    demand_valid(document["quote"], session.qualifying_data(report))
    assert document["quote"]["event_log"]


def test_a_quote_with_everything_left_out(service: Service) -> None:
    document = service.attest(NONCE, quote={})
    assert part(document["quote"], "ak_public").algorithm == "P-256"
    assert list(document["quote"]["pcrs"]["sha256"]) == EVERY
    assert document["quote"]["event_log"] is None


def test_a_quote_that_is_not_possible_costs_no_report(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(SimulatorBackend, "collect", lambda *_: asked.append(1))
    answer = service.post("/attest", json={"nonce": TEXT, "quote": {"pcrs": {"sha512": [0]}}})
    assert (answer.status_code, problem(answer)) == (503, "backend-unavailable")
    assert answer.json()["cause"] == "tpm-bank-missing"  # as in COCONUT-SVSM's TPM
    assert not asked


def test_without_a_quote_nothing_has_changed(service: Service) -> None:
    plain = service.attest(NONCE)
    assert "quote" not in plain
    assert plain["binding"] == {"type": "direct"}
    assert set(service.attest(NONCE, quote=None, channel_binding="none")) == set(plain)


# Channels


def test_a_channel_needs_a_certificate_of_the_service(service: Service) -> None:
    for path, quote in (("/quote", {}), ("/attest", {"quote": {"key": "p256"}})):
        body = {"nonce": TEXT, "channel_binding": "tls-server-end-point", **quote}
        answer = service.post(path, json=body)
        assert (answer.status_code, problem(answer)) == (400, "malformed-request")
        assert "no TLS certificate of its own" in answer.json()["detail"]


def test_a_channel_is_of_a_session_and_takes_a_quote(service: Service) -> None:
    answer = service.post("/attest", json={"nonce": TEXT, "channel_binding": "tls-server-end-point"})
    assert (answer.status_code, problem(answer)) == (400, "malformed-request")
    assert "takes a quote" in answer.json()["detail"]


def test_a_session_is_bound_to_the_certificate_that_the_service_presents(
    new_settings: Callable[..., Settings], tls_files: tuple[Path, Path]
) -> None:
    demand("swtpm")
    certificate, key = tls_files
    pem = certificate.read_text()
    der = base64.b64decode("".join(pem.split("-----")[2].split()))
    channel = Channel(ChannelType.TLS_SERVER_END_POINT, hashlib.sha256(der).digest())
    settings = new_settings(role="attester", tls_certificate=certificate, tls_key=key)
    with Service(create_app(settings)) as service:
        body = {"nonce": TEXT, "channel_binding": "tls-server-end-point"}
        quote = service.post("/quote", json=body).json()
        session = Session(NONCE, part(quote, "ak_public").name, channel)
        demand_valid(quote, session.qualifying_data(None))
        assert quote["channel_binding"] == "tls-server-end-point"
        document = service.post("/attest", json={**body, "quote": {}}).json()
        assert document["binding"]["channel_binding"] == "tls-server-end-point"
        report = b64.decode(document["report"])
        demand_valid(document["quote"], session.qualifying_data(report))
        assert session.qualifying_data(report) != Session(NONCE, session.ak_name).qualifying_data(report)


def test_the_certificate_is_the_one_that_a_client_sees(
    new_settings: Callable[..., Settings], tls_files: tuple[Path, Path]
) -> None:
    demand("swtpm")
    certificate, key = tls_files
    settings = new_settings(role="attester", tls_certificate=certificate, tls_key=key)
    with served(create_app(settings), settings.server_options()) as url:
        https = url.replace("http://", "https://")
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        seen = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(address))
        body = {"nonce": TEXT, "channel_binding": "tls-server-end-point"}
        trust = ssl.create_default_context(cafile=str(certificate))
        trust.check_hostname = False
        quote = httpx.post(f"{https}/quote", json=body, verify=trust, trust_env=False, timeout=30).json()
    channel = Channel(ChannelType.TLS_SERVER_END_POINT, hashlib.sha256(seen).digest())
    session = Session(NONCE, part(quote, "ak_public").name, channel)
    demand_valid(quote, session.qualifying_data(None))


@pytest.mark.parametrize("content", [b"junk", None])
def test_a_certificate_that_gives_no_end_point(
    new_settings: Callable[..., Settings], tmp_path: Path, content: bytes | None
) -> None:
    certificate = tmp_path / "certificate.pem"
    certificate.write_bytes(content or b"")
    settings = new_settings(role="attester", tls_certificate=certificate, tls_key=certificate)
    if content is None:
        certificate.unlink()
        with pytest.raises(ConfigError, match="cannot be read"):
            create_app(settings)
        return
    with Service(create_app(settings)) as service:
        answer = service.post("/quote", json={"nonce": TEXT, "channel_binding": "tls-server-end-point"})
        assert (answer.status_code, problem(answer)) == (400, "malformed-request")
