import pytest

from app.errors import WireError
from app.wire.tpm.signature import EcdsaSignature, HmacSignature, RsaSignature, parse_signature
from tests.wire.samples import patched, sized
from tests.wire.tpm.statements import ECDSA, HMAC, QUOTE_SIGNATURE, RSAPSS, RSASSA

SIGNATURES = {"quote": QUOTE_SIGNATURE, "rsassa": RSASSA, "rsapss": RSAPSS, "ecdsa": ECDSA, "hmac": HMAC}


def refusal(raw: bytes) -> tuple[int, str]:
    with pytest.raises(WireError) as caught:
        parse_signature(raw)
    assert caught.value.structure == "TPMT_SIGNATURE"
    return caught.value.offset, caught.value.reason


def test_the_signature_of_a_software_tpm() -> None:
    assert parse_signature(QUOTE_SIGNATURE) == EcdsaSignature(
        0x000B,
        bytes.fromhex("498340473cd7e41a6208ab608b82af77d8bf6b4ade0094748b349d7a1e209c9a"),
        bytes.fromhex("e394076ad69bd3e9517cddb7c5b9955557792e9263da2ec9149029cd89d4f5df"),
    )


def test_kinds() -> None:
    assert parse_signature(RSASSA) == RsaSignature(0x0014, 0x000B, bytes(range(256)))
    assert parse_signature(RSAPSS) == RsaSignature(0x0016, 0x000C, bytes(384))
    assert parse_signature(ECDSA) == EcdsaSignature(0x000D, bytes(range(1, 49)), b"\x07")
    assert parse_signature(HMAC) == HmacSignature(0x000B, bytes(range(32)))
    assert {parse_signature(raw).scheme for raw in SIGNATURES.values()} == {0x14, 0x16, 0x18, 0x05}


@pytest.mark.parametrize(("hash_alg", "size"), [("000b", 32), ("000c", 48), ("000d", 64)])
def test_an_hmac_has_the_size_of_its_hash(hash_alg: str, size: int) -> None:
    raw = bytes.fromhex("0005" + hash_alg) + bytes(size)
    signature = parse_signature(raw)
    assert isinstance(signature, HmacSignature)
    assert (signature.digest, signature.encode()) == (bytes(size), raw)


FAULTS = [
    (patched(RSASSA, (0, "0010")), 0, "scheme 0x0010 is not RSASSA, RSAPSS, ECDSA or HMAC"),
    (patched(RSASSA, (0, "001a")), 0, "scheme 0x001a is not RSASSA, RSAPSS, ECDSA or HMAC"),
    (patched(RSASSA, (2, "0004")), 2, "hash is SHA-1, which is not accepted"),
    (patched(ECDSA, (2, "0004")), 2, "hash is SHA-1, which is not accepted"),
    (patched(HMAC, (2, "0004")), 2, "hash is SHA-1, which is not accepted"),
    (patched(HMAC, (2, "0012")), 2, "hash 0x0012 is not SHA-256, SHA-384 or SHA-512"),
    (bytes.fromhex("0014000b") + sized(bytes(255)), 6, "signature has 255 bytes, want 256 or 384"),
    (bytes.fromhex("0014000b") + sized(bytes(257)), 6, "signature has 257 bytes, want 256 or 384"),
    (bytes.fromhex("0016000b") + sized(bytes(512)), 6, "signature has 512 bytes, want 256 or 384"),
    (bytes.fromhex("0016000bffff"), 6, "signature needs 65535 bytes, 0 left"),
    (bytes.fromhex("0018000b0000") + sized(b"\1"), 6, "r has 0 bytes, want 1 to 48"),
    (bytes.fromhex("0018000b") + sized(b"\1") + sized(b""), 9, "s has 0 bytes, want 1 to 48"),
    (bytes.fromhex("0018000b") + sized(bytes(49)) + sized(b"\1"), 6, "r has 49 bytes, want 1 to 48"),
    (bytes.fromhex("0018000b") + sized(b"\1") + sized(bytes(49)), 9, "s has 49 bytes, want 1 to 48"),
    (bytes.fromhex("0005000c") + bytes(47), 4, "digest needs 48 bytes, 47 left"),
]


@pytest.mark.parametrize(("raw", "offset", "reason"), FAULTS)
def test_rules(raw: bytes, offset: int, reason: str) -> None:
    assert refusal(raw) == (offset, reason)


@pytest.mark.parametrize("name", SIGNATURES)
def test_every_truncation_and_any_extension_is_refused(name: str) -> None:
    raw = SIGNATURES[name]
    assert parse_signature(raw).encode() == raw
    for size in range(len(raw)):
        offset, _ = refusal(raw[:size])
        assert offset <= size
    assert refusal(raw + b"\0") == (len(raw), "1 bytes follow the end of the structure")
