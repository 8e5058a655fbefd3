import asyncio
import base64
import hashlib
import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from app.config import Settings
from app.errors import BackendBusyError, BackendError
from app.main import create_app
from app.wire import b64
from app.wire.binding import expected_report_data
from app.wire.evidence import MEDIA_TYPE
from app.wire.evidence import Service as Vouched
from app.wire.report import AttestationReport
from app.wire.tpm.public import TpmtPublic
from tests.api.backends import ScriptedBackend
from tests.api.service import Service, new_nonce, problem

NONCE = bytes(range(64))
TEXT = b64.encode(NONCE)


@pytest.fixture
def scripted(new_settings: Callable[..., Settings]) -> tuple[Service, ScriptedBackend]:
    backend = ScriptedBackend()
    settings = new_settings(role="attester", backend="configfs", max_waiting=2, device_interval_s=2)
    return Service(create_app(settings, backend=backend)), backend


def test_evidence_is_bound_to_the_nonce_and_to_the_manifest(trusting: Service) -> None:
    nonce = new_nonce()
    answer = trusting.post("/attest", json={"nonce": b64.encode(nonce)})
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert answer.headers["cache-control"] == "no-store"
    document = answer.json()
    report = AttestationReport.parse(b64.decode(document["report"]))
    manifest = b64.decode(document["manifest"])
    assert report.report_data == hashlib.sha512(nonce + manifest).digest()
    assert report.vmpl == 0
    assert b64.decode(document["nonce"]) == nonce
    assert document["profile"] == "tag:svsm-attest,2026:evidence#1"
    assert document["backend"] == "simulator"
    assert document["binding"] == {"type": "direct"}
    assert document["service"] == {"guid": "c476f1eb-0123-45a5-9641-b4e7dde5bfe3", "manifest_version": 0}
    age = datetime.now(UTC) - datetime.fromisoformat(document["collected_at"])
    assert 0 <= age.total_seconds() < 60
    TpmtPublic.parse(manifest)


@pytest.mark.parametrize(
    "text",
    [
        NONCE.hex(),
        NONCE.hex().upper(),
        base64.urlsafe_b64encode(NONCE).decode(),
        base64.urlsafe_b64encode(NONCE).decode().rstrip("="),
    ],
)
def test_pollers_write_the_nonce_as_they_like(trusting: Service, text: str) -> None:
    answer = trusting.get("/attest", params={"nonce": text})
    assert answer.headers["content-type"] == MEDIA_TYPE
    document = answer.json()
    report = AttestationReport.parse(b64.decode(document["report"]))
    assert report.report_data == expected_report_data(NONCE, b64.decode(document["manifest"]))


@pytest.mark.parametrize("service", ["vtpm", "uefi-mm", "all"])
def test_every_service_both_ways(trusting: Service, service: str) -> None:
    by_body = trusting.attest(NONCE, service=service)
    by_url = trusting.get("/attest", params={"nonce": NONCE.hex(), "service": service}).json()
    assert by_body["manifest"] == by_url["manifest"]
    assert by_body["service"] == by_url["service"]


def test_everything_that_was_asked_reaches_the_backend(scripted: tuple[Service, ScriptedBackend]) -> None:
    service, backend = scripted
    with service:
        whole = {"nonce": TEXT, "service": "all", "manifest_version": 4294967295, "binding": "direct"}
        assert service.post("/attest", json=whole).status_code == 200
        params = {"nonce": NONCE.hex(), "service": "uefi-mm", "manifest_version": "7", "binding": "direct"}
        assert service.get("/attest", params=params).status_code == 200
    assert backend.requests == [(NONCE, Vouched.ALL, 4294967295), (NONCE, Vouched.UEFI_MM, 7)]
    assert backend.closed


