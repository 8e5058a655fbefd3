"""The guest's side of the attestation protocol, as the Linux sev-guest driver plays it.

Source: Linux drivers/virt/coco/sev-guest/sev-guest.c, sev_svsm_report_new().
"""

import errno
from dataclasses import dataclass
from uuid import UUID

from app.evidence.simulator.memory import PAGE_SIZE, GuestMemory
from app.evidence.simulator.operation import AttestOperation, Buffer
from app.evidence.simulator.svsm import SERVICES_CALL, SINGLE_SERVICE_CALL, ResultCode, Svsm
from app.wire.binding import NONCE_SIZE

MAX_RETRIES = 3
_REPORT_SIZE = PAGE_SIZE
_MANIFEST_SIZE = PAGE_SIZE
_CERTIFICATES_SIZE = 4 * PAGE_SIZE


@dataclass(frozen=True, slots=True)
class Blobs:
    """What configfs-tsm would show as outblob, manifestblob and auxblob."""

    report: bytes
    manifest: bytes
    certificates: bytes  # empty, or 16384 bytes


@dataclass(frozen=True, slots=True)
class _Sizes:
    report: int = _REPORT_SIZE
    manifest: int = _MANIFEST_SIZE
    certificates: int = _CERTIFICATES_SIZE


class LinuxGuest:
    """A kernel that asks its SVSM for reports."""

    def __init__(self, svsm: Svsm) -> None:
        self._svsm = svsm

    def attest(self, nonce: bytes, service: UUID | None, manifest_version: int = 0) -> Blobs:
        """A report about one service, or about all of them where `service` is None.

        Raises:
            OSError: EINVAL, whatever the SVSM refused and why: Linux tells no more.
        """
        if len(nonce) != NONCE_SIZE:
            raise _invalid(f"inblob has {len(nonce)} bytes")
        sizes = _Sizes()
        retries = 0
        while True:
            memory = GuestMemory()
            operation = AttestOperation(
                report=_allocate(memory, sizes.report),
                nonce=Buffer(memory.allocate(len(nonce)), len(nonce)),
                manifest=_allocate(memory, sizes.manifest),
                certificates=_allocate(memory, sizes.certificates),
                service=service,
                manifest_version=manifest_version,
            )
            memory.write(operation.nonce.address, nonce)
            call = SERVICES_CALL if service is None else SINGLE_SERVICE_CALL
            answer = self._svsm.call(call, operation.encode(), memory)
            if answer.rax is ResultCode.SUCCESS:
                return Blobs(
                    report=memory.read(operation.report.address, answer.r8),
                    manifest=memory.read(operation.manifest.address, answer.rcx),
                    certificates=memory.read(operation.certificates.address, answer.rdx),
                )
            needed = _Sizes(
                report=max(sizes.report, _whole_pages(answer.r8)),
                manifest=max(sizes.manifest, _whole_pages(answer.rcx)),
                certificates=max(sizes.certificates, _whole_pages(answer.rdx)),
            )
            short = answer.rax is ResultCode.INVALID_PARAMETER and needed != sizes
            if not short or retries == MAX_RETRIES:
                raise _invalid(f"SVSM attestation request failed ({answer.rax.name})")
            sizes = needed
            retries += 1


def _allocate(memory: GuestMemory, size: int) -> Buffer:
    return Buffer(memory.allocate(size), size)


def _whole_pages(size: int) -> int:
    return -(-size // PAGE_SIZE) * PAGE_SIZE


def _invalid(reason: str) -> OSError:
    return OSError(errno.EINVAL, reason)
