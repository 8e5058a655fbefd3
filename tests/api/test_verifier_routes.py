import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.api.verdict_document import VerdictDocument
from app.appraisal.findings import Profile
from app.config import Settings
from app.main import create_app
from app.wire import b64, guid
from app.wire.certificate_table import CertificateTable
from app.wire.evidence import MEDIA_TYPE
from tests.api.service import Service, new_nonce, outcomes, problem

NONCE = bytes(range(64))
TEXT = b64.encode(NONCE)


@pytest.fixture(scope="module")
def evidence(trusting: Service) -> dict[str, Any]:
    return trusting.attest(NONCE)


def changed(evidence: dict[str, Any], member: str, offset: int, value: int) -> dict[str, Any]:
    raw = bytearray(b64.decode(evidence[member]))
    raw[offset] = value
    return {**evidence, member: b64.encode(bytes(raw))}


def test_a_verdict_is_that_of_the_contract(trusting: Service, evidence: dict[str, Any]) -> None:
    answer = trusting.post("/verify", json={"nonce": TEXT, "evidence": evidence})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    document = answer.json()
    VerdictDocument.model_validate(document)
    assert document["verdict"] == "affirming"
    assert document["genuine"] is True
    assert document["ear"] is None
    assert [finding["check"] for finding in document["findings"]] == list(Profile.SVSM.checks)
    assert set(document["claims"]) == {"snp", "vtpm"}
    assert document["policy"]["id"] == "simulator"
    appraised = datetime.fromisoformat(document["appraised_at"])
    assert timedelta(0) <= datetime.now(UTC) - appraised < timedelta(minutes=1)


def test_simulated_evidence_says_so_in_every_result(trusting: Service, evidence: dict[str, Any]) -> None:
    document = trusting.verify(NONCE, evidence)
    assert document["endorsements"]["simulated"] is True
    assert document["endorsements"]["root_origin"] == "simulator"
    assert outcomes(document)["snp.simulated"] == "warned"
    assert any("SIMULATED" in caveat for caveat in document["caveats"])


@pytest.mark.parametrize(
    "policy",
    [
        None,
        "default",
        {"version": 1, "id": "bold", "root_of_trust": {"allow_simulator": True}},
    ],
)
def test_without_the_setting_simulated_evidence_never_passes(cautious: Service, policy: Any) -> None:
    nonce = new_nonce()
    document = cautious.verify(nonce, cautious.attest(nonce), policy)
    assert document["verdict"] == "contraindicated"
    assert document["genuine"] is False
    assert outcomes(document)["snp.simulated"] == "failed"
    assert document["endorsements"]["simulated"] is True


def test_a_policy_may_refuse_the_simulator_even_with_the_setting(
    trusting: Service, evidence: dict[str, Any]
) -> None:
    policy = {"version": 1, "id": "strict", "root_of_trust": {"allow_simulator": False}}
    document = trusting.verify(NONCE, evidence, policy)
    assert document["verdict"] == "contraindicated"
    assert outcomes(document)["snp.simulated"] == "failed"


