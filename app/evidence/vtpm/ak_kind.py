"""The attestation keys that an attester can have, as the public areas that make them.

Restricted signing keys: such a key signs nothing that starts like a statement of the TPM, except
what the TPM stated. They are primary keys of the endorsement hierarchy, where the reset counters of
a quote are plain numbers; and primary keys are derived from the TPM's seed, so that the same
template gives the same key for as long as the EK stays.
Sources: TCG TPM 2.0 Library, Part 1, 19.8 (dictionary attacks), 25 (restricted signing) and 36.7
(obfuscated counters); Part 2, TPMA_OBJECT (8.3).
"""

from enum import StrEnum

from app.wire.tpm import algorithms as alg
from app.wire.tpm import fields

# fixedTPM fixedParent sensitiveDataOrigin userWithAuth noDA restricted sign. Without noDA a TPM counts
# every end without TPM2_Shutdown as a wrong password, and after three the key signs nothing for a while:
# a VM that crashed a few times could not be attested. The password is empty: there is none to guess.
ATTRIBUTES = 0x00050472
_RSA_BITS = 2048


class AkKind(StrEnum):
    """Which attestation key; the value is what people call it."""

    P256 = "p256"  # ECDSA with SHA-256
    RSA2048 = "rsa2048"  # RSASSA-PKCS1-v1_5 with SHA-256

    @property
    def template(self) -> bytes:
        """The TPMT_PUBLIC to create it with: 88 or 280 bytes, its `unique` all zeros."""
        return _TEMPLATES[self]


def _template(kind: int, scheme: int, parameters: bytes, unique: bytes) -> bytes:
    return b"".join(
        (
            fields.p16(kind, alg.SHA256),
            ATTRIBUTES.to_bytes(4, "big"),
            fields.to_tpm2b(b""),  # no policy: the empty password is enough to sign
            fields.p16(alg.NULL),  # no symmetric algorithm: it protects nothing
            fields.p16(scheme, alg.SHA256),
            parameters,
            unique,
        )
    )


_TEMPLATES = {
    AkKind.P256: _template(
        alg.ECC,
        alg.ECDSA,
        fields.p16(alg.P256.identifier, alg.NULL),
        2 * fields.to_tpm2b(bytes(alg.P256.size)),
    ),
    AkKind.RSA2048: _template(
        alg.RSA,
        alg.RSASSA,
        fields.p16(_RSA_BITS) + bytes(4),  # exponent: 0 stands for 65537
        fields.to_tpm2b(bytes(_RSA_BITS // 8)),
    ),
}
