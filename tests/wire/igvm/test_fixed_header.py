import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import UnsupportedVersionError, WireError
from app.wire.igvm.file import IgvmFile
from app.wire.igvm.fixed_header import Architecture, FixedHeader
from tests.wire.igvm.files import VSM, igvm, page, platform, policy, resealed, small


def patched(raw: bytes, offset: int, value: int) -> bytes:
    return raw[:offset] + struct.pack("<I", value) + raw[offset + 4 :]


def test_version_1() -> None:
    raw = igvm(*small())
    head = FixedHeader.parse(raw)
    assert (head.version, head.architecture, head.headers_start) == (1, Architecture.X64, 24)
    assert head.headers_end + 2 * 4096 == len(raw)  # a page and a VMSA
    headers = raw[:20] + bytes(4) + raw[24 : head.headers_end]
    assert head.checksum == zlib.crc32(headers) == struct.unpack_from("<I", raw, 20)[0]


@pytest.mark.parametrize("architecture", Architecture)
def test_version_2(architecture: Architecture) -> None:
    raw = igvm(platform(kind=VSM), version=2, architecture=architecture)
    head = FixedHeader.parse(raw)
    assert (head.version, head.architecture, head.headers_start) == (2, architecture, 32)


@pytest.mark.parametrize("version", [1, 2])
def test_headers_may_begin_later(version: int) -> None:
    raw = igvm(platform(), policy(), version=version, gap=64)
    assert len(IgvmFile.parse(raw).headers) == 2


def test_the_checksum_covers_head_and_headers_and_no_data() -> None:
    raw = igvm(platform(), page(0, bytes(4096)))
    end = FixedHeader.parse(raw).headers_end
    assert FixedHeader.parse(raw[:-1] + b"\1").headers_end == end
    for offset in (*range(20, 24), *range(24, end)):
        with pytest.raises(WireError, match="checksum") as caught:
            FixedHeader.parse(raw[:offset] + bytes([raw[offset] ^ 1]) + raw[offset + 1 :])
        assert caught.value.offset == 20


@given(st.integers(0, 31))
def test_a_head_that_is_cut_short(size: int) -> None:
    raw = igvm(platform(), version=2)[:size]
    with pytest.raises(WireError) as caught:
        FixedHeader.parse(raw)
    assert caught.value.structure == "IGVM"
    assert caught.value.offset <= len(raw)


@pytest.mark.parametrize(
    ("offset", "value", "at", "reason"),
    [
        (0, 0x4D564748, 0, "want 4947564d"),
        (8, 16, 8, "want a multiple of 8 from 24"),
        (8, 28, 8, "want a multiple of 8"),
        (8, 0xFFFFFFF8, 12, "end at"),
        (12, 0xFFFFFFFF, 12, "end at"),
        (16, 1, 16, "speaks of 1 bytes"),
    ],
)
def test_refusals(offset: int, value: int, at: int, reason: str) -> None:
    with pytest.raises(WireError, match=reason) as caught:
        FixedHeader.parse(resealed(patched(igvm(*small()), offset, value)))
    assert caught.value.offset == at


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (24, 2, "architecture 2 is unknown"),
        (28, 65536, "pages of 65536 bytes"),
        (28, 0, "pages of 0 bytes"),
        (8, 24, "from 32 on"),
    ],
)
def test_refusals_of_version_2(offset: int, value: int, reason: str) -> None:
    with pytest.raises(WireError, match=reason) as caught:
        FixedHeader.parse(resealed(patched(igvm(platform(), version=2), offset, value)))
    assert caught.value.offset == offset


@pytest.mark.parametrize("version", [0, 3, 0xFFFFFFFF])
def test_other_versions_are_not_supported(version: int) -> None:
    raw = resealed(patched(igvm(platform()), 4, version))
    with pytest.raises(UnsupportedVersionError) as caught:
        FixedHeader.parse(raw)
    assert (caught.value.version, caught.value.supported) == (version, (1, 2))


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(WireError, match="and here are"):
        FixedHeader.parse(igvm(platform()) + b"\0")
