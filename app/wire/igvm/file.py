"""A whole IGVM file: its headers in order, each of them right in the light of those before it.

Refused is what a loader could take in two ways or would have to refuse itself. Nothing is copied:
pages stay where they are in the file.
Source: IGVM specification (igvm_defs 0.5.0), Structure and IgvmVariableHeaderType.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from app.errors import WireError
from app.wire.igvm.fixed_header import ALIGNMENT, PAGE_SIZE, STRUCTURE, Architecture, FixedHeader
from app.wire.igvm.header_types import OPTIONAL, PREFIX_SIZE, SIZES, HeaderType, Section
from app.wire.igvm.headers import (
    Header,
    PageData,
    Parameter,
    ParameterArea,
    ParameterInsert,
    PlatformType,
    SupportedPlatform,
    UnknownHeader,
    VersionString,
    VpContext,
    read_header,
)

MAX_SIZE = 256 << 20  # bytes; an SVSM with its guest firmware has about ten million
MAX_HEADERS = 1 << 18  # a gigabyte in pages of 4096 bytes
MAX_VERSION = 1024  # bytes of a version string
_TYPES = {int(kind): kind for kind in HeaderType}
_ARM_PLATFORMS = frozenset({PlatformType.VSM_ISOLATION, PlatformType.CCA})


@dataclass(frozen=True, slots=True, kw_only=True)
class IgvmFile:
    """A file that keeps the rules of the format."""

    raw: bytes = field(repr=False)
    fixed: FixedHeader
    headers: tuple[Header, ...] = field(repr=False)

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read a file of at most 256 MiB and 262144 headers.

        Raises:
            UnsupportedVersionError: neither format version 1 nor 2.
            WireError: a head that does not fit the file (see FixedHeader); headers that are cut
                short, padded with other than zeros, in another order than platforms,
                initialization, directives, of an unknown type that is not optional, or of another
                size than theirs; a value that no header of its type may have; no platform, or two
                of one type or mask; file data outside the file; a parameter area that is used
                before it is made or after it was inserted.
        """
        if len(raw) > MAX_SIZE:
            raise WireError(STRUCTURE, MAX_SIZE, f"{len(raw)} bytes, at most {MAX_SIZE}")
        fixed = FixedHeader.parse(raw)
        rules = _Rules(raw, fixed)
        headers = []
        for header in _read_headers(raw, fixed):
            rules.accept(header)
            headers.append(header)
        if not rules.platforms:
            raise WireError(STRUCTURE, fixed.headers_start, "no platform is supported")
        return cls(raw=bytes(raw), fixed=fixed, headers=tuple(headers))

    @property
    def platforms(self) -> tuple[SupportedPlatform, ...]:
        """The platforms that can load the file, at least one and each type once."""
        return tuple(header for header in self.headers if isinstance(header, SupportedPlatform))

    @property
    def version(self) -> str | None:
        """What its maker calls the file, if it says."""
        return next((header.text for header in self.headers if isinstance(header, VersionString)), None)

    def data(self, start: int, size: int) -> memoryview:
        """`size` bytes of file data that a header of this file points at."""
        return memoryview(self.raw)[start : start + size]


