import hashlib
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sevsnpmeasure.gctx import GCTX

from app.wire.igvm.file import IgvmFile
from app.wire.igvm.snp import SnpLaunch
from app.wire.launch_digest import START, PageType, depends_on_zero_pages, extend, launch_digest, page_counts
from tests.wire.igvm import files
from tests.wire.igvm.files import PAGE, VMSA_GPA, Piece, area, context, igvm, insert, page, platform

# Of a page of "A" and one page of each other kind, with a VMSA of zeros: computed with
# sev-snp-measure 0.0.12 before there was any code here.
KNOWN = "dcbbc1c8169733648e32d054144060bdafaf3dfbd11737469a26daaf43635aa4b378e45a752d520eb71e2c84d746ca20"


def launch(*pieces: Piece) -> SnpLaunch:
    return SnpLaunch.of(IgvmFile.parse(igvm(*pieces)))


def test_the_known_vector() -> None:
    assert launch_digest(launch(*files.small())).hex() == KNOWN


def test_a_record_by_the_field_list_of_the_firmware_abi() -> None:
    contents = hashlib.sha384(files.A_PAGE).digest()
    record = struct.pack("<48s48sHBBBBBBQ", START, contents, 0x70, 1, 0, 0, 0, 0, 0, 0x10000)
    assert extend(START, PageType.NORMAL, 0x10000, files.A_PAGE) == hashlib.sha384(record).digest()


def test_nothing_loaded_leaves_zeros() -> None:
    assert launch_digest(launch(platform())) == bytes(48)


def peer_digest(pieces: Sequence[Piece], *, native_zero: bool) -> str:
    """The same pages through sev-snp-measure's context, told what each is by the piece that made it."""
    peer = GCTX()
    sizes: dict[int, int] = {}
    for one in pieces:
        payload = one.make(0)
        if one.number == 0x301:
            size, index = struct.unpack_from("<QI", payload)
            sizes[index] = size
        elif one.number == 0x303:
            gpa, _, index = struct.unpack_from("<QII", payload)
            peer.update_unmeasured_pages(gpa, sizes[index])
        elif one.number == 0x304:
            peer.update_vmsa_page(one.data)
        elif one.number == 0x302:
            tell_of_page(peer, payload, one.data, native_zero=native_zero)
    digest: str = peer.hex_ld()
    return digest


def tell_of_page(peer: GCTX, payload: bytes, data: bytes | None, *, native_zero: bool) -> None:
    gpa, _, _, flags, kind = struct.unpack_from("<QIIIH", payload)
    size = files.LARGE_PAGE if flags & files.TWO_MIB else PAGE
    if kind == files.SECRETS:
        for inner in range(gpa, gpa + size, PAGE):
            peer.update_secrets_page(inner)
    elif kind != files.NORMAL:
        for inner in range(gpa, gpa + size, PAGE):
            peer.update_cpuid_page(inner)
    elif flags & files.UNMEASURED:
        peer.update_unmeasured_pages(gpa, size)
    elif data is None and native_zero:
        peer.update_zero_pages(gpa, size)
    else:
        peer.update_normal_pages(gpa, data or bytes(size))


SMALL_PAGES = st.builds(
    page,
    st.integers(0, 2**40).map(lambda number: number * PAGE),
    st.none() | st.binary(min_size=1, max_size=16).map(lambda seed: (seed * PAGE)[:PAGE]),
    flags=st.sampled_from([0, files.UNMEASURED]),
    kind=st.sampled_from([files.NORMAL, files.NORMAL, files.SECRETS, files.CPUID, files.CPUID_XF]),
)
LARGE_PAGES = st.builds(
    page,
    st.integers(0, 2**30).map(lambda number: number * files.LARGE_PAGE),
    st.none()
    | st.binary(min_size=7, max_size=7).map(lambda seed: (seed * files.LARGE_PAGE)[: files.LARGE_PAGE]),
    flags=st.sampled_from([files.TWO_MIB, files.TWO_MIB | files.UNMEASURED]),
)
VMSAS = st.builds(context, st.binary(min_size=1, max_size=8).map(lambda seed: (seed * PAGE)[:PAGE]))


