import errno
import hashlib
from uuid import UUID

import pytest

from app.evidence.simulator.guest import LinuxGuest
from app.evidence.simulator.memory import GuestMemory
from app.evidence.simulator.operation import AttestOperation
from app.evidence.simulator.processor import SecurityProcessor
from app.evidence.simulator.svsm import Answer, ResultCode, ServiceRefusedError, Svsm
from app.wire.guid import SERVICE_VTPM
from app.wire.product import ProductLine
from app.wire.report import AttestationReport

NONCE = bytes(range(64))


class RecordingSvsm(Svsm):
    """Keeps what the guest asked for."""

    def __init__(self, manifest: bytes = b"manifest", certificates: bytes = b"") -> None:
        processor = SecurityProcessor(ProductLine.MILAN, bytes(32))
        super().__init__(processor, {SERVICE_VTPM: lambda: manifest}, host_certificates=lambda: certificates)
        self.requests: list[AttestOperation] = []

    def call(self, rax: int, operation: bytes, memory: GuestMemory) -> Answer:
        self.requests.append(AttestOperation.parse(operation))
        return super().call(rax, operation, memory)


class RefusingSvsm(RecordingSvsm):
    """Answers the same to everything."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer

    def call(self, rax: int, operation: bytes, memory: GuestMemory) -> Answer:
        super().call(rax, operation, memory)
        return self.answer


def test_linux_asks_with_one_page_one_page_and_four() -> None:
    svsm = RecordingSvsm()
    blobs = LinuxGuest(svsm).attest(NONCE, SERVICE_VTPM)
    (request,) = svsm.requests
    assert (request.report.size, request.manifest.size, request.certificates.size) == (4096, 4096, 16384)
    assert (len(blobs.report), blobs.manifest, blobs.certificates) == (1184, b"manifest", b"")
    expected = hashlib.sha512(NONCE + b"manifest").digest()
    assert AttestationReport.parse(blobs.report).report_data == expected


def test_no_service_asks_for_all() -> None:
    svsm = RecordingSvsm()
    blobs = LinuxGuest(svsm).attest(NONCE, None)
    assert svsm.requests[0].service is None
    assert blobs.manifest.startswith(bytes.fromhex("bb9e8463"))


def test_certificates_come_padded() -> None:
    table = b"\xaa" * 100
    blobs = LinuxGuest(RecordingSvsm(certificates=table)).attest(NONCE, SERVICE_VTPM)
    assert blobs.certificates == table.ljust(16384, b"\0")


def test_a_larger_manifest_is_asked_for_again() -> None:
    manifest = b"\x55" * 9000
    svsm = RecordingSvsm(manifest)
    assert LinuxGuest(svsm).attest(NONCE, SERVICE_VTPM).manifest == manifest
    assert [request.manifest.size for request in svsm.requests] == [4096, 12288]
    assert [request.report.size for request in svsm.requests] == [4096, 4096]


def test_it_gives_up_after_three_retries() -> None:
    class GrowingSvsm(RecordingSvsm):
        def call(self, rax: int, operation: bytes, memory: GuestMemory) -> Answer:
            super().call(rax, operation, memory)
            return Answer(ResultCode.INVALID_PARAMETER, r8=self.requests[-1].report.size + 1)

    svsm = GrowingSvsm()
    with pytest.raises(OSError, match="INVALID_PARAMETER") as caught:
        LinuxGuest(svsm).attest(NONCE, SERVICE_VTPM)
    assert caught.value.errno == errno.EINVAL
    assert [request.report.size for request in svsm.requests] == [4096, 8192, 12288, 16384]


@pytest.mark.parametrize("code", [code for code in ResultCode if code])
def test_every_refusal_is_einval(code: ResultCode) -> None:
    svsm = RefusingSvsm(Answer(code))
    with pytest.raises(OSError, match=code.name) as caught:
        LinuxGuest(svsm).attest(NONCE, SERVICE_VTPM)
    assert caught.value.errno == errno.EINVAL
    assert len(svsm.requests) == 1


def test_sizes_beside_another_refusal_are_no_reason_to_retry() -> None:
    svsm = RefusingSvsm(Answer(ResultCode.INVALID_ADDRESS, rcx=9000))
    with pytest.raises(OSError, match="INVALID_ADDRESS"):
        LinuxGuest(svsm).attest(NONCE, SERVICE_VTPM)
    assert len(svsm.requests) == 1


def test_a_table_too_large_for_the_svsm_never_succeeds() -> None:
    svsm = RecordingSvsm(certificates=b"\xaa" * 16385)
    with pytest.raises(OSError, match="INVALID_PARAMETER"):
        LinuxGuest(svsm).attest(NONCE, SERVICE_VTPM)
    assert [request.certificates.size for request in svsm.requests] == [16384, 20480]


@pytest.mark.parametrize("size", [0, 32, 63, 65])
def test_a_nonce_of_another_size_does_not_reach_the_svsm(size: int) -> None:
    svsm = RecordingSvsm()
    with pytest.raises(OSError, match="inblob") as caught:
        LinuxGuest(svsm).attest(bytes(size), SERVICE_VTPM)
    assert caught.value.errno == errno.EINVAL
    assert not svsm.requests


@pytest.mark.parametrize(
    ("service", "version"), [(SERVICE_VTPM, 1), (UUID("12345678-1234-1234-1234-123456789abc"), 0)]
)
def test_what_the_svsm_does_not_have_is_einval(service: UUID, version: int) -> None:
    with pytest.raises(OSError, match="SVSM attestation request failed") as caught:
        LinuxGuest(RecordingSvsm()).attest(NONCE, service, version)
    assert caught.value.errno == errno.EINVAL


def test_a_vtpm_that_refuses_is_einval() -> None:
    def refuse() -> bytes:
        raise ServiceRefusedError("TPM_RC_INITIALIZE")

    svsm = Svsm(SecurityProcessor(ProductLine.MILAN, bytes(32)), {SERVICE_VTPM: refuse})
    with pytest.raises(OSError, match="INVALID_REQUEST"):
        LinuxGuest(svsm).attest(NONCE, SERVICE_VTPM)
