import asyncio
import hashlib
import shutil
import subprocess
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import omne_attest.snp as omne
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from structlog.testing import capture_logs

from app.errors import BackendError, ConfigError, NonceError, TpmUnavailableError
from app.evidence.backend import Cause, EvidenceBackend
from app.evidence.simulator import backend as backend_module
from app.evidence.simulator.backend import SimulatorBackend
from app.evidence.simulator.ek import EkKind
from app.evidence.simulator.faults import Fault
from app.evidence.simulator.launch import Launch
from app.evidence.simulator.measured_boot import BANKS, USUAL_BOOT, boot_log
from app.evidence.simulator.software_tpm import VtpmChoice
from app.evidence.simulator.svsm import ServiceRefusedError
from app.tpm.causes import TpmCause
from app.tpm.client import Tpm
from app.trust.names import VekKind
from app.wire import guid
from app.wire.certificate_table import CertificateTable
from app.wire.event_log import EventLog
from app.wire.evidence import Evidence, Service
from app.wire.manifest import EkManifest, parse_manifest
from app.wire.product import ProductLine
from app.wire.report import AttestationReport
from app.wire.services_manifest import ServicesManifest
from app.wire.uefi_mm import UefiMmManifest
from tests.interop.software_tpm import demand

NONCE = bytes(range(64))
Simulator = partial[SimulatorBackend]


def collect(backend: EvidenceBackend, service: Service = Service.VTPM, version: int = 0) -> Evidence:
    return asyncio.run(backend.collect(NONCE, service, version))


@pytest.mark.parametrize("line", [ProductLine.MILAN, ProductLine.GENOA])
@pytest.mark.parametrize("version", [2, 3, 5])
def test_an_independent_verifier_accepts_it(simulator: Simulator, line: ProductLine, version: int) -> None:
    backend = simulator(line=line, report_version=version)
    evidence = collect(backend)
    assert evidence.certificates is not None
    assert evidence.manifest is not None
    table = CertificateTable.parse(evidence.certificates)
    leaf, ask, ark = (table.get(name) or b"" for name in (guid.VCEK, guid.ASK, guid.ARK))
    policy = omne.Policy(
        measurement=backend.measurement,
        report_data=hashlib.sha512(NONCE + evidence.manifest).digest(),
        tcb_floor=omne.Tcb(boot_loader=4, tee=0, snp=0x1B, microcode=0x56),
    )
    report = omne.verify(evidence.report, leaf, ask, ark, hashlib.sha256(ark).digest(), policy)
    assert report.version == version
    assert asyncio.run(backend.trust_root()).public_bytes(Encoding.DER) == ark


def test_the_members_of_the_evidence(simulator: Simulator) -> None:
    backend = simulator()
    evidence, again = collect(backend), collect(backend)
    assert len(evidence.report) == 1184
    assert evidence.certificates is not None
    assert len(evidence.certificates) == 16384
    assert evidence.nonce == NONCE
    assert (evidence.service, evidence.manifest_version) == (Service.VTPM, 0)
    assert evidence.backend == "simulator"
    assert evidence.boot_id == again.boot_id
    assert evidence.boot_id != collect(simulator()).boot_id
    assert evidence.collected_at is not None
    assert evidence.collected_at.tzinfo is UTC
    assert timedelta(0) <= datetime.now(UTC) - evidence.collected_at < timedelta(minutes=1)


def test_each_service_has_its_manifest(simulator: Simulator) -> None:
    backend = simulator()
    vtpm, uefi_mm, everything = (
        collect(backend, service).manifest for service in (Service.VTPM, Service.UEFI_MM, Service.ALL)
    )
    assert vtpm is not None
    assert uefi_mm is not None
    assert everything is not None
    assert isinstance(parse_manifest(vtpm), EkManifest)
    assert parse_manifest(uefi_mm) == UefiMmManifest(2)
    table = parse_manifest(everything)
    assert isinstance(table, ServicesManifest)
    assert [(entry.guid, entry.data) for entry in table.entries] == [
        (guid.SERVICE_VTPM, vtpm),
        (guid.SERVICE_UEFI_MM, uefi_mm),
    ]


