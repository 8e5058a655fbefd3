"""`attest --url`, `verify --url` and `health`: talking to a service, well-behaved or not."""

import json
from pathlib import Path

import pytest

from app.cli.service import MAX_ANSWER
from app.wire import guid
from app.wire.b64 import decode
from app.wire.certificate_table import CertificateTable
from tests.cli.command_line import NOWHERE, Cli
from tests.cli.services import Scripted

NONCE = "5a" * 64


def test_the_round_trip_with_a_service(service: str, cli: Cli, tmp_path: Path) -> None:
    attested = cli("attest", "--nonce", NONCE, "--url", service)
    assert attested.status == 0
    assert "SIMULATED" in attested.err
    evidence = tmp_path / "evidence.json"
    evidence.write_text(attested.out)
    shown = cli("verify", evidence, "--nonce", NONCE, "--url", f"{service}/")
    assert shown.status == 0
    assert "Verdict: AFFIRMING" in shown.out
    assert "SIMULATED" in shown.out
    assert cli("verify", evidence, "--nonce", "00" * 64, "--url", service, "--json").status == 1


def test_a_proxy_is_not_asked_about_loopback(service: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, NOWHERE)
    for url in (service, service.replace("127.0.0.1", "localhost")):
        assert cli("attest", "--nonce", NONCE, "--url", url).status == 0
    elsewhere = cli("attest", "--nonce", NONCE, "--url", "http://attester.invalid")
    assert (elsewhere.status, "refused" in elsewhere.err) == (4, True)


def test_all_services_of_an_svsm(service: str, cli: Cli, tmp_path: Path) -> None:
    attested = cli("attest", "--nonce", NONCE, "--service", "all", "--url", service)
    assert attested.json["service"]["guid"] == str(guid.SERVICES_MANIFEST)
    evidence = tmp_path / "evidence.json"
    evidence.write_text(attested.out)
    assert cli("verify", evidence, "--nonce", NONCE, "--url", service).status == 0


def test_what_the_service_refuses_keeps_its_place(service: str, cli: Cli, tmp_path: Path) -> None:
    refused = cli("attest", "--nonce", NONCE, "--manifest-version", "7", "--url", service, "--json")
    assert refused.status == 4
    assert refused.json["cause"] == "svsm-refused"
    assert refused.json["url"] == f"{service}/attest"
    document = json.loads(cli("attest", "--nonce", NONCE, "--url", service).out)
    evidence = tmp_path / "evidence.json"
    evidence.write_text(json.dumps({**document, "certificates": "AAAA"}))
    malformed = cli("verify", evidence, "--nonce", NONCE, "--url", service, "--json")
    assert malformed.status == 2
    assert malformed.json["structure"] == "certificate table"


def test_a_policy_by_name_or_as_a_document(service: str, cli: Cli, tmp_path: Path) -> None:
    evidence = tmp_path / "evidence.json"
    evidence.write_text(cli("attest", "--nonce", NONCE, "--url", service).out)
    arguments = ("verify", evidence, "--nonce", NONCE, "--url", service, "--json")
    assert cli(*arguments, "--policy", "default").json["policy"]["id"] == "default"
    policy = tmp_path / "own.yaml"
    policy.write_text("version: 1\nid: own\n")
    assert cli(*arguments, "--policy", policy).json["policy"]["id"] == "own"
    unknown = cli(*arguments, "--policy", "nobody")
    assert (unknown.status, unknown.json["place"]) == (2, "name")


