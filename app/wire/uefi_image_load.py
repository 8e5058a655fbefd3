"""UEFI_IMAGE_LOAD_EVENT: where firmware says it loaded an image from.

Nothing of it is measured: the digest of such an event is the image's Authenticode digest.
Sources: TCG PC Client Platform Firmware Profile, UEFI_IMAGE_LOAD_EVENT; UEFI Specification, Device
Path Protocol. Little-endian.
"""

from dataclasses import dataclass
from typing import Self

from app.wire.cursor import Cursor

STRUCTURE = "UEFI_IMAGE_LOAD_EVENT"
_NODE = "device path"
_HEADER_SIZE = 4  # type, subtype, u16 size of the node with this header
_END = (0x7F, 0xFF)
_FILE_PATH = (0x04, 0x04)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLoad:
    """Address and length in memory, link-time address, and the device path as bytes."""

    address: int
    length: int
    link_time_address: int
    device_path: bytes

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read four u64 and the device path.

        Raises:
            WireError: too short, or left-over bytes.
        """
        cursor = Cursor(STRUCTURE, raw)
        names = ("address", "length", "link-time address", "length of the device path")
        address, length, link_time_address, size = (cursor.integer(8, name) for name in names)
        device_path = cursor.take(size, _NODE)
        cursor.end()
        return cls(
            address=address, length=length, link_time_address=link_time_address, device_path=device_path
        )

    def encode(self) -> bytes:
        """The inverse of `parse`."""
        numbers = (self.address, self.length, self.link_time_address, len(self.device_path))
        return b"".join(number.to_bytes(8, "little") for number in numbers) + self.device_path

    def path(self) -> str:
        r"""The device path in words: nodes as type.subtype, files by name: `2.1/1.1/\EFI\BOOT\X.EFI`.

        Raises:
            WireError: a node that ends beyond the path, or a path without an end.
        """
        cursor = Cursor(_NODE, self.device_path)
        nodes: list[str] = []
        while cursor.remaining:
            kind = (cursor.integer(1, "type of a node"), cursor.integer(1, "subtype of a node"))
            size = cursor.integer(2, "size of a node")
            if size < _HEADER_SIZE:
                raise cursor.fail(f"a node of {size} bytes, want {_HEADER_SIZE} or more", back=2)
            body = cursor.take(size - _HEADER_SIZE, "node")
            if kind == _END:
                cursor.end()
                return "/".join(nodes)
            if kind == _FILE_PATH:
                nodes.append(body.decode("utf-16-le", "replace").rstrip("\0"))
            else:
                nodes.append(f"{kind[0]:x}.{kind[1]:x}")
        if nodes:
            raise cursor.fail("the path has no end")
        return ""
