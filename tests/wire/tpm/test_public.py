import base64
import dataclasses
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from app.errors import WireError
from app.wire.cursor import Cursor
from app.wire.tpm import algorithms as alg
from app.wire.tpm.public import EccKey, RsaKey, TpmtPublic
from tests.wire.samples import (
    COUNTING_EK,
    LEADING_ZERO_SCALARS,
    SWTPM_EK,
    SWTPM_EK_NAME,
    p256_ek,
    p384_ek,
    patched,
    point,
    signing_key,
    sized,
)

P256_EK, P384_EK = p256_ek(), p384_ek()
AREAS = {"RSA-2048": SWTPM_EK, "P-256": P256_EK, "P-384": P384_EK, "AK": signing_key()}


def refusal(raw: bytes) -> tuple[int, str]:
    with pytest.raises(WireError) as caught:
        TpmtPublic.parse(raw)
    assert caught.value.structure == "TPMT_PUBLIC"
    return caught.value.offset, caught.value.reason


def unpadded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def test_the_ek_of_a_software_tpm() -> None:
    ek = TpmtPublic.parse(SWTPM_EK)
    assert (ek.key.type, ek.name_alg, ek.attributes) == (0x0001, 0x000B, 0x000300B2)
    assert ek.auth_policy.hex() == "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"
    assert (ek.symmetric_bits, ek.scheme, ek.scheme_hash) == (128, 0x0010, None)
    assert ek.key == RsaKey(bits=2048, modulus=int.from_bytes(SWTPM_EK[58:], "big"))
    assert (ek.algorithm, ek.template) == ("RSA-2048", "L-1")
    assert ek.name == SWTPM_EK_NAME
    assert ek.encode() == SWTPM_EK
    assert ek.to_tpm2b() == b"\x01\x3a" + SWTPM_EK
    assert ek.jwk() == {"kty": "RSA", "n": unpadded(SWTPM_EK[58:]), "e": "AQAB"}


def test_the_counting_ek() -> None:
    ek = TpmtPublic.parse(COUNTING_EK)
    assert ek.name.hex() == "000bb3b459aeb5192b6aa8467de9ad966ce1af8c0daf0862a0fd8ea9ab7ad176119a"
    assert ek.template == "L-1"


@pytest.mark.parametrize(
    ("raw", "size", "name", "template", "name_alg"),
    [(P256_EK, 122, "P-256", "L-2", "sha256"), (P384_EK, 170, "P-384", "H-3", "sha384")],
)
def test_ecc_eks(raw: bytes, size: int, name: str, template: str, name_alg: str) -> None:
    assert len(raw) == size
    ek = TpmtPublic.parse(raw)
    x, y = point(name, 1)
    assert ek.jwk() == {"kty": "EC", "crv": name, "x": unpadded(x), "y": unpadded(y)}
    assert (ek.key.type, ek.algorithm, ek.template) == (0x0023, name, template)
    assert ek.name[2:] == hashlib.new(name_alg, raw).digest()
    assert ek.encode() == raw


def test_a_signing_key() -> None:
    ak = TpmtPublic.parse(signing_key())
    assert (ak.attributes, ak.auth_policy, ak.symmetric_bits) == (0x00050072, b"", None)
    assert (ak.scheme, ak.scheme_hash, ak.template) == (alg.ECDSA, alg.SHA256, None)
    assert len(signing_key()) == 88


@pytest.mark.parametrize(("where", "scalar"), LEADING_ZERO_SCALARS.items())
def test_a_coordinate_with_a_leading_zero_byte(where: tuple[str, str], scalar: int) -> None:
    curve, coordinate = where
    raw = p256_ek(scalar) if curve == "P-256" else p384_ek(scalar)
    key = TpmtPublic.parse(raw)
    assert key.encode() == raw
    written = key.jwk()[coordinate]
    size = 32 if curve == "P-256" else 48
    assert len(base64.urlsafe_b64decode(written + "==")) == size
    assert base64.urlsafe_b64decode(written + "==")[0] == 0


