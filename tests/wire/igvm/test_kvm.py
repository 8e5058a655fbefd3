import pytest

from app.wire.igvm.file import IgvmFile
from app.wire.igvm.kvm import kvm_faults
from app.wire.igvm.snp import SnpLaunch
from tests.wire.igvm import files
from tests.wire.igvm.files import PAGE, VMSA_GPA, Piece, area, context, igvm, insert, page, platform, vmsa

STATE = vmsa(x158=0x31)
GOOD = context(STATE)


def faults(*pieces: Piece) -> list[str]:
    raw = igvm(platform(), platform(2, files.SEV_ES), *pieces)
    found = kvm_faults(SnpLaunch.of(IgvmFile.parse(raw)))
    assert [fault.offset for fault in found] == sorted(fault.offset for fault in found)
    assert all(0 < fault.offset < len(raw) for fault in found)
    return [fault.reason for fault in found]


@pytest.mark.parametrize(
    "pieces",
    [
        (GOOD,),
        (context(vmsa(x158=0x30)),),
        (area(), insert(0), page(PAGE), page(2 * PAGE), GOOD),
        (page(0), GOOD, page(0, mask=2), context(mask=2)),
        (area(), page(0, mask=2), insert(PAGE), page(0), GOOD),
    ],
)
def test_what_kvm_measures_as_the_file_says(pieces: tuple[Piece, ...]) -> None:
    assert faults(*pieces) == []


def test_a_file_like_coconuts_suits_kvm() -> None:
    assert kvm_faults(SnpLaunch.of(IgvmFile.parse(igvm(*files.like_coconut())))) == ()


@pytest.mark.parametrize(
    ("pieces", "reasons"),
    [
        ((page(0),), ["no VMSA"]),
        ((), ["no VMSA"]),
        ((context(STATE, mask=2),), ["no VMSA"]),
        ((GOOD, context(STATE, index=1)), ["a second VMSA"]),
        ((GOOD, GOOD, GOOD), ["a second VMSA", "a second VMSA"]),
        ((context(STATE, VMSA_GPA - PAGE),), ["KVM measures it at 0xfffffffff000"]),
        ((context(),), ["CR0 of the VMSA is 0x0"]),
        ((context(vmsa(x158=0x80000031)),), ["CR0 of the VMSA is 0x80000031"]),
        ((GOOD, page(0)), ["pages follow the VMSA"]),
        ((area(), GOOD, insert(0)), ["pages follow the VMSA"]),
        ((context(gpa=0), page(0)), ["the VMSA is at 0x0", "CR0", "pages follow"]),
        ((area(), page(0), insert(PAGE), GOOD), ["a parameter area after pages"]),
        (
            (area(), area(1), page(0), insert(PAGE), insert(2 * PAGE, 1), GOOD),
            ["a parameter area after pages"],
        ),
    ],
)
def test_what_kvm_measures_otherwise(pieces: tuple[Piece, ...], reasons: list[str]) -> None:
    found = faults(*pieces)
    assert len(found) == len(reasons)
    assert all(reason in fault for reason, fault in zip(reasons, found, strict=True)), found
