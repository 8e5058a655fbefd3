"""The igvm crate beside ours: files that it writes, what it reads in ours, and the digest it computes.

Its driver is built by `make peers-test`; without it these tests are skipped.
"""

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.errors import WireError
from app.wire.igvm.file import IgvmFile
from app.wire.igvm.fixed_header import PAGE_SIZE
from app.wire.igvm.header_types import PARAMETERS, HeaderType
from app.wire.igvm.headers import (
    GuestPolicyHeader,
    Header,
    MemoryRange,
    OtherHeader,
    PageData,
    Parameter,
    ParameterArea,
    ParameterInsert,
    SupportedPlatform,
    VpContext,
)
from app.wire.igvm.id_block import EcdsaKey, EcdsaSignature, SnpIdBlock
from app.wire.igvm.snp import SnpLaunch
from app.wire.launch_digest import launch_digest
from tests.interop.peers.builds import CACHE, IGVM_DRIVER, PeerAbsentError
from tests.wire.igvm import files
from tests.wire.igvm.files import PAGE, Piece, igvm, page, platform, policy, resealed
from tests.wire.igvm.id_blocks import Owner

# Why a file that the crate takes may be none for us.
STRICTER_HERE = (
    "padding must be zero",
    "page flags",
    "no multiple of 0x200000",
    "reserved field of a processor context",
    "a parameter area of 0 bytes",
    "of a parameter area of",  # a parameter outside its area
)


@pytest.fixture(scope="session")
def driver() -> Path:
    program = CACHE / f"{IGVM_DRIVER.name}-{IGVM_DRIVER.version}" / IGVM_DRIVER.program
    if not program.is_file() and not os.environ.get("SVSM_ATTEST_BUILD_PEERS"):
        pytest.skip("the igvm crate's driver is not built: make peers-test builds it")
    try:
        return IGVM_DRIVER.binary(CACHE)
    except PeerAbsentError as reason:
        pytest.skip(str(reason))


def written(driver: Path, lines: Sequence[str], version: str = "1") -> bytes:
    text = "\n".join(lines).encode()
    return subprocess.run([driver, "write", version], input=text, capture_output=True, check=True).stdout


def told(driver: Path, command: str, folder: Path, raw: bytes) -> list[str]:
    """Its lines about one file; the last may be an error."""
    path = folder / "file.igvm"
    path.write_bytes(raw)
    done = subprocess.run([driver, command, path], capture_output=True, check=True, text=True, timeout=60)
    return done.stdout.splitlines()


def ours(found: IgvmFile) -> list[str]:
    """Our view in its words."""
    return [_words(*_VIEWS[type(header)](header, found)) for header in found.headers]


def _data(found: IgvmFile, start: int | None, size: int) -> str:
    return "-" if start is None else found.data(start, size).hex()


def _page_words(one: PageData, found: IgvmFile) -> tuple[object, ...]:
    flags = (one.size > PAGE_SIZE) | one.unmeasured << 1 | one.shared << 2
    return "page", one.mask, one.gpa, flags, one.data_type, _data(found, one.data_start, one.size)


def _range_words(one: MemoryRange, _: IgvmFile) -> tuple[object, ...]:
    name = "required" if one.type is HeaderType.REQUIRED_MEMORY else "error_range"
    return name, one.mask, one.gpa, one.size


def _id_block_words(block: SnpIdBlock, _: IgvmFile) -> tuple[object, ...]:
    return (
        "id_block",
        block.mask,
        int(block.author_key_enabled),
        *(value.hex() for value in (block.launch_digest, block.family_id, block.image_id)),
        *(block.version, block.guest_svn, block.id_key_algorithm, block.author_key_algorithm),
        *(_signature(block.id_key_signature), _key(block.id_key)),
        *(_signature(block.author_key_signature), _key(block.author_key)),
    )


_VIEWS: dict[type, Callable[[Any, IgvmFile], tuple[object, ...]]] = {
    SupportedPlatform: lambda one, _: (
        "platform",
        one.mask,
        one.type,
        one.highest_vtl,
        one.shared_gpa_boundary,
    ),
    GuestPolicyHeader: lambda one, _: ("policy", one.mask, one.policy),
    PageData: _page_words,
    ParameterArea: lambda one, found: (
        "area",
        one.index,
        one.size,
        _data(found, one.data_start, one.size),
    ),
    ParameterInsert: lambda one, _: ("insert", one.mask, one.gpa, one.index),
    Parameter: lambda one, _: (one.type.name, one.index, one.byte_offset),
    MemoryRange: _range_words,
    VpContext: lambda one, found: (
        "context",
        one.mask,
        one.gpa,
        one.vp_index,
        _data(found, one.data_start, PAGE_SIZE),
    ),
    SnpIdBlock: _id_block_words,
}


def _signature(value: EcdsaSignature) -> str:
    return "".join(number.to_bytes(72, "little").hex() for number in (value.r, value.s))


def _key(key: EcdsaKey) -> str:
    numbers = (key.x, key.y)
    return f"{key.curve.to_bytes(8, 'little').hex()}" + "".join(
        n.to_bytes(72, "little").hex() for n in numbers
    )


