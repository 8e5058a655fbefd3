import pytest

from app.errors import WireError
from app.wire.igvm import snp
from app.wire.igvm.file import IgvmFile
from app.wire.igvm.headers import PageData, VpContext
from app.wire.igvm.snp import ParameterPages, SnpLaunch
from tests.wire.igvm import files
from tests.wire.igvm.files import (
    PAGE,
    Piece,
    area,
    context,
    igvm,
    insert,
    page,
    piece,
    platform,
    policy,
    relocation,
)


def launch(*pieces: Piece) -> SnpLaunch:
    return SnpLaunch.of(IgvmFile.parse(igvm(*pieces)))


def test_only_what_snp_means_is_picked_in_the_order_of_the_file() -> None:
    found = launch(
        platform(4),
        platform(2, files.TDX),
        policy(0x30000, mask=4),
        policy(1, mask=2),
        area(9, 3 * PAGE),
        insert(0x20000, 9, mask=6),
        page(0x1000, mask=2),
        page(0x2000, mask=6),
        page(0x3000, mask=0),
        context(mask=4),
    )
    inserted, loaded, state = found.steps
    assert isinstance(inserted, ParameterPages)
    assert (inserted.gpa, inserted.size) == (0x20000, 3 * PAGE)
    assert isinstance(loaded, PageData)
    assert loaded.gpa == 0x2000
    assert found.contexts == (state,)
    assert found.platform.mask == 4
    assert found.guest_policy is not None
    assert found.guest_policy.policy == 0x30000
    assert found.id_block is None


def test_a_file_may_name_no_policy() -> None:
    assert launch(platform()).guest_policy is None


def test_the_vmsa_of_a_context() -> None:
    found = launch(platform(), context(files.vmsa(x158=0x31, x178=0x808000)))
    (state,) = found.contexts
    assert isinstance(state, VpContext)
    assert (found.vmsa(state).cr0, found.vmsa(state).rip) == (0x31, 0x808000)


def test_headers_of_others_change_nothing() -> None:
    pieces = (
        platform(),
        platform(2, files.NATIVE),
        piece(0x104, b"\1".ljust(16, b"\0")),
        relocation(mask=2),
        page(0, mask=2, flags=files.SHARED),
        piece(0x311, b"\1".ljust(864, b"\0")),
    )
    assert launch(*pieces).steps == ()


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ((platform(kind=files.TDX), platform(2, files.NATIVE)), "not for SEV_SNP, but for TDX, NATIVE"),
        ((platform(), policy(1), policy(1)), "a second guest policy"),
        (
            (platform(), piece(0x30B, b"\1".ljust(696, b"\0")), piece(0x30B, b"\1".ljust(696, b"\0"))),
            "ID block",
        ),
        ((platform(), relocation()), "RELOCATABLE_REGION leaves addresses to the loader"),
        ((platform(), piece(0x103, b"\1".ljust(32, b"\0"))), "PAGE_TABLE_RELOCATION leaves addresses"),
        ((platform(), page(0, flags=files.SHARED)), "marked as shared"),
        ((platform(), piece(0x80000314, b"")), "header type 0x80000314 is unknown"),
        ((platform(), piece(0x80000108, b"")), "header type 0x80000108 is unknown"),
    ],
)
def test_what_leaves_the_digest_open_is_refused(pieces: tuple[Piece, ...], reason: str) -> None:
    with pytest.raises(WireError, match=reason) as caught:
        launch(*pieces)
    assert caught.value.structure == "IGVM"


def test_the_number_of_pages_is_bounded() -> None:
    whole = area(0, snp.MAX_PAGES * PAGE)
    assert len(launch(platform(), whole, insert(0)).steps) == 1
    for more in (page(0), context()):
        with pytest.raises(WireError, match="more than 1048576 pages"):
            launch(platform(), whole, insert(0), more)
    with pytest.raises(WireError, match="more than 1048576 pages"):
        launch(platform(), area(0, 2**52), insert(0))
