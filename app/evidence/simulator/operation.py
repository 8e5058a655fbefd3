"""The operation structures of SVSM_ATTEST_SERVICES and SVSM_ATTEST_SINGLE_SERVICE.

Little-endian, 64 bytes, and 24 more for a single service.
Source: AMD 58019 (SVSM specification) 1.00, tables 11 and 13.
"""

import struct
from dataclasses import dataclass
from typing import Self
from uuid import UUID

from app.errors import WireError

STRUCTURE = "SVSM attest operation"
SERVICES_SIZE = 0x40
SINGLE_SERVICE_SIZE = 0x58
# Each buffer: address, size, reserved; the nonce has a shorter size and a longer reserved field.
_BUFFERS = struct.Struct("<QI4s QH6s QI4s QI4s")
_SERVICE = struct.Struct("<16sI4s")


@dataclass(frozen=True, slots=True)
class Buffer:
    """Guest memory that an operation names."""

    address: int
    size: int

    @property
    def end(self) -> int:
        """The address after the last byte."""
        return self.address + self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestOperation:
    """What the guest asks for, and where it wants the answer."""

    report: Buffer
    nonce: Buffer
    manifest: Buffer
    certificates: Buffer  # size 0: none wanted
    service: UUID | None = None  # None: all services
    manifest_version: int = 0

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read 64 bytes, or 88 that name a single service.

        Raises:
            WireError: another size, or a reserved byte that is not zero.
        """
        if len(raw) not in (SERVICES_SIZE, SINGLE_SERVICE_SIZE):
            sizes = f"{SERVICES_SIZE} or {SINGLE_SERVICE_SIZE}"
            raise WireError(STRUCTURE, len(raw), f"{len(raw)} bytes, want {sizes}")
        fields = _BUFFERS.unpack_from(raw)
        reserved = [*fields[2::3]]
        service, version = None, 0
        if len(raw) == SINGLE_SERVICE_SIZE:
            guid, version, last = _SERVICE.unpack_from(raw, SERVICES_SIZE)
            service = UUID(bytes_le=guid)
            reserved.append(last)
        if any(any(field) for field in reserved):
            raise WireError(STRUCTURE, 0, "a reserved field is not zero")
        return cls(
            report=Buffer(*fields[0:2]),
            nonce=Buffer(*fields[3:5]),
            manifest=Buffer(*fields[6:8]),
            certificates=Buffer(*fields[9:11]),
            service=service,
            manifest_version=version,
        )

    def encode(self) -> bytes:
        """The 64 or 88 bytes."""
        fields: list[int | bytes] = []
        for buffer in (self.report, self.nonce, self.manifest, self.certificates):
            fields += [buffer.address, buffer.size, b""]  # struct pads with zeros
        raw = _BUFFERS.pack(*fields)
        if self.service is not None:
            raw += _SERVICE.pack(self.service.bytes_le, self.manifest_version, b"")
        return raw
