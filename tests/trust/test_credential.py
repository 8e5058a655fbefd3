"""Challenges, opened again with the private half of the EK as a TPM does."""

import hashlib
import hmac
from dataclasses import replace

import pytest
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import WireError
from app.trust.credential import make_credential, make_import, verify_certify_mac, wrap
from app.wire.tpm.duplicate import ImportBlob
from app.wire.tpm.public import TpmtPublic
from app.wire.tpm.signature import EcdsaSignature, HmacSignature, RsaSignature
from tests.wire.samples import (
    CURVES,
    L1_PREFIX,
    LEADING_ZERO_SCALARS,
    SWTPM_EK,
    p256_ek,
    p384_ek,
    signing_key,
    sized,
)
from tests.wire.tpm.statements import (
    CREDENTIAL_NAME,
    CREDENTIAL_SECRET,
    CREDENTIAL_SEED,
    ID_OBJECT,
)

RSA_KEY = rsa.generate_private_key(65537, 2048)
RSA_EK = L1_PREFIX + RSA_KEY.public_key().public_numbers().n.to_bytes(256, "big")
ONES = {"RSA-2048": (RSA_EK, "sha256"), "P-256": (p256_ek(5), "sha256"), "P-384": (p384_ek(5), "sha384")}


def stream(name: str, key: bytes, label: bytes, context: bytes, size: int) -> bytes:
    """KDFa for no more than one block."""
    message = b"\x00\x00\x00\x01" + label + b"\x00" + context + (8 * size).to_bytes(4, "big")
    return hmac.digest(key, message, name)[:size]


def seed_of(ek: bytes, scalar: int, label: bytes, encrypted: bytes) -> bytes:
    """The seed, by the private half of the EK."""
    key = TpmtPublic.parse(ek)
    if key.algorithm.startswith("RSA"):
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label + b"\x00")
        return RSA_KEY.decrypt(encrypted, oaep)
    curve, name = CURVES[key.algorithm], {"P-256": "sha256", "P-384": "sha384"}[key.algorithm]
    size = curve.key_size // 8
    assert len(encrypted) == 2 * (2 + size)
    x, y = encrypted[2 : 2 + size], encrypted[4 + size :]
    point = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve)
    private = ec.derive_private_key(scalar, curve)
    z = private.exchange(ec.ECDH(), point.public_key())
    own = private.public_key().public_numbers().x.to_bytes(size, "big")
    return hashlib.new(name, b"\x00\x00\x00\x01" + z + label + b"\x00" + x + own).digest()


def opened(ek: bytes, seed: bytes, name: bytes, integrity: bytes, encrypted: bytes) -> bytes:
    """What is under the outer wrap, once its HMAC is found right."""
    hash_name, size = ("sha384", 32) if TpmtPublic.parse(ek).algorithm == "P-384" else ("sha256", 16)
    mac_key = stream(hash_name, seed, b"INTEGRITY", b"", hashlib.new(hash_name).digest_size)
    assert integrity == hmac.digest(mac_key, encrypted + name, hash_name)
    decryptor = Cipher(AES(stream(hash_name, seed, b"STORAGE", name, size)), CFB(bytes(16))).decryptor()
    return decryptor.update(encrypted) + decryptor.finalize()


def test_the_known_answer_of_a_credential() -> None:
    integrity, encrypted = wrap(
        TpmtPublic.parse(SWTPM_EK), CREDENTIAL_SEED, CREDENTIAL_NAME, sized(CREDENTIAL_SECRET)
    )
    assert sized(integrity) + encrypted == ID_OBJECT


@pytest.mark.parametrize("kind", ONES)
@given(data=st.data())
@settings(deadline=None, max_examples=25)
def test_the_ek_opens_a_credential(kind: str, data: st.DataObject) -> None:
    ek, hash_name = ONES[kind]
    name = b"\x00\x0b" + data.draw(st.binary(min_size=32, max_size=32))
    secret = data.draw(st.binary(min_size=1, max_size=hashlib.new(hash_name).digest_size))
    blob = make_credential(TpmtPublic.parse(ek), name, secret)
    seed = seed_of(ek, 5, b"IDENTITY", blob.encrypted_secret)
    held = opened(ek, seed, name, blob.id_object.integrity, blob.id_object.encrypted_identity)
    assert held == sized(secret)


@pytest.mark.parametrize(("where", "scalar"), LEADING_ZERO_SCALARS.items())
def test_an_ek_whose_coordinate_has_a_leading_zero_byte(where: tuple[str, str], scalar: int) -> None:
    ek = p256_ek(scalar) if where[0] == "P-256" else p384_ek(scalar)
    blob = make_credential(TpmtPublic.parse(ek), CREDENTIAL_NAME, b"secret")
    seed = seed_of(ek, scalar, b"IDENTITY", blob.encrypted_secret)
    held = opened(ek, seed, CREDENTIAL_NAME, blob.id_object.integrity, blob.id_object.encrypted_identity)
    assert held == sized(b"secret")


