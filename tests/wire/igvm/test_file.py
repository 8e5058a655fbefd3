import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import WireError
from app.wire.igvm import file as igvm_file
from app.wire.igvm.file import MAX_SIZE, IgvmFile
from app.wire.igvm.header_types import PARAMETERS, SIZES, HeaderType, Section
from app.wire.igvm.headers import (
    GuestPolicyHeader,
    MemoryRange,
    OtherHeader,
    PageData,
    PageDataType,
    Parameter,
    ParameterArea,
    ParameterInsert,
    PlatformType,
    UnknownHeader,
    VpContext,
)
from tests.wire.igvm import files
from tests.wire.igvm.files import (
    PAGE,
    Piece,
    area,
    context,
    error_range,
    igvm,
    insert,
    page,
    parameter,
    piece,
    platform,
    policy,
    required,
    resealed,
    version_string,
)

START = 24
PLATFORM = START + 8 + 16  # where the header after one platform stands


def parsed(*pieces: Piece, version: int = 1) -> IgvmFile:
    return IgvmFile.parse(igvm(*pieces, version=version))


def refused(raw: bytes, reason: str) -> WireError:
    with pytest.raises(WireError, match=reason) as caught:
        IgvmFile.parse(raw)
    assert caught.value.structure == "IGVM"
    assert 0 <= caught.value.offset <= len(raw)
    return caught.value


def test_every_header_comes_out_as_it_went_in() -> None:
    found = parsed(
        platform(1, files.SNP, boundary=1 << 46),
        platform(2, files.VSM),
        policy(0x30000, mask=3),
        version_string("2026.07 ü".encode()),
        area(5, 2 * PAGE, b"p" * 2 * PAGE),
        parameter(0x307, 5, 4),
        page(0x1000, files.A_PAGE, mask=3, flags=files.UNMEASURED),
        page(0x200000, None, flags=files.TWO_MIB | files.SHARED),
        insert(0x9000, 5),
        required(0xA000, 3 * PAGE, flags=1),
        error_range(0xB000),
        context(b"V" * PAGE, index=3),
    )
    raw = found.raw
    platforms = found.platforms
    assert [one.type for one in platforms] == [PlatformType.SEV_SNP, PlatformType.VSM_ISOLATION]
    assert (platforms[0].shared_gpa_boundary, platforms[0].highest_vtl, platforms[0].offset) == (
        1 << 46,
        2,
        START,
    )
    assert found.version == "2026.07 ü"
    first, *rest = [header for header in found.headers if not isinstance(header, type(platforms[0]))]
    assert first == GuestPolicyHeader(offset=START + 48, mask=3, policy=0x30000)
    _, made, vp_count, small, large, inserted, memory, errors, state = rest
    assert isinstance(made, ParameterArea)
    assert (made.index, made.size) == (5, 2 * PAGE)
    assert found.data(made.data_start or 0, made.size) == b"p" * 2 * PAGE
    assert isinstance(vp_count, Parameter)
    assert (vp_count.type, vp_count.index, vp_count.byte_offset) == (HeaderType.VP_COUNT, 5, 4)
    assert isinstance(small, PageData)
    assert found.data(small.data_start or 0, small.size) == files.A_PAGE
    assert small == PageData(
        offset=small.offset,
        mask=3,
        gpa=0x1000,
        size=PAGE,
        data_type=PageDataType.NORMAL,
        unmeasured=True,
        shared=False,
        data_start=small.data_start,
    )
    assert raw[small.offset : small.offset + 4] == struct.pack("<I", 0x302)
    assert isinstance(large, PageData)
    assert (large.size, large.shared, large.unmeasured, large.data_start) == (2 << 20, True, False, None)
    assert inserted == ParameterInsert(offset=inserted.offset, mask=1, gpa=0x9000, index=5)
    assert isinstance(memory, MemoryRange)
    assert (memory.type, memory.gpa, memory.size) == (HeaderType.REQUIRED_MEMORY, 0xA000, 3 * PAGE)
    assert isinstance(errors, MemoryRange)
    assert errors.type is HeaderType.ERROR_RANGE
    assert isinstance(state, VpContext)
    assert (state.vp_index, state.gpa) == (3, files.VMSA_GPA)
    assert found.data(state.data_start, PAGE) == b"V" * PAGE


def test_a_file_like_coconuts() -> None:
    found = parsed(*files.like_coconut(), version=2)
    assert [one.type.name for one in found.platforms] == ["SEV_SNP", "TDX", "NATIVE"]
    assert len(found.headers) == len(files.like_coconut())
    assert found.version is None


@pytest.mark.parametrize("kind", [kind for kind in SIZES if kind is not HeaderType.SUPPORTED_PLATFORM])
def test_every_header_has_one_size(kind: HeaderType) -> None:
    for size in {0, SIZES[kind] - 1, SIZES[kind] + 1, SIZES[kind] + 8}:
        error = refused(igvm(platform(), piece(kind, bytes(size))), f"{kind.name} has {size} bytes")
        assert error.offset == PLATFORM + 4