@pytest.mark.parametrize("bit", [0, 7, 255, 511])
def test_another_nonce_is_a_replay(trusting: Service, evidence: dict[str, Any], bit: int) -> None:
    other = bytearray(NONCE)
    other[bit // 8] ^= 1 << bit % 8
    document = trusting.verify(bytes(other), evidence)
    failed = {check for check, outcome in outcomes(document).items() if outcome == "failed"}
    assert failed == {"snp.report_data", "vtpm.binding"}
    assert document["verdict"] == "contraindicated"
    assert document["genuine"] is True  # the signature is none the worse for it


def test_the_nonce_in_the_evidence_is_not_trusted(trusting: Service, evidence: dict[str, Any]) -> None:
    nonce = new_nonce()
    document = trusting.verify(nonce, {**evidence, "nonce": b64.encode(nonce)})
    assert outcomes(document)["snp.report_data"] == "failed"


def test_conveniences_change_nothing(trusting: Service, evidence: dict[str, Any]) -> None:
    bare = {name: evidence[name] for name in ("report", "manifest", "certificates")}
    lies = {
        **bare,
        "service": {"guid": str(guid.SERVICE_UEFI_MM), "manifest_version": 3},
        "backend": "configfs",
        "boot_id": "x",
        "collected_at": "1999-01-01T00:00:00+01:00",
    }
    as_it_was = outcomes(trusting.verify(NONCE, evidence))
    assert outcomes(trusting.verify(NONCE, bare)) == as_it_was
    assert outcomes(trusting.verify(NONCE, lies)) == as_it_was


def test_a_bare_report_is_appraised_against_its_report_data(
    trusting: Service, evidence: dict[str, Any]
) -> None:
    report_data = b64.decode(evidence["report"])[0x50:0x90]
    for bare in ({**evidence, "manifest": None}, {**evidence}):
        if bare["manifest"] is not None:
            del bare["manifest"]
        document = trusting.verify(report_data, bare)
        assert document["profile"] == "snp"
        assert "vtpm" not in document["claims"]
        assert [finding["check"] for finding in document["findings"]] == list(Profile.SNP.checks)
        assert document["verdict"] == "affirming"


def test_a_policy_by_name_and_as_a_document(trusting: Service, evidence: dict[str, Any]) -> None:
    assert trusting.verify(NONCE, evidence, "default")["policy"]["id"] == "default"
    assert trusting.verify(NONCE, evidence, "default")["verdict"] == "warning"  # it knows no measurement
    inline = {"version": 1, "id": "inline", "policy": {"minimum_guest_svn": 3}}
    document = trusting.verify(NONCE, evidence, inline)
    assert document["policy"]["id"] == "inline"
    assert outcomes(document)["snp.id_block"] == "failed"


@pytest.mark.parametrize(
    ("policy", "place"),
    [
        ("nobody", "name"),
        ("", "name"),
        ("../default", "name"),
        ({}, "version"),
        ({"version": 2, "id": "x"}, "version"),
        ({"version": 1, "id": "x", "polcy": {}}, "polcy"),
        ({"version": 1, "id": "x", "policy": {"chip_ids": ["00"]}}, "policy/chip_ids/0"),
        ({"version": 1, "id": "x", "reference_values": {"measurements": [{"value": "zz"}]}}, None),
        ({"version": 1, "id": "x", "root_of_trust": {"cabundle_paths": ["/etc/passwd"]}}, None),
    ],
)
def test_a_bad_policy_is_told_where(
    trusting: Service, evidence: dict[str, Any], policy: Any, place: str | None
) -> None:
    answer = trusting.post("/verify", json={"nonce": TEXT, "evidence": evidence, "policy": policy})
    assert (answer.status_code, problem(answer)) == (400, "policy-invalid")
    assert answer.json()["pointer"] == "/policy"
    if place is not None:
        assert answer.json()["place"] == place


BAD_REQUESTS: list[tuple[dict[str, Any], int, str, str]] = [
    ({"nonce": None}, 400, "nonce-invalid", "/nonce"),
    ({"nonce": "AAAA"}, 400, "nonce-invalid", "/nonce"),
    ({"evidence": None}, 422, "evidence-malformed", "/evidence"),
    ({"evidence": "text"}, 422, "evidence-malformed", "/evidence"),
    ({"evidence": {}}, 422, "evidence-malformed", "/evidence/report"),
    ({"evidence": {"report": "!"}}, 422, "evidence-malformed", "/evidence/report"),
    ({"policy": 5}, 400, "malformed-request", "/policy"),
    ({"policy": ["default"]}, 400, "malformed-request", "/policy"),
    ({"dry_run": True}, 400, "malformed-request", "/dry_run"),
    ({"evidence": {}, "nonce": "AAAA"}, 400, "nonce-invalid", "/nonce"),
]


@pytest.mark.parametrize(("members", "status", "kind", "pointer"), BAD_REQUESTS)
def test_a_bad_request_is_told_where(
    trusting: Service, evidence: dict[str, Any], members: dict[str, Any], status: int, kind: str, pointer: str
) -> None:
    answer = trusting.post("/verify", json={"nonce": TEXT, "evidence": evidence, **members})
    assert (answer.status_code, problem(answer)) == (status, kind)
    assert answer.json()["pointer"] == pointer


def test_missing_evidence_is_a_fault_of_the_request(trusting: Service) -> None:
    answer = trusting.post("/verify", json={"nonce": TEXT})
    assert (answer.status_code, problem(answer)) == (400, "malformed-request")
    assert answer.json()["pointer"] == "/evidence"


@pytest.mark.parametrize(
    ("member", "value", "pointer", "detail"),
    [
        ("certificates", "maybe", "/evidence/certificates", "not standard base64"),
        ("profile", "tag:other", "/evidence/profile", "Input should be"),
        ("binding", {"type": "merkle"}, "/evidence/binding/type", "merkle bindings are not supported"),
        ("colour", "red", "/evidence/colour", "there is no such member"),
        ("nonce", "AAAA", "/evidence/nonce", "3 bytes, want exactly 64"),
    ],
)
def test_evidence_that_does_not_fit_its_profile(
    trusting: Service, evidence: dict[str, Any], member: str, value: Any, pointer: str, detail: str
) -> None:
    body = {"nonce": TEXT, "evidence": {**evidence, member: value}}
    answer = trusting.post("/verify", json=body)
    assert (answer.status_code, problem(answer)) == (422, "evidence-malformed")
    assert answer.json()["pointer"] == pointer
    assert detail in answer.json()["detail"]


def test_bytes_that_are_no_report_say_where(trusting: Service, evidence: dict[str, Any]) -> None:
    def ask(evidence: dict[str, Any]) -> Any:
        answer = trusting.post("/verify", json={"nonce": TEXT, "evidence": evidence})
        assert answer.status_code == 422
        return {**answer.json(), "name": problem(answer)}

    reserved = ask(changed(evidence, "report", 0x4C, 1))
    assert reserved["name"] == "evidence-malformed"
    assert (reserved["pointer"], reserved["structure"]) == ("/evidence/report", "ATTESTATION_REPORT")
    assert reserved["byte_offset"] == 0x4C
    short = ask({**evidence, "report": b64.encode(bytes(1183))})
    assert "1183 bytes" in short["detail"]
    version = ask(changed(evidence, "report", 0, 9))
    assert version["name"] == "report-version-unsupported"
    assert (version["version"], version["supported"]) == (9, [2, 3, 4, 5])
    manifest = ask(changed(evidence, "manifest", 1, 0xFF))
    assert (manifest["pointer"], manifest["structure"]) == ("/evidence/manifest", "TPMT_PUBLIC")
    table = ask({**evidence, "certificates": b64.encode(b"\1" * 24)})
    assert (table["pointer"], table["structure"]) == ("/evidence/certificates", "certificate table")
    certificates = CertificateTable.parse(b64.decode(evidence["certificates"]))
    entries = tuple(type(entry)(entry.guid, b"\x30\x00") for entry in certificates.entries)
    leaf = ask({**evidence, "certificates": b64.encode(CertificateTable(entries).encode())})
    assert leaf["name"] == "evidence-malformed"
    assert leaf["pointer"] == "/evidence/certificates"
    assert "VCEK" in leaf["source"]


@pytest.mark.parametrize(
    "accept", ["application/eat+jwt", "application/eat+jwt, text/plain", "text/html", "application/json;q=0"]
)
def test_no_token_is_made(trusting: Service, evidence: dict[str, Any], accept: str) -> None:
    body = {"nonce": TEXT, "evidence": evidence}
    answer = trusting.post("/verify", json=body, headers={"Accept": accept})
    assert (answer.status_code, problem(answer)) == (406, "not-acceptable")


def test_evidence_may_be_called_evidence(trusting: Service, evidence: dict[str, Any]) -> None:
    content = json.dumps({"nonce": TEXT, "evidence": evidence})
    for name in ("application/x-www-form-urlencoded", MEDIA_TYPE, "text/plain"):
        answer = trusting.post("/verify", content=content, headers={"Content-Type": name})
        assert answer.status_code == 200
    assert trusting.post("/verify", content=content).status_code == 200


@pytest.mark.parametrize("offline", [False, True])
def test_missing_certificates_are_unavailable_and_never_untrusted(
    new_settings: Callable[..., Settings], evidence: dict[str, Any], *, offline: bool
) -> None:
    # In role both on the simulator nobody is asked; nor is anybody by an offline verifier.
    chosen = {"role": "verifier", "offline": True} if offline else {}
    with Service(create_app(new_settings(**chosen))) as service:
        answer = service.post("/verify", json={"nonce": TEXT, "evidence": {**evidence, "certificates": None}})
    assert (answer.status_code, problem(answer)) == (503, "collateral-unavailable")
    assert answer.json()["product"] == "Genoa"
    assert "says nothing about trust" in answer.json()["detail"]


def test_with_the_setting_the_simulators_own_kds_is_asked(
    trusting: Service, evidence: dict[str, Any]
) -> None:
    document = trusting.verify(NONCE, {**evidence, "certificates": None})
    assert document["verdict"] == "affirming"
    assert 'svsm_attest_kds_answers_total{status="200"}' in trusting.get("/metrics").text


def test_the_clock_is_the_verifiers(new_settings: Callable[..., Settings], evidence: dict[str, Any]) -> None:
    def much_later() -> datetime:
        return datetime(2050, 1, 1, tzinfo=UTC)

    with Service(create_app(new_settings(allow_simulator=True), clock=much_later)) as service:
        document = service.verify(NONCE, evidence)
    assert document["appraised_at"] == "2050-01-01T00:00:00Z"
    chain = next(finding for finding in document["findings"] if finding["check"] == "snp.chain")
    assert chain["outcome"] == "failed"
    assert "expired" in chain["actual"]


def test_verdicts_are_counted(new_settings: Callable[..., Settings], evidence: dict[str, Any]) -> None:
    with Service(create_app(new_settings(allow_simulator=True))) as service:
        for _ in range(2):
            service.verify(NONCE, evidence)
        service.verify(new_nonce(), evidence)
        text = service.get("/metrics").text
    assert 'svsm_attest_appraisals_total{simulated="true",verdict="affirming"} 2.0' in text
    assert 'svsm_attest_appraisals_total{simulated="true",verdict="contraindicated"} 1.0' in text


def test_policies_of_a_folder_and_of_a_file(
    new_settings: Callable[..., Settings], evidence: dict[str, Any], tmp_path: Any
) -> None:
    (tmp_path / "lenient.yaml").write_text("version: 1\nid: lenient\n")
    chosen = tmp_path / "chosen.json"
    chosen.write_text('{"version": 1, "id": "chosen", "policy": {"minimum_guest_svn": 9}}')
    settings = new_settings(role="verifier", offline=True, policy_dir=tmp_path, policy=str(chosen))
    with Service(create_app(settings)) as service:
        document = service.verify(NONCE, evidence)
        assert document["policy"]["id"] == "chosen"
        assert outcomes(document)["snp.id_block"] == "failed"
        assert service.verify(NONCE, evidence, "lenient")["policy"]["id"] == "lenient"
