"""The services manifest: what SVSM_ATTEST_SERVICES returns, a GUID table over all services.

Little-endian, mixed-endian GUIDs, data packed after the entries.
Source: SVSM specification 58019 section 7; svsm kernel/src/protocols/attest.rs.
"""

from dataclasses import dataclass
from typing import Self
from uuid import UUID

from app.errors import WireError
from app.wire import guid
from app.wire.cursor import Cursor

STRUCTURE = "services manifest"
MAX_SIZE = 0x10000
_ENTRY_SIZE = 24  # also the size of the header
MAGIC = guid.SERVICES_MANIFEST.bytes_le


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """One service and its manifest, which may be empty (listed without one)."""

    guid: UUID
    data: bytes


@dataclass(frozen=True, slots=True)
class ServicesManifest:
    """The services in table order; unknown ones are kept."""

    entries: tuple[ServiceEntry, ...]

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read a table that fills `raw` exactly (at most 65536 bytes).

        Raises:
            WireError: wrong GUID or length, more entries than fit, data outside the data area,
                shared by two services or belonging to none, or a service that occurs twice.
        """
        if len(raw) > MAX_SIZE:
            raise WireError(STRUCTURE, MAX_SIZE, f"{len(raw)} bytes, at most {MAX_SIZE}")
        cursor = Cursor(STRUCTURE, raw)
        if cursor.take(guid.SIZE, "table GUID") != MAGIC:
            raise WireError(STRUCTURE, 0, f"does not start with {guid.SERVICES_MANIFEST}")
        length = cursor.integer(4, "table length")
        if length != len(raw):
            raise cursor.fail(f"says {length} bytes, is {len(raw)}", back=4)
        count = cursor.integer(4, "number of services")
        if count > cursor.remaining // _ENTRY_SIZE:
            raise cursor.fail(f"{count} services do not fit {cursor.remaining} bytes", back=4)
        data_start = _ENTRY_SIZE * (1 + count)
        entries: dict[bytes, ServiceEntry] = {}  # by bytes: their hash is salted, a UUID's is not
        spans: list[tuple[int, int, int]] = []
        for _ in range(count):
            place = cursor.offset
            key = cursor.take(guid.SIZE, "service GUID")
            name = UUID(bytes_le=key)
            offset = cursor.integer(4, "data offset")
            size = cursor.integer(4, "data length")
            if key in entries:
                raise WireError(STRUCTURE, place, f"service {name} occurs twice")
            if offset < data_start or offset + size > length:
                raise WireError(
                    STRUCTURE,
                    place,
                    f"data of {name}, {size} bytes at {offset}, lies outside {data_start}..{length}",
                )
            spans.append((offset, size, place))
            entries[key] = ServiceEntry(name, bytes(raw[offset : offset + size]))
        _demand_packed(spans, data_start, length)
        return cls(tuple(entries.values()))

    def encode(self) -> bytes:
        """The table with its data packed in entry order."""
        offset = _ENTRY_SIZE * (1 + len(self.entries))
        header, data = b"", b""
        for entry in self.entries:
            place = offset.to_bytes(4, "little") + len(entry.data).to_bytes(4, "little")
            header += entry.guid.bytes_le + place
            data += entry.data
            offset += len(entry.data)
        return MAGIC + offset.to_bytes(4, "little") + len(self.entries).to_bytes(4, "little") + header + data

    def get(self, name: UUID) -> bytes | None:
        """The manifest of one service, or None where it is not listed."""
        return next((entry.data for entry in self.entries if entry.guid == name), None)


def _demand_packed(spans: list[tuple[int, int, int]], start: int, end: int) -> None:
    """Data is packed in entry order: no byte may be bound by the report yet belong to no service."""
    for offset, size, place in spans:
        if size and offset != start:
            fault = "shares bytes with another service" if offset < start else "leaves a gap before it"
            raise WireError(STRUCTURE, place, f"data at {offset} {fault}")
        start += size
    if start != end:
        raise WireError(STRUCTURE, start, f"{end - start} bytes belong to no service")
