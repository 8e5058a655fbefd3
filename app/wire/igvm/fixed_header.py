"""The head of an IGVM file: where its headers are, how long it is, and a checksum over both.

24 bytes in version 1, 32 in version 2, little-endian. The checksum is the CRC-32 of zlib over the
fixed header, with the checksum field zero, and the variable headers; file data are not covered.
Source: IGVM specification (igvm_defs 0.5.0), IGVM_FIXED_HEADER and IGVM_FIXED_HEADER_V2.
"""

import zlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from app.errors import UnsupportedVersionError, WireError
from app.wire.cursor import Cursor

STRUCTURE = "IGVM"
MAGIC = b"IGVM"
ALIGNMENT = 8
PAGE_SIZE = 4096
_SIZES = {1: 24, 2: 32}  # by format version
_CHECKSUM_OFFSET = 20


class Architecture(IntEnum):
    """Whose registers the file speaks of; version 1 knows only the first."""

    X64 = 0
    AARCH64 = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedHeader:
    """A head that fits its file."""

    version: int
    architecture: Architecture
    headers_start: int  # of the variable headers, in the file
    headers_end: int  # where file data begin
    checksum: int

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read the head of a whole file, and check the checksum.

        Raises:
            UnsupportedVersionError: neither version 1 nor 2.
            WireError: another magic, length or checksum, variable headers that overlap the head,
                lie unaligned or end behind the file, another page size than 4096 bytes.
        """
        cursor = Cursor(STRUCTURE, raw[: max(_SIZES.values())])
        if cursor.take(len(MAGIC), "magic") != MAGIC:
            raise WireError(STRUCTURE, 0, f"begins with {raw[: len(MAGIC)].hex()}, want {MAGIC.hex()} (IGVM)")
        version = cursor.integer(4, "format version")
        if version not in _SIZES:
            raise UnsupportedVersionError(STRUCTURE, 4, version, tuple(_SIZES))
        start, size = (cursor.integer(4, f"variable headers' {what}") for what in ("offset", "size"))
        total = cursor.integer(4, "file size")
        checksum = cursor.integer(4, "checksum")
        if start < _SIZES[version] or start % ALIGNMENT:
            reason = f"variable headers at {start}, want a multiple of {ALIGNMENT} from {_SIZES[version]} on"
            raise WireError(STRUCTURE, 8, reason)
        if total != len(raw):
            raise WireError(STRUCTURE, 16, f"the head speaks of {total} bytes, and here are {len(raw)}")
        if start + size > total:
            raise WireError(STRUCTURE, 12, f"variable headers end at {start + size}, the file at {total}")
        architecture = Architecture.X64 if version == 1 else _read_architecture(cursor)
        found = _checksum(raw, _SIZES[version], start, start + size)
        if found != checksum:
            reason = f"checksum 0x{checksum:08x}, but the headers come to 0x{found:08x}"
            raise WireError(STRUCTURE, _CHECKSUM_OFFSET, reason)
        return cls(
            version=version,
            architecture=architecture,
            headers_start=start,
            headers_end=start + size,
            checksum=checksum,
        )


def _read_architecture(cursor: Cursor) -> Architecture:
    number = cursor.integer(4, "architecture")
    if number not in tuple(Architecture):
        raise cursor.fail(f"architecture {number} is unknown", back=4)
    page_size = cursor.integer(4, "page size")
    if page_size != PAGE_SIZE:
        raise cursor.fail(f"pages of {page_size} bytes, want {PAGE_SIZE}", back=4)
    return Architecture(number)


def _checksum(raw: bytes, size: int, start: int, end: int) -> int:
    head = raw[:_CHECKSUM_OFFSET] + bytes(4) + raw[_CHECKSUM_OFFSET + 4 : size]
    return zlib.crc32(memoryview(raw)[start:end], zlib.crc32(head))