def _words(*values: object) -> str:
    return " ".join(f"{value:x}" if isinstance(value, int) else str(value) for value in values)


def digest_of(found: IgvmFile) -> str:
    return f"digest {launch_digest(SnpLaunch.of(found)).hex()}"


PAGES = st.integers(0, 2**40).map(lambda number: number * PAGE)
MASKS = st.sampled_from([1, 2, 3])
DATA = st.none() | st.binary(min_size=1, max_size=8).map(lambda seed: (seed * PAGE)[:PAGE])


def _page_line(mask: int, gpa: int, flags: int, kind: int, data: bytes | None) -> str:
    return _words("page", mask, gpa, flags, kind, data.hex() if data else "-")


PAGE_LINES = st.builds(_page_line, MASKS, PAGES, st.sampled_from([0, 2]), st.integers(0, 3), DATA)
OTHER_LINES = st.one_of(
    st.builds(lambda mask, gpa: _words("required", mask, gpa, PAGE), MASKS, PAGES),
    st.builds(lambda mask, gpa: _words("error_range", mask, gpa, PAGE), MASKS, PAGES),
    st.builds(
        lambda mask, gpa, index, data: _words("context", mask, gpa, index, data.hex()),
        st.sampled_from([1, 4]),
        PAGES,
        st.integers(0, 65535),
        DATA.filter(bool),
    ),
)


@st.composite
def area_lines(draw: st.DrawFn) -> list[str]:
    """Each area with what is written into it, and the place where it becomes memory."""
    lines = []
    for index in range(draw(st.integers(0, 3))):
        size = draw(st.sampled_from([PAGE, 3 * PAGE]))
        data = draw(st.sampled_from(["-", "5a" * size]))
        lines.append(_words("area", index, size, data))
        kinds = draw(st.lists(st.sampled_from(sorted(PARAMETERS)), max_size=3))
        lines += [_words(kind.name, index, draw(st.integers(0, size - 1))) for kind in kinds]
        lines.append(_words("insert", draw(MASKS), draw(PAGES), index))
    return lines


HEAD = ["platform 1 2 2 400000000000", "platform 2 3 2 0", "platform 4 5 0 0", "policy 1 30000", "policy 2 7"]

# The crate writes a file without file data, and does not read it.
WITH_DATA = _page_line(1, 0, 0, files.NORMAL, files.A_PAGE)


@given(
    areas=area_lines(), others=st.lists(PAGE_LINES | OTHER_LINES, max_size=8), version=st.sampled_from("12")
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_the_crate_writes_is_what_we_read(
    driver: Path, tmp_path: Path, areas: list[str], others: list[str], version: str
) -> None:
    lines = [*HEAD, *areas, *others, WITH_DATA]
    raw = written(driver, lines, version)
    found = IgvmFile.parse(raw)
    assert ours(found) == lines
    assert told(driver, "read", tmp_path, raw) == lines
    assert told(driver, "measure", tmp_path, raw) == [digest_of(found)]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("pieces", [files.small(), files.like_coconut()])
def test_what_we_take_for_a_file_is_one(
    driver: Path, tmp_path: Path, pieces: tuple[Piece, ...], version: int
) -> None:
    found = IgvmFile.parse(igvm(*pieces, version=version))
    theirs = [line for line in told(driver, "read", tmp_path, found.raw) if line != "other"]
    assert theirs == [line for line in ours(found) if not line.startswith("context 2 ")]  # a native one
    assert told(driver, "measure", tmp_path, found.raw) == [digest_of(found)]


def test_an_id_block_is_read_alike(driver: Path, tmp_path: Path) -> None:
    block = Owner.made_in(tmp_path).sign(bytes(range(48)))
    found = IgvmFile.parse(igvm(platform(), policy(), block, page(0, files.A_PAGE)))
    assert told(driver, "read", tmp_path, found.raw) == ours(found)


def judged(raw: bytes) -> tuple[IgvmFile | None, str]:
    try:
        return IgvmFile.parse(raw), ""
    except WireError as error:
        return None, error.reason


def is_read_by_one(raw: bytes, header: Header) -> bool:
    """Is its content nothing to us, or is it one to pass over? The crate knows no such bit."""
    return isinstance(header, OtherHeader) or bool(raw[header.offset + 3] & 0x80)


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_are_taken_and_refused_alike(driver: Path, tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(igvm(*files.small(), files.area(), files.parameter(0x308), files.insert(0)))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(48, 360))  # behind the platform
        raw[place] = data.draw(st.sampled_from([0, 1, 2, 3, 4, 8, 0x10, 0x80, 0xFF]))
    damaged = resealed(bytes(raw))
    found, reason = judged(damaged)
    they_refuse = told(driver, "read", tmp_path, damaged)[-1].startswith("error")
    if found is None:
        assert they_refuse or any(words in reason for words in STRICTER_HERE), reason
    else:
        assert not they_refuse or any(is_read_by_one(damaged, header) for header in found.headers)
