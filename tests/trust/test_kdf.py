import hashlib
import hmac
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.trust.kdf import kdfa, kdfe
from tests.wire.tpm.statements import CREDENTIAL_KEYS, CREDENTIAL_NAME, CREDENTIAL_SEED

NAMES = {0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512"}
HASHES = st.sampled_from(sorted(NAMES))
BITS = st.integers(1, 128).map(lambda size: 8 * size)
PART = st.binary(max_size=80)


def test_the_keys_that_a_tpm_derives_from_a_seed() -> None:
    storage = kdfa(0x000B, CREDENTIAL_SEED, b"STORAGE", CREDENTIAL_NAME, b"", 128)
    integrity = kdfa(0x000B, CREDENTIAL_SEED, b"INTEGRITY", b"", b"", 256)
    assert (storage.hex(), integrity.hex()) == CREDENTIAL_KEYS


@given(hash_alg=HASHES, key=st.binary(min_size=1, max_size=80), label=PART, u=PART, v=PART, bits=BITS)
@settings(deadline=None)
def test_kdfa_by_hand(hash_alg: int, key: bytes, label: bytes, u: bytes, v: bytes, bits: int) -> None:
    tail = label + b"\x00" + u + v + bits.to_bytes(4, "big")
    blocks = ceil(bits / 256)
    stream = b"".join(
        hmac.digest(key, counter.to_bytes(4, "big") + tail, NAMES[hash_alg])
        for counter in range(1, blocks + 1)
    )
    assert kdfa(hash_alg, key, label, u, v, bits) == stream[: bits // 8]


@given(hash_alg=HASHES, z=st.binary(min_size=1, max_size=66), label=PART, u=PART, v=PART, bits=BITS)
@settings(deadline=None)
def test_kdfe_by_hand(hash_alg: int, z: bytes, label: bytes, u: bytes, v: bytes, bits: int) -> None:
    tail = z + label + b"\x00" + u + v
    blocks = ceil(bits / 256)
    stream = b"".join(
        hashlib.new(NAMES[hash_alg], counter.to_bytes(4, "big") + tail).digest()
        for counter in range(1, blocks + 1)
    )
    assert kdfe(hash_alg, z, label, u, v, bits) == stream[: bits // 8]


@pytest.mark.parametrize("bits", [128, 256, 384, 512, 1000])
def test_length_in_bits(bits: int) -> None:
    assert len(kdfa(0x000B, b"k", b"L", b"", b"", bits)) == bits // 8
    assert len(kdfe(0x000B, b"z", b"L", b"", b"", bits)) == bits // 8