@pytest.mark.parametrize(
    ("kind", "template"), [(EkKind.RSA_2048, "L-1"), (EkKind.P_256, "L-2"), (EkKind.P_384, "H-3")]
)
def test_the_vtpm_has_the_ek_that_was_chosen(simulator: Simulator, kind: EkKind, template: str) -> None:
    evidence = collect(simulator(ek=kind))
    assert evidence.manifest is not None
    manifest = parse_manifest(evidence.manifest)
    assert isinstance(manifest, EkManifest)
    assert manifest.ek.template == template


def test_the_ek_may_come_from_elsewhere(simulator: Simulator) -> None:
    class Tpm:
        def public(self) -> bytes:
            return EK_ELSEWHERE

    class RefusingTpm:
        def public(self) -> bytes:
            raise ServiceRefusedError("TPM_RC_INITIALIZE")

    assert collect(simulator(ek=Tpm())).manifest == EK_ELSEWHERE
    with pytest.raises(BackendError, match=r"INVALID_REQUEST.*Look at the vTPM"):
        collect(simulator(ek=RefusingTpm()))


EK_ELSEWHERE = bytes.fromhex(
    "0001000b000300b20020837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa000600800043"
    "001008000000000001009a794fcd8c739450388386134ce40a14d1f75e9f454d40fa8dc6e63d5b9a40dd5a10e8bc2309"
    "ce054889ef8ad786c78caab5dcadb0013c902f768c7b3e6c3eca74c5de242f949c5792be31894b1270a7606ea2ae801a"
    "d5f7d60dead3ce4b2f01e9096d67e9861ea454def1fe70a206509511791e983f8c61d5acb1d07371427943e42055f035"
    "7f01d442b5f126fdca5604a9afb139bc1aab3de33ec417983a85c8e1ae446524a092ed124a520b7f5e65eabe1426d8a4"
    "4c2e8f5407ed5a81379529c26a4f7691d9a0d7ff8b35e243f4196e83a9208472c1cefb16a05b186f3993b6e8f895908d"
    "dbb342dc2ebb705d4a771029b60df1024f2fe73eb4ac09b7de11"
)


def test_a_vlek_signs_for_no_chip_in_particular(simulator: Simulator) -> None:
    evidence = collect(simulator(signing_key=VekKind.VLEK))
    assert evidence.certificates is not None
    table = CertificateTable.parse(evidence.certificates)
    assert table.get(guid.VLEK) is not None
    assert table.get(guid.VCEK) is None
    assert not any(AttestationReport.parse(evidence.report).chip_id)


def test_certificates_are_optional(simulator: Simulator) -> None:
    assert collect(simulator(with_certificates=False)).certificates is None


def test_what_was_settled_at_launch(simulator: Simulator) -> None:
    backend = simulator(launch=Launch(measurement=b"m" * 48))
    assert backend.measurement == b"m" * 48
    assert AttestationReport.parse(collect(backend).report).measurement == b"m" * 48


@pytest.mark.parametrize("size", [0, 32, 63, 65, 128])
def test_a_nonce_has_64_bytes(simulator: Simulator, size: int) -> None:
    with pytest.raises(NonceError):
        asyncio.run(simulator().collect(bytes(size), Service.VTPM))


def test_manifest_version_1_is_refused_as_linux_does(simulator: Simulator) -> None:
    with pytest.raises(BackendError, match="INVALID_PARAMETER") as caught:
        collect(simulator(), version=1)
    assert (caught.value.cause, caught.value.errno) == (Cause.SVSM_REFUSED, 22)
    assert "version 0" in caught.value.remedy


def test_a_report_version_that_nobody_writes(simulator: Simulator) -> None:
    with pytest.raises(ConfigError, match="report version 4"):
        simulator(report_version=4)


def test_a_state_directory_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BackendError, match="cannot be used"):
        SimulatorBackend(state_dir=tmp_path / "file" / "state")


def test_a_damaged_key_is_an_error_of_the_request(tmp_path: Path) -> None:
    (tmp_path / "SIMULATED-EK-rsa2048.key.pem").write_bytes(b"nothing")
    with pytest.raises(BackendError, match="damaged"):
        collect(SimulatorBackend(state_dir=tmp_path, with_certificates=False, vtpm=VtpmChoice.NONE))


def test_the_probe_says_what_it_is(simulator: Simulator) -> None:
    report = asyncio.run(simulator().probe())
    assert report.ready
    assert report.simulated
    assert [check.name for check in report.checks] == ["simulator"]
    assert "SIMULATED Milan, report version 5, VCEK" in report.checks[0].detail


