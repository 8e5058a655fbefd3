"""KDFa and KDFe: how a TPM makes keys out of a seed, and out of a Diffie-Hellman secret.

Source: TCG TPM 2.0 Library, Part 1, 11.4.10.2 (KDFa) and 11.4.10.3 (KDFe). Labels are given without
their terminating zero byte, which both functions add.
"""

import hashlib
import hmac
from collections.abc import Callable

from app.wire.tpm import algorithms as alg


def kdfa(hash_alg: int, key: bytes, label: bytes, context_u: bytes, context_v: bytes, bits: int) -> bytes:
    """SP 800-108 in counter mode with HMAC: `bits` bits as whole bytes, unused high bits zero."""
    name = alg.HASH_NAMES[hash_alg]
    tail = label + b"\0" + context_u + context_v + bits.to_bytes(4, "big")
    return _stream(lambda counter: hmac.digest(key, counter + tail, name), bits)


def kdfe(hash_alg: int, z: bytes, label: bytes, party_u: bytes, party_v: bytes, bits: int) -> bytes:
    """SP 800-56A's concatenation KDF: `bits` bits as whole bytes, unused high bits zero.

    `z`, `party_u` and `party_v` are x coordinates at the full size of the curve.
    """
    name = alg.HASH_NAMES[hash_alg]
    tail = z + label + b"\0" + party_u + party_v
    return _stream(lambda counter: hashlib.new(name, counter + tail).digest(), bits)


def _stream(block: Callable[[bytes], bytes], bits: int) -> bytes:
    size = (bits + 7) // 8
    stream = b""
    counter = 0
    while len(stream) < size:
        counter += 1
        stream += block(counter.to_bytes(4, "big"))
    number = int.from_bytes(stream[:size], "big") & ((1 << bits) - 1)
    return number.to_bytes(size, "big")
