"""A key for a TPM to import: an HMAC key wrapped for an EK, with which the TPM then certifies its AK.

The three byte strings are bare, as in go-tpm-tools' ImportBlob; TPM2_Import takes each with its size
before it.
Sources: TCG TPM 2.0 Library, Part 1, 23.3 (duplication); Part 2, TPMT_PUBLIC (12.2.4), TPM2B_PRIVATE
(12.3.7); TCG EK-Based Key Attestation with TPM Firmware Version.
"""

import hashlib
from dataclasses import dataclass
from typing import Self

from app.errors import WireError
from app.wire.cursor import Cursor
from app.wire.tpm import algorithms as alg
from app.wire.tpm import fields
from app.wire.tpm.credential import SEED, check_secret

PUBLIC = "TPMT_PUBLIC of an HMAC key"
DUPLICATE = "duplicate"
KEY_SIZE = 32
UNIQUE_SIZE = 32
# userWithAuth noDA restricted sign: neither fixedTPM nor fixedParent, or it could not be imported
_ATTRIBUTES = 0x00050440
# type, nameAlg, attributes, no policy, scheme and its hash; only `unique` is free
_PUBLIC_PREFIX = b"".join(
    (
        fields.p16(alg.KEYEDHASH, alg.SHA256),
        _ATTRIBUTES.to_bytes(4, "big"),
        fields.to_tpm2b(b""),
        fields.p16(alg.HMAC, alg.SHA256),
    )
)
_SENSITIVE_SIZE = 2 + 2 + (2 + alg.HASH_SIZES[alg.SHA256]) + (2 + KEY_SIZE)


def encode_public(unique: bytes) -> bytes:
    """The public area of an HMAC-SHA-256 key that signs nothing but the TPM's own statements (48 bytes)."""
    return _PUBLIC_PREFIX + fields.to_tpm2b(unique)


def public_name(public_area: bytes) -> bytes:
    """The Name of a key with such an area (34 bytes)."""
    return fields.p16(alg.SHA256) + hashlib.sha256(public_area).digest()


def encode_sensitive(obfuscation: bytes, key: bytes) -> bytes:
    """TPM2B_SENSITIVE of such a key without a password (74 bytes); unique = SHA-256(obfuscation || key)."""
    parts = (fields.p16(alg.KEYEDHASH), *map(fields.to_tpm2b, (b"", obfuscation, key)))
    return fields.to_tpm2b(b"".join(parts))


@dataclass(frozen=True, slots=True)
class ImportBlob:
    """What TPM2_Import takes, each part without its size."""

    public_area: bytes  # 48: TPMT_PUBLIC of the HMAC key
    duplicate: bytes  # TPM2B integrity (by the EK's nameAlg) || 74 encrypted bytes: 108 for SHA-256
    encrypted_seed: bytes  # as CredentialBlob.encrypted_secret

    @property
    def name(self) -> bytes:
        """The Name of the HMAC key (34 bytes)."""
        return public_name(self.public_area)

    @classmethod
    def parse(cls, public_area: bytes, duplicate: bytes, encrypted_seed: bytes) -> Self:
        """Read the parts, each filling its bytes.

        Raises:
            WireError: a public area that is not that of a restricted HMAC-SHA-256 key, an HMAC that has
                the size of no known hash, an encrypted part of another size, a seed that is neither an
                RSA cipher text nor a point, left-over bytes.
        """
        _check_public(Cursor(PUBLIC, public_area))
        cursor = Cursor(DUPLICATE, duplicate)
        fields.digest(cursor, "integrity")
        cursor.take(2 + _SENSITIVE_SIZE, "encrypted sensitive area")
        cursor.end()
        check_secret(Cursor(SEED, encrypted_seed))
        return cls(public_area, duplicate, encrypted_seed)

    def to_tpm2bs(self) -> tuple[bytes, bytes, bytes]:
        """TPM2B_PUBLIC, TPM2B_PRIVATE and TPM2B_ENCRYPTED_SECRET, as TPM2_Import takes them."""
        public_area, duplicate, seed = map(
            fields.to_tpm2b, (self.public_area, self.duplicate, self.encrypted_seed)
        )
        return public_area, duplicate, seed


def _check_public(cursor: Cursor) -> None:
    prefix = cursor.take(len(_PUBLIC_PREFIX), "public area")
    for offset, (byte, want) in enumerate(zip(prefix, _PUBLIC_PREFIX, strict=True)):
        if byte != want:
            raise WireError(cursor.structure, offset, "this is not the area of a restricted HMAC-SHA-256 key")
    unique = fields.tpm2b(cursor, "unique")
    if len(unique) != UNIQUE_SIZE:
        raise cursor.fail(f"unique has {len(unique)} bytes, want {UNIQUE_SIZE}", back=len(unique))
    cursor.end()
