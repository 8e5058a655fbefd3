from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.main import create_app
from app.wire import b64
from app.wire.tpm.credential import CredentialBlob
from app.wire.tpm.duplicate import ImportBlob
from tests.api.service import Service, problem
from tests.api.services import SettingsMaker
from tests.trust.test_credential import ONES
from tests.wire.samples import patched, signing_key

EK, AK = ONES["P-256"][0], signing_key()
EKS = {kind: ek for kind, (ek, _) in ONES.items()}


@pytest.fixture(scope="module")
def verifier(new_settings: SettingsMaker) -> Iterator[Service]:
    with Service(create_app(new_settings(role="verifier", offline=True, challenge_lifetime_s=90))) as service:
        yield service


def request(**members: Any) -> dict[str, Any]:
    keys = {"ek_public": EK, "ak_public": AK, **members}
    return {
        name: b64.encode(value) if isinstance(value, bytes) else value
        for name, value in keys.items()
        if value is not None
    }


@pytest.mark.parametrize("kind", EKS)
def test_a_credential_for_both_keys(verifier: Service, kind: str) -> None:
    answer = verifier.post("/ak-challenges", json=request(ek_public=EKS[kind]))
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    document = answer.json()
    assert set(document) == {
        "challenge",
        "method",
        "credential_blob",
        "encrypted_secret",
        "tools_file",
        "expires_at",
    }
    assert document["method"] == "activate"
    both = (b64.decode(document[name]) for name in ("credential_blob", "encrypted_secret"))
    blob = CredentialBlob.parse(*both)
    assert CredentialBlob.from_tools_file(b64.decode(document["tools_file"])) == blob
    left = datetime.fromisoformat(document["expires_at"]) - datetime.now(UTC)
    assert timedelta(seconds=60) < left <= timedelta(seconds=90)


@pytest.mark.parametrize("kind", EKS)
@pytest.mark.parametrize("ak", [AK, None])
def test_a_key_to_import(verifier: Service, kind: str, ak: bytes | None) -> None:
    body = request(ek_public=EKS[kind], ak_public=ak, method="import")
    document = verifier.post("/ak-challenges", json=body).json()
    assert set(document) == {
        "challenge",
        "method",
        "public_area",
        "duplicate",
        "encrypted_seed",
        "expires_at",
    }
    assert document["method"] == "import"
    ImportBlob.parse(*(b64.decode(document[name]) for name in ("public_area", "duplicate", "encrypted_seed")))


def test_no_two_challenges_are_alike(verifier: Service) -> None:
    first, second = (verifier.post("/ak-challenges", json=request()).json() for _ in range(2))
    assert first["challenge"] != second["challenge"]
    assert first["credential_blob"] != second["credential_blob"]


RSA = EKS["RSA-2048"]
EK_ATTRIBUTES = int.from_bytes(EK[4:8], "big")
MALFORMED: list[tuple[dict[str, Any], str, str]] = [
    ({"ek_public": EK + b"\0"}, "/ek_public", "follow the end"),
    ({"ak_public": AK + b"\0"}, "/ak_public", "follow the end"),
    ({"ek_public": len(EK).to_bytes(2, "big") + EK}, "/ek_public", "TPM2B_PUBLIC"),
    ({"ek_public": AK}, "/ek_public", "no TCG EK template"),
    ({"ek_public": AK, "method": "import"}, "/ek_public", "no TCG EK template"),
    ({"ek_public": patched(EK, (2, "0004"))}, "/ek_public", "SHA-1"),
    ({"ak_public": patched(AK, (2, "0004"))}, "/ak_public", "SHA-1"),
    ({"ek_public": patched(RSA, (58, bytes([RSA[58] & 0x7F | 0x40])))}, "/ek_public", "2047 bits"),
    ({"ek_public": patched(RSA, (52, (3).to_bytes(4, "big")))}, "/ek_public", "exponent 3"),
    ({"ek_public": EK[:-1] + bytes([EK[-1] ^ 1])}, "/ek_public", "not on P-256"),
    ({"ek_public": b""}, "/ek_public", "type"),
    *(
        ({"ek_public": patched(EK, (4, (EK_ATTRIBUTES ^ 1 << bit).to_bytes(4, "big")))}, "/ek_public", "EK")
        for bit in (1, 4, 5, 6, 7, 16, 17)
    ),
]


@pytest.mark.parametrize(("members", "pointer", "word"), MALFORMED)
def test_keys_that_are_none_get_no_challenge(
    verifier: Service, members: dict[str, Any], pointer: str, word: str
) -> None:
    answer = verifier.post("/ak-challenges", json=request(**members))
    assert (answer.status_code, problem(answer)) == (422, "evidence-malformed")
    document = answer.json()
    assert (document["pointer"], document["structure"]) == (pointer, "TPMT_PUBLIC")
    assert word in document["detail"]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({}, "ek_public"),
        (request(ak_public=None), "ak_public is missing"),
        (request(method="seal"), "method"),
        (request(ek_public="A!A@AA=="), "ek_public"),
        (request(more=1), "no such member"),
    ],
)
def test_requests_that_cannot_be_understood(verifier: Service, body: dict[str, Any], word: str) -> None:
    answer = verifier.post("/ak-challenges", json=body)
    assert (answer.status_code, problem(answer)) == (400, "malformed-request")
    assert word in answer.json()["detail"]


def test_a_flood_is_bounded_and_told_when_to_come_back(new_settings: SettingsMaker) -> None:
    settings = new_settings(role="verifier", offline=True, max_challenges=2, challenge_lifetime_s=30)
    with Service(create_app(settings)) as service:
        answers = [service.post("/ak-challenges", json=request()) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert problem(answers[2]) == "rate-limited"
    assert 1 <= int(answers[2].headers["retry-after"]) <= 30


def test_an_attester_gives_out_no_challenges(new_settings: SettingsMaker) -> None:
    with Service(create_app(new_settings(role="attester"))) as service:
        assert service.post("/ak-challenges", json=request()).status_code == 404
