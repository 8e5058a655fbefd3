"""IGVM files made from the specification's field lists, and not by any code of ours."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

VMSA_GPA = 0xFFFFFFFFF000
PAGE = 4096
LARGE_PAGE = 2 << 20
TWO_MIB, UNMEASURED, SHARED = 1, 2, 4
NORMAL, SECRETS, CPUID, CPUID_XF = range(4)
SNP, TDX, NATIVE, VSM, SEV_ES, CCA = 2, 3, 0, 1, 5, 6


@dataclass(frozen=True)
class Piece:
    """One header; `make` gets the file offset of `data`, or 0 where there are none."""

    number: int
    make: Callable[[int], bytes]
    data: bytes | None = None


def piece(number: int, payload: bytes) -> Piece:
    return Piece(number, lambda _: payload)


def platform(mask: int = 1, kind: int = SNP, vtl: int = 2, version: int = 1, boundary: int = 0) -> Piece:
    return piece(0x1, struct.pack("<IBBHQ", mask, vtl, kind, version, boundary))


def policy(value: int = 0x30000, mask: int = 1, reserved: int = 0) -> Piece:
    return piece(0x101, struct.pack("<QII", value, mask, reserved))


def relocation(mask: int = 1) -> Piece:
    return piece(0x102, struct.pack("<IHBBQQQQQ", mask, 0, 2, 0, PAGE, 0, PAGE, 0, PAGE))


def page(
    gpa: int,
    data: bytes | None = None,
    *,
    mask: int = 1,
    flags: int = 0,
    kind: int = NORMAL,
    reserved: int = 0,
) -> Piece:
    def make(offset: int) -> bytes:
        return struct.pack("<QIIIHH", gpa, mask, offset, flags, kind, reserved)

    return Piece(0x302, make, data)


def area(index: int = 0, size: int = PAGE, data: bytes | None = None) -> Piece:
    return Piece(0x301, lambda offset: struct.pack("<QII", size, index, offset), data)


def insert(gpa: int, index: int = 0, mask: int = 1) -> Piece:
    return piece(0x303, struct.pack("<QII", gpa, mask, index))


def parameter(number: int, index: int = 0, byte_offset: int = 0) -> Piece:
    return piece(number, struct.pack("<II", index, byte_offset))


def context(
    vmsa: bytes = bytes(PAGE), gpa: int = VMSA_GPA, *, mask: int = 1, index: int = 0, reserved: int = 0
) -> Piece:
    return Piece(0x304, lambda offset: struct.pack("<QIIHH", gpa, mask, offset, index, reserved), vmsa)


def required(gpa: int, size: int = PAGE, mask: int = 1, flags: int = 0, reserved: int = 0) -> Piece:
    return piece(0x305, struct.pack("<QIIII", gpa, mask, size, flags, reserved))


def error_range(gpa: int, size: int = PAGE, mask: int = 1) -> Piece:
    return piece(0x30D, struct.pack("<QII", gpa, mask, size))


def version_string(text: bytes) -> Piece:
    return piece(0x107, text)


def vmsa(**fields: int) -> bytes:
    """A VMSA with some 64-bit fields, named by their offset: vmsa(x158=0x31)."""
    state = bytearray(PAGE)
    for name, value in fields.items():
        start = int(name[1:], 16)
        state[start : start + 8] = value.to_bytes(8, "little")
    return bytes(state)


def igvm(
    *pieces: Piece, version: int = 1, gap: int = 0, architecture: int = 0, page_size: int = PAGE
) -> bytes:
    """The file: head, headers, then the data of each header, equal data once."""
    head_size = {1: 24}.get(version, 32) + gap
    size = sum(8 + _padded(len(one.make(0))) for one in pieces)
    data_start = head_size + size
    places: dict[bytes, int] = {}
    headers, data = b"", b""
    for one in pieces:
        offset = 0
        if one.data is not None:
            if one.data not in places:
                places[one.data] = data_start + len(data)
                data += one.data
            offset = places[one.data]
        payload = one.make(offset)
        headers += struct.pack("<II", one.number, len(payload)) + payload.ljust(_padded(len(payload)), b"\0")
    tail = struct.pack("<II", architecture, page_size) if version != 1 else b""
    total = data_start + len(data)
    head = struct.pack("<4sIIIII", b"IGVM", version, head_size, size, total, 0) + tail
    return resealed(head + bytes(gap) + headers + data)


def resealed(raw: bytes) -> bytes:
    """The same bytes with the checksum that they should have, where they say where the headers are."""
    if len(raw) < 24:
        return raw
    version, start, size = struct.unpack_from("<III", raw, 4)
    head = raw[: 32 if version == 2 else 24]
    head = head[:20] + bytes(4) + head[24:]
    checksum = zlib.crc32(raw[start : start + size], zlib.crc32(head))
    return raw[:20] + struct.pack("<I", checksum) + raw[24:]


def _padded(size: int) -> int:
    return (size + 7) // 8 * 8


A_PAGE = b"A" * PAGE


def small() -> tuple[Piece, ...]:
    """The sequence of the known vector: one page of each kind, and a VMSA of zeros."""
    return (
        platform(),
        policy(),
        page(0x10000, A_PAGE),
        page(0x11000, flags=UNMEASURED),
        page(0x12000, kind=SECRETS),
        page(0x13000, kind=CPUID),
        context(),
    )


def like_coconut() -> tuple[Piece, ...]:
    """The order of headers that COCONUT-SVSM's builder writes, for three platforms, in small."""
    stage2 = bytes(range(256)) * 16
    return (
        platform(1, SNP),
        platform(4, TDX),
        platform(2, NATIVE, vtl=0),
        policy(0x30000),
        required(0x8000000000, 0x1000000, mask=7),
        area(1),
        area(2),
        area(0),
        parameter(0x307, 0, 0),
        parameter(0x313, 0, 4),
        parameter(0x309, 2),
        parameter(0x30C, 1),
        insert(0x82C000, 1, mask=7),
        insert(0x82B000, 2, mask=7),
        insert(0x82A000, 0, mask=7),
        *(page(0x800000 + number * PAGE, mask=7) for number in range(5)),
        page(0x805000, A_PAGE, mask=1),
        page(0x805000, b"B" * PAGE, mask=4),
        page(0x806000, mask=1, kind=SECRETS),
        page(0x807000, stage2, mask=1, kind=CPUID),
        page(0x807000, mask=4),
        page(0x808000, stage2, mask=7),
        page(0xFFFFF000, bytes(PAGE), mask=7),
        context(vmsa(x158=0x31, x3B0=0x9, x178=0x808000), mask=1),
        context(bytes(PAGE), 0, mask=2),
    )
