"""TPMT_PUBLIC: the public area of a TPM key, as an SVSM's manifest carries it.

RSA-2048 and RSA-3072, ECC P-256 and P-384; big-endian. A TPMT_PUBLIC is bare; with a two-byte
size before it, it is a TPM2B_PUBLIC.
Source: TCG TPM 2.0 Library, Part 2, TPMT_PUBLIC (12.2.4); Part 1, Names (16).
"""

import base64
import hashlib
from dataclasses import dataclass
from typing import Self

from app.errors import WireError
from app.wire.cursor import Cursor
from app.wire.tpm import algorithms as alg
from app.wire.tpm import fields
from app.wire.tpm.template import template_name

STRUCTURE = "TPMT_PUBLIC"
MAX_SIZE = 1024  # an RSA-3072 key with a SHA-512 policy has 474 bytes
EXPONENT = 65537
# fixedTPM stClear fixedParent sensitiveDataOrigin userWithAuth adminWithPolicy noDA
# encryptedDuplication restricted decrypt sign x509sign
_DEFINED_ATTRIBUTES = 0x000F0CF6
_RSA_KEY_BITS = (2048, 3072)
_AES_KEY_BITS = (128, 192, 256)
# scheme -> has a hash algorithm after it
_SCHEMES = {
    alg.RSA: {alg.NULL: False, alg.RSASSA: True, alg.RSAPSS: True, alg.RSAES: False, alg.OAEP: True},
    alg.ECC: {alg.NULL: False, alg.ECDSA: True, alg.ECDH: True},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RsaKey:
    """The RSA half of a public area: a modulus of exactly `bits` bits, the exponent 65537."""

    bits: int
    modulus: int
    explicit_exponent: bool = False  # stored as 65537 and not as 0: the Name depends on it

    type = alg.RSA

    @property
    def algorithm(self) -> str:
        """RSA-2048 or RSA-3072."""
        return f"RSA-{self.bits}"

    @classmethod
    def read(cls, cursor: Cursor) -> Self:
        """Read keyBits, exponent and modulus.

        Raises:
            WireError: another size or exponent, a modulus that is even or short.
        """
        bits = fields.u16(cursor, "keyBits")
        if bits not in _RSA_KEY_BITS:
            raise cursor.fail(f"RSA-{bits} is not supported (2048 or 3072)", back=2)
        exponent = fields.u32(cursor, "exponent")
        if exponent not in (0, EXPONENT):
            raise cursor.fail(f"exponent {exponent} is not {EXPONENT}", back=4)
        unique = fields.tpm2b(cursor, "modulus")
        modulus = int.from_bytes(unique, "big")
        if len(unique) != bits // 8 or modulus.bit_length() != bits:
            raise cursor.fail(
                f"modulus has {modulus.bit_length()} bits, keyBits says {bits}", back=len(unique)
            )
        if modulus % 2 == 0:
            raise cursor.fail("modulus is even", back=1)
        return cls(bits=bits, modulus=modulus, explicit_exponent=exponent == EXPONENT)

    def encode(self) -> bytes:
        """The inverse of `read`."""
        size = self.bits // 8
        exponent = EXPONENT if self.explicit_exponent else 0
        return (
            fields.p16(self.bits)
            + exponent.to_bytes(4, "big")
            + fields.to_tpm2b(self.modulus.to_bytes(size, "big"))
        )

    def jwk(self) -> dict[str, str]:
        """RFC 7518, 6.3."""
        return {"kty": "RSA", "n": _b64url(self.modulus, self.bits // 8), "e": _b64url(EXPONENT, 3)}


@dataclass(frozen=True, slots=True, kw_only=True)
class EccKey:
    """The ECC half of a public area: a point of `curve`."""

    curve: alg.Curve
    x: int
    y: int

    type = alg.ECC

    @property
    def algorithm(self) -> str:
        """P-256 or P-384."""
        return self.curve.name

    @classmethod
    def read(cls, cursor: Cursor) -> Self:
        """Read curve, kdf and point.

        Raises:
            WireError: another curve, a kdf, a coordinate of the wrong size, a point off the curve.
        """
        identifier = fields.u16(cursor, "curve")
        curve = alg.CURVES.get(identifier)
        if curve is None:
            raise cursor.fail(f"curve 0x{identifier:04x} is neither P-256 nor P-384", back=2)
        kdf = fields.u16(cursor, "kdf")
        if kdf != alg.NULL:
            raise cursor.fail(f"kdf 0x{kdf:04x} is not null", back=2)
        point = []
        for name in ("x", "y"):
            raw = fields.tpm2b(cursor, name)
            if len(raw) != curve.size:
                raise cursor.fail(
                    f"{name} has {len(raw)} bytes, {curve.name} has {curve.size}", back=len(raw)
                )
            point.append(int.from_bytes(raw, "big"))
        x, y = point
        if not curve.holds(x, y):
            raise cursor.fail(f"the point is not on {curve.name}", back=2 * curve.size + 2)
        return cls(curve=curve, x=x, y=y)

    def encode(self) -> bytes:
        """The inverse of `read`."""
        size = self.curve.size
        point = b"".join(fields.to_tpm2b(part.to_bytes(size, "big")) for part in (self.x, self.y))
        return fields.p16(self.curve.identifier, alg.NULL) + point

    def jwk(self) -> dict[str, str]:
        """RFC 7518, 6.2; coordinates at the full size of the curve."""
        x, y = (_b64url(part, self.curve.size) for part in (self.x, self.y))
        return {"kty": "EC", "crv": self.curve.name, "x": x, "y": y}


_KEYS: dict[int, type[RsaKey] | type[EccKey]] = {key.type: key for key in (RsaKey, EccKey)}


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmtPublic:
    """A TPM public area."""

    name_alg: int
    attributes: int
    auth_policy: bytes
    symmetric_bits: int | None  # AES-CFB of this size for a storage key; None for a signing key
    scheme: int
    scheme_hash: int | None
    key: RsaKey | EccKey

    @property
    def algorithm(self) -> str:
        """What people call it: RSA-2048, RSA-3072, P-256 or P-384."""
        return self.key.algorithm

    @property
    def template(self) -> str | None:
        """The TCG EK template whose public area this is (L-1, L-2, H-1, H-2, H-3, H-6), or None."""
        return template_name(self.encode())

    @property
    def name(self) -> bytes:
        """The TPM Name: nameAlg followed by the digest of the encoded area (34, 50 or 66 bytes)."""
        digest = hashlib.new(alg.HASH_NAMES[self.name_alg], self.encode()).digest()
        return self.name_alg.to_bytes(2, "big") + digest

    def qualified_name(self, parent: bytes) -> bytes:
        """The qualified Name: nameAlg followed by the digest of the parent's and of the Name.

        Args:
            parent: the parent's qualified Name; of a primary key the four bytes of its hierarchy's handle.
        """
        digest = hashlib.new(alg.HASH_NAMES[self.name_alg], parent + self.name).digest()
        return self.name_alg.to_bytes(2, "big") + digest

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read a bare TPMT_PUBLIC that fills `raw` (at most 1024 bytes).

        Raises:
            WireError: another algorithm or size, an undefined attribute bit, a modulus that is
                even or short, an exponent other than 65537, a point off the curve, left-over bytes.
        """
        if len(raw) > MAX_SIZE:
            raise WireError(STRUCTURE, MAX_SIZE, f"{len(raw)} bytes, at most {MAX_SIZE}")
        own_size, inner_type = (int.from_bytes(raw[start : start + 2], "big") for start in (0, 2))
        if own_size == len(raw) - 2 and inner_type in _SCHEMES:
            raise WireError(STRUCTURE, 0, "starts with its own size: this is a TPM2B_PUBLIC, want it bare")
        cursor = Cursor(STRUCTURE, raw)
        public = cls._read(cursor)
        cursor.end()
        return public

    @classmethod
    def read_tpm2b(cls, cursor: Cursor) -> Self:
        """Read a TPM2B_PUBLIC at the cursor: a two-byte size and the area it holds.

        Raises:
            WireError: as `parse`, or a size that does not fit.
        """
        size = fields.u16(cursor, "TPM2B_PUBLIC size")
        base = cursor.offset
        inner = Cursor(STRUCTURE, cursor.take(size, "TPMT_PUBLIC"), base=base)
        public = cls._read(inner)
        inner.end()
        return public

    @classmethod
    def from_tpm2b(cls, raw: bytes) -> Self:
        """Read a TPM2B_PUBLIC that fills `raw`.

        Raises:
            WireError: as `parse`, or a size that does not fit.
        """
        cursor = Cursor("TPM2B_PUBLIC", raw)
        public = cls.read_tpm2b(cursor)
        cursor.end()
        return public

    @classmethod
    def _read(cls, cursor: Cursor) -> Self:
        kind = fields.u16(cursor, "type")
        if kind not in _SCHEMES:
            raise cursor.fail(f"type 0x{kind:04x} is neither RSA nor ECC", back=2)
        name_alg = fields.hash_algorithm(cursor, "nameAlg")
        attributes = fields.u32(cursor, "objectAttributes")
        if attributes & ~_DEFINED_ATTRIBUTES:
            raise cursor.fail(f"objectAttributes 0x{attributes:08x} has an undefined bit", back=4)
        auth_policy = fields.tpm2b(cursor, "authPolicy")
        if auth_policy and len(auth_policy) != alg.HASH_SIZES[name_alg]:
            raise cursor.fail(
                f"authPolicy has {len(auth_policy)} bytes, nameAlg has {alg.HASH_SIZES[name_alg]}",
                back=len(auth_policy),
            )
        symmetric_bits = _read_symmetric(cursor)
        scheme = fields.u16(cursor, "scheme")
        if scheme not in _SCHEMES[kind]:
            raise cursor.fail(f"scheme 0x{scheme:04x} does not fit the key type", back=2)
        scheme_hash = fields.hash_algorithm(cursor, "scheme hash") if _SCHEMES[kind][scheme] else None
        return cls(
            name_alg=name_alg,
            attributes=attributes,
            auth_policy=auth_policy,
            symmetric_bits=symmetric_bits,
            scheme=scheme,
            scheme_hash=scheme_hash,
            key=_KEYS[kind].read(cursor),
        )

    def encode(self) -> bytes:
        """The bare area; the inverse of `parse`."""
        symmetric = fields.p16(alg.NULL)
        if self.symmetric_bits is not None:
            symmetric = fields.p16(alg.AES, self.symmetric_bits, alg.CFB)
        scheme = fields.p16(self.scheme) + (b"" if self.scheme_hash is None else fields.p16(self.scheme_hash))
        return b"".join(
            (
                fields.p16(self.key.type, self.name_alg),
                self.attributes.to_bytes(4, "big"),
                fields.to_tpm2b(self.auth_policy),
                symmetric,
                scheme,
                self.key.encode(),
            )
        )

    def to_tpm2b(self) -> bytes:
        """The area with its two-byte size before it (TPM2B_PUBLIC)."""
        return fields.to_tpm2b(self.encode())

    def jwk(self) -> dict[str, str]:
        """The public key as a JSON Web Key (RFC 7517)."""
        return self.key.jwk()


def _read_symmetric(cursor: Cursor) -> int | None:
    algorithm = fields.u16(cursor, "symmetric algorithm")
    if algorithm == alg.NULL:
        return None
    if algorithm != alg.AES:
        raise cursor.fail(f"symmetric algorithm 0x{algorithm:04x} is neither AES nor null", back=2)
    bits = fields.u16(cursor, "symmetric key size")
    if bits not in _AES_KEY_BITS:
        raise cursor.fail(f"AES has no {bits}-bit key", back=2)
    mode = fields.u16(cursor, "symmetric mode")
    if mode != alg.CFB:
        raise cursor.fail(f"symmetric mode 0x{mode:04x} is not CFB", back=2)
    return bits


def _b64url(number: int, size: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(size, "big")).rstrip(b"=").decode("ascii")
