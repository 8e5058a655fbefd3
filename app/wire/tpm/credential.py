"""A credential challenge: what only the TPM that holds an EK, beside a key of a given Name, can open.

Source: TCG TPM 2.0 Library, Part 2, TPMS_ID_OBJECT (12.4.2) and TPM2B_ENCRYPTED_SECRET (11.4.3);
Part 1, 24. The file form is tpm2-tools' own (lib/files.c).
"""

from dataclasses import dataclass
from typing import Self

from app.wire.cursor import Cursor
from app.wire.tpm import algorithms as alg
from app.wire.tpm import fields

ID_OBJECT = "TPM2B_ID_OBJECT"
SEED = "TPM2B_ENCRYPTED_SECRET"
TOOLS_FILE = "credential file"
_TOOLS_MAGIC = 0xBADCC0DE
_TOOLS_VERSION = 1
_RSA_SIZES = (256, 384)  # RSA-2048, RSA-3072
_SIZE_FIELD = 2
_MAX_POINT = 2 * (_SIZE_FIELD + alg.P384.size)


@dataclass(frozen=True, slots=True)
class IdObject:
    """TPMS_ID_OBJECT: an HMAC, and an encrypted TPM2B_DIGEST that holds the secret."""

    integrity: bytes  # 32, 48 or 64, by the EK's nameAlg
    encrypted_identity: bytes  # 2 more than the secret, which has 1 to len(integrity) bytes

    @classmethod
    def read_tpm2b(cls, cursor: Cursor) -> Self:
        """Read a TPM2B_ID_OBJECT at the cursor.

        Raises:
            WireError: an HMAC that has the size of no known hash, an identity that holds no
                secret or a longer one than the HMAC.
        """
        size = fields.u16(cursor, "TPMS_ID_OBJECT size")
        base = cursor.offset
        inner = Cursor(cursor.structure, cursor.take(size, "TPMS_ID_OBJECT"), base=base)
        integrity = fields.digest(inner, "integrityHMAC")
        least, most = _SIZE_FIELD + 1, _SIZE_FIELD + len(integrity)
        size = inner.remaining
        if not least <= size <= most:
            raise inner.fail(f"encIdentity has {size} bytes, want {least} to {most}")
        return cls(integrity, inner.take(size, "encIdentity"))

    def to_tpm2b(self) -> bytes:
        """The inverse of `read_tpm2b`."""
        return fields.to_tpm2b(fields.to_tpm2b(self.integrity) + self.encrypted_identity)


def check_secret(cursor: Cursor) -> bytes:
    """The rest of the cursor, if it has the shape of a seed that is encrypted for an EK.

    That is an RSA-2048 or RSA-3072 cipher text, or a TPMS_ECC_POINT; whether the point is on a curve
    is for the TPM to say.

    Raises:
        WireError: another size, a coordinate that is empty or larger than P-384's.
    """
    size = cursor.remaining
    secret = cursor.take(size, "secret")
    if size in _RSA_SIZES:
        return secret
    if size > _MAX_POINT:
        raise cursor.fail(f"secret has {size} bytes, want 256, 384 or a point", back=size)
    point = Cursor(cursor.structure, secret, base=cursor.offset - size)
    for what in ("x", "y"):
        part = fields.tpm2b(point, what)
        if not 1 <= len(part) <= alg.P384.size:
            raise point.fail(f"{what} has {len(part)} bytes, want 1 to {alg.P384.size}", back=len(part))
    point.end()
    return secret


def _read_secret(cursor: Cursor) -> bytes:
    size = fields.u16(cursor, "secret size")
    base = cursor.offset
    return check_secret(Cursor(cursor.structure, cursor.take(size, "secret"), base=base))


@dataclass(frozen=True, slots=True)
class CredentialBlob:
    """What TPM2_ActivateCredential takes: the ID object, and the seed encrypted for the EK."""

    id_object: IdObject
    encrypted_secret: bytes  # RSA: 256 or 384; ECC: TPM2B x || TPM2B y of the ephemeral point

    @classmethod
    def parse(cls, id_object: bytes, encrypted_secret: bytes) -> Self:
        """Read a TPM2B_ID_OBJECT and a TPM2B_ENCRYPTED_SECRET, each filling its bytes.

        Raises:
            WireError: as `IdObject.read_tpm2b` and `check_secret`, or left-over bytes.
        """
        first, second = Cursor(ID_OBJECT, id_object), Cursor(SEED, encrypted_secret)
        blob = cls(IdObject.read_tpm2b(first), _read_secret(second))
        first.end()
        second.end()
        return blob

    def to_tpm2bs(self) -> tuple[bytes, bytes]:
        """The inverse of `parse`."""
        return self.id_object.to_tpm2b(), fields.to_tpm2b(self.encrypted_secret)

    @classmethod
    def from_tools_file(cls, raw: bytes) -> Self:
        """Read what tpm2_makecredential writes: magic, version and both structures (336 bytes for RSA).

        Raises:
            WireError: another magic number or version, and as `parse`.
        """
        cursor = Cursor(TOOLS_FILE, raw)
        magic = fields.u32(cursor, "magic")
        if magic != _TOOLS_MAGIC:
            raise cursor.fail(f"magic 0x{magic:08x} is not 0x{_TOOLS_MAGIC:08x}", back=4)
        version = fields.u32(cursor, "version")
        if version != _TOOLS_VERSION:
            raise cursor.fail(f"version {version} is not {_TOOLS_VERSION}", back=4)
        blob = cls(IdObject.read_tpm2b(cursor), _read_secret(cursor))
        cursor.end()
        return blob

    def to_tools_file(self) -> bytes:
        """The inverse of `from_tools_file`; what tpm2_activatecredential reads."""
        head = _TOOLS_MAGIC.to_bytes(4, "big") + _TOOLS_VERSION.to_bytes(4, "big")
        return head + b"".join(self.to_tpm2bs())
