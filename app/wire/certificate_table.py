"""The GHCB certificate table, which is also what configfs-tsm calls auxblob.

Entries of 24 bytes {GUID, u32 offset, u32 length}, little-endian, ended by an all-zero entry;
offsets count from the start of the table. Bytes that no entry claims are padding and mean
nothing: the table is a host's unsigned hint. Real tables store GUIDs in text order; the
mixed-endian order that some hosts write is accepted too.
Source: AMD 56421 (GHCB), MSG_REPORT_REQ certificate data.
"""

from dataclasses import dataclass
from typing import Self
from uuid import UUID

from app.errors import WireError
from app.wire import guid
from app.wire.cursor import Cursor

STRUCTURE = "certificate table"
SVSM_SIZE = 0x4000  # what an SVSM hands out: one buffer of 16384 bytes, zero padded
MAX_SIZE = 0x10000
MAX_ENTRIES = 64
_ENTRY_SIZE = 24


@dataclass(frozen=True, slots=True)
class CertificateEntry:
    """One entry: what it is, and its bytes (DER by the specification, PEM in practice too)."""

    guid: UUID
    data: bytes


@dataclass(frozen=True, slots=True)
class CertificateTable:
    """The entries in table order; unknown GUIDs are kept."""

    entries: tuple[CertificateEntry, ...]

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read a table of at most 65536 bytes and 64 entries.

        Raises:
            WireError: no terminator, data outside the table, inside the header or shared by
                two entries, or a GUID that occurs twice.
        """
        if len(raw) > MAX_SIZE:
            raise WireError(STRUCTURE, MAX_SIZE, f"{len(raw)} bytes, at most {MAX_SIZE}")
        cursor = Cursor(STRUCTURE, raw)
        spans: list[tuple[int, int, UUID, int]] = []
        while True:
            place = cursor.offset
            entry = cursor.take(_ENTRY_SIZE, "entry (no all-zero entry ends the header)")
            if not any(entry):
                break
            if len(spans) == MAX_ENTRIES:
                raise WireError(STRUCTURE, place, f"more than {MAX_ENTRIES} entries")
            name = _read_guid(entry[: guid.SIZE])
            offset, length = (int.from_bytes(entry[start : start + 4], "little") for start in (16, 20))
            if offset + length > len(raw):
                raise WireError(
                    STRUCTURE, place, f"{name} at {offset} with {length} bytes lies outside {len(raw)}"
                )
            spans.append((offset, length, name, place))
        _refuse_ambiguity(spans, header_end=cursor.offset)
        return cls(
            tuple(
                CertificateEntry(name, bytes(raw[offset : offset + length]))
                for offset, length, name, _ in spans
            )
        )

    def encode(self, size: int | None = None) -> bytes:
        """The table with text-order GUIDs and packed data, zero padded to `size` if given.

        Raises:
            WireError: the table does not fit `size`.
        """
        offset = _ENTRY_SIZE * (len(self.entries) + 1)
        header, data = b"", b""
        for entry in self.entries:
            header += entry.guid.bytes + offset.to_bytes(4, "little") + len(entry.data).to_bytes(4, "little")
            data += entry.data
            offset += len(entry.data)
        table = header + bytes(_ENTRY_SIZE) + data
        if size is not None and len(table) > size:
            raise WireError(STRUCTURE, size, f"{len(table)} bytes do not fit {size}")
        return table.ljust(size or 0, b"\0")

    def get(self, name: UUID) -> bytes | None:
        """The bytes of one entry, or None."""
        return next((entry.data for entry in self.entries if entry.guid == name), None)


def _read_guid(raw: bytes) -> UUID:
    mixed_endian = UUID(bytes_le=raw)
    return mixed_endian if mixed_endian in guid.NAMES else UUID(bytes=raw)


def _refuse_ambiguity(spans: list[tuple[int, int, UUID, int]], *, header_end: int) -> None:
    seen: set[UUID] = set()
    for offset, length, name, place in spans:
        if name in seen:
            raise WireError(STRUCTURE, place, f"{name} occurs twice")
        seen.add(name)
        if length and offset < header_end:
            raise WireError(STRUCTURE, place, f"{name} points into the header, which ends at {header_end}")
    end = 0
    for offset, length, name, place in sorted(span for span in spans if span[1]):
        if offset < end:
            raise WireError(STRUCTURE, place, f"{name} shares bytes with another entry")
        end = offset + length
