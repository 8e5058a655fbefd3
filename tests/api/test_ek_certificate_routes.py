"""EK certificates over HTTP: nonce, evidence, certificate; and what is answered instead."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.api.verdict_document import VerdictDocument
from app.errors import ConfigError
from app.main import create_app
from app.wire import b64
from tests.api.ek_authority import authority_settings
from tests.api.service import Service, new_nonce, problem
from tests.api.services import SettingsMaker

URL = "/ek-certificates"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ek-ca")


@pytest.fixture(scope="module")
def issuer(new_settings: SettingsMaker, folder: Path) -> Iterator[Service]:
    settings = new_settings(allow_simulator=True, ek_tpm_model="A vTPM", **authority_settings(folder))
    with Service(create_app(settings)) as service:
        yield service


def fresh_nonce(service: Service) -> bytes:
    answer = service.post(f"{URL}/nonces")
    assert answer.status_code == 200, answer.text
    return b64.decode(answer.json()["nonce"])


def ask(service: Service, nonce: bytes, evidence: Any, **members: Any) -> httpx.Response:
    return service.post(URL, json={"nonce": b64.encode(nonce), "evidence": evidence, **members})


def records(folder: Path) -> list[dict[str, Any]]:
    log = folder / "issued.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_from_nonce_to_certificate(issuer: Service, folder: Path) -> None:
    given = issuer.post(f"{URL}/nonces").json()
    left = datetime.fromisoformat(given["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=4) < left <= timedelta(minutes=5)
    nonce = b64.decode(given["nonce"])
    answer = ask(issuer, nonce, issuer.attest(nonce))
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    document = answer.json()
    certificate = x509.load_pem_x509_certificate(document["certificate"].encode())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes()))
    ek = issuer.get("/ek").json()
    pem = certificate.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert (ek["pem"], ek["sha256"]) == (pem.decode(), document["ek_sha256"])
    assert document["serial"] == f"{certificate.serial_number:040x}"
    assert datetime.fromisoformat(document["not_before"]) == certificate.not_valid_before_utc
    assert datetime.fromisoformat(document["not_after"]) == certificate.not_valid_after_utc
    assert document["verdict"] == "affirming"
    VerdictDocument.model_validate(document["appraisal"])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "SIMULATED A vTPM" in names.get_values_for_type(x509.DirectoryName)[0].rfc4514_string()
    assert document["serial"] in {record["serial"] for record in records(folder)}


def test_evidence_is_good_for_one_certificate(issuer: Service, folder: Path) -> None:
    nonce = fresh_nonce(issuer)
    evidence = issuer.attest(nonce)
    assert ask(issuer, nonce, evidence).status_code == 200
    before = records(folder)
    replayed = ask(issuer, nonce, evidence)
    assert (replayed.status_code, problem(replayed)) == (400, "nonce-invalid")
    own = new_nonce()
    foreign = ask(issuer, own, issuer.attest(own))
    assert (foreign.status_code, problem(foreign)) == (400, "nonce-invalid")
    assert records(folder) == before


@pytest.mark.parametrize("policy", ["simulator", None, {"version": 1, "id": "mine"}])
def test_a_request_cannot_choose_the_policy(issuer: Service, folder: Path, policy: Any) -> None:
    nonce = fresh_nonce(issuer)
    before = records(folder)
    refused = ask(issuer, nonce, issuer.attest(nonce), policy=policy)
    assert problem(refused) == "malformed-request"
    assert refused.json()["pointer"] == "/policy"
    assert records(folder) == before


@pytest.mark.parametrize("pcrs", [{"sha256": [23]}, None])
def test_nor_which_registers_are_to_be_quoted(issuer: Service, folder: Path, pcrs: Any) -> None:
    nonce = fresh_nonce(issuer)
    before = records(folder)
    refused = ask(issuer, nonce, issuer.attest(nonce), pcrs=pcrs)
    assert (problem(refused), refused.json()["pointer"]) == ("malformed-request", "/pcrs")
    assert records(folder) == before


def test_what_speaks_against_a_certificate_is_told(issuer: Service, folder: Path) -> None:
    nonce, before = fresh_nonce(issuer), records(folder)
    refused = ask(issuer, nonce, issuer.attest(new_nonce()))
    assert (refused.status_code, problem(refused)) == (403, "not-affirmed")
    document = refused.json()
    assert document["verdict"] == "contraindicated"
    told = {finding["check"]: finding for finding in document["findings"]}
    assert set(told) == {"snp.report_data", "vtpm.binding", "snp.simulated"}
    assert told["snp.report_data"]["outcome"] == "failed"
    assert told["snp.report_data"]["remedy"]
    assert "remedy" not in told["vtpm.binding"]
    assert records(folder) == before


def test_a_bare_report_gets_none(issuer: Service) -> None:
    nonce = fresh_nonce(issuer)
    refused = ask(issuer, nonce, {**issuer.attest(nonce), "manifest": None})
    assert (problem(refused), refused.json()["detail"]) == ("not-affirmed", "a bare report names no EK")


def test_a_malformed_manifest_is_no_verdict(issuer: Service) -> None:
    nonce = fresh_nonce(issuer)
    refused = ask(issuer, nonce, {**issuer.attest(nonce), "manifest": b64.encode(b"\0\1")})
    assert problem(refused) == "evidence-malformed"


def test_without_a_record_there_is_no_certificate(issuer: Service, folder: Path) -> None:
    nonce = fresh_nonce(issuer)
    log = folder / "issued.jsonl"
    before = records(folder)
    log.touch(mode=0o600)
    log.chmod(0o644)
    try:
        refused = ask(issuer, nonce, issuer.attest(nonce))
    finally:
        log.chmod(0o600)
    assert (refused.status_code, problem(refused)) == (503, "issuer-unavailable")
    assert "certificate" not in refused.json()
    assert str(log) not in refused.text
    assert records(folder) == before


def test_a_flood_of_nonces_is_turned_away(
    new_settings: SettingsMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.assembly._MAX_EK_NONCES", 2)
    settings = new_settings(role="verifier", offline=True, **authority_settings(tmp_path))
    with Service(create_app(settings)) as service:
        for _ in range(2):
            fresh_nonce(service)
        refused = service.post(f"{URL}/nonces")
        assert (refused.status_code, problem(refused)) == (429, "rate-limited")
        assert 290 < int(refused.headers["retry-after"]) <= 300


def test_an_authority_for_hardware_does_not_certify_the_simulator(
    new_settings: SettingsMaker, tmp_path: Path
) -> None:
    files = authority_settings(tmp_path, simulated=False)
    with Service(create_app(new_settings(allow_simulator=True, **files))) as service:
        nonce = fresh_nonce(service)
        refused = ask(service, nonce, service.attest(nonce))
    assert (problem(refused), refused.json()["verdict"]) == ("not-affirmed", "affirming")
    assert "the evidence is simulated" in refused.json()["detail"]
    assert records(tmp_path) == []


def test_off_by_default_and_it_says_so(trusting: Service) -> None:
    nonce = new_nonce()
    for answer in (trusting.post(f"{URL}/nonces"), ask(trusting, nonce, trusting.attest(nonce))):
        assert (answer.status_code, problem(answer)) == (404, "not-found")
        assert "ek_ca_certificate" in answer.json()["detail"]
    assert "ek-ca" not in {check["name"] for check in trusting.get("/readyz").json()["checks"]}


def test_readiness_names_the_authority(issuer: Service, folder: Path) -> None:
    (check,) = (one for one in issuer.get("/readyz").json()["checks"] if one["name"] == "ek-ca")
    assert check["detail"].startswith("SIMULATED svsm-attest EK CA ")
    assert str(folder / "issued.jsonl") in check["detail"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: (folder / "ca.key").chmod(0o644), "lets others in"),
        (lambda folder: (folder / "issued.jsonl").mkdir(), "issued.jsonl cannot be opened"),
        (lambda folder: (folder / "ca.key").write_bytes(b"no key"), "not a private key"),
        (lambda folder: (folder / "ca.pem").write_bytes(b"nothing"), "not a certificate"),
        (lambda folder: (folder / "ca.key").write_bytes(bytes(100_000)), "at most"),
    ],
)
def test_files_that_cannot_be_used_stop_the_start(
    new_settings: SettingsMaker, tmp_path: Path, spoil: Any, reason: str
) -> None:
    settings = new_settings(role="verifier", offline=True, **authority_settings(tmp_path))
    spoil(tmp_path)
    with pytest.raises(ConfigError, match=f"EK CA: .*{reason}"):
        create_app(settings)


def test_key_and_certificate_of_two_authorities_stop_the_start(
    new_settings: SettingsMaker, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    settings = authority_settings(tmp_path)
    settings["ek_ca_key"] = authority_settings(tmp_path / "other")["ek_ca_key"]
    with pytest.raises(ConfigError, match=r"EK CA: .*it is not the key of"):
        create_app(new_settings(**settings))