def test_the_name_depends_on_how_the_exponent_is_written() -> None:
    explicit = patched(SWTPM_EK, (52, "00010001"))
    key = TpmtPublic.parse(explicit)
    assert isinstance(key.key, RsaKey)
    assert key.key.explicit_exponent
    assert key.encode() == explicit
    assert key.name != SWTPM_EK_NAME
    assert key.jwk() == TpmtPublic.parse(SWTPM_EK).jwk()
    assert key.template is None


@pytest.mark.parametrize(("name_alg", "size"), [(alg.SHA256, 34), (alg.SHA384, 50), (alg.SHA512, 66)])
def test_names_by_hash(name_alg: int, size: int) -> None:
    key = dataclasses.replace(TpmtPublic.parse(signing_key()), name_alg=name_alg)
    assert len(key.name) == size
    assert TpmtPublic.parse(key.encode()) == key


# RSA-2048: type 0, nameAlg 2, attributes 4, policy size 8, policy 10, symmetric 42, bits 44, mode 46,
# scheme 48, keyBits 50, exponent 52, modulus size 56, modulus 58.
RSA_FAULTS = [
    ((0, "0002"), 0, "type 0x0002 is neither RSA nor ECC"),
    ((0, "0008"), 0, "type 0x0008 is neither RSA nor ECC"),  # KEYEDHASH
    ((2, "0004"), 2, "nameAlg is SHA-1, which is not accepted"),
    ((2, "0010"), 2, "nameAlg 0x0010 is not SHA-256, SHA-384 or SHA-512"),
    ((4, "800300b2"), 4, "objectAttributes 0x800300b2 has an undefined bit"),
    ((4, "000300b3"), 4, "objectAttributes 0x000300b3 has an undefined bit"),
    ((4, "000310b2"), 4, "objectAttributes 0x000310b2 has an undefined bit"),
    ((42, "0026"), 42, "symmetric algorithm 0x0026 is neither AES nor null"),  # Camellia
    ((44, "0081"), 44, "AES has no 129-bit key"),
    ((46, "0042"), 46, "symmetric mode 0x0042 is not CFB"),  # CBC
    ((48, "0018"), 48, "scheme 0x0018 does not fit the key type"),  # ECDSA
    ((50, "0400"), 50, "RSA-1024 is not supported (2048 or 3072)"),
    ((50, "1000"), 50, "RSA-4096 is not supported (2048 or 3072)"),
    ((52, "00000003"), 52, "exponent 3 is not 65537"),
    ((52, "00010003"), 52, "exponent 65539 is not 65537"),
    ((50, "0c00"), 58, "modulus has 2048 bits, keyBits says 3072"),
    ((58, "7f"), 58, "modulus has 2047 bits, keyBits says 2048"),
    ((58, "0080"), 58, "modulus has 2040 bits, keyBits says 2048"),
    ((313, "10"), 313, "modulus is even"),
    ((56, "00ff"), 58, "modulus has 2040 bits, keyBits says 2048"),
    ((56, "0101"), 58, "modulus needs 257 bytes, 256 left"),
    ((8, "ffff"), 10, "authPolicy needs 65535 bytes, 304 left"),
]


@pytest.mark.parametrize(("change", "offset", "reason"), RSA_FAULTS, ids=lambda value: str(value)[:24])
def test_rsa_rules(change: tuple[int, str], offset: int, reason: str) -> None:
    assert refusal(patched(SWTPM_EK, change)) == (offset, reason)


