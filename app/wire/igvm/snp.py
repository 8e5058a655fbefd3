"""What SEV-SNP does with an IGVM file: the pages that it loads, in order, and under which policy.

Refused is a file whose digest its bytes do not settle, even if some loader would take it.
Sources: IGVM specification (igvm_defs 0.5.0); QEMU backends/igvm.c.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self, TypeVar

from app.errors import WireError
from app.wire.igvm.file import IgvmFile
from app.wire.igvm.fixed_header import PAGE_SIZE, STRUCTURE
from app.wire.igvm.header_types import HeaderType
from app.wire.igvm.headers import (
    GuestPolicyHeader,
    OtherHeader,
    PageData,
    ParameterArea,
    ParameterInsert,
    PlatformType,
    SupportedPlatform,
    UnknownHeader,
    VpContext,
)
from app.wire.igvm.id_block import SnpIdBlock
from app.wire.igvm.vmsa import Vmsa

MAX_PAGES = 1 << 20  # that are loaded: four gigabytes
_RELOCATIONS = frozenset({HeaderType.RELOCATABLE_REGION, HeaderType.PAGE_TABLE_RELOCATION})


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterPages:
    """A parameter area of `size` bytes that becomes guest memory at `gpa`."""

    offset: int
    gpa: int
    size: int


Step = PageData | ParameterPages | VpContext
Named = TypeVar("Named", GuestPolicyHeader, SnpIdBlock)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpLaunch:
    """The part of a file that SEV-SNP means. `steps` load pages, in the order of the file."""

    file: IgvmFile = field(repr=False)
    platform: SupportedPlatform
    steps: tuple[Step, ...] = field(repr=False)
    guest_policy: GuestPolicyHeader | None
    id_block: SnpIdBlock | None

    @classmethod
    def of(cls, file: IgvmFile) -> Self:
        """Pick out what SEV-SNP means.

        Raises:
            WireError: the file is not for SEV-SNP; a header of unknown meaning, or one that lets
                the loader choose addresses; a page that is marked as shared, which loaders measure
                or not; two guest policies or ID blocks; more than 1048576 pages to load.
        """
        platform = next((one for one in file.platforms if one.type is PlatformType.SEV_SNP), None)
        if platform is None:
            names = ", ".join(one.type.name for one in file.platforms)
            reason = f"the file is not for SEV_SNP, but for {names}"
            raise WireError(STRUCTURE, file.fixed.headers_start, reason)
        policies: list[GuestPolicyHeader] = []
        id_blocks: list[SnpIdBlock] = []
        for header in file.headers:
            match header:
                case UnknownHeader():
                    reason = f"header type 0x{header.number:x} is unknown: it may change what is measured"
                    raise WireError(STRUCTURE, header.offset, reason)
                case OtherHeader() if header.type in _RELOCATIONS and header.mask & platform.mask:
                    reason = f"{header.type.name} leaves addresses to the loader, and so the digest"
                    raise WireError(STRUCTURE, header.offset, reason)
                case GuestPolicyHeader() if header.mask & platform.mask:
                    policies.append(header)
                case SnpIdBlock() if header.mask & platform.mask:
                    id_blocks.append(header)
        return cls(
            file=file,
            platform=platform,
            steps=tuple(_steps(file, platform.mask)),
            guest_policy=_only(policies, "guest policy"),
            id_block=_only(id_blocks, "ID block"),
        )

    @property
    def contexts(self) -> tuple[VpContext, ...]:
        """The processors that start with the file's state."""
        return tuple(step for step in self.steps if isinstance(step, VpContext))

    def vmsa(self, context: VpContext) -> Vmsa:
        """The VMSA of one of `contexts`."""
        return Vmsa.parse(bytes(self.file.data(context.data_start, PAGE_SIZE)))


def _steps(file: IgvmFile, mask: int) -> Iterator[Step]:
    areas: dict[int, int] = {}
    pages = 0
    for header in file.headers:
        match header:
            case ParameterArea():
                areas[header.index] = header.size
                continue
            case PageData() | VpContext() if header.mask & mask:
                step: Step = header
            case ParameterInsert() if header.mask & mask:
                step = ParameterPages(offset=header.offset, gpa=header.gpa, size=areas[header.index])
            case _:
                continue
        if isinstance(step, PageData) and step.shared:
            reason = "the page is marked as shared, which some loaders measure and some do not"
            raise WireError(STRUCTURE, step.offset, reason)
        pages += 1 if isinstance(step, VpContext) else step.size // PAGE_SIZE
        if pages > MAX_PAGES:
            raise WireError(STRUCTURE, step.offset, f"more than {MAX_PAGES} pages to load")
        yield step


def _only(found: list[Named], what: str) -> Named | None:
    if len(found) > 1:
        raise WireError(STRUCTURE, found[1].offset, f"a second {what}: loaders differ in which one counts")
    return found[0] if found else None
