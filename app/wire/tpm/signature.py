"""TPMT_SIGNATURE: a signature or an HMAC made by a TPM, with its scheme and hash.

Source: TCG TPM 2.0 Library, Part 2, TPMT_SIGNATURE (11.3.4).
"""

from dataclasses import dataclass
from typing import Self, TypeAlias

from app.wire.cursor import Cursor
from app.wire.tpm import algorithms as alg
from app.wire.tpm import fields

STRUCTURE = "TPMT_SIGNATURE"
_RSA_SIZES = (256, 384)  # RSA-2048, RSA-3072
_MAX_INTEGER = alg.P384.size


@dataclass(frozen=True, slots=True)
class RsaSignature:
    """RSASSA or RSAPSS: as many bytes as the modulus, 256 or 384."""

    scheme: int
    hash_alg: int
    signature: bytes

    @classmethod
    def read(cls, cursor: Cursor, scheme: int, hash_alg: int) -> Self:
        """Read the signature after scheme and hash.

        Raises:
            WireError: the size of no key that is accepted.
        """
        signature = fields.tpm2b(cursor, "signature")
        if len(signature) not in _RSA_SIZES:
            raise cursor.fail(f"signature has {len(signature)} bytes, want 256 or 384", back=len(signature))
        return cls(scheme, hash_alg, signature)

    def encode(self) -> bytes:
        """The inverse of `parse_signature`."""
        return fields.p16(self.scheme, self.hash_alg) + fields.to_tpm2b(self.signature)


@dataclass(frozen=True, slots=True)
class EcdsaSignature:
    """ECDSA: r and s as the TPM wrote them, big-endian.

    TPMs differ: some write both at the size of the curve, some drop leading zeros. 1 to 48 bytes.
    """

    hash_alg: int
    r: bytes
    s: bytes

    scheme = alg.ECDSA

    @classmethod
    def read(cls, cursor: Cursor, _scheme: int, hash_alg: int) -> Self:
        """Read r and s after scheme and hash.

        Raises:
            WireError: an integer that is empty or larger than P-384 has room for.
        """
        integers = []
        for what in ("r", "s"):
            value = fields.tpm2b(cursor, what)
            if not 1 <= len(value) <= _MAX_INTEGER:
                raise cursor.fail(f"{what} has {len(value)} bytes, want 1 to {_MAX_INTEGER}", back=len(value))
            integers.append(value)
        return cls(hash_alg, *integers)

    def encode(self) -> bytes:
        """The inverse of `parse_signature`."""
        return b"".join(
            (fields.p16(self.scheme, self.hash_alg), fields.to_tpm2b(self.r), fields.to_tpm2b(self.s))
        )


@dataclass(frozen=True, slots=True)
class HmacSignature:
    """HMAC: a digest without a size before it, as many bytes as the hash has."""

    hash_alg: int
    digest: bytes

    scheme = alg.HMAC

    @classmethod
    def read(cls, cursor: Cursor, _scheme: int, hash_alg: int) -> Self:
        """Read the digest after scheme and hash."""
        return cls(hash_alg, cursor.take(alg.HASH_SIZES[hash_alg], "digest"))

    def encode(self) -> bytes:
        """The inverse of `parse_signature`."""
        return fields.p16(self.scheme, self.hash_alg) + self.digest


TpmtSignature: TypeAlias = RsaSignature | EcdsaSignature | HmacSignature

_KINDS: dict[int, type[RsaSignature] | type[EcdsaSignature] | type[HmacSignature]] = {
    alg.RSASSA: RsaSignature,
    alg.RSAPSS: RsaSignature,
    alg.ECDSA: EcdsaSignature,
    alg.HMAC: HmacSignature,
}


def parse_signature(raw: bytes) -> TpmtSignature:
    """Read a TPMT_SIGNATURE that fills `raw` (72 bytes for P-256, 262 for RSA-2048, 36 for an HMAC).

    Raises:
        WireError: another scheme or hash (SHA-1 by name), a field out of its bounds, left-over bytes.
    """
    cursor = Cursor(STRUCTURE, raw)
    scheme = fields.u16(cursor, "scheme")
    if scheme not in _KINDS:
        raise cursor.fail(f"scheme 0x{scheme:04x} is not RSASSA, RSAPSS, ECDSA or HMAC", back=2)
    hash_alg = fields.hash_algorithm(cursor, "hash")
    signature = _KINDS[scheme].read(cursor, scheme, hash_alg)
    cursor.end()
    return signature
