"""An SVSM's attestation protocol (number 1), down to operation structures and result codes.

It answers as COCONUT-SVSM of v2026.07 and later does: sizes come back even where a buffer is
too small, only manifest version 0 exists, and an unknown service is an unsupported protocol.
Sources: AMD 58019 (SVSM specification) 1.00, section 7; COCONUT-SVSM
kernel/src/protocols/attest.rs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from uuid import UUID

from app.errors import WireError
from app.evidence.simulator.memory import PAGE_SIZE, GuestMemory, PageFaultError
from app.evidence.simulator.operation import AttestOperation, Buffer
from app.evidence.simulator.processor import SecurityProcessor
from app.wire.binding import NONCE_SIZE, SVSM_VMPL, expected_report_data
from app.wire.certificate_table import SVSM_SIZE as CERTIFICATES_SIZE
from app.wire.report import REPORT_SIZE
from app.wire.services_manifest import ServiceEntry, ServicesManifest

SERVICES_CALL = 1 << 32  # protocol 1, call 0
SINGLE_SERVICE_CALL = 1 << 32 | 1
MANIFEST_VERSION = 0
_ADDRESS_END = 1 << 64
_TABLE_ENTRY_SIZE = 24

ManifestSource = Callable[[], bytes]


class ResultCode(IntEnum):
    """RAX after a call."""

    SUCCESS = 0
    UNSUPPORTED_PROTOCOL = 0x8000_0001
    INVALID_ADDRESS = 0x8000_0003
    INVALID_PARAMETER = 0x8000_0005
    INVALID_REQUEST = 0x8000_0006


class ServiceRefusedError(Exception):
    """A service has no manifest to give, such as a vTPM that refuses to make its EK."""


class _RefusedError(Exception):
    def __init__(self, code: ResultCode) -> None:
        super().__init__(code.name)
        self.code = code


@dataclass(frozen=True, slots=True)
class Answer:
    """The registers after a call: its result, and sizes in bytes (zero where it did not get that far)."""

    rax: ResultCode
    rcx: int = 0  # manifest
    rdx: int = 0  # certificates
    r8: int = 0  # report


class Svsm:
    """The SVSM of one guest.

    Args:
        processor: signs the reports, at VMPL 0.
        services: each service's GUID and where its manifest comes from, in table order.
        host_certificates: the certificate table that the host offers; empty bytes for none.
        bind: how REPORT_DATA is made of nonce and manifest.
    """

    def __init__(
        self,
        processor: SecurityProcessor,
        services: Mapping[UUID, ManifestSource],
        *,
        host_certificates: Callable[[], bytes] = bytes,
        bind: Callable[[bytes, bytes], bytes] = expected_report_data,
    ) -> None:
        self._processor = processor
        self._services = services
        self._host_certificates = host_certificates
        self._bind = bind

    def call(self, rax: int, operation: bytes, memory: GuestMemory) -> Answer:
        """Serve one call of the guest.

        Args:
            rax: protocol and call number.
            operation: the structure that RCX would point at.
            memory: where the structure's addresses lead.
        """
        if rax not in (SERVICES_CALL, SINGLE_SERVICE_CALL):
            return Answer(ResultCode.UNSUPPORTED_PROTOCOL)
        try:
            request = _parse(operation, single=rax == SINGLE_SERVICE_CALL)
            manifest = self._manifest(request.service)
            nonce = _read_nonce(request.nonce, memory)
            _check_buffers(request)
        except _RefusedError as refusal:
            return Answer(refusal.code)
        return self._answer(request, nonce, manifest, memory)

    def _manifest(self, service: UUID | None) -> bytes:
        try:
            if service is None:
                entries = (ServiceEntry(guid, manifest()) for guid, manifest in self._services.items())
                return ServicesManifest(tuple(entries)).encode()
            if service not in self._services:
                # The specification wants INVALID_PARAMETER here; COCONUT-SVSM answers otherwise.
                raise _RefusedError(ResultCode.UNSUPPORTED_PROTOCOL)
            return self._services[service]()
        except ServiceRefusedError as error:
            raise _RefusedError(ResultCode.INVALID_REQUEST) from error

    def _answer(self, request: AttestOperation, nonce: bytes, manifest: bytes, memory: GuestMemory) -> Answer:
        certificates = self._host_certificates() if request.certificates.size else b""
        if not any(certificates[:_TABLE_ENTRY_SIZE]):
            certificates = b""
        elif len(certificates) < CERTIFICATES_SIZE:
            certificates = certificates.ljust(CERTIFICATES_SIZE, b"\0")  # its whole fetch buffer

        def answer(code: ResultCode) -> Answer:
            return Answer(code, rcx=len(manifest), rdx=len(certificates), r8=REPORT_SIZE)

        if (
            len(manifest) > request.manifest.size
            or request.report.size < REPORT_SIZE
            or len(certificates) > request.certificates.size
            or request.certificates.size > CERTIFICATES_SIZE
        ):
            return answer(ResultCode.INVALID_PARAMETER)
        report = self._processor.report(self._bind(nonce, manifest), SVSM_VMPL)
        try:
            memory.write(request.report.address, report)
            memory.write(request.manifest.address, manifest)
            memory.write(request.certificates.address, certificates)
        except PageFaultError:
            return answer(ResultCode.INVALID_ADDRESS)
        return answer(ResultCode.SUCCESS)


def _parse(operation: bytes, *, single: bool) -> AttestOperation:
    try:
        request = AttestOperation.parse(operation)
    except WireError as error:
        raise _RefusedError(ResultCode.INVALID_PARAMETER) from error
    if (request.service is not None) != single or request.manifest_version != MANIFEST_VERSION:
        raise _RefusedError(ResultCode.INVALID_PARAMETER)
    return request


def _read_nonce(nonce: Buffer, memory: GuestMemory) -> bytes:
    if nonce.size != NONCE_SIZE or nonce.address % PAGE_SIZE + nonce.size > PAGE_SIZE:
        raise _RefusedError(ResultCode.INVALID_PARAMETER)
    try:
        return memory.read(nonce.address, nonce.size)
    except PageFaultError as error:
        raise _RefusedError(ResultCode.INVALID_PARAMETER) from error


def _check_buffers(request: AttestOperation) -> None:
    buffers = [request.report, request.manifest]
    if request.certificates.size:
        buffers.append(request.certificates)
    for buffer in buffers:
        if buffer.address % PAGE_SIZE:
            raise _RefusedError(ResultCode.INVALID_PARAMETER)
        if buffer.end > _ADDRESS_END:
            raise _RefusedError(ResultCode.INVALID_ADDRESS)
