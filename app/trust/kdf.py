"""KDFa and KDFe: how a TPM makes keys out of a seed, and out of a Diffie-Hellman secret.

Both are NIST constructions with the TPM's own choice of what is hashed; labels are given without
the zero byte that ends them.
Sources: TCG TPM 2.0 Library, Part 1, 11.4.10.2 (KDFa) and 11.4.10.3 (KDFe); NIST SP 800-108, 4.1
(counter mode) and SP 800-56A, 5.8.2 (concatenation).
"""

from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

from app.trust.tpm_key import HASHES

_COUNTER_SIZE = 4
_LENGTH_SIZE = 4


def kdfa(hash_alg: int, key: bytes, label: bytes, context_u: bytes, context_v: bytes, bits: int) -> bytes:
    """`bits` bits, a multiple of 8, out of a seed: counter || label || 00 || contexts || bits, by HMAC."""
    return KBKDFHMAC(
        algorithm=HASHES[hash_alg],
        mode=Mode.CounterMode,
        length=bits // 8,
        rlen=_COUNTER_SIZE,
        llen=_LENGTH_SIZE,
        location=CounterLocation.BeforeFixed,
        label=label,
        context=context_u + context_v,
        fixed=None,
    ).derive(key)


def kdfe(hash_alg: int, z: bytes, label: bytes, party_u: bytes, party_v: bytes, bits: int) -> bytes:
    """`bits` bits, a multiple of 8, out of a shared secret: counter || z || label || 00 || parties, hashed.

    `z`, `party_u` and `party_v` are x coordinates at the full size of the curve.
    """
    return ConcatKDFHash(HASHES[hash_alg], bits // 8, label + b"\0" + party_u + party_v).derive(z)
