"""The variable headers of an IGVM file: what each says, checked for itself alone.

What a header may only say in the light of others (platforms, parameter areas, bytes that exist)
is `app.wire.igvm.file`'s to judge. Integers are little-endian.
Source: IGVM specification (igvm_defs 0.5.0), the IGVM_VHS structures.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from app.errors import WireError
from app.wire.igvm.fixed_header import PAGE_SIZE, STRUCTURE
from app.wire.igvm.header_types import PARAMETERS, PREFIX_SIZE, HeaderType
from app.wire.igvm.id_block import SnpIdBlock

LARGE_PAGE_SIZE = 2 << 20
ADDRESS_END = 1 << 64
_PLATFORM_VERSION = 1  # of every platform
_HIGHEST_VTLS = (0, 2)
_TWO_MIB, _UNMEASURED, _SHARED = 1, 2, 4
_PAGE_FLAGS = _TWO_MIB | _UNMEASURED | _SHARED
_VTL2_PROTECTABLE = 1


class PlatformType(IntEnum):
    """What a platform isolates its guests with."""

    NATIVE = 0
    VSM_ISOLATION = 1
    SEV_SNP = 2
    TDX = 3
    SEV = 4
    SEV_ES = 5
    CCA = 6


class PageDataType(IntEnum):
    """What the loader fills a page with."""

    NORMAL = 0
    SECRETS = 1
    CPUID_DATA = 2
    CPUID_XF = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SupportedPlatform:
    """A platform that can load the file, and the bit by which other headers mean it."""

    offset: int
    mask: int
    type: PlatformType
    highest_vtl: int
    shared_gpa_boundary: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestPolicyHeader:
    """The policy to launch with; on SEV-SNP the 64 bits of GUEST_POLICY."""

    offset: int
    mask: int
    policy: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PageData:
    """One page: `size` bytes at `gpa`, from `data_start` of the file, or zeros where that is None."""

    offset: int
    mask: int
    gpa: int
    size: int
    data_type: PageDataType
    unmeasured: bool
    shared: bool
    data_start: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterArea:
    """Memory of the loader's that parameters are collected in."""

    offset: int
    index: int
    size: int
    data_start: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterInsert:
    """The place where a parameter area, never measured, becomes guest memory."""

    offset: int
    mask: int
    gpa: int
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One thing that the loader writes into a parameter area."""

    offset: int
    type: HeaderType
    index: int
    byte_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VpContext:
    """The first state of a processor; on SEV-SNP a VMSA, which is a measured page of its own."""

    offset: int
    mask: int
    gpa: int
    vp_index: int
    data_start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRange:
    """Memory that must exist (REQUIRED_MEMORY), or that errors are reported in (ERROR_RANGE)."""

    offset: int
    type: HeaderType
    mask: int
    gpa: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionString:
    """What the maker of the file calls it."""

    offset: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherHeader:
    """A header whose content matters to nobody here: of another platform, or about the file itself."""

    offset: int
    type: HeaderType
    mask: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownHeader:
    """A type without a meaning here, which its maker marked as one that may be passed over."""

    offset: int
    number: int


Header = (
    SupportedPlatform
    | GuestPolicyHeader
    | PageData
    | ParameterArea
    | ParameterInsert
    | Parameter
    | VpContext
    | MemoryRange
    | SnpIdBlock
    | VersionString
    | OtherHeader
    | UnknownHeader
)


def read_header(raw: bytes, offset: int, kind: HeaderType, size: int) -> Header:
    """The header of `kind` whose prefix stands at `offset`, and whose `size` further bytes exist.

    Raises:
        WireError: a value that no header of the kind may have.
    """
    start = offset + PREFIX_SIZE
    if kind in PARAMETERS:
        index, byte_offset = _PAIR.unpack_from(raw, start)
        return Parameter(offset=offset, type=kind, index=index, byte_offset=byte_offset)
    if kind is HeaderType.VERSION_STRING:
        return _read_version(raw, offset, size)
    reader = _READERS.get(kind)
    if reader is None:
        return OtherHeader(offset=offset, type=kind, mask=int.from_bytes(raw[start : start + 4], "little"))
    return reader(raw, offset)


_PAIR = struct.Struct("<II")
_PLATFORM = struct.Struct("<IBBHQ")
_POLICY = struct.Struct("<QII")
_AREA = struct.Struct("<QII")
_PAGE = struct.Struct("<QIIIHH")
_INSERT = struct.Struct("<QII")
_CONTEXT = struct.Struct("<QIIHH")
_REQUIRED = struct.Struct("<QIIII")
_ERROR_RANGE = struct.Struct("<QII")


def _read_platform(raw: bytes, offset: int) -> SupportedPlatform:
    start = offset + PREFIX_SIZE
    mask, vtl, number, version, boundary = _PLATFORM.unpack_from(raw, start)
    if mask.bit_count() != 1:
        raise WireError(STRUCTURE, start, f"platform mask 0x{mask:x}, want exactly one bit")
    if vtl not in _HIGHEST_VTLS:
        raise WireError(STRUCTURE, start + 4, f"highest VTL {vtl}, want 0 or 2")
    if number not in tuple(PlatformType):
        raise WireError(STRUCTURE, start + 5, f"platform type {number} is unknown")
    if version != _PLATFORM_VERSION:
        raise WireError(STRUCTURE, start + 6, f"platform version {version}, want {_PLATFORM_VERSION}")
    kind = PlatformType(number)
    if boundary and kind in {PlatformType.NATIVE, PlatformType.VSM_ISOLATION}:
        raise WireError(STRUCTURE, start + 8, f"{kind.name} has no boundary of shared memory")
    return SupportedPlatform(
        offset=offset, mask=mask, type=kind, highest_vtl=vtl, shared_gpa_boundary=boundary
    )


def _read_policy(raw: bytes, offset: int) -> GuestPolicyHeader:
    policy, mask, reserved = _POLICY.unpack_from(raw, offset + PREFIX_SIZE)
    _demand_zero(reserved, offset + PREFIX_SIZE + 12, "a guest policy")
    return GuestPolicyHeader(offset=offset, mask=mask, policy=policy)


def _read_area(raw: bytes, offset: int) -> ParameterArea:
    start = offset + PREFIX_SIZE
    size, index, data_start = _AREA.unpack_from(raw, start)
    if not size or size % PAGE_SIZE:
        raise WireError(STRUCTURE, start, f"a parameter area of {size} bytes, want whole pages")
    return ParameterArea(offset=offset, index=index, size=size, data_start=data_start or None)


def _read_page(raw: bytes, offset: int) -> PageData:
    start = offset + PREFIX_SIZE
    gpa, mask, data_start, flags, kind, reserved = _PAGE.unpack_from(raw, start)
    size = LARGE_PAGE_SIZE if flags & _TWO_MIB else PAGE_SIZE
    _demand_place(gpa, size, start, alignment=size)
    if flags & ~_PAGE_FLAGS:
        raise WireError(STRUCTURE, start + 16, f"page flags 0x{flags:x}, known are 0x{_PAGE_FLAGS:x}")
    if kind not in tuple(PageDataType):
        raise WireError(STRUCTURE, start + 20, f"page data type {kind} is unknown")
    _demand_zero(reserved, start + 22, "a page")
    return PageData(
        offset=offset,
        mask=mask,
        gpa=gpa,
        size=size,
        data_type=PageDataType(kind),
        unmeasured=bool(flags & _UNMEASURED),
        shared=bool(flags & _SHARED),
        data_start=data_start or None,
    )


def _read_insert(raw: bytes, offset: int) -> ParameterInsert:
    gpa, mask, index = _INSERT.unpack_from(raw, offset + PREFIX_SIZE)
    _demand_place(gpa, PAGE_SIZE, offset + PREFIX_SIZE)
    return ParameterInsert(offset=offset, mask=mask, gpa=gpa, index=index)


def _read_context(raw: bytes, offset: int) -> VpContext:
    start = offset + PREFIX_SIZE
    gpa, mask, data_start, vp_index, reserved = _CONTEXT.unpack_from(raw, start)
    _demand_place(gpa, PAGE_SIZE, start)
    _demand_zero(reserved, start + 18, "a processor context")
    return VpContext(offset=offset, mask=mask, gpa=gpa, vp_index=vp_index, data_start=data_start)


def _read_required(raw: bytes, offset: int) -> MemoryRange:
    start = offset + PREFIX_SIZE
    gpa, mask, size, flags, reserved = _REQUIRED.unpack_from(raw, start)
    _demand_place(gpa, size, start)
    if size % PAGE_SIZE:
        raise WireError(STRUCTURE, start + 12, f"{size} bytes of required memory, want whole pages")
    if flags & ~_VTL2_PROTECTABLE:
        raise WireError(STRUCTURE, start + 16, f"flags 0x{flags:x} of required memory, known is 1")
    _demand_zero(reserved, start + 20, "required memory")
    return MemoryRange(offset=offset, type=HeaderType.REQUIRED_MEMORY, mask=mask, gpa=gpa, size=size)


def _read_error_range(raw: bytes, offset: int) -> MemoryRange:
    start = offset + PREFIX_SIZE
    gpa, mask, size = _ERROR_RANGE.unpack_from(raw, start)
    _demand_place(gpa, size, start)
    if size % PAGE_SIZE:
        raise WireError(STRUCTURE, start + 12, f"an error range of {size} bytes, want whole pages")
    return MemoryRange(offset=offset, type=HeaderType.ERROR_RANGE, mask=mask, gpa=gpa, size=size)


def _read_id_block(raw: bytes, offset: int) -> SnpIdBlock:
    return SnpIdBlock.read(raw, offset)


def _read_version(raw: bytes, offset: int, size: int) -> VersionString:
    start = offset + PREFIX_SIZE
    try:
        text = raw[start : start + size].decode()
    except UnicodeDecodeError as error:
        raise WireError(STRUCTURE, start + error.start, "the version string is not UTF-8") from error
    return VersionString(offset=offset, text=text)


def _demand_place(gpa: int, size: int, offset: int, *, alignment: int = PAGE_SIZE) -> None:
    if gpa % alignment:
        raise WireError(STRUCTURE, offset, f"address 0x{gpa:x} is no multiple of 0x{alignment:x}")
    if gpa + size > ADDRESS_END:
        raise WireError(STRUCTURE, offset, f"{size} bytes at 0x{gpa:x} pass the end of all addresses")


def _demand_zero(value: int, offset: int, what: str) -> None:
    if value:
        raise WireError(STRUCTURE, offset, f"reserved field of {what} is 0x{value:x}, must be zero")


_READERS: dict[HeaderType, Callable[[bytes, int], Header]] = {
    HeaderType.SUPPORTED_PLATFORM: _read_platform,
    HeaderType.GUEST_POLICY: _read_policy,
    HeaderType.PARAMETER_AREA: _read_area,
    HeaderType.PAGE_DATA: _read_page,
    HeaderType.PARAMETER_INSERT: _read_insert,
    HeaderType.VP_CONTEXT: _read_context,
    HeaderType.REQUIRED_MEMORY: _read_required,
    HeaderType.ERROR_RANGE: _read_error_range,
    HeaderType.SNP_ID_BLOCK: _read_id_block,
}
