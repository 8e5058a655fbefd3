import subprocess
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from app.errors import WireError
from app.trust.tpm_key import pem, public_key, spki, verify_attest
from app.wire.tpm import algorithms as alg
from app.wire.tpm.algorithms import P256
from app.wire.tpm.public import EccKey, RsaKey, TpmtPublic
from app.wire.tpm.signature import EcdsaSignature, HmacSignature, RsaSignature, parse_signature
from tests.wire.samples import SWTPM_EK, p256_ek, signing_key
from tests.wire.tpm.statements import QUOTE, QUOTE_AK, QUOTE_SIGNATURE


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


def test_the_quote_of_a_software_tpm() -> None:
    ak, signature = TpmtPublic.parse(QUOTE_AK), parse_signature(QUOTE_SIGNATURE)
    assert verify_attest(ak, signature, QUOTE)
    assert not verify_attest(ak, signature, QUOTE[:-1] + bytes([QUOTE[-1] ^ 1]))
    assert not verify_attest(ak, signature, QUOTE + b"\x00")
    assert not verify_attest(TpmtPublic.parse(signing_key()), signature, QUOTE)


HASHES = {0x000B: hashes.SHA256(), 0x000C: hashes.SHA384(), 0x000D: hashes.SHA512()}
RSA_KEYS = {bits: rsa.generate_private_key(65537, bits) for bits in (2048, 3072)}
EC_KEYS = {
    "P-256": ec.derive_private_key(2, ec.SECP256R1()),
    "P-384": ec.derive_private_key(2, ec.SECP384R1()),
}


def rsa_ak(scheme: int, hash_alg: int, bits: int = 2048) -> TpmtPublic:
    modulus = RSA_KEYS[bits].public_key().public_numbers().n
    ecdsa = TpmtPublic.parse(signing_key())
    return replace(ecdsa, scheme=scheme, scheme_hash=hash_alg, key=RsaKey(bits=bits, modulus=modulus))


def rsa_signature(scheme: int, hash_alg: int, salt: int = 32, bits: int = 2048) -> RsaSignature:
    hashed = HASHES[hash_alg]
    how = padding.PKCS1v15() if scheme == alg.RSASSA else padding.PSS(padding.MGF1(hashed), salt)
    return RsaSignature(scheme, hash_alg, RSA_KEYS[bits].sign(QUOTE, how, hashed))


@pytest.mark.parametrize("bits", RSA_KEYS)
@pytest.mark.parametrize("hash_alg", HASHES)
@pytest.mark.parametrize("scheme", [alg.RSASSA, alg.RSAPSS])
def test_rsa(scheme: int, hash_alg: int, bits: int) -> None:
    signature = rsa_signature(scheme, hash_alg, bits=bits)
    assert verify_attest(rsa_ak(scheme, hash_alg, bits), signature, QUOTE)
    assert not verify_attest(rsa_ak(scheme, hash_alg, bits), signature, QUOTE[1:])


@pytest.mark.parametrize("salt", [0, 20, 32, 256 - 32 - 2])
def test_every_length_of_a_pss_salt(salt: int) -> None:
    signature = rsa_signature(alg.RSAPSS, alg.SHA256, salt)
    assert verify_attest(rsa_ak(alg.RSAPSS, alg.SHA256), signature, QUOTE)


@pytest.mark.parametrize(
    ("scheme", "hash_alg"),
    [(alg.RSAPSS, alg.SHA256), (alg.RSASSA, alg.SHA384), (alg.NULL, None), (alg.RSAES, None)],
)
def test_the_scheme_is_the_keys_own(scheme: int, hash_alg: int | None) -> None:
    signature = rsa_signature(alg.RSASSA, alg.SHA256)
    ak = replace(rsa_ak(alg.RSASSA, alg.SHA256), scheme=scheme, scheme_hash=hash_alg)
    assert not verify_attest(ak, signature, QUOTE)


def test_a_signature_for_a_key_of_another_size_or_kind() -> None:
    small, large = (rsa_ak(alg.RSASSA, alg.SHA256, bits) for bits in RSA_KEYS)
    assert not verify_attest(large, rsa_signature(alg.RSASSA, alg.SHA256), QUOTE)
    assert not verify_attest(small, rsa_signature(alg.RSASSA, alg.SHA256, bits=3072), QUOTE)
    # A public area whose scheme is not one of its kind of key; parsing refuses it.
    point = TpmtPublic.parse(signing_key())
    mixed = replace(point, scheme=alg.RSASSA)
    assert not verify_attest(mixed, rsa_signature(alg.RSASSA, alg.SHA256), QUOTE)
    mixed = replace(small, scheme=alg.ECDSA)
    assert not verify_attest(mixed, EcdsaSignature(alg.SHA256, b"\x01", b"\x01"), QUOTE)
    mixed = replace(point, scheme=alg.HMAC)
    assert not verify_attest(mixed, HmacSignature(alg.SHA256, bytes(32)), QUOTE)


def ecdsa(curve: str, hash_alg: int) -> tuple[int, int]:
    return utils.decode_dss_signature(EC_KEYS[curve].sign(QUOTE, ec.ECDSA(HASHES[hash_alg])))


@pytest.mark.parametrize("curve", EC_KEYS)
@pytest.mark.parametrize("hash_alg", HASHES)
def test_ecdsa(curve: str, hash_alg: int) -> None:
    ak = replace(TpmtPublic.parse(signing_key(curve=curve)), scheme_hash=hash_alg)
    size = ak.key.curve.size if isinstance(ak.key, EccKey) else 0
    r, s = (number.to_bytes(size, "big") for number in ecdsa(curve, hash_alg))
    assert verify_attest(ak, EcdsaSignature(hash_alg, r, s), QUOTE)
    assert not verify_attest(ak, EcdsaSignature(hash_alg, s, r), QUOTE)
    assert not verify_attest(ak, EcdsaSignature(hash_alg, r, bytes(size)), QUOTE)
    assert not verify_attest(ak, EcdsaSignature(hash_alg, b"\xff" * 48, b"\xff" * 48), QUOTE)


def test_leading_zeros_of_an_integer_make_no_difference() -> None:
    ak = TpmtPublic.parse(signing_key())
    short: tuple[int, int] | None = None
    while short is None or short[0] >> 248:  # one in 256 has an r that starts with a zero byte
        short = ecdsa("P-256", alg.SHA256)
    r, s = short
    for size in (31, 32, 33, 48):
        signature = EcdsaSignature(alg.SHA256, r.to_bytes(size, "big"), s.to_bytes(32, "big"))
        assert parse_signature(signature.encode()) == signature
        assert verify_attest(ak, signature, QUOTE)