def test_every_type_has_a_size_and_a_section() -> None:
    assert {*SIZES, HeaderType.VERSION_STRING} == set(HeaderType)
    assert all(Section.of(kind) for kind in HeaderType)
    assert len(PARAMETERS) == 10


@pytest.mark.parametrize(
    "kind",
    [
        HeaderType.RELOCATABLE_REGION,
        HeaderType.PAGE_TABLE_RELOCATION,
        HeaderType.CORIM_DOCUMENT,
        HeaderType.CORIM_SIGNATURE,
        HeaderType.CCA_POLICY,
        HeaderType.VBS_MEASUREMENT,
    ],
)
def test_headers_about_others_keep_their_mask(kind: HeaderType) -> None:
    found = parsed(platform(), piece(kind, b"\2\0\0\0".ljust(SIZES[kind], b"\0")))
    assert found.headers[1] == OtherHeader(offset=PLATFORM, type=kind, mask=2)


@pytest.mark.parametrize("number", [0x2, 0x108, 0x200, 0x306, 0x314, 0x400])
def test_unknown_types_are_kept_only_where_they_are_optional(number: int) -> None:
    error = refused(igvm(platform(), piece(number, b"?")), f"header type 0x{number:x} is unknown")
    assert error.offset == PLATFORM
    optional = number | 1 << 31
    found = parsed(platform(), piece(optional, b"?"))
    assert found.headers[1] == UnknownHeader(offset=PLATFORM, number=optional)


def test_an_optional_header_of_known_type_is_read() -> None:
    found = parsed(platform(), replace(page(0), number=0x80000302))
    assert isinstance(found.headers[1], PageData)
    refused(igvm(platform(), replace(page(1), number=0x80000302)), "no multiple of 0x1000")


@pytest.mark.parametrize("number", [0, 0x201, 0x300, 0x401, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000])
def test_numbers_outside_the_sections_are_no_types(number: int) -> None:
    assert refused(igvm(platform(), piece(number, b"")), "is no type of a header").offset == PLATFORM


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ((platform(), policy(), platform(2, files.TDX)), "platform header after the first initialization"),
        ((platform(), page(0), platform(2, files.TDX)), "platform header after the first directive"),
        ((platform(), page(0), policy()), "initialization header after the first directive"),
        ((policy(),), "no platform"),
        ((), "no platform"),
        ((platform(), platform(2)), "SEV_SNP is listed twice"),
        ((platform(), platform(1, files.TDX)), "mask 0x1 means two"),
        ((platform(), platform(2, files.CCA)), "CCA does not exist on X64"),
        ((platform(3),), "want exactly one bit"),
        ((platform(0),), "want exactly one bit"),
        ((platform(vtl=1),), "highest VTL 1"),
        ((platform(vtl=3),), "highest VTL 3"),
        ((platform(kind=7),), "platform type 7 is unknown"),
        ((platform(version=2),), "platform version 2"),
        ((platform(kind=files.NATIVE, boundary=1),), "NATIVE has no boundary"),
        ((platform(kind=files.VSM, boundary=1),), "VSM_ISOLATION has no boundary"),
        ((platform(), policy(reserved=1)), "reserved field of a guest policy is 0x1"),
        ((platform(), page(1)), "address 0x1 is no multiple of 0x1000"),
        ((platform(), page(PAGE, flags=files.TWO_MIB)), "no multiple of 0x200000"),
        ((platform(), page(0, flags=8)), "page flags 0x8"),
        ((platform(), page(0, flags=1 << 31)), "page flags 0x80000000"),
        ((platform(), page(0, kind=4)), "page data type 4"),
        ((platform(), page(0, reserved=1)), "reserved field"),
        ((platform(), area(size=0)), "0 bytes, want whole pages"),
        ((platform(), area(size=PAGE + 1)), "want whole pages"),
        ((platform(), area(), area()), "area 0 is made twice"),
        ((platform(), area(), insert(0), area()), "area 0 is made twice"),
        ((platform(), insert(0)), "area 0 was not made"),
        ((platform(), area(), insert(0), insert(PAGE)), "area 0 was inserted before"),
        ((platform(), area(), insert(0), parameter(0x307)), "area 0 was inserted before"),
        ((platform(), parameter(0x30E)), "area 0 was not made"),
        (
            (platform(), area(), parameter(0x30E, byte_offset=PAGE)),
            "COMMAND_LINE at 4096 of a parameter area",
        ),
        ((platform(), area(), insert(1)), "no multiple of 0x1000"),
        ((platform(), area(size=2 * PAGE), insert((1 << 64) - PAGE)), "pass the end of all addresses"),
        ((platform(), context(gpa=1)), "no multiple of 0x1000"),
        ((platform(), context(reserved=1)), "reserved field"),
        ((platform(), context(mask=2)), "mask 0x2, want that of one platform"),
        ((platform(), platform(2, files.TDX), context(mask=3)), "mask 0x3, want that of one platform"),
        ((platform(), required(1)), "no multiple"),
        ((platform(), required(0, 1)), "1 bytes of required memory"),
        ((platform(), required((1 << 64) - PAGE, 2 * PAGE)), "pass the end"),
        ((platform(), required(0, flags=2)), "flags 0x2"),
        ((platform(), required(0, reserved=1)), "reserved field"),
        ((platform(), error_range(1)), "no multiple"),
        ((platform(), error_range(0, 1)), "an error range of 1 bytes"),
        ((platform(), error_range((1 << 64) - PAGE, 2 * PAGE)), "pass the end"),
        ((platform(), version_string(b"\xff")), "not UTF-8"),
        ((platform(), version_string(b"v" * 1025)), "version string of 1025 bytes"),
        ((platform(), version_string(b""), version_string(b"")), "a second version string"),
    ],
)
def test_refusals(pieces: tuple[Piece, ...], reason: str) -> None:
    refused(igvm(*pieces), reason)