def test_certificates_that_are_given_travel_in_the_table(
    scripted: tuple[str, type[Scripted]], cli: Cli, vectors: Path
) -> None:
    url, handler = scripted
    handler.answer = (200, json.dumps({"verdict": "warning", "genuine": True, "findings": []}).encode())
    folder = vectors / "genoa-v5-a"
    ended = cli(
        "verify",
        "--report",
        folder / "report.bin",
        "--report-data",
        NONCE,
        "--certs",
        vectors / "genoa-v3-b" / "vcek.der",  # another chip's: not this report's leaf
        "--certs",
        folder / "vcek.der",
        "--certs",
        vectors / "ca",
        "--crl",
        vectors / "crl" / "milan-vcek-crl-2023.der",
        "--crl",
        vectors / "synthetic" / "genoa" / "crl" / "crl-empty.der",
        "--url",
        url,
    )
    assert ended.status == 1
    table = CertificateTable.parse(decode(handler.asked["evidence"]["certificates"]))
    assert table.get(guid.VCEK) == (folder / "vcek.der").read_bytes()
    assert table.get(guid.ASK) == (vectors / "ca" / "genoa-ask.der").read_bytes()
    assert table.get(guid.ARK) == (vectors / "ca" / "genoa-ark.der").read_bytes()
    assert table.get(guid.CRL) == (vectors / "synthetic/genoa/crl/crl-empty.der").read_bytes()
    assert handler.asked["evidence"]["manifest"] is None


def test_what_is_given_replaces_what_the_evidence_brought(
    scripted: tuple[str, type[Scripted]], service: str, cli: Cli, tmp_path: Path, vectors: Path
) -> None:
    url, handler = scripted
    handler.answer = (200, json.dumps({"verdict": "none", "genuine": False, "findings": []}).encode())
    evidence = tmp_path / "evidence.json"
    evidence.write_text(cli("attest", "--nonce", NONCE, "--url", service).out)
    own = CertificateTable.parse(decode(json.loads(evidence.read_text())["certificates"]))
    vlek = vectors / "milan-vlek-v3-aws-us-east-2" / "vlek.der"
    cli("verify", evidence, "--nonce", NONCE, "--certs", vlek, "--url", url)
    sent = CertificateTable.parse(decode(handler.asked["evidence"]["certificates"]))
    assert sent.get(guid.VLEK) == vlek.read_bytes()
    assert sent.get(guid.VCEK) is None  # one leaf replaces the other
    assert sent.get(guid.ASK) == own.get(guid.ASK)
    cli("verify", evidence, "--nonce", NONCE, "--url", url)
    assert CertificateTable.parse(decode(handler.asked["evidence"]["certificates"])) == own


@pytest.mark.parametrize(
    "option",
    [
        ("--at", "2026-01-01T00:00:00Z"),
        ("--offline",),
        ("--trust-root", "x"),
        ("--store", "x"),
        ("--allow-simulator",),
    ],
)
def test_what_only_a_local_appraisal_can_do(option: tuple[str, ...], cli: Cli, vectors: Path) -> None:
    report = vectors / "genoa-v5-a" / "report.bin"
    ended = cli("verify", "--report", report, "--report-data", NONCE, "--url", NOWHERE, *option)
    assert ended.status == 2
    assert option[0] in ended.err


def test_a_verifier_elsewhere_wants_a_nonce(cli: Cli, vectors: Path) -> None:
    ended = cli("verify", "--report", vectors / "genoa-v5-a" / "report.bin", "--url", NOWHERE)
    assert (ended.status, "--nonce" in ended.err) == (2, True)


def test_nobody_there(cli: Cli) -> None:
    ended = cli("attest", "--nonce", NONCE, "--url", NOWHERE, "--json")
    assert ended.status == 4
    assert ended.json["type"].endswith("service-unavailable")


