"""The attester's check of its own evidence, on evidence that is good but for one thing."""

import hashlib

import pytest

from app.errors import BackendError
from app.evidence.backend import Cause
from app.evidence.self_check import check_own_evidence
from app.wire.evidence import Service
from app.wire.manifest import EkManifest, KeyListManifest
from app.wire.services_manifest import ServicesManifest
from app.wire.tpm.public import TpmtPublic
from app.wire.uefi_mm import UefiMmManifest
from tests.fakes.tsm_core import Request
from tests.fakes.tsm_standin import EK, SERVICES, UEFI_MM, Standin

NONCE = bytes(range(64))
OTHER_EK = EK[:60] + b"\xff" + EK[61:]
KEY_LIST = KeyListManifest((TpmtPublic.parse(EK), TpmtPublic.parse(OTHER_EK))).encode()
MANIFESTS = {"ek": EK, "key list": KEY_LIST, "uefi-mm": UEFI_MM, "services": SERVICES}
KINDS = {
    "ek": EkManifest,
    "key list": KeyListManifest,
    "uefi-mm": UefiMmManifest,
    "services": ServicesManifest,
}
RIGHT = {
    ("ek", Service.VTPM),
    ("key list", Service.VTPM),
    ("uefi-mm", Service.UEFI_MM),
    ("services", Service.ALL),
}


def report_over(manifest: bytes, vmpl: int = 0) -> bytes:
    """A report of VMPL 0 and its binding, computed here and not by the code under test."""
    plain = Standin().report_new(Request(inblob=bytes(64), privlevel=3)).outblob
    digest = hashlib.sha512(NONCE + manifest).digest()
    return plain[:0x30] + vmpl.to_bytes(4, "little") + plain[0x34:0x50] + digest + plain[0x90:]


def fault(report: bytes, manifest: bytes, service: Service = Service.VTPM) -> BackendError:
    with pytest.raises(BackendError) as caught:
        check_own_evidence(report, manifest, nonce=NONCE, service=service)
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(("name", "service"), sorted(RIGHT))
def test_good_evidence(name: str, service: Service) -> None:
    manifest = MANIFESTS[name]
    report, parsed = check_own_evidence(report_over(manifest), manifest, nonce=NONCE, service=service)
    assert report.vmpl == 0
    assert isinstance(parsed, KINDS[name])
    assert parsed.encode() == manifest


@pytest.mark.parametrize(
    ("name", "service"),
    sorted({(name, service) for name in MANIFESTS for service in Service} - RIGHT),
)
def test_a_manifest_of_another_kind(name: str, service: Service) -> None:
    manifest = MANIFESTS[name]
    error = fault(report_over(manifest), manifest, service)
    assert error.cause == Cause.MANIFEST_UNEXPECTED
    assert f"asked for {service}" in error.reason


@pytest.mark.parametrize("vmpl", [1, 2, 3, 0x100, 0x10000, 0xFFFFFFFF])
def test_another_vmpl(vmpl: int) -> None:
    error = fault(report_over(EK, vmpl), EK)
    assert error.cause == Cause.REPORT_NOT_VMPL0
    assert f"VMPL 0x{vmpl:x}," in error.reason


def test_a_report_over_another_manifest() -> None:
    assert fault(report_over(SERVICES), EK).cause == Cause.REPORT_NOT_BOUND


def test_a_report_over_another_nonce() -> None:
    with pytest.raises(BackendError) as caught:
        check_own_evidence(report_over(EK), EK, nonce=bytes(64), service=Service.VTPM)
    assert caught.value.cause == Cause.REPORT_NOT_BOUND


@pytest.mark.parametrize("bit", [0x50 * 8, 0x8F * 8 + 7])
def test_the_first_and_the_last_bit_of_report_data_count(bit: int) -> None:
    report = bytearray(report_over(EK))
    report[bit // 8] ^= 1 << bit % 8
    assert fault(bytes(report), EK).cause == Cause.REPORT_NOT_BOUND


@pytest.mark.parametrize("manifest", [b"", b"S" * 314, EK[:-1], EK + b"\0"])
def test_a_manifest_that_is_none(manifest: bytes) -> None:
    assert fault(report_over(manifest), manifest).cause == Cause.MANIFEST_MALFORMED


@pytest.mark.parametrize(
    "report", [b"", bytes(1184), bytes(1183), report_over(EK)[:-1], report_over(EK) + b"\0"]
)
def test_a_report_that_is_none(report: bytes) -> None:
    assert fault(report, EK).cause == Cause.REPORT_MALFORMED