BAD_BODIES: list[tuple[Any, str, str | None]] = [
    ({}, "nonce-invalid", "/nonce"),
    ({"nonce": None}, "nonce-invalid", "/nonce"),
    ({"nonce": 5}, "nonce-invalid", "/nonce"),
    ({"nonce": ""}, "nonce-invalid", "/nonce"),
    ({"nonce": "abc"}, "nonce-invalid", "/nonce"),
    ({"nonce": b64.encode(bytes(63))}, "nonce-invalid", "/nonce"),
    ({"nonce": b64.encode(bytes(65))}, "nonce-invalid", "/nonce"),
    ({"nonce": NONCE.hex()}, "nonce-invalid", "/nonce"),  # base64 that decodes to 96 bytes
    ({"nonce": base64.urlsafe_b64encode(b"\xff" * 64).decode()}, "nonce-invalid", "/nonce"),
    ({"nonce": TEXT + "\n"}, "nonce-invalid", "/nonce"),
    ({"nonce": TEXT, "service": "vTPM"}, "malformed-request", "/service"),
    ({"nonce": TEXT, "service": None}, "malformed-request", "/service"),
    ({"nonce": TEXT, "manifest_version": "0"}, "malformed-request", "/manifest_version"),
    ({"nonce": TEXT, "manifest_version": 0.5}, "malformed-request", "/manifest_version"),
    ({"nonce": TEXT, "manifest_version": True}, "malformed-request", "/manifest_version"),
    ({"nonce": TEXT, "manifest_version": -1}, "malformed-request", "/manifest_version"),
    ({"nonce": TEXT, "manifest_version": 2**32}, "malformed-request", "/manifest_version"),
    ({"nonce": TEXT, "binding": "merkle"}, "malformed-request", "/binding"),
    ({"nonce": TEXT, "binding": "other"}, "malformed-request", "/binding"),
    ({"nonce": TEXT, "Service": "vtpm"}, "malformed-request", "/Service"),
    ({"nonce": TEXT, "a" * 65: 1}, "malformed-request", ""),
    ({"nonce": TEXT, "<b>": 1}, "malformed-request", ""),
    ({"nonce": "abc", "x": 1}, "malformed-request", "/x"),
    ([], "malformed-request", ""),
    ("text", "malformed-request", ""),
    (None, "malformed-request", ""),
    (5, "malformed-request", ""),
]


@pytest.mark.parametrize(("body", "kind", "pointer"), BAD_BODIES)
def test_a_bad_request_is_told_where(trusting: Service, body: Any, kind: str, pointer: str | None) -> None:
    answer = trusting.post("/attest", content=json.dumps(body))
    assert (answer.status_code, problem(answer)) == (400, kind)
    assert answer.json()["pointer"] == pointer
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_merkle_is_refused_by_name(trusting: Service) -> None:
    for answer in (
        trusting.post("/attest", json={"nonce": TEXT, "binding": "merkle"}),
        trusting.get("/attest", params={"nonce": NONCE.hex(), "binding": "merkle"}),
    ):
        assert "merkle bindings are not supported" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "kind", "parameter"),
    [
        ("", "nonce-invalid", "nonce"),
        ("nonce=", "nonce-invalid", "nonce"),
        ("nonce=abc", "nonce-invalid", "nonce"),
        (f"nonce={TEXT}"[:-3], "nonce-invalid", "nonce"),
        (f"nonce={NONCE.hex()}&nonce={NONCE.hex()}", "malformed-request", None),
        (f"nonce={NONCE.hex()}&service=x", "malformed-request", "service"),
        (f"nonce={NONCE.hex()}&manifest_version=", "malformed-request", "manifest_version"),
        (f"nonce={NONCE.hex()}&manifest_version=%201", "malformed-request", "manifest_version"),
        (f"nonce={NONCE.hex()}&manifest_version=1_0", "malformed-request", "manifest_version"),
        (f"nonce={NONCE.hex()}&manifest_version=-1", "malformed-request", "manifest_version"),
        (f"nonce={NONCE.hex()}&manifest_version=1.0", "malformed-request", "manifest_version"),
        (f"nonce={NONCE.hex()}&manifest_version=4294967296", "malformed-request", "manifest_version"),
        (f"nonce={NONCE.hex()}&manifest_version={'1' * 99}", "malformed-request", "manifest_version"),
        (f"nonce={NONCE.hex()}&manifest_version=%EF%BC%91", "malformed-request", "manifest_version"),
        (f"nonce={NONCE.hex()}&colour=red", "malformed-request", "colour"),
        ("nonce=%ff%fe", "nonce-invalid", "nonce"),
    ],
)
def test_a_bad_query_is_told_where(trusting: Service, query: str, kind: str, parameter: str | None) -> None:
    answer = trusting.get(f"/attest?{query}")
    assert (answer.status_code, problem(answer)) == (400, kind)
    assert answer.json()["errors"][0].get("parameter") == parameter


def test_errors_do_not_repeat_what_was_sent(trusting: Service) -> None:
    secret = "U0VDUkVUIFNFQ1JFVA=="  # noqa: S105 (none)
    bodies = [
        {"nonce": secret},
        {"nonce": TEXT, "service": secret},
        {"nonce": TEXT, "binding": secret},
        {"nonce": TEXT, secret: 1},
    ]
    for body in bodies:
        answer = trusting.post("/attest", json=body)
        assert answer.status_code == 400
        assert "U0VDUk" not in answer.text
    assert "U0VDUk" not in trusting.get(f"/attest?nonce={secret}&service={secret}").text


def test_a_thousand_faults_are_not_listed_one_by_one(trusting: Service) -> None:
    body = {"nonce": TEXT, **{f"m{number}": 0 for number in range(1000)}}
    document = trusting.post("/attest", json=body).json()
    assert len(document["errors"]) == 16
    assert document["detail"] == "/m0: there is no such member (and 999 more)"


