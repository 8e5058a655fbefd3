"""UEFI_VARIABLE_DATA: a UEFI variable as firmware logs and measures it.

Source: TCG PC Client Platform Firmware Profile, Measuring UEFI Variables; UEFI Specification,
Globally Defined Variables. Little-endian; names are UTF-16.
"""

from dataclasses import dataclass
from typing import Self
from uuid import UUID

from app.errors import WireError
from app.wire import guid
from app.wire.cursor import Cursor

STRUCTURE = "UEFI_VARIABLE_DATA"
_NAME_OFFSET = 32

GLOBAL_VARIABLE = UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")  # SecureBoot, PK, KEK, Boot####
IMAGE_SECURITY_DATABASE = UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")  # db, dbx


@dataclass(frozen=True, slots=True)
class UefiVariable:
    """A variable; `data` is empty where the firmware found none of this name."""

    vendor: UUID
    name: str
    data: bytes

    @property
    def key(self) -> tuple[UUID, str]:
        """What tells a variable from others: names are the vendor's own."""
        return self.vendor, self.name

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read GUID, length of the name (in characters), length of the data, name and data: no more.

        Raises:
            WireError: too short, left-over bytes, a name that is not UTF-16.
        """
        cursor = Cursor(STRUCTURE, raw)
        vendor = UUID(bytes_le=cursor.take(guid.SIZE, "vendor GUID"))
        characters = cursor.integer(8, "length of the name")
        size = cursor.integer(8, "length of the data")
        encoded = cursor.take(2 * characters, "name")
        try:
            name = encoded.decode("utf-16-le")
        except UnicodeDecodeError as error:
            raise cursor.fail("the name is not UTF-16", back=len(encoded)) from error
        data = cursor.take(size, "data")
        cursor.end()
        return cls(vendor, name, data)

    def encode(self) -> bytes:
        """The inverse of `parse`.

        Raises:
            WireError: a name that UTF-16 cannot hold.
        """
        try:
            name = self.name.encode("utf-16-le")
        except UnicodeEncodeError as error:
            raise WireError(STRUCTURE, _NAME_OFFSET, "the name is not UTF-16") from error
        lengths = (len(name) // 2).to_bytes(8, "little") + len(self.data).to_bytes(8, "little")
        return self.vendor.bytes_le + lengths + name + self.data
