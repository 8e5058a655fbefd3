import subprocess
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from app.errors import WireError
from app.trust.tpm_key import pem, public_key, spki
from app.wire.tpm.algorithms import P256
from app.wire.tpm.public import EccKey, RsaKey, TpmtPublic
from tests.wire.samples import SWTPM_EK, p256_ek


def test_a_real_software_tpms_rsa_key() -> None:
    tpmt = TpmtPublic.parse(SWTPM_EK)
    key = public_key(tpmt)
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.public_numbers().n == int.from_bytes(SWTPM_EK[-256:], "big")
    assert key.public_numbers().e == 65537
    assert load_pem_public_key(pem(tpmt).encode()) == key


def test_an_ecc_key_is_the_point() -> None:
    tpmt = TpmtPublic.parse(p256_ek(7))
    key = public_key(tpmt)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key == ec.derive_private_key(7, ec.SECP256R1()).public_key()


@pytest.mark.parametrize("raw", [SWTPM_EK, p256_ek(7)])
def test_openssl_reads_the_same_key_from_both_forms(raw: bytes) -> None:
    tpmt = TpmtPublic.parse(raw)
    read = subprocess.run(
        ["openssl", "pkey", "-pubin", "-outform", "der"],
        input=pem(tpmt).encode(),
        capture_output=True,
        check=True,
    )
    assert read.stdout == spki(tpmt)


def test_numbers_that_are_no_key_are_a_wire_error() -> None:
    point = TpmtPublic.parse(p256_ek(7))
    modulus = TpmtPublic.parse(SWTPM_EK)
    for broken, reason in (
        (replace(point, key=EccKey(curve=P256, x=1, y=1)), "not a public key"),
        (replace(modulus, key=RsaKey(bits=2048, modulus=1)), "not a public key"),
    ):
        with pytest.raises(WireError, match=reason):
            public_key(broken)