@pytest.mark.parametrize("curve", ["P-256", "P-384"])
def test_an_ephemeral_point_whose_coordinates_have_leading_zero_bytes(
    curve: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ek = p256_ek(5) if curve == "P-256" else p384_ek(5)
    for coordinate in ("x", "y"):
        scalar = LEADING_ZERO_SCALARS[curve, coordinate]
        monkeypatch.setattr(
            ec, "generate_private_key", lambda kind, scalar=scalar: ec.derive_private_key(scalar, kind)
        )
        blob = make_credential(TpmtPublic.parse(ek), CREDENTIAL_NAME, b"secret")
        seed = seed_of(ek, 5, b"IDENTITY", blob.encrypted_secret)
        held = opened(ek, seed, CREDENTIAL_NAME, blob.id_object.integrity, blob.id_object.encrypted_identity)
        assert held == sized(b"secret")


@pytest.mark.parametrize("kind", ONES)
def test_no_two_challenges_are_alike(kind: str) -> None:
    ek = TpmtPublic.parse(ONES[kind][0])
    blobs = [make_credential(ek, CREDENTIAL_NAME, b"same secret") for _ in range(2)]
    assert blobs[0].encrypted_secret != blobs[1].encrypted_secret
    assert blobs[0].id_object != blobs[1].id_object
    challenges = [make_import(ek) for _ in range(2)]
    assert challenges[0].key != challenges[1].key
    assert challenges[0].name != challenges[1].name


@pytest.mark.parametrize("kind", ONES)
def test_the_ek_opens_an_import_and_finds_its_key(kind: str) -> None:
    ek, hash_name = ONES[kind]
    challenge = make_import(TpmtPublic.parse(ek))
    blob = challenge.blob
    assert ImportBlob.parse(blob.public_area, blob.duplicate, blob.encrypted_seed) == blob
    assert challenge.name == blob.name == b"\x00\x0b" + hashlib.sha256(blob.public_area).digest()
    size = hashlib.new(hash_name).digest_size
    assert blob.duplicate[:2] == size.to_bytes(2, "big")
    integrity, encrypted = blob.duplicate[2 : 2 + size], blob.duplicate[2 + size :]
    seed = seed_of(ek, 5, b"DUPLICATE", blob.encrypted_seed)
    sensitive = opened(ek, seed, challenge.name, integrity, encrypted)
    obfuscation = sensitive[8:40]
    assert sensitive == sized(b"\x00\x08" + sized(b"") + sized(obfuscation) + sized(challenge.key))
    assert blob.public_area[16:] == hashlib.sha256(obfuscation + challenge.key).digest()
    assert challenge.key.hex() not in repr(challenge)


@pytest.mark.parametrize("kind", ONES)
@pytest.mark.parametrize("make", [lambda ek: make_credential(ek, CREDENTIAL_NAME, b"s"), make_import])
def test_a_key_that_stores_nothing_gets_no_challenge(kind: str, make: object) -> None:
    assert callable(make)
    ek = TpmtPublic.parse(ONES[kind][0])
    hashed = {"RSA-2048": 0x0017, "P-256": 0x0019, "P-384": 0x0019}[kind]
    for other in (
        replace(ek, symmetric_bits=None),
        replace(ek, scheme=hashed, scheme_hash=0x000B),
        TpmtPublic.parse(signing_key()),
    ):
        with pytest.raises(WireError, match="not a storage key"):
            make(other)


@pytest.mark.parametrize(("kind", "size"), [("RSA-2048", 0), ("P-256", 33), ("P-384", 49)])
def test_a_secret_fits_the_hash_of_the_ek(kind: str, size: int) -> None:
    with pytest.raises(ValueError, match=f"a secret of {size} bytes does not fit this EK"):
        make_credential(TpmtPublic.parse(ONES[kind][0]), CREDENTIAL_NAME, bytes(size))


KEY = bytes(range(32))
INFO = b"\xffTCG what a TPM certified"
MAC = hmac.digest(KEY, hashlib.sha256(INFO).digest(), "sha256")


def test_a_certification_is_signed_by_its_digest() -> None:
    assert verify_certify_mac(KEY, INFO, HmacSignature(0x000B, MAC))
    plain = hmac.digest(KEY, INFO, "sha256")
    assert not verify_certify_mac(KEY, INFO, HmacSignature(0x000B, plain))


@pytest.mark.parametrize(
    ("key", "info", "signature"),
    [
        (KEY[::-1], INFO, HmacSignature(0x000B, MAC)),
        (KEY, INFO + b"\x00", HmacSignature(0x000B, MAC)),
        (KEY, INFO, HmacSignature(0x000B, MAC[:-1] + bytes([MAC[-1] ^ 1]))),
        (KEY, INFO, HmacSignature(0x000B, MAC[:16])),
        (KEY, INFO, HmacSignature(0x000B, b"")),
        (KEY, INFO, HmacSignature(0x000C, MAC)),
        (KEY, INFO, RsaSignature(0x0014, 0x000B, bytes(256))),
        (KEY, INFO, EcdsaSignature(0x000B, MAC, MAC)),
    ],
)
def test_other_certifications(
    key: bytes, info: bytes, signature: HmacSignature | RsaSignature | EcdsaSignature
) -> None:
    assert not verify_certify_mac(key, info, signature)