# P-256: scheme 48, curve 50, kdf 52, x size 54, x 56, y size 88, y 90.
P256_FAULTS = [
    ((48, "0014"), 48, "scheme 0x0014 does not fit the key type"),  # RSASSA
    ((48, "001a"), 48, "scheme 0x001a does not fit the key type"),  # ECDAA
    ((50, "0005"), 50, "curve 0x0005 is neither P-256 nor P-384"),  # P-521
    ((50, "0010"), 50, "curve 0x0010 is neither P-256 nor P-384"),
    ((52, "0020"), 52, "kdf 0x0020 is not null"),
    ((54, "001f"), 56, "x has 31 bytes, P-256 has 32"),
    ((54, "0021"), 56, "x has 33 bytes, P-256 has 32"),
    ((88, "001f"), 90, "y has 31 bytes, P-256 has 32"),
    ((88, "0021"), 90, "y needs 33 bytes, 32 left"),
    ((50, "0004"), 56, "x has 32 bytes, P-384 has 48"),
    ((121, "00"), 56, "the point is not on P-256"),
    ((56, bytes(32)), 56, "the point is not on P-256"),
    ((90, b"\xff" * 32), 56, "the point is not on P-256"),
]


@pytest.mark.parametrize(("change", "offset", "reason"), P256_FAULTS, ids=lambda value: str(value)[:24])
def test_ecc_rules(change: tuple[int, bytes | str], offset: int, reason: str) -> None:
    assert refusal(patched(P256_EK, change)) == (offset, reason)


