"""Every way in which a platform says no, and what the operator is told."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import BackendError
from app.evidence import configfs
from app.evidence.backend import Cause
from app.evidence.vtpm_state import VtpmState
from app.wire.evidence import Service
from tests.evidence.replay.bench import Bench, NotAvailableError
from tests.evidence.rig import checked, collect, emulated, failure, new_backend


def refuse(bench: Bench, number: int, times: int = 1) -> None:
    bench.knobs.set("fail_errno", number)
    bench.knobs.set("fail_count", times)


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.EINVAL, Cause.SVSM_REFUSED),
        (errno.ENXIO, Cause.NO_PROVIDER),
        (errno.EIO, Cause.PLATFORM),
        (errno.EBADMSG, Cause.KEY_WIPED),
        (errno.ENOTTY, Cause.KEY_WIPED),
        (errno.ETIMEDOUT, Cause.HOST_THROTTLED),
        (errno.EFBIG, Cause.BLOB_TOO_LARGE),
        (errno.ENOMEM, Cause.PLATFORM),
        (errno.ENOSR, Cause.PLATFORM),
        (errno.EFAULT, Cause.PLATFORM),
        (errno.EOPNOTSUPP, Cause.PLATFORM),
    ],
)
def test_each_errno_of_the_report_has_a_cause_and_a_remedy(bench: Bench, number: int, cause: Cause) -> None:
    refuse(bench, number)
    backend = new_backend(bench)
    error = failure(backend)
    assert (error.cause, error.errno) == (cause, number)
    assert error.reason
    assert error.remedy
    assert collect(backend).report  # one refusal is not the end


def test_a_report_beyond_what_the_kernel_hands_out(bench: Bench) -> None:
    bench.knobs.set("outblob_size", 32769)
    assert failure(new_backend(bench)).cause == Cause.BLOB_TOO_LARGE


def test_a_refusal_names_the_likely_causes(bench: Bench) -> None:
    refuse(bench, errno.EINVAL)
    remedy = failure(new_backend(bench)).remedy
    for hint in ("endorsement authorization", "vTPM", "16 KiB", "too old", "dmesg"):
        assert hint in remedy


def test_a_service_that_this_svsm_does_not_have(bench: Bench) -> None:
    refuse(bench, errno.EINVAL)
    error = failure(new_backend(bench), Service.UEFI_MM)
    assert error.cause == Cause.SVSM_REFUSED
    assert "uefivars" in error.remedy


def test_a_refusal_of_what_was_granted_before_is_a_wiped_key(bench: Bench) -> None:
    backend = new_backend(bench)
    collect(backend)
    refuse(bench, errno.EINVAL, times=2)
    assert failure(backend).cause == Cause.KEY_WIPED
    error = failure(backend)
    assert error.cause == Cause.KEY_WIPED
    assert "2 times in a row" in error.reason
    assert "Restart the VM" in error.remedy
    assert "Do not keep asking" in error.remedy

    collect(backend)  # it was not, after all
    refuse(bench, errno.EINVAL)
    assert "1 time in a row" in failure(backend).reason


def test_a_refusal_of_something_new_is_no_wiped_key(bench: Bench) -> None:
    backend = new_backend(bench)
    collect(backend, Service.VTPM)
    refuse(bench, errno.EINVAL)
    assert failure(backend, Service.UEFI_MM).cause == Cause.SVSM_REFUSED


def test_another_backend_has_not_seen_the_grant(bench: Bench) -> None:
    collect(new_backend(bench))
    refuse(bench, errno.EINVAL)
    assert failure(new_backend(bench)).cause == Cause.SVSM_REFUSED


@pytest.mark.parametrize(
    ("state", "service", "cause"),
    [
        (VtpmState(started=False), Service.VTPM, Cause.VTPM_NOT_STARTED),
        (VtpmState(started=True, endorsement_enabled=False), Service.ALL, Cause.ENDORSEMENT_DISABLED),
        (
            VtpmState(started=True, endorsement_authorized=True),
            Service.VTPM,
            Cause.ENDORSEMENT_AUTHORIZATION,
        ),
        (VtpmState(started=True, endorsement_authorized=True), Service.UEFI_MM, Cause.SVSM_REFUSED),
        (VtpmState(started=True), Service.VTPM, Cause.SVSM_REFUSED),
        (None, Service.VTPM, Cause.SVSM_REFUSED),
    ],
)
def test_the_vtpm_is_asked_why_it_has_no_ek(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, state: VtpmState | None, service: Service, cause: Cause
) -> None:
    asked = []

    def read_vtpm_state(device: Path) -> VtpmState | None:
        asked.append(device)
        return state

    monkeypatch.setattr(configfs, "read_vtpm_state", read_vtpm_state)
    backend = new_backend(bench, tpm_device=Path("/dev/tpmrm0"))
    collect(backend, Service.UEFI_MM if service is Service.VTPM else Service.VTPM)
    assert asked == []  # only where there is something to explain
    refuse(bench, errno.EINVAL)
    assert failure(backend, service).cause == cause
    assert asked == [Path("/dev/tpmrm0")]


def test_no_provider(bench: Bench) -> None:
    backend = new_backend(bench)
    try:
        with bench.without_provider():
            error = failure(backend)
            probe_error = failure(backend)
    except NotAvailableError as lack:
        pytest.skip(str(lack))
    assert (error.cause, error.errno) == (Cause.NO_PROVIDER, errno.ENXIO)
    assert "modprobe sev-guest" in error.remedy
    assert probe_error.cause == Cause.NO_PROVIDER
    assert collect(backend).report


def test_no_svsm(bench: Bench) -> None:
    try:
        with bench.at_vmpl(0):
            error = failure(new_backend(bench))
    except NotAvailableError as lack:
        pytest.skip(str(lack))
    assert error.cause == Cause.NO_SVSM
    assert "manifestblob, service_guid, service_provider" in error.reason


@pytest.fixture(scope="module")
def foreign_vm() -> Iterator[Bench]:
    yield from emulated("--provider", "tests.fakes.tsm_standin:ForeignStandin")


def test_another_vendors_vm(foreign_vm: Bench) -> None:
    for bench in checked(foreign_vm):
        error = failure(new_backend(bench))
        assert error.cause == Cause.WRONG_PROVIDER
        assert "tdx_guest" in error.reason


def test_no_configfs(tmp_path: Path) -> None:
    error = directory_failure(tmp_path / "tsm" / "report")
    assert error.cause == Cause.CONFIGFS_NOT_MOUNTED
    assert f"mount -t configfs none {tmp_path}" in error.remedy


def test_no_tsm_in_a_mounted_configfs() -> None:
    error = directory_failure(Path("/proc/tsm/report"))  # a mount without a tsm directory
    assert error.cause == Cause.TSM_MISSING
    assert "modprobe sev-guest" in error.remedy


def test_tsm_without_reports(tmp_path: Path) -> None:
    (tmp_path / "tsm").mkdir()
    assert directory_failure(tmp_path / "tsm" / "report").cause == Cause.TSM_MISSING


def test_a_file_where_the_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "tsm").mkdir()
    (tmp_path / "tsm" / "report").touch()
    assert directory_failure(tmp_path / "tsm" / "report").cause == Cause.TSM_MISSING


def test_a_directory_that_is_no_configfs(tmp_path: Path) -> None:
    directory = tmp_path / "tsm" / "report"
    directory.mkdir(parents=True)
    assert isinstance(directory_failure(directory), BackendError)
    for left in directory.iterdir():  # an ordinary directory with an ordinary file could not be removed
        assert list(left.iterdir()) == []


def directory_failure(directory: Path) -> BackendError:
    return failure(configfs.ConfigfsBackend(directory, interval_s=0, tpm_device=None))
