"""Attestation key and challenge answers over HTTP, with a real TPM in software behind them."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from app.config import Settings
from app.main import create_app
from app.trust.credential import make_import, verify_certify_mac
from app.wire import b64
from app.wire.tpm.attest import Attest, CertifyInfo
from app.wire.tpm.public import TpmtPublic
from app.wire.tpm.signature import parse_signature
from tests.api.service import Service, new_nonce, problem
from tests.api.tpm_exchange import KINDS, NONCE, SECRET, challenge_to, keys_of, part
from tests.interop.software_tpm import demand
from tests.wire.samples import SWTPM_EK


@pytest.fixture
def service(trusting: Service) -> Service:
    demand("swtpm")
    return trusting


# The key


@pytest.mark.parametrize("key", KINDS)
def test_a_key_in_every_form(service: Service, key: str) -> None:
    document = keys_of(service, key)
    ak, ek = part(document, "ak_public"), part(document, "ek_public")
    assert document["name"] == "000b" + hashlib.sha256(ak.encode()).hexdigest()
    assert document["ek_name"] == "000b" + hashlib.sha256(ek.encode()).hexdigest()
    assert (document["key"], document["algorithm"]) == (key, KINDS[key])
    assert (document["backend"], document["simulated"]) == ("simulator", True)
    assert ak.attributes == 0x00050472
    public = serialization.load_pem_public_key(document["pem"].encode())
    assert isinstance(public, {"p256": ec.EllipticCurvePublicKey, "rsa2048": rsa.RSAPublicKey}[key])
    assert keys_of(service, key) == document
    assert ek.encode() == b64.decode(service.attest(new_nonce())["manifest"])


def test_the_default_key_is_p256(service: Service) -> None:
    assert service.post("/ak", json={}).json() == keys_of(service)


@pytest.mark.parametrize("ek", ["p256", "p384"])
def test_the_ek_is_of_the_svsms_kind_before_any_attestation(
    new_settings: Callable[..., Settings], ek: str
) -> None:
    demand("swtpm")
    with Service(create_app(new_settings(role="attester", simulator_ek=ek))) as service:
        document = keys_of(service)
        assert part(document, "ek_public").encode() == b64.decode(service.attest(NONCE)["manifest"])
        answer = service.post("/ak/activate", json=challenge_to(document))
        assert b64.decode(answer.json()["secret"]) == SECRET


# Its answers to challenges


@pytest.mark.parametrize("key", KINDS)
def test_a_challenge_is_answered(service: Service, key: str) -> None:
    request = {"key": key, **challenge_to(keys_of(service, key))}
    for body in (request, {**request, "method": "activate"}):
        answer = service.post("/ak/activate", json=body)
        assert (answer.status_code, answer.json()) == (200, {"secret": b64.encode(SECRET)})


def test_a_key_to_import_certifies_ours(service: Service) -> None:
    document = keys_of(service)
    challenge = make_import(part(document, "ek_public"))
    blob = challenge.blob
    request = {
        "method": "import",
        "public_area": b64.encode(blob.public_area),
        "duplicate": b64.encode(blob.duplicate),
        "encrypted_seed": b64.encode(blob.encrypted_seed),
    }
    answer = service.post("/ak/activate", json=request).json()
    assert set(answer) == {"ak_public", "certify_info", "signature"}
    assert answer["ak_public"] == document["ak_public"]
    certify_info = b64.decode(answer["certify_info"])
    attested = Attest.parse(certify_info).attested
    assert isinstance(attested, CertifyInfo)
    assert attested.name.hex() == document["name"]
    signature = parse_signature(b64.decode(answer["signature"]))
    assert verify_certify_mac(challenge.key, certify_info, signature)
    assert (
        problem(service.post("/ak/activate", json={**request, "method": "activate"})) == "malformed-request"
    )


def activated(service: Service, **members: Any) -> Any:
    return service.post("/ak/activate", json={**challenge_to(keys_of(service)), **members})


def test_every_wrong_challenge_has_its_own_answer(service: Service) -> None:
    document = keys_of(service)
    good = {name: b64.decode(text) for name, text in challenge_to(document).items()}

    def answered(**changed: bytes) -> tuple[int, str, dict[str, Any]]:
        body = {name: b64.encode(raw) for name, raw in {**good, **changed}.items()}
        answer = service.post("/ak/activate", json=body)
        return answer.status_code, problem(answer), answer.json()

    blob = good["credential_blob"]
    status, kind, told = answered(credential_blob=blob[:-1] + bytes([blob[-1] ^ 1]))
    assert (status, kind) == (422, "challenge-refused")
    assert "TPM_RC_INTEGRITY (parameter 1)" in told["detail"]
    assert "POST /ak" in told["remedy"]

    status, kind, told = answered(credential_blob=blob[:-1])
    assert (status, kind, told["pointer"]) == (422, "challenge-malformed", "/credential_blob")
    assert (told["structure"], told["byte_offset"]) == ("TPM2B_ID_OBJECT", 2)
    assert "needs" in told["detail"]

    status, kind, told = answered(credential_blob=blob + b"\0")
    assert (status, kind, told["pointer"]) == (422, "challenge-malformed", "/credential_blob")
    assert told["byte_offset"] == len(blob)
    assert "follow" in told["detail"]

    status, kind, told = answered(encrypted_secret=good["encrypted_secret"] + b"\0")
    assert (status, kind) == (422, "challenge-malformed")
    assert told["structure"] == "TPM2B_ENCRYPTED_SECRET"

    other = challenge_to(document, name=TpmtPublic.parse(SWTPM_EK).name)
    answer = service.post("/ak/activate", json=other)
    assert problem(answer) == "challenge-refused"
    assert "another Name" in answer.json()["detail"]

    stranger = challenge_to({**document, "ek_public": b64.encode(SWTPM_EK)})
    answer = service.post("/ak/activate", json=stranger)
    assert problem(answer) == "challenge-refused"
    assert "cannot decrypt" in answer.json()["detail"]

    assert service.post("/ak/activate", json=challenge_to(document)).status_code == 200


@pytest.mark.parametrize(
    ("members", "pointer"),
    [
        ({"credential_blob": None}, ""),
        ({"method": "import"}, ""),
        ({"public_area": "AQEB"}, ""),
        ({"method": "sign"}, "/method"),
        ({"key": "p384"}, "/key"),
        ({"credential_blob": "?"}, "/credential_blob"),
        ({"credential_blob": b64.encode(bytes(1025))}, "/credential_blob"),
        ({"encrypted_secret": 5}, "/encrypted_secret"),
        ({"colour": "red"}, "/colour"),
    ],
)
def test_a_request_that_is_none(service: Service, members: dict[str, Any], pointer: str) -> None:
    answer = activated(service, **members)
    assert (answer.status_code, problem(answer)) == (400, "malformed-request")
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_a_key_that_was_not_handed_out_answers_no_challenge(
    new_settings: Callable[..., Settings],
) -> None:
    demand("swtpm")
    with Service(create_app(new_settings(role="attester"))) as first:
        document = keys_of(first)
    with Service(create_app(new_settings(role="attester"))) as second:
        answer = second.post("/ak/activate", json=challenge_to(document))
        assert problem(answer) == "challenge-refused"
        assert "was not handed out since" in answer.json()["detail"]
        assert keys_of(second) == document  # made again from the same seed
        assert second.post("/ak/activate", json=challenge_to(document)).status_code == 200