def test_a_fault_shows_in_probe_and_log_and_leaves_unchecked(simulator: Simulator) -> None:
    with capture_logs() as logs:
        backend = simulator(fault=Fault.VMPL)
    assert AttestationReport.parse(collect(backend).report).vmpl == 2
    report = asyncio.run(backend.probe())
    assert [check.name for check in report.checks] == ["simulator", "fault"]
    assert report.checks[1].detail == "snp.vmpl: the guest's own report, at VMPL 2; evidence leaves unchecked"
    assert [log["event"] for log in logs] == ["simulator_in_use", "simulator_fault"]
    assert {log["log_level"] for log in logs} == {"warning"}
    assert (logs[1]["fault"], logs[1]["self_check"]) == ("snp.vmpl", "off")


def test_evidence_without_a_fault_is_checked_before_it_leaves(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = simulator()
    monkeypatch.setattr(backend.processor, "report", lambda _data, _vmpl: bytes(1184))
    with pytest.raises(BackendError) as caught:
        collect(backend)
    assert caught.value.cause == Cause.REPORT_MALFORMED


@pytest.mark.parametrize(
    ("fault", "choice", "why"),
    [
        (Fault.VEK_HWID_MASKED, {"signing_key": VekKind.VLEK}, "not about a VLEK"),
        (Fault.CHIP_ALLOWED, {"signing_key": VekKind.VLEK}, "not about a VLEK"),
        (Fault.MIT_VECTOR, {"report_version": 3}, "needs report version 5"),
        (Fault.PRODUCT, {"report_version": 2}, "needs report version 3"),
        (Fault.REPORT_VERSION, {"report_version": 2}, "needs report version 3"),
    ],
)
def test_a_fault_that_the_report_cannot_have_is_refused(
    simulator: Simulator, fault: Fault, choice: dict[str, object], why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        simulator(fault=fault, **choice)


def test_a_slow_request_does_not_hold_up_the_event_loop(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = simulator()
    report = backend.processor.report

    def slow_report(data: bytes, vmpl: int) -> bytes:
        time.sleep(0.5)  # as making an RSA key may take
        return report(data, vmpl)

    monkeypatch.setattr(backend.processor, "report", slow_report)

    async def ticks_while_collecting() -> int:
        collecting = asyncio.create_task(backend.collect(NONCE, Service.VTPM))
        ticks = 0
        while not collecting.done():
            await asyncio.sleep(0.01)
            ticks += 1
        return ticks

    assert asyncio.run(ticks_while_collecting()) > 5


def test_without_a_state_directory_everything_is_new(simulator: Simulator) -> None:
    backend = SimulatorBackend(with_certificates=False, ek=EkKind.P_256, vtpm=VtpmChoice.NONE)
    evidence = collect(backend)
    assert evidence.manifest != collect(simulator(ek=EkKind.P_256)).manifest
    assert evidence.manifest == collect(backend).manifest


def test_one_request_after_the_other(simulator: Simulator) -> None:
    backend = simulator(device_delay_s=0.05, interval_s=0.05)
    collect(backend)

    async def three() -> float:
        start = time.monotonic()
        await asyncio.gather(*(backend.collect(bytes([n] * 64), Service.VTPM) for n in range(3)))
        return time.monotonic() - start

    assert asyncio.run(three()) >= 3 * 0.05 + 2 * 0.05


def test_after_closing_nothing_is_collected(simulator: Simulator) -> None:
    backend = simulator(device_delay_s=0.05)

    async def close_during_a_request() -> None:
        request = asyncio.create_task(backend.collect(NONCE, Service.VTPM))
        await asyncio.sleep(0)
        await backend.aclose()
        assert len((await request).report) == 1184
        with pytest.raises(BackendError) as caught:
            await backend.collect(NONCE, Service.VTPM)
        assert caught.value.cause == Cause.CLOSED

    asyncio.run(close_during_a_request())


def test_a_request_that_takes_too_long_is_given_up(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "_TIMEOUT_S", -0.05)
    backend = simulator(device_delay_s=0.1)

    async def wait() -> None:
        with pytest.raises(BackendError) as caught:
            await backend.collect(NONCE, Service.VTPM)
        assert caught.value.cause == Cause.TIMEOUT

    asyncio.run(wait())


def test_with_a_tpm_the_manifest_is_its_ek_and_the_boot_is_the_tpms(tmp_path: Path) -> None:
    demand("swtpm")
    backend = SimulatorBackend(state_dir=tmp_path, with_certificates=False, ek=EkKind.P_256)
    assert backend.vtpm is not None
    assert backend.vtpm_missing is None
    first, again = collect(backend), collect(backend)
    assert first.manifest == again.manifest == backend.vtpm.public()
    assert first.boot_id == again.boot_id == backend.vtpm.boot_id
    assert EventLog.parse(backend.event_log()) == boot_log(USUAL_BOOT)
    assert Tpm(backend.open_vtpm(), timeout_s=60).pcr_banks().keys() == set(BANKS)
    backend.vtpm.reboot()
    rebooted = collect(backend)
    assert rebooted.manifest == first.manifest
    assert rebooted.boot_id != first.boot_id
    asyncio.run(backend.aclose())
    with pytest.raises(TpmUnavailableError, match="switched off"):
        backend.open_vtpm()


def test_building_it_starts_no_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise AssertionError

    monkeypatch.setattr(subprocess, "Popen", refuse)
    backend = SimulatorBackend(state_dir=tmp_path)
    assert asyncio.run(backend.probe()).ready
    asyncio.run(backend.aclose())


@pytest.mark.parametrize(
    ("program", "choice", "why"),
    [
        (None, VtpmChoice.AUTO, "swtpm is not installed (Debian, Ubuntu: apt install swtpm)"),
        ("/usr/bin/swtpm", VtpmChoice.NONE, "simulator_vtpm=none leaves it out"),
        (None, VtpmChoice.NONE, "simulator_vtpm=none leaves it out"),
    ],
)
def test_without_a_tpm_there_are_reports_and_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str | None, choice: VtpmChoice, why: str
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: program)
    backend = SimulatorBackend(state_dir=tmp_path, with_certificates=False, ek=EkKind.P_256, vtpm=choice)
    assert backend.vtpm is None
    assert backend.vtpm_missing == f"the simulated VM has no TPM: {why}"
    assert collect(backend).manifest == collect(backend).manifest
    for use in (backend.open_vtpm, backend.event_log):
        with pytest.raises(TpmUnavailableError) as caught:
            use()
        assert caught.value.cause == TpmCause.MISSING
        assert caught.value.reason == backend.vtpm_missing
        assert "apt install swtpm" in caught.value.remedy


def test_a_tpm_that_is_demanded_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(ConfigError, match=r"simulator_vtpm=swtpm: .* not installed"):
        SimulatorBackend(state_dir=tmp_path, vtpm=VtpmChoice.SWTPM)


def test_a_tpm_that_does_not_start_is_an_error_of_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: "/nowhere/swtpm")
    monkeypatch.setenv("PATH", str(tmp_path))
    backend = SimulatorBackend(state_dir=tmp_path / "state", with_certificates=False)
    with pytest.raises(TpmUnavailableError, match="swtpm does not work"):
        collect(backend)


def test_a_tpm_that_refuses_its_ek_makes_the_svsm_refuse(tmp_path: Path) -> None:
    demand("swtpm")
    backend = SimulatorBackend(state_dir=tmp_path, with_certificates=False)
    # TPM2_HierarchyControl: the platform disables the endorsement hierarchy
    disable = bytes.fromhex("8002 00000020 00000121 4000000c 00000009 40000009 0000 00 0000 4000000b 00")
    assert backend.open_vtpm().exchange(disable, timeout_s=60)[6:10] == bytes(4)
    with pytest.raises(BackendError, match=r"INVALID_REQUEST.*Look at the vTPM") as caught:
        collect(backend)
    assert (caught.value.cause, caught.value.errno) == (Cause.SVSM_REFUSED, 22)
    asyncio.run(backend.aclose())


def test_secure_boot_is_off_in_the_manifest_when_it_is_off_in_the_boot(simulator: Simulator) -> None:
    demand("swtpm")
    backend = simulator(fault=Fault.VTPM_SECURE_BOOT, vtpm=VtpmChoice.AUTO)
    manifest = collect(backend, Service.UEFI_MM).manifest
    assert manifest is not None
    assert parse_manifest(manifest) == UefiMmManifest(0)
    asyncio.run(backend.aclose())
