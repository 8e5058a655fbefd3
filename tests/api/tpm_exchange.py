"""The vTPM over HTTP: what its tests send, and what they hold the answers against."""

from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from app.trust.credential import make_credential
from app.trust.tpm_key import public_key
from app.wire import b64
from app.wire.tpm import algorithms as alg
from app.wire.tpm.attest import Attest, QuoteInfo
from app.wire.tpm.pcr import PcrValues
from app.wire.tpm.public import TpmtPublic
from app.wire.tpm.signature import EcdsaSignature, RsaSignature, parse_signature
from tests.api.service import Service

NONCE = bytes(range(64))
TEXT = b64.encode(NONCE)
SECRET = b"only inside this TPM"
KINDS = {"p256": "P-256", "rsa2048": "RSA-2048"}


def keys_of(service: Service, key: str = "p256") -> dict[str, Any]:
    answer = service.post("/ak", json={"key": key})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def part(document: dict[str, Any], name: str) -> TpmtPublic:
    return TpmtPublic.parse(b64.decode(document[name]))


def challenge_to(document: dict[str, Any], *, name: bytes | None = None) -> dict[str, str]:
    """The members of an activation request for the keys of a `POST /ak`."""
    blob = make_credential(part(document, "ek_public"), name or part(document, "ak_public").name, SECRET)
    id_object, seed = blob.to_tpm2bs()
    return {"credential_blob": b64.encode(id_object), "encrypted_secret": b64.encode(seed)}


def demand_valid(quote: dict[str, Any], qualifying_data: bytes) -> None:
    """The quote is signed by its key, about this data, and about the values that came along."""
    ak, raw = part(quote, "ak_public"), b64.decode(quote["attest"])
    signature, key = parse_signature(b64.decode(quote["signature"])), public_key(ak)
    if isinstance(key, rsa.RSAPublicKey):
        assert isinstance(signature, RsaSignature)
        key.verify(signature.signature, raw, padding.PKCS1v15(), hashes.SHA256())
    else:
        assert isinstance(signature, EcdsaSignature)
        r, s = (int.from_bytes(number, "big") for number in (signature.r, signature.s))
        key.verify(encode_dss_signature(r, s), raw, ec.ECDSA(hashes.SHA256()))
    attest = Attest.parse(raw)
    assert attest.extra_data == qualifying_data
    assert isinstance(attest.attested, QuoteInfo)
    values = PcrValues.of(
        {
            bank: {int(pcr): bytes.fromhex(digest) for pcr, digest in registers.items()}
            for bank, registers in quote["pcrs"].items()
        }
    )
    assert attest.attested.selection == values.selection
    assert attest.attested.pcr_digest == values.digest(alg.SHA256)


def live(service: Service) -> dict[str, Any]:
    """How the EK of the TPM compares."""
    document: dict[str, Any] = service.get("/ek").json()["live"]
    return document