@pytest.mark.parametrize("kind", [files.SNP, files.TDX, files.NATIVE, files.SEV_ES])
def test_platforms_of_another_architecture(kind: int) -> None:
    refused(igvm(platform(kind=kind), version=2, architecture=1), "does not exist on AARCH64")
    IgvmFile.parse(igvm(platform(kind=files.CCA), version=2, architecture=1))


@pytest.mark.parametrize("size", range(1, 8))
def test_a_prefix_that_is_cut_short(size: int) -> None:
    raw = igvm(platform())
    raw = raw[:12] + struct.pack("<II", 24 + size, len(raw) + size) + raw[20:] + bytes(size)
    assert refused(resealed(raw), f"{size} bytes left, a header needs 8").offset == PLATFORM


@pytest.mark.parametrize("size", [17, 24, 0xFFFFFFFF])
def test_a_header_that_passes_the_end(size: int) -> None:
    raw = igvm(platform())
    raw = resealed(raw[: START + 4] + struct.pack("<I", size) + raw[START + 8 :])
    assert refused(raw, "pass the end of the headers").offset == START + 4


def test_padding_is_zero() -> None:
    raw = bytearray(igvm(platform(), context()))
    raw[PLATFORM + 8 + 20] = 1
    assert refused(resealed(bytes(raw)), "padding must be zero").offset == PLATFORM + 28


@pytest.mark.parametrize(
    ("make", "offset", "size"),
    [
        (page, 12, PAGE),
        (lambda gpa, data: page(gpa, data, flags=files.TWO_MIB), 12, 2 << 20),
        (lambda _, data: area(0, PAGE, data), 12, PAGE),
        (lambda _, data: context(data), 12, PAGE),
    ],
)
def test_data_lie_in_the_file_data(make: object, offset: int, size: int) -> None:
    assert callable(make)
    raw = igvm(platform(), make(0, bytes(size)))
    at = PLATFORM + 8 + offset
    start = int.from_bytes(raw[at : at + 4], "little")
    assert start + size == len(raw)
    IgvmFile.parse(raw)
    for wrong in (start + 1, start - 1, len(raw), 0xFFFFFFFF, 24):
        changed = resealed(raw[:at] + struct.pack("<I", wrong) + raw[at + 4 :])
        assert refused(changed, "outside the file's data").offset == at


def test_a_context_cannot_be_without_data() -> None:
    raw = igvm(platform(), replace(context(), data=None))
    refused(raw, "bytes of data at 0, outside")


def test_the_registers_of_vsm_say_their_length_themselves() -> None:
    found = parsed(platform(kind=files.VSM), context(b"\0\0\0\0", 0))
    assert isinstance(found.headers[1], VpContext)


def test_a_file_that_is_too_large() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return MAX_SIZE + 1

    with pytest.raises(WireError, match="at most 268435456"):
        IgvmFile.parse(Huge())


def test_the_number_of_headers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(igvm_file, "MAX_HEADERS", 3)
    assert len(parsed(platform(), page(0), page(PAGE)).headers) == 3
    error = refused(igvm(platform(), page(0), page(PAGE), page(0)), "more than 3 headers")
    assert error.offset == PLATFORM + 2 * 32


DIRECTIVES = st.lists(
    st.one_of(
        st.builds(
            page,
            st.integers(0, 2**52 - 1).map(lambda number: number * PAGE),
            st.none() | st.just(files.A_PAGE),
        ),
        st.builds(context, st.just(bytes(PAGE))),
        st.builds(required, st.just(0)),
        st.builds(error_range, st.just(0)),
    ),
    max_size=6,
)


@given(DIRECTIVES, st.data())
@settings(deadline=None)
def test_damaged_files_are_refused_or_read_but_nothing_else(pieces: list[Piece], data: st.DataObject) -> None:
    raw = bytearray(igvm(platform(), policy(), *pieces))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, min(len(raw), 400) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)) | st.just(len(raw)))
    damaged = resealed(bytes(raw[:cut]))
    try:
        found = IgvmFile.parse(damaged)
    except WireError as error:
        assert 0 <= error.offset <= len(damaged)  # noqa: PT017 (accepting is as well)
    else:
        assert all(found.fixed.headers_start <= one.offset < found.fixed.headers_end for one in found.headers)
