"""The launch digest of SEV-SNP: what the firmware makes of the pages that a VM starts with.

It begins with 48 zero bytes. Each loaded page replaces it by SHA-384 over a record of 112 bytes:
the digest so far, the page's contents digest, and what kind of page it is and where. What the
contents digest is depends on the kind: SHA-384 of the page for normal ones and VMSAs, zeros for all
others. A large page counts as 512 pages, a parameter area as unmeasured pages.
Sources: AMD 56860 (SEV-SNP Firmware ABI), SNP_LAUNCH_UPDATE and PAGE_INFO; COCONUT-SVSM igvmmeasure.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from enum import IntEnum

from app.wire.igvm.fixed_header import PAGE_SIZE
from app.wire.igvm.headers import PageData, PageDataType, VpContext
from app.wire.igvm.snp import ParameterPages, SnpLaunch

DIGEST_SIZE = 48
RECORD_SIZE = 0x70
START = bytes(DIGEST_SIZE)
_NO_CONTENTS = bytes(DIGEST_SIZE)
_ZERO_PAGE = hashlib.sha384(bytes(PAGE_SIZE)).digest()


class PageType(IntEnum):
    """PAGE_TYPE of a record."""

    NORMAL = 1
    VMSA = 2
    ZERO = 3
    UNMEASURED = 4
    SECRETS = 5
    CPUID = 6


_SPECIAL = {
    PageDataType.SECRETS: PageType.SECRETS,
    PageDataType.CPUID_DATA: PageType.CPUID,
    PageDataType.CPUID_XF: PageType.CPUID,
}


def extend(digest: bytes, kind: PageType, gpa: int, page: bytes | memoryview | None = None) -> bytes:
    """The digest after one more page of 4096 bytes; `page` for a NORMAL page or a VMSA only."""
    return _extend(digest, kind, gpa, _NO_CONTENTS if page is None else hashlib.sha384(page).digest())


def launch_digest(launch: SnpLaunch, *, native_zero: bool = False) -> bytes:
    """The digest that reports will show for this file.

    Args:
        launch: what SEV-SNP loads.
        native_zero: the launch stack loads pages without file data as ZERO pages of the firmware
            (Vanadium does), not as NORMAL pages full of zeros (QEMU and Hyper-V do).
    """
    digest = START
    for kind, gpa, contents in _pages(launch, native_zero=native_zero):
        digest = _extend(digest, kind, gpa, contents)
    return digest


def page_counts(launch: SnpLaunch, *, native_zero: bool = False) -> Counter[PageType]:
    """How many pages of which type are loaded."""
    counts: Counter[PageType] = Counter()
    for step in launch.steps:
        size = PAGE_SIZE if isinstance(step, VpContext) else step.size
        counts[_type(step, native_zero=native_zero)] += size // PAGE_SIZE
    return counts


def depends_on_zero_pages(launch: SnpLaunch) -> bool:
    """Does `native_zero` change the digest?"""
    return page_counts(launch, native_zero=True)[PageType.ZERO] > 0


def _extend(digest: bytes, kind: PageType, gpa: int, contents: bytes) -> bytes:
    # Length, type, IMI flag, one reserved byte, and the permissions of VMPL 1 to 3: none.
    tail = RECORD_SIZE.to_bytes(2, "little") + bytes((kind, 0, 0, 0, 0, 0)) + gpa.to_bytes(8, "little")
    return hashlib.sha384(digest + contents + tail).digest()


def _pages(launch: SnpLaunch, *, native_zero: bool) -> Iterator[tuple[PageType, int, bytes]]:
    for step in launch.steps:
        kind = _type(step, native_zero=native_zero)
        if isinstance(step, VpContext):
            yield kind, step.gpa, hashlib.sha384(launch.file.data(step.data_start, PAGE_SIZE)).digest()
            continue
        start = step.data_start if isinstance(step, PageData) else None
        for inner in range(0, step.size, PAGE_SIZE):
            contents = _NO_CONTENTS
            if kind is PageType.NORMAL:
                contents = (
                    _ZERO_PAGE
                    if start is None
                    else hashlib.sha384(launch.file.data(start + inner, PAGE_SIZE)).digest()
                )
            yield kind, step.gpa + inner, contents


def _type(step: PageData | ParameterPages | VpContext, *, native_zero: bool) -> PageType:
    match step:
        case VpContext():
            return PageType.VMSA
        case ParameterPages():
            return PageType.UNMEASURED
    if step.data_type is not PageDataType.NORMAL:
        return _SPECIAL[step.data_type]
    if step.unmeasured:
        return PageType.UNMEASURED
    return PageType.ZERO if native_zero and step.data_start is None else PageType.NORMAL