def _read_headers(raw: bytes, fixed: FixedHeader) -> Iterator[Header]:
    offset, end, section = fixed.headers_start, fixed.headers_end, Section.PLATFORM
    for _ in range(MAX_HEADERS):
        if offset == end:
            return
        if end - offset < PREFIX_SIZE:
            raise WireError(STRUCTURE, offset, f"{end - offset} bytes left, a header needs {PREFIX_SIZE}")
        number, size = (int.from_bytes(raw[at : at + 4], "little") for at in (offset, offset + 4))
        stop = offset + PREFIX_SIZE + size
        following = -(-stop // ALIGNMENT) * ALIGNMENT
        if following > end:
            raise WireError(STRUCTURE, offset + 4, f"{size} bytes pass the end of the headers at {end}")
        found = Section.of(number)
        if found is None:
            raise WireError(STRUCTURE, offset, f"0x{number:x} is no type of a header")
        if not found.follows(section):
            reason = f"a {found.name.lower()} header after the first {section.name.lower()} header"
            raise WireError(STRUCTURE, offset, reason)
        section = found
        if any(raw[stop:following]):
            raise WireError(STRUCTURE, stop, "padding must be zero")
        yield _read(raw, offset, number, size)
        offset = following
    if offset != end:
        raise WireError(STRUCTURE, offset, f"more than {MAX_HEADERS} headers")


def _read(raw: bytes, offset: int, number: int, size: int) -> Header:
    kind = _TYPES.get(number & ~OPTIONAL)
    if kind is None:
        if number & OPTIONAL:
            return UnknownHeader(offset=offset, number=number)
        raise WireError(STRUCTURE, offset, f"header type 0x{number:x} is unknown")
    wanted = SIZES.get(kind, size)
    if size != wanted:
        raise WireError(STRUCTURE, offset + 4, f"{kind.name} has {size} bytes, want {wanted}")
    if kind is HeaderType.VERSION_STRING and size > MAX_VERSION:
        raise WireError(STRUCTURE, offset + 4, f"a version string of {size} bytes, at most {MAX_VERSION}")
    return read_header(raw, offset, kind, size)


class _Rules:
    """What headers may say after those that were accepted before them."""

    def __init__(self, raw: bytes, fixed: FixedHeader) -> None:
        self.platforms: dict[int, PlatformType] = {}  # by mask
        self._size, self._fixed = len(raw), fixed
        self._areas: dict[int, int | None] = {}  # index: size, None once inserted
        self._is_versioned = False

    def accept(self, header: Header) -> None:
        match header:
            case SupportedPlatform():
                self._accept_platform(header)
            case PageData(data_start=int(start)):
                self._demand_data(header.offset + PREFIX_SIZE + 12, start, header.size)
            case VpContext():
                self._accept_context(header)
            case ParameterArea():
                self._accept_area(header)
            case Parameter():
                self._accept_parameter(header)
            case ParameterInsert():
                self._accept_insert(header)
            case VersionString():
                if self._is_versioned:
                    raise WireError(STRUCTURE, header.offset, "a second version string")
                self._is_versioned = True

    def _accept_platform(self, header: SupportedPlatform) -> None:
        if header.type in self.platforms.values():
            raise WireError(STRUCTURE, header.offset, f"{header.type.name} is listed twice")
        if header.mask in self.platforms:
            raise WireError(STRUCTURE, header.offset, f"mask 0x{header.mask:x} means two platforms")
        is_arm = self._fixed.architecture is Architecture.AARCH64
        if header.type is PlatformType.CCA if not is_arm else header.type not in _ARM_PLATFORMS:
            architecture = self._fixed.architecture.name
            raise WireError(STRUCTURE, header.offset, f"{header.type.name} does not exist on {architecture}")
        self.platforms[header.mask] = header.type

    def _accept_context(self, header: VpContext) -> None:
        field_offset = header.offset + PREFIX_SIZE + 8
        kind = self.platforms.get(header.mask)
        if kind is None:
            # The format of the state depends on the platform.
            raise WireError(STRUCTURE, field_offset, f"mask 0x{header.mask:x}, want that of one platform")
        # The registers of VSM_ISOLATION are a list that says its length itself.
        size = 4 if kind is PlatformType.VSM_ISOLATION else PAGE_SIZE
        self._demand_data(field_offset + 4, header.data_start, size)

    def _accept_area(self, header: ParameterArea) -> None:
        if header.index in self._areas:
            raise WireError(STRUCTURE, header.offset, f"parameter area {header.index} is made twice")
        if header.data_start is not None:
            self._demand_data(header.offset + PREFIX_SIZE + 12, header.data_start, header.size)
        self._areas[header.index] = header.size

    def _accept_parameter(self, header: Parameter) -> None:
        size = self._area_size(header.offset, header.index)
        if header.byte_offset >= size:
            reason = f"{header.type.name} at {header.byte_offset} of a parameter area of {size} bytes"
            raise WireError(STRUCTURE, header.offset + PREFIX_SIZE + 4, reason)

    def _accept_insert(self, header: ParameterInsert) -> None:
        size = self._area_size(header.offset, header.index)
        if header.gpa + size > 1 << 64:
            reason = f"{size} bytes at 0x{header.gpa:x} pass the end of all addresses"
            raise WireError(STRUCTURE, header.offset + PREFIX_SIZE, reason)
        self._areas[header.index] = None

    def _area_size(self, offset: int, index: int) -> int:
        size = self._areas.get(index)
        if size is None:
            state = "was inserted before" if index in self._areas else "was not made"
            raise WireError(STRUCTURE, offset, f"parameter area {index} {state}")
        return size

    def _demand_data(self, offset: int, start: int, size: int) -> None:
        if start < self._fixed.headers_end or start + size > self._size:
            bounds = f"{self._fixed.headers_end} to {self._size}"
            reason = f"{size} bytes of data at {start}, outside the file's data ({bounds})"
            raise WireError(STRUCTURE, offset, reason)
