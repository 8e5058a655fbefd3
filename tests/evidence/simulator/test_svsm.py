import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import WireError
from app.evidence.simulator.memory import GuestMemory, PageFaultError
from app.evidence.simulator.operation import AttestOperation, Buffer
from app.evidence.simulator.processor import SecurityProcessor
from app.evidence.simulator.svsm import ResultCode, ServiceRefusedError, Svsm
from app.wire.product import ProductLine
from app.wire.report import AttestationReport

VTPM = UUID("c476f1eb-0123-45a5-9641-b4e7dde5bfe3")
UEFI_MM = UUID("a4453a59-9e1b-4787-a033-1986d6adbe55")
NONCE = bytes(range(64))
ALL, SINGLE = 1 << 32, 1 << 32 | 1
UEFI_MM_DATA = bytes.fromhex("0000000002000000")

# svsm-attestation worked example: an EK of the right shape that is no real key
EK = bytes.fromhex(
    "0001000b000300b20020837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"
    "00060080004300100800000000000100"
) + bytes([0x80, *((7 * i + 1) % 256 for i in range(1, 255)), 0x01])


@dataclass
class Bench:
    svsm: Svsm
    memory: GuestMemory
    operation: AttestOperation

    def call(self, rax: int | None = None) -> ResultCode:
        self.answer = self.svsm.call(rax or self.rax, self.operation.encode(), self.memory)
        return self.answer.rax

    @property
    def rax(self) -> int:
        return ALL if self.operation.service is None else SINGLE

    def change(self, **fields: object) -> "Bench":
        self.operation = replace(self.operation, **fields)  # type: ignore[arg-type]  # one test, one field
        return self

    def written(self) -> tuple[bytes, bytes, bytes]:
        """Report, manifest and certificates."""
        operation, answer = self.operation, self.answer
        return (
            self.memory.read(operation.report.address, answer.r8),
            self.memory.read(operation.manifest.address, answer.rcx),
            self.memory.read(operation.certificates.address, answer.rdx),
        )


def bench(
    service: UUID | None = VTPM,
    *,
    services: dict[UUID, Callable[[], bytes]] | None = None,
    certificates: bytes = b"",
) -> Bench:
    if services is None:
        services = {VTPM: lambda: EK, UEFI_MM: lambda: UEFI_MM_DATA}
    processor = SecurityProcessor(ProductLine.MILAN, bytes(32))
    memory = GuestMemory()
    operation = AttestOperation(
        report=Buffer(memory.allocate(4096), 4096),
        nonce=Buffer(memory.allocate(64), 64),
        manifest=Buffer(memory.allocate(4096), 4096),
        certificates=Buffer(memory.allocate(16384), 16384),
        service=service,
    )
    memory.write(operation.nonce.address, NONCE)
    return Bench(Svsm(processor, services, host_certificates=lambda: certificates), memory, operation)


def report_data(report: bytes) -> str:
    return AttestationReport.parse(report).report_data.hex()


# The worked examples of the protocol: REPORT_DATA computed elsewhere.


def test_single_service_worked_example() -> None:
    setup = bench(VTPM)
    assert setup.call() is ResultCode.SUCCESS
    report, manifest, certificates = setup.written()
    assert (setup.answer.r8, setup.answer.rcx, setup.answer.rdx) == (1184, 314, 0)
    assert (manifest, certificates) == (EK, b"")
    assert AttestationReport.parse(report).vmpl == 0
    assert report_data(report) == (
        "01397e98147fba3bb361ae3882aae875d88120f9abf36377a2f09c4267763c09"
        "4f52bee4a35d7d8654a8197daf857afe407575d9ffd383543bd2df1b34ca9d6a"
    )


