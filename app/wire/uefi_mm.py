"""The UEFI MM service manifest: 8 bytes about how UEFI variables are kept.

Source: svsm kernel/src/protocols (UEFI MM attestation data, version 0).
"""

from dataclasses import dataclass
from typing import Self

from app.errors import UnsupportedVersionError, WireError
from app.wire.cursor import Cursor

STRUCTURE = "UEFI MM manifest"
SIZE = 8
VERSION = 0


@dataclass(frozen=True, slots=True)
class UefiMmManifest:
    """The flag word; bits beyond the three named ones are kept."""

    flags: int

    @property
    def persistent(self) -> bool:
        """Non-volatile variables survive a reboot."""
        return bool(self.flags & 1)

    @property
    def secure_boot(self) -> bool:
        """Secure Boot is enabled: a platform key is enrolled."""
        return bool(self.flags & 2)

    @property
    def updatable(self) -> bool:
        """The guest may update db and dbx."""
        return bool(self.flags & 4)

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read exactly 8 bytes: u32 version 0, u32 flags, little-endian.

        Raises:
            UnsupportedVersionError: a version other than 0.
            WireError: wrong length.
        """
        if len(raw) != SIZE:
            raise WireError(STRUCTURE, min(len(raw), SIZE), f"{len(raw)} bytes, want {SIZE}")
        cursor = Cursor(STRUCTURE, raw)
        version = cursor.integer(4, "version")
        if version != VERSION:
            raise UnsupportedVersionError(STRUCTURE, 0, version, (VERSION,))
        return cls(cursor.integer(4, "flags"))

    def encode(self) -> bytes:
        """The 8 bytes.

        Raises:
            WireError: the flags do not fit 32 bits.
        """
        if not 0 <= self.flags < 1 << 32:
            raise WireError(STRUCTURE, 4, "flags do not fit 32 bits")
        return VERSION.to_bytes(4, "little") + self.flags.to_bytes(4, "little")
