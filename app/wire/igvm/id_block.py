"""The SNP ID block of an IGVM file: the digest that its owner signed for, and by which keys.

The firmware launches only what has this digest, and copies FAMILY_ID, IMAGE_ID, GUEST_SVN and the
digests of the keys into every report. Integers are little-endian, R, S and coordinates too.
Sources: IGVM specification (igvm_defs 0.5.0), IGVM_VHS_SNP_ID_BLOCK; AMD 56860 (SEV-SNP Firmware
ABI), ID block, ID authentication information, and the format of ECDSA keys and signatures.
"""

import hashlib
from dataclasses import dataclass
from typing import Self

from app.errors import WireError
from app.wire.cursor import Cursor
from app.wire.igvm.fixed_header import STRUCTURE
from app.wire.igvm.header_types import PREFIX_SIZE, SIZES, HeaderType

DIGEST_SIZE = 48
ECDSA_P384_SHA384 = 1
CURVE_P384 = 2
_INTEGER_SIZE = 72  # of each of R, S and a point's coordinates
_KEY_SIZE = 0x404  # of a key as the firmware hashes it


@dataclass(frozen=True, slots=True)
class EcdsaSignature:
    """R and S."""

    r: int
    s: int

    @classmethod
    def read(cls, cursor: Cursor, what: str) -> Self:
        """144 bytes."""
        r, s = (cursor.integer(_INTEGER_SIZE, what) for _ in range(2))
        return cls(r, s)


@dataclass(frozen=True, slots=True)
class EcdsaKey:
    """A public key: `curve` 2 is P-384, 0 says that there is none."""

    curve: int
    x: int
    y: int

    @classmethod
    def read(cls, cursor: Cursor, what: str) -> Self:
        """152 bytes."""
        curve = cursor.integer(4, f"curve of {what}")
        cursor.zeros(4, f"reserved byte of {what}")
        x, y = (cursor.integer(_INTEGER_SIZE, what) for _ in range(2))
        return cls(curve, x, y)

    def encode(self) -> bytes:
        """The 1028 bytes that the firmware hashes, and that an author signs."""
        coordinates = b"".join(value.to_bytes(_INTEGER_SIZE, "little") for value in (self.x, self.y))
        return (self.curve.to_bytes(4, "little") + coordinates).ljust(_KEY_SIZE, b"\0")

    @property
    def digest(self) -> bytes:
        """What reports call ID_KEY_DIGEST or AUTHOR_KEY_DIGEST: SHA-384 of the encoded key."""
        return hashlib.sha384(self.encode()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpIdBlock:
    """The block, its signature, and the keys; an author, if there is one, vouches for the ID key."""

    offset: int
    mask: int
    author_key_enabled: bool
    launch_digest: bytes
    family_id: bytes
    image_id: bytes
    version: int
    guest_svn: int
    id_key_algorithm: int
    author_key_algorithm: int
    id_key_signature: EcdsaSignature
    id_key: EcdsaKey
    author_key_signature: EcdsaSignature
    author_key: EcdsaKey

    @classmethod
    def read(cls, raw: bytes, offset: int) -> Self:
        """Read the header whose prefix stands at `offset`.

        Raises:
            WireError: a flag that is neither 0 nor 1, or reserved bytes that are not zero.
        """
        start = offset + PREFIX_SIZE
        cursor = Cursor(STRUCTURE, raw[start : start + SIZES[HeaderType.SNP_ID_BLOCK]], base=start)
        mask = cursor.integer(4, "mask")
        author = cursor.integer(1, "author key flag")
        if author not in {0, 1}:
            raise WireError(STRUCTURE, start + 4, f"author key flag {author}, want 0 or 1")
        cursor.zeros(3, "reserved byte of the ID block")
        digest = cursor.take(DIGEST_SIZE, "launch digest")
        family_id, image_id = (cursor.take(16, what) for what in ("FAMILY_ID", "IMAGE_ID"))
        version, svn, id_algorithm, author_algorithm = (cursor.integer(4, "ID block") for _ in range(4))
        return cls(
            offset=offset,
            mask=mask,
            author_key_enabled=bool(author),
            launch_digest=digest,
            family_id=family_id,
            image_id=image_id,
            version=version,
            guest_svn=svn,
            id_key_algorithm=id_algorithm,
            author_key_algorithm=author_algorithm,
            id_key_signature=EcdsaSignature.read(cursor, "ID block signature"),
            id_key=EcdsaKey.read(cursor, "ID key"),
            author_key_signature=EcdsaSignature.read(cursor, "ID key signature"),
            author_key=EcdsaKey.read(cursor, "author key"),
        )

    def signed_bytes(self, policy: int) -> bytes:
        """The 96 bytes of the firmware's ID_BLOCK under a guest policy, which the ID key signs."""
        numbers = self.version.to_bytes(4, "little") + self.guest_svn.to_bytes(4, "little")
        return self.launch_digest + self.family_id + self.image_id + numbers + policy.to_bytes(8, "little")