@pytest.mark.parametrize(
    ("services", "length", "start", "digest"),
    [
        (
            {VTPM: lambda: EK, UEFI_MM: lambda: UEFI_MM_DATA},
            394,
            (
                "bb9e8463923d7046a1ff58f9c94b87bb8a01000002000000ebf176c42301a5459641b4e7dde5bfe3480000003a010000"
                "593a45a41b9e8747a0331986d6adbe558201000008000000"
            ),
            (
                "ff41a747a7fd8d63d9d4e0097a68d5105825ebaee56f18f63658321297e307a1"
                "d279e71dc0269d66d13f367178e9b112afb7218046b93f343a5125a9571726bc"
            ),
        ),
        (
            {VTPM: lambda: EK},
            362,
            "bb9e8463923d7046a1ff58f9c94b87bb6a01000001000000ebf176c42301a5459641b4e7dde5bfe3300000003a010000",
            (
                "12bbff57d7d78277a2741d872393eda7ddb034cd94238da48db7649af5c109d7"
                "4775ea042ae244a35e5d70289ee513149cb1f76dff5880b299f65d27ab96561b"
            ),
        ),
        (
            {},
            24,
            "bb9e8463923d7046a1ff58f9c94b87bb1800000000000000",
            (
                "c00f8d4c9578a6f7dd271eedd210f8afc415c7ec6fcebbf76a9c8bcfc351c4ed"
                "bbfe0faf361559cab2b4f7ce4db35fe306b621a56c6e6b9870191a43853add5e"
            ),
        ),
        (
            {VTPM: lambda: bytes.fromhex("deadbeef0102"), UEFI_MM: lambda: UEFI_MM_DATA},
            86,
            (
                "bb9e8463923d7046a1ff58f9c94b87bb5600000002000000ebf176c42301a5459641b4e7dde5bfe34800000006000000"
                "593a45a41b9e8747a0331986d6adbe554e00000008000000deadbeef01020000000002000000"
            ),
            (
                "32122203613eb4dbddaa3613a59dda7f649cf0af723c7775501ac51b91780968"
                "085788795702466fdeb62a9b9f11f932ad1941fb56ad344e1c02278d94b72a2f"
            ),
        ),
    ],
)
def test_services_worked_examples(
    services: dict[UUID, Callable[[], bytes]], length: int, start: str, digest: str
) -> None:
    setup = bench(None, services=services)
    assert setup.call() is ResultCode.SUCCESS
    report, manifest, _ = setup.written()
    assert len(manifest) == length
    assert manifest.hex().startswith(start)
    assert report_data(report) == digest == hashlib.sha512(NONCE + manifest).hexdigest()


# One rule of the operation structure after the other.


@pytest.mark.parametrize("reserved", [0x0C, 0x0F, 0x1A, 0x1F, 0x2C, 0x3C, 0x54, 0x57])
def test_reserved_bytes_must_be_zero(reserved: int) -> None:
    setup = bench()
    raw = bytearray(setup.operation.encode())
    raw[reserved] = 1
    answer = setup.svsm.call(SINGLE, bytes(raw), setup.memory)
    assert answer.rax is ResultCode.INVALID_PARAMETER


@pytest.mark.parametrize("size", [0, 1, 63, 65, 128, 0xFFFF])
def test_the_nonce_has_64_bytes(size: int) -> None:
    setup = bench()
    nonce = Buffer(setup.operation.nonce.address, size)
    assert setup.change(nonce=nonce).call() is ResultCode.INVALID_PARAMETER


def test_the_nonce_does_not_cross_a_page() -> None:
    setup = bench()
    address = setup.memory.allocate(8192) + 4096 - 63
    setup.memory.write(address, NONCE)
    assert setup.change(nonce=Buffer(address, 64)).call() is ResultCode.INVALID_PARAMETER
    setup.memory.write(address - 1, NONCE)
    assert setup.change(nonce=Buffer(address - 1, 64)).call() is ResultCode.SUCCESS


def test_the_nonce_is_in_memory() -> None:
    assert bench().change(nonce=Buffer(0x5000, 64)).call() is ResultCode.INVALID_PARAMETER