@pytest.mark.parametrize(
    "url",
    ["ftp://127.0.0.1", "http://", "127.0.0.1:8080", "http://[::1", "http://a\u0000b", "http://a:port", ""],
)
def test_what_is_no_url(url: str, cli: Cli) -> None:
    ended = cli("attest", "--nonce", NONCE, "--url", url, "--json")
    assert ended.status == 2
    assert "no http or https URL" in ended.json["detail"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, b""), "not JSON"),
        ((200, b"[]"), "no JSON object"),
        ((200, b"{}"), ""),
        ((302, b"{}"), "302"),
        ((500, b'{"detail": "\x1b[31mboo"}'), "not JSON"),
        ((500, b'{"detail": "\\u001b[31mboo"}'), "500"),
        ((404, b"<html>"), "404"),
        ((200, b" " * (MAX_ANSWER + 1)), "more than"),
        ((200, b"[" * 1000), "nested"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_service_that_answers_something_else(
    answer: tuple[int, bytes], said: str, scripted: tuple[str, type[Scripted]], cli: Cli, vectors: Path
) -> None:
    url, handler = scripted
    handler.answer = answer
    report = vectors / "genoa-v5-a" / "report.bin"
    for arguments in (
        ("attest", "--nonce", NONCE),
        ("verify", "--report", report, "--report-data", NONCE),
    ):
        ended = cli(*arguments, "--url", url, "--json")
        assert ended.status in {2, 4}
        assert said in ended.json["detail"]
        assert "\x1b" not in ended.out + ended.err


def test_a_verdict_from_elsewhere_cannot_steer_the_terminal(
    scripted: tuple[str, type[Scripted]], cli: Cli, vectors: Path
) -> None:
    url, handler = scripted
    verdict = {
        "verdict": "\x1b]0;owned\x07",
        "genuine": True,
        "findings": [{"check": "\x1b[2J", "outcome": "\x1b", "why": "\r\n", "remedy": "x"}, "no finding"],
        "caveats": ["\x1b[31m"],
        "endorsements": {"root": "\x1b", "root_origin": "?", "leaf_not_after": "\x1b"},
        "policy": "\x1b",
    }
    handler.answer = (200, json.dumps(verdict).encode())
    ended = cli(
        "verify", "--report", vectors / "genoa-v5-a" / "report.bin", "--report-data", NONCE, "--url", url
    )
    assert ended.status == 1  # nothing but the word affirming affirms
    assert "\x1b" not in ended.out
    assert "an unknown verdict" in ended.out


def test_health(service: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for option in ((), ("--ready",)):
        assert cli("health", *option, "--url", service).status == 0
    host, port = service.removeprefix("http://").split(":")
    monkeypatch.setenv("SVSM_ATTEST_PORT", port)
    monkeypatch.setenv("SVSM_ATTEST_HOST", "localhost" if host == "127.0.0.1" else host)
    ended = cli("health", "--ready", "--json")
    assert (ended.status, ended.json["ok"], ended.json["answer"]["simulated"]) == (0, True, True)


def test_health_of_a_service_that_listens_everywhere(
    service: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SVSM_ATTEST_PORT", service.rsplit(":", 1)[1])
    monkeypatch.setenv("SVSM_ATTEST_HOST", "0.0.0.0")  # noqa: S104 (nothing binds it)
    monkeypatch.setenv("SVSM_ATTEST_INSECURE_HTTP", "true")
    monkeypatch.setenv("SVSM_ATTEST_ALLOW_SIMULATOR", "true")
    assert cli("health").status == 0


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((503, b'{"checks": [{"name": "svsm", "ok": false, "detail": "gone"}, {"ok": true}]}'), "svsm: gone"),
        ((503, b'{"detail": "busy"}'), "busy"),
        ((503, b"{}"), "not well"),
        ((503, b"text"), "HTTP 503"),
        ((204, b""), "HTTP 204"),
    ],
)
def test_ill_health_says_what_is_wrong(
    answer: tuple[int, bytes], said: str, scripted: tuple[str, type[Scripted]], cli: Cli
) -> None:
    url, handler = scripted
    handler.answer = answer
    ended = cli("health", "--ready", "--url", url)
    assert (ended.status, ended.out) == (1, "not ok\n")
    assert said in ended.err


def test_no_health_where_nobody_listens(cli: Cli) -> None:
    ended = cli("health", "--url", NOWHERE, "--json")
    assert (ended.status, ended.json["ok"]) == (1, False)
    assert cli("health", "--url", "https://127.0.0.1:9").status == 1
    assert cli("health", "--url", "http://127.0.0.1:port").status == 2