@given(st.lists(SMALL_PAGES | VMSAS, max_size=12), st.booleans())
@settings(deadline=None)
def test_any_sequence_of_pages_comes_to_the_digest_of_sev_snp_measure(
    pieces: list[Piece],
    native_zero: bool,  # noqa: FBT001 (drawn)
) -> None:
    found = launch_digest(launch(platform(), *pieces), native_zero=native_zero)
    assert found.hex() == peer_digest(pieces, native_zero=native_zero)


@given(LARGE_PAGES, st.booleans())
@settings(deadline=None, max_examples=10)
def test_a_large_page_counts_as_512(one: Piece, native_zero: bool) -> None:  # noqa: FBT001 (drawn)
    measured = launch(platform(), one)
    assert launch_digest(measured, native_zero=native_zero).hex() == peer_digest(
        [one], native_zero=native_zero
    )
    assert page_counts(measured).total() == 512


@pytest.mark.parametrize("size", [PAGE, 5 * PAGE])
def test_a_parameter_area_counts_as_unmeasured_pages(size: int) -> None:
    pieces = (area(7, size), insert(0x20000, 7))
    assert launch_digest(launch(platform(), *pieces)).hex() == peer_digest(pieces, native_zero=False)


def test_only_headers_for_snp_count() -> None:
    mixed = files.like_coconut()
    ours = [one for one in mixed if one.number < 0x300 or one.number in {0x301, 0x303}]
    ours += [one for one in mixed if one.number == 0x302 and struct.unpack_from("<8xI", one.make(0))[0] & 1]
    ours += [one for one in mixed if one.number == 0x304 and struct.unpack_from("<8xI", one.make(0))[0] == 1]
    found = launch(*mixed)
    assert launch_digest(found).hex() == peer_digest(ours, native_zero=False)
    assert page_counts(found) == {
        PageType.NORMAL: 8,
        PageType.UNMEASURED: 3,
        PageType.SECRETS: 1,
        PageType.CPUID: 1,
        PageType.VMSA: 1,
    }
    assert page_counts(found, native_zero=True)[PageType.ZERO] == 5


def test_zero_pages_are_the_one_thing_that_a_launch_stack_chooses() -> None:
    without_data, with_zeros = launch(platform(), page(0)), launch(platform(), page(0, bytes(PAGE)))
    assert depends_on_zero_pages(without_data)
    assert not depends_on_zero_pages(with_zeros)
    assert launch_digest(without_data) == launch_digest(with_zeros)
    assert launch_digest(without_data, native_zero=True) != launch_digest(without_data)
    assert launch_digest(with_zeros, native_zero=True) == launch_digest(with_zeros)
    # A page that is unmeasured or special has no data that could count.
    assert not depends_on_zero_pages(launch(platform(), page(0, flags=files.UNMEASURED), page(PAGE, kind=1)))


@given(st.integers(0, 5), st.integers(0, 8 * PAGE - 1))
@settings(deadline=None)
def test_one_changed_bit_of_a_measured_page_changes_the_digest(number: int, bit: int) -> None:
    pages = [page(index * PAGE, bytes([index]) * PAGE) for index in range(6)]
    changed = bytearray(bytes([number]) * PAGE)
    changed[bit // 8] ^= 1 << bit % 8
    other = [*pages[:number], page(number * PAGE, bytes(changed)), *pages[number + 1 :]]
    assert launch_digest(launch(platform(), *pages)) != launch_digest(launch(platform(), *other))


def test_address_order_and_kind_change_the_digest() -> None:
    first, second = page(0, files.A_PAGE), page(PAGE, files.A_PAGE)
    cases = (
        (first, second),
        (second, first),
        (first, page(2 * PAGE, files.A_PAGE)),
        (first, page(PAGE, files.A_PAGE, flags=files.UNMEASURED)),
        (first, page(PAGE, files.A_PAGE, kind=files.CPUID)),
        (first, page(PAGE, files.A_PAGE, kind=files.SECRETS)),
        (first, context(files.A_PAGE, PAGE)),
        (first, second, context()),
        (first, second, context(gpa=VMSA_GPA - PAGE)),
    )
    assert len({launch_digest(launch(platform(), *pieces)) for pieces in cases}) == len(cases)