@pytest.mark.parametrize("buffer", ["report", "manifest", "certificates"])
def test_buffers_are_page_aligned(buffer: str) -> None:
    setup = bench()
    known: Buffer = getattr(setup.operation, buffer)
    unaligned = Buffer(known.address + 8, known.size)
    assert setup.change(**{buffer: unaligned}).call() is ResultCode.INVALID_PARAMETER


def test_where_no_certificates_are_wanted_their_address_does_not_matter() -> None:
    setup = bench(certificates=b"certificates".ljust(2000, b"\xaa"))
    assert setup.change(certificates=Buffer(0x123, 0)).call() is ResultCode.SUCCESS
    assert setup.answer.rdx == 0


@pytest.mark.parametrize("buffer", ["report", "manifest", "certificates"])
def test_buffers_end_within_the_address_space(buffer: str) -> None:
    beyond = Buffer(0xFFFF_FFFF_FFFF_F000, 0x1001)
    assert bench().change(**{buffer: beyond}).call() is ResultCode.INVALID_ADDRESS


@pytest.mark.parametrize("buffer", ["report", "manifest", "certificates"])
def test_buffers_are_in_memory(buffer: str) -> None:
    setup = bench(certificates=b"\xaa" * 2000)
    assert setup.change(**{buffer: Buffer(0x5000, 0x4000)}).call() is ResultCode.INVALID_ADDRESS
    assert setup.answer.r8 == 1184


def test_manifest_version_0_is_the_only_one() -> None:
    assert bench().change(manifest_version=1).call() is ResultCode.INVALID_PARAMETER


def test_an_unknown_service_is_an_unsupported_protocol() -> None:
    other = UUID("12345678-1234-1234-1234-123456789abc")
    assert bench().change(service=other).call() is ResultCode.UNSUPPORTED_PROTOCOL
    without_uefi_mm = bench(UEFI_MM, services={VTPM: lambda: EK})
    assert without_uefi_mm.call() is ResultCode.UNSUPPORTED_PROTOCOL


@pytest.mark.parametrize("rax", [1 << 32 | 2, 1 << 32 | 0xFFFFFFFF, 0, 1, 2 << 32, 4 << 32 | 1])
def test_other_calls_and_protocols_are_unsupported(rax: int) -> None:
    answer = bench().svsm.call(rax, bytes(88), GuestMemory())
    assert answer.rax is ResultCode.UNSUPPORTED_PROTOCOL


def test_a_structure_of_the_other_call_is_refused() -> None:
    assert bench(VTPM).call(ALL) is ResultCode.INVALID_PARAMETER
    assert bench(None).call(SINGLE) is ResultCode.INVALID_PARAMETER
    assert bench().svsm.call(SINGLE, bytes(70), GuestMemory()).rax is ResultCode.INVALID_PARAMETER


@pytest.mark.parametrize("service", [VTPM, None])
def test_a_service_without_a_manifest_is_an_invalid_request(service: UUID | None) -> None:
    def refuse() -> bytes:
        raise ServiceRefusedError("TPM_RC_INITIALIZE")

    assert bench(service, services={VTPM: refuse}).call() is ResultCode.INVALID_REQUEST


@given(rax=st.sampled_from([ALL, SINGLE]) | st.integers(0, 2**64 - 1), operation=st.binary(max_size=100))
def test_any_bytes_get_a_result_code(rax: int, operation: bytes) -> None:
    assert bench().svsm.call(rax, operation, GuestMemory()).rax in set(ResultCode)


@given(offset=st.integers(0, 87), byte=st.integers(0, 255))
def test_any_byte_may_be_changed(offset: int, byte: int) -> None:
    setup = bench(certificates=b"\xaa" * 2000)
    raw = bytearray(setup.operation.encode())
    raw[offset] = byte
    answer = setup.svsm.call(SINGLE, bytes(raw), setup.memory)
    assert answer.rax in set(ResultCode)


# Sizes come back whatever happens to the buffers.


