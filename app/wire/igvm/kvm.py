"""What QEMU and KVM ask of an IGVM file, so that the digest they reach is the one of the file.

KVM takes the state of the first processor only, writes it as a VMSA of its own, and measures that
at a fixed address when the launch ends; QEMU loads a parameter area before the run of pages that
precedes it in the file. A file that counts on anything else starts with another digest.
Sources: COCONUT-SVSM igvmmeasure (--check-kvm); Linux arch/x86/kvm/svm/sev.c; QEMU backends/igvm.c.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from app.wire.igvm.headers import PageData, VpContext
from app.wire.igvm.snp import SnpLaunch

VMSA_GPA = 0xFFFFFFFFF000
_CR0_VALUES = (0x30, 0x31)  # with protected mode off and on, as KVM sets it


@dataclass(frozen=True, slots=True, kw_only=True)
class KvmFault:
    """A reason why KVM would reach another digest, and the place of the header that is it."""

    offset: int
    reason: str


def kvm_faults(launch: SnpLaunch) -> tuple[KvmFault, ...]:
    """All reasons, in the order of the file; none where QEMU and KVM reach the file's digest."""
    return tuple(sorted(_faults(launch), key=lambda fault: fault.offset))


def _faults(launch: SnpLaunch) -> Iterator[KvmFault]:
    pages, context = False, None
    for step in launch.steps:
        if isinstance(step, VpContext):
            if context is None:
                yield from _vmsa_faults(launch, step)
            else:
                yield KvmFault(offset=step.offset, reason="a second VMSA: KVM takes that of one processor")
            context = step
            continue
        if context is not None:
            yield KvmFault(offset=context.offset, reason="pages follow the VMSA: KVM measures it last")
            return
        if isinstance(step, PageData):
            pages = True
        elif pages:
            reason = "a parameter area after pages: QEMU loads it before the run of pages that precedes it"
            yield KvmFault(offset=step.offset, reason=reason)
            pages = False  # one is enough
    if context is None:
        reason = "no VMSA: KVM measures one of its own making"
        yield KvmFault(offset=launch.platform.offset, reason=reason)


def _vmsa_faults(launch: SnpLaunch, context: VpContext) -> Iterator[KvmFault]:
    if context.gpa != VMSA_GPA:
        reason = f"the VMSA is at 0x{context.gpa:x}: KVM measures it at 0x{VMSA_GPA:x}"
        yield KvmFault(offset=context.offset, reason=reason)
    cr0 = launch.vmsa(context).cr0
    if cr0 not in _CR0_VALUES:
        yield KvmFault(offset=context.offset, reason=f"CR0 of the VMSA is 0x{cr0:x}: KVM sets 0x31 or 0x30")