def test_a_coordinate_beyond_the_field_is_not_the_point_it_reduces_to() -> None:
    # (x + p, y) satisfies the curve equation modulo p; it must not be a second form of (x, y).
    x = 0
    y = pow(alg.P256.b, (alg.P256.p + 1) // 4, alg.P256.p)
    on_curve = patched(P256_EK, (56, x.to_bytes(32, "big")), (90, y.to_bytes(32, "big")))
    key = TpmtPublic.parse(on_curve).key
    assert isinstance(key, EccKey)
    assert key.x == 0
    beyond = patched(on_curve, (56, (x + alg.P256.p).to_bytes(32, "big")))
    assert refusal(beyond) == (56, "the point is not on P-256")


@pytest.mark.parametrize("size", [1, 20, 31, 33, 48])
def test_a_policy_has_the_size_of_the_name_hash(size: int) -> None:
    raw = SWTPM_EK[:8] + sized(bytes(size)) + SWTPM_EK[42:]
    assert refusal(raw) == (10, f"authPolicy has {size} bytes, nameAlg has 32")


def test_a_policy_may_be_absent() -> None:
    raw = SWTPM_EK[:8] + sized(b"") + SWTPM_EK[42:]
    key = TpmtPublic.parse(raw)
    assert (key.auth_policy, key.template, key.encode()) == (b"", None, raw)


@pytest.mark.parametrize("bit", range(32))
def test_attribute_bits(bit: int) -> None:
    # TPMA_OBJECT: fixedTPM stClear fixedParent sensitiveDataOrigin userWithAuth adminWithPolicy noDA
    # encryptedDuplication restricted decrypt sign x509sign
    defined = {1, 2, 4, 5, 6, 7, 10, 11, 16, 17, 18, 19}
    raw = patched(SWTPM_EK, (4, (1 << bit).to_bytes(4, "big")))
    if bit in defined:
        assert TpmtPublic.parse(raw).attributes == 1 << bit
    else:
        assert refusal(raw) == (4, f"objectAttributes 0x{1 << bit:08x} has an undefined bit")


@pytest.mark.parametrize(
    ("kind", "scheme", "scheme_hash"),
    [
        ("RSA-2048", "0014", "000b"),  # RSASSA
        ("RSA-2048", "0016", "000c"),  # RSAPSS
        ("RSA-2048", "0015", ""),  # RSAES
        ("RSA-2048", "0017", "000d"),  # OAEP
        ("P-256", "0018", "000b"),  # ECDSA
        ("P-256", "0019", "000c"),  # ECDH
    ],
)
def test_schemes_and_their_hashes(kind: str, scheme: str, scheme_hash: str) -> None:
    raw = AREAS[kind][:48] + bytes.fromhex(scheme + scheme_hash) + AREAS[kind][50:]
    key = TpmtPublic.parse(raw)
    assert key.scheme == int(scheme, 16)
    assert key.scheme_hash == (int(scheme_hash, 16) if scheme_hash else None)
    assert key.encode() == raw
    if scheme_hash:
        bad = patched(raw, (50, "0004"))
        assert refusal(bad) == (50, "scheme hash is SHA-1, which is not accepted")


@pytest.mark.parametrize("bits", [128, 192, 256])
def test_aes_key_sizes(bits: int) -> None:
    raw = patched(SWTPM_EK, (44, bits.to_bytes(2, "big")))
    assert TpmtPublic.parse(raw).symmetric_bits == bits


def test_rsa_3072() -> None:
    modulus = rsa.generate_private_key(65537, 3072).public_key().public_numbers().n
    raw = SWTPM_EK[:50] + bytes.fromhex("0c0000000000") + sized(modulus.to_bytes(384, "big"))
    key = TpmtPublic.parse(raw)
    assert key.key == RsaKey(bits=3072, modulus=modulus)
    assert (key.algorithm, key.encode()) == ("RSA-3072", raw)


@pytest.mark.parametrize("name", AREAS)
def test_every_truncation_and_any_extension_is_refused(name: str) -> None:
    raw = AREAS[name]
    for size in range(len(raw)):
        offset, _ = refusal(raw[:size])
        assert offset <= size
    assert refusal(raw + b"\0") == (len(raw), "1 bytes follow the end of the structure")
    assert refusal(raw + raw) == (len(raw), f"{len(raw)} bytes follow the end of the structure")


@pytest.mark.parametrize("name", AREAS)
def test_a_size_prefix_is_recognised(name: str) -> None:
    raw = AREAS[name]
    reason = "starts with its own size: this is a TPM2B_PUBLIC, want it bare"
    assert refusal(sized(raw)) == (0, reason)
    assert TpmtPublic.from_tpm2b(sized(raw)) == TpmtPublic.parse(raw)


@pytest.mark.parametrize(
    ("raw", "structure", "offset", "reason"),
    [
        (b"", "TPM2B_PUBLIC", 0, "TPM2B_PUBLIC size needs 2 bytes, 0 left"),
        (sized(SWTPM_EK)[:-1], "TPM2B_PUBLIC", 2, "TPMT_PUBLIC needs 314 bytes, 313 left"),
        (sized(SWTPM_EK) + b"\0", "TPM2B_PUBLIC", 316, "1 bytes follow the end of the structure"),
        (sized(SWTPM_EK + b"\0"), "TPMT_PUBLIC", 316, "1 bytes follow the end of the structure"),
        (sized(SWTPM_EK[:-1]), "TPMT_PUBLIC", 60, "modulus needs 256 bytes, 255 left"),
        (sized(b""), "TPMT_PUBLIC", 2, "type needs 2 bytes, 0 left"),
        (SWTPM_EK, "TPMT_PUBLIC", 2, "type needs 2 bytes, 1 left"),  # bare: its type read as a size
    ],
)
def test_tpm2b_rules(raw: bytes, structure: str, offset: int, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        TpmtPublic.from_tpm2b(raw)
    error = caught.value
    assert (error.structure, error.offset, error.reason) == (structure, offset, reason)


def test_several_tpm2b_in_a_row() -> None:
    cursor = Cursor("list", sized(P256_EK) + sized(SWTPM_EK))
    assert [TpmtPublic.read_tpm2b(cursor).algorithm for _ in range(2)] == ["P-256", "RSA-2048"]
    cursor.end()


def test_a_key_cut_to_the_size_that_its_type_reads_as_is_no_tpm2b() -> None:
    assert refusal(P256_EK[: 2 + 0x0023]) == (10, "authPolicy needs 32 bytes, 27 left")


def test_bounds() -> None:
    assert refusal(bytes(1024)) == (0, "type 0x0000 is neither RSA nor ECC")
    assert refusal(bytes(1025)) == (1024, "1025 bytes, at most 1024")
    assert refusal(b"") == (0, "type needs 2 bytes, 0 left")
