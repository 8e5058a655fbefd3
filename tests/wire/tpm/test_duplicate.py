import hashlib

import pytest

from app.errors import WireError
from app.wire.tpm.duplicate import ImportBlob, encode_public, encode_sensitive
from tests.wire.samples import patched, sized
from tests.wire.tpm.statements import DUPLICATE, HMAC_KEY, POINT

SEED = bytes(256)


def refusal(public: bytes, duplicate: bytes, seed: bytes) -> tuple[str, int, str]:
    with pytest.raises(WireError) as caught:
        ImportBlob.parse(public, duplicate, seed)
    return caught.value.structure, caught.value.offset, caught.value.reason


def test_encodings() -> None:
    assert encode_public(bytes(range(32))) == HMAC_KEY
    assert len(HMAC_KEY) == 48
    sensitive = encode_sensitive(b"\x0f" * 32, b"\x1e" * 32)
    assert sensitive.hex() == "0048000800000020" + "0f" * 32 + "0020" + "1e" * 32


@pytest.mark.parametrize("seed", [SEED, bytes(384), POINT])
@pytest.mark.parametrize("hmac_size", [32, 48, 64])
def test_parts(seed: bytes, hmac_size: int) -> None:
    duplicate = sized(bytes(hmac_size)) + bytes(74)
    blob = ImportBlob.parse(HMAC_KEY, duplicate, seed)
    assert blob == ImportBlob(HMAC_KEY, duplicate, seed)
    assert blob.name == b"\x00\x0b" + hashlib.sha256(HMAC_KEY).digest()
    assert blob.to_tpm2bs() == (sized(HMAC_KEY), sized(duplicate), sized(seed))


OTHER = "this is not the area of a restricted HMAC-SHA-256 key"
PUBLIC_FAULTS = [
    (patched(HMAC_KEY, (0, "0001")), 1, OTHER),
    (patched(HMAC_KEY, (2, "000c")), 3, OTHER),
    (patched(HMAC_KEY, (4, "00040440")), 5, OTHER),  # not a signing key
    (patched(HMAC_KEY, (4, "00050442")), 7, OTHER),  # fixedTPM
    (patched(HMAC_KEY, (4, "00040440")), 5, OTHER),  # not restricted
    (patched(HMAC_KEY, (8, "0020")), 9, OTHER),  # a policy
    (patched(HMAC_KEY, (10, "0010")), 11, OTHER),  # no scheme
    (patched(HMAC_KEY, (12, "0004")), 13, OTHER),  # SHA-1
    (patched(HMAC_KEY, (14, "001f")), 16, "unique has 31 bytes, want 32"),
    (patched(HMAC_KEY, (14, "ffff")), 16, "unique needs 65535 bytes, 32 left"),
    (HMAC_KEY + b"\0", 48, "1 bytes follow the end of the structure"),
    (sized(HMAC_KEY), 1, OTHER),  # with its size before it
]


@pytest.mark.parametrize(("raw", "offset", "reason"), PUBLIC_FAULTS)
def test_public_rules(raw: bytes, offset: int, reason: str) -> None:
    assert refusal(raw, DUPLICATE, SEED) == ("TPMT_PUBLIC of an HMAC key", offset, reason)


@pytest.mark.parametrize(
    ("raw", "offset", "reason"),
    [
        (sized(bytes(20)) + bytes(74), 2, "integrity has 20 bytes, want 32, 48 or 64"),
        (b"\xff\xff", 2, "integrity needs 65535 bytes, 0 left"),
        (DUPLICATE + b"\0", 108, "1 bytes follow the end of the structure"),
        (DUPLICATE[:-1], 34, "encrypted sensitive area needs 74 bytes, 73 left"),
        (sized(DUPLICATE), 2, "integrity has 108 bytes, want 32, 48 or 64"),
    ],
)
def test_duplicate_rules(raw: bytes, offset: int, reason: str) -> None:
    assert refusal(HMAC_KEY, raw, SEED) == ("duplicate", offset, reason)


@pytest.mark.parametrize(
    ("raw", "offset", "reason"),
    [
        (b"", 0, "x size needs 2 bytes, 0 left"),
        (bytes(257), 0, "secret has 257 bytes, want 256, 384 or a point"),
        (bytes(70000), 0, "secret has 70000 bytes, want 256, 384 or a point"),
        (POINT[:-1], 36, "y needs 32 bytes, 31 left"),
        (POINT + b"\0", 68, "1 bytes follow the end of the structure"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_seed_rules(raw: bytes, offset: int, reason: str) -> None:
    assert refusal(HMAC_KEY, DUPLICATE, raw) == ("TPM2B_ENCRYPTED_SECRET", offset, reason)


def test_every_truncation_is_refused() -> None:
    for size in range(len(HMAC_KEY)):
        assert refusal(HMAC_KEY[:size], DUPLICATE, SEED)[1] <= size
    for size in range(len(DUPLICATE)):
        assert refusal(HMAC_KEY, DUPLICATE[:size], SEED)[1] <= size
    for size in range(len(POINT)):
        assert refusal(HMAC_KEY, DUPLICATE, POINT[:size])[1] <= size