def test_ek_before_and_after_the_first_attestation(new_settings: Callable[..., Settings]) -> None:
    with Service(create_app(new_settings(role="attester"))) as service:
        before = service.get("/ek")
        assert problem(before) == "backend-unavailable"
        assert before.json()["cause"] == "not-attested-yet"
        assert "POST /attest" in before.json()["remedy"]
        service.attest(NONCE, service="uefi-mm")
        assert service.get("/ek").status_code == 503  # a manifest without a vTPM has no EK
        evidence = service.attest(NONCE)
        ek = service.get("/ek").json()
    area = b64.decode(evidence["manifest"])
    assert b64.decode(ek["tpmt_public"]) == area
    assert b64.decode(ek["tpm2b_public"]) == len(area).to_bytes(2, "big") + area
    assert ek["sha256"] == hashlib.sha256(area).hexdigest()
    assert bytes.fromhex(ek["name"]) == b"\x00\x0b" + hashlib.sha256(area).digest()
    assert (ek["algorithm"], ek["template"]) == ("RSA-2048", "L-1")
    public = serialization.load_pem_public_key(ek["pem"].encode())
    assert isinstance(public, rsa.RSAPublicKey)
    modulus = int.from_bytes(base64.urlsafe_b64decode(ek["jwk"]["n"] + "=="), "big")
    assert public.public_numbers() == rsa.RSAPublicNumbers(65537, modulus)
    assert public.public_numbers().n.to_bytes(256, "big") == area[-256:]
    assert ek["attested_at"] == evidence["collected_at"]


@pytest.mark.parametrize(
    ("error", "after"),
    [
        (BackendError("no-provider", "no provider is registered", "modprobe sev-guest"), None),
        (BackendBusyError("interference", "somebody else wrote", "Repeat the request"), "1"),
    ],
)
def test_an_attester_that_cannot_attest_says_why(
    scripted: tuple[Service, ScriptedBackend], error: BackendError, after: str | None
) -> None:
    service, backend = scripted
    backend.error = error
    with service:
        answer = service.post("/attest", json={"nonce": TEXT})
        assert (answer.status_code, problem(answer)) == (503, "backend-unavailable")
        assert answer.json()["cause"] == error.cause
        assert answer.json()["remedy"] == error.remedy
        assert answer.headers.get("retry-after") == after
        text = service.get("/metrics").text
    assert f'svsm_attest_attestations_total{{cause="{error.cause}",outcome="failed"}} 1.0' in text


def test_who_finds_the_queue_full_is_told_when_to_come_back(
    scripted: tuple[Service, ScriptedBackend],
) -> None:
    service, backend = scripted

    async def crowd() -> list[Any]:
        backend.gate = asyncio.Event()
        asks = [asyncio.create_task(service.client.post("/attest", json={"nonce": TEXT})) for _ in range(5)]
        for answered in itertools.islice(asyncio.as_completed(asks), 3):
            await answered
        backend.gate.set()
        return await asyncio.gather(*asks)

    with service:
        answers = service.run(crowd())
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) == 3
    assert {problem(answer) for answer in refused} == {"rate-limited"}
    assert {answer.headers["retry-after"] for answer in refused} == {"4"}
    assert backend.asked == 2


@pytest.mark.parametrize("accept", [MEDIA_TYPE, "application/json", "*/*", "application/*;q=0.1"])
def test_evidence_is_json_for_who_asks_for_json(trusting: Service, accept: str) -> None:
    answer = trusting.post("/attest", json={"nonce": TEXT}, headers={"Accept": accept})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/attest"), ("GET", f"/attest?nonce={NONCE.hex()}"), ("GET", "/ek")]
)
def test_a_media_type_must_be_acceptable(trusting: Service, method: str, path: str) -> None:
    body = {"nonce": TEXT} if method == "POST" else None
    answer = trusting.request(method, path, json=body, headers={"Accept": "text/html"})
    assert (answer.status_code, problem(answer)) == (406, "not-acceptable")


@pytest.mark.parametrize(
    "name", ["application/x-www-form-urlencoded", "text/plain", "text/json", "a/b+json", None]
)
def test_a_body_need_not_be_called_json(trusting: Service, name: str | None) -> None:
    headers = {} if name is None else {"Content-Type": name}
    content = json.dumps({"nonce": TEXT})
    assert trusting.post("/attest", content=content, headers=headers).status_code == 200


def test_a_body_must_not_be_called_something_else(trusting: Service) -> None:
    answer = trusting.post("/attest", content="{}", headers={"Content-Type": "application/xml"})
    assert problem(answer) == "unsupported-media-type"
    assert answer.headers["accept"] == "application/json"
    assert problem(trusting.post("/attest", files={"nonce": b"x"})) == "unsupported-media-type"


def test_an_empty_body_is_no_request(trusting: Service) -> None:
    answer = trusting.post("/attest")
    assert problem(answer) == "malformed-request"
    assert "empty" in answer.json()["detail"]