@pytest.mark.parametrize(
    ("buffer", "size"),
    [("report", 1183), ("report", 0), ("manifest", 313), ("manifest", 0), ("certificates", 16383)],
)
def test_a_short_buffer_is_refused_with_the_sizes_needed(buffer: str, size: int) -> None:
    setup = bench(certificates=b"\xaa" * 2000)
    short = Buffer(getattr(setup.operation, buffer).address, size)
    assert setup.change(**{buffer: short}).call() is ResultCode.INVALID_PARAMETER
    assert (setup.answer.r8, setup.answer.rcx, setup.answer.rdx) == (1184, 314, 16384)
    assert not any(setup.memory.read(setup.operation.report.address, 64))


def test_exact_buffers_do() -> None:
    setup = bench(certificates=b"\xaa" * 2000)
    operation = setup.operation
    setup.change(
        report=Buffer(operation.report.address, 1184), manifest=Buffer(operation.manifest.address, 314)
    )
    assert setup.call() is ResultCode.SUCCESS


def test_certificates_fill_the_whole_fetch_buffer() -> None:
    table = b"\xaa" * 2000
    setup = bench(certificates=table)
    assert setup.call() is ResultCode.SUCCESS
    assert setup.answer.rdx == 16384
    assert setup.written()[2] == table.ljust(16384, b"\0")


@pytest.mark.parametrize("table", [b"", bytes(24), bytes(16384), bytes(24) + b"\xaa" * 100])
def test_a_table_that_starts_with_an_empty_entry_is_none(table: bytes) -> None:
    setup = bench(certificates=table)
    assert setup.call() is ResultCode.SUCCESS
    assert setup.answer.rdx == 0


def test_certificate_buffers_above_16_kib_are_refused() -> None:
    setup = bench(certificates=b"\xaa" * 2000)
    setup.change(certificates=Buffer(setup.memory.allocate(0x5000), 0x5000))
    assert setup.call() is ResultCode.INVALID_PARAMETER


def test_a_table_above_16_kib_reports_its_size() -> None:
    setup = bench(certificates=b"\xaa" * 16385)
    assert setup.call() is ResultCode.INVALID_PARAMETER
    assert setup.answer.rdx == 16385


# Operation structures and memory


def test_the_layout_of_the_operation_structure() -> None:
    operation = AttestOperation(
        report=Buffer(0x1122334455667788, 0xAABBCCDD),
        nonce=Buffer(0x2122334455667788, 0xEEFF),
        manifest=Buffer(0x3122334455667788, 0xABBBCCDD),
        certificates=Buffer(0x4122334455667788, 0xACBBCCDD),
        service=VTPM,
        manifest_version=0x01020304,
    )
    assert operation.encode().hex(" ", 8) == (
        "8877665544332211 ddccbbaa00000000 8877665544332221 ffee000000000000 "
        "8877665544332231 ddccbbab00000000 8877665544332241 ddccbbac00000000 "
        "ebf176c42301a545 9641b4e7dde5bfe3 0403020100000000"
    )
    assert AttestOperation.parse(operation.encode()) == operation
    services = replace(operation, service=None, manifest_version=0)
    assert AttestOperation.parse(services.encode()) == services
    assert len(services.encode()) == 64


@pytest.mark.parametrize("size", [0, 63, 65, 87, 89])
def test_operation_structures_have_two_sizes(size: int) -> None:
    with pytest.raises(WireError):
        AttestOperation.parse(bytes(size))


def test_memory_keeps_what_is_written_across_pages() -> None:
    memory = GuestMemory()
    address = memory.allocate(3 * 4096)
    data = bytes(i % 251 for i in range(2 * 4096))
    memory.write(address + 100, data)
    assert memory.read(address + 100, len(data)) == data
    assert memory.read(address, 100) == bytes(100)
    assert memory.read(address, 0) == b""


def test_memory_faults_beyond_a_buffer_and_writes_nothing_then() -> None:
    memory = GuestMemory()
    address = memory.allocate(4096)
    memory.allocate(4096)
    with pytest.raises(PageFaultError):
        memory.write(address + 4000, b"\xaa" * 97)
    assert not any(memory.read(address, 4096))
    with pytest.raises(PageFaultError):
        memory.read(address - 1, 2)
