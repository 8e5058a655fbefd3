"""Evidence through configfs: what is asked, what comes back, and what does not get out."""

import hashlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog

from app.errors import BackendBusyError, NonceError
from app.evidence.backend import Cause
from app.evidence.configfs_entry import PREFIX, ReportEntry
from app.wire.evidence import Service
from tests.evidence.replay.bench import NOBODY, Bench, write
from tests.evidence.rig import NONCE, checked, collect, emulated, failure, new_backend, run

REPOSITORY = Path(__file__).resolve().parents[2]

ASKED = {
    Service.VTPM: "inlen=64 priv=0 sp=svsm guid=c476f1eb-0123-45a5-9641-b4e7dde5bfe3 ver=0",
    Service.UEFI_MM: "inlen=64 priv=0 sp=svsm guid=a4453a59-9e1b-4787-a033-1986d6adbe55 ver=0",
    Service.ALL: "inlen=64 priv=0 sp=svsm guid=00000000-0000-0000-0000-000000000000 ver=0",
}
MANIFESTS = {
    Service.VTPM: (314, "0001000b"),
    Service.UEFI_MM: (8, "00000000"),
    Service.ALL: (394, "bb9e8463"),
}


@pytest.fixture(scope="module")
def development_kernel() -> Iterator[Bench]:
    yield from emulated("--dialect", "development")


@pytest.mark.parametrize("service", Service)
def test_evidence_is_fresh_bound_and_described(bench: Bench, service: Service) -> None:
    nonce = secrets.token_bytes(64)
    before = int(bench.knobs.get("calls"))
    evidence = run(new_backend(bench).collect(nonce, service))

    assert bench.knobs.get("last") == ASKED[service]
    assert int(bench.knobs.get("calls")) == before + 1  # three blobs, one request
    assert evidence.manifest is not None
    assert (len(evidence.manifest), evidence.manifest[:4].hex()) == MANIFESTS[service]
    assert len(evidence.report) == 1184
    assert evidence.report[0x30:0x34] == bytes(4)
    assert evidence.report[0x50:0x90] == hashlib.sha512(nonce + evidence.manifest).digest()
    assert (evidence.nonce, evidence.service, evidence.manifest_version) == (nonce, service, 0)
    assert (evidence.backend, evidence.certificates) == ("configfs", None)
    assert evidence.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert evidence.collected_at is not None
    assert timedelta(0) <= datetime.now(UTC) - evidence.collected_at < timedelta(minutes=1)
    assert list(bench.report.iterdir()) == []


def test_each_request_has_its_own_report(bench: Bench) -> None:
    backend = new_backend(bench)
    assert collect(backend).report != collect(backend).report


@pytest.mark.parametrize("size", [0, 32, 63, 65])
def test_a_nonce_of_another_length_never_reaches_the_device(bench: Bench, size: int) -> None:
    before = bench.knobs.get("calls")
    with pytest.raises(NonceError):
        run(new_backend(bench).collect(bytes(size), Service.VTPM))
    assert bench.knobs.get("calls") == before


def test_a_manifest_version_is_asked_for(bench: Bench) -> None:
    error = failure(new_backend(bench), version=1)
    assert bench.knobs.get("last").endswith("ver=1")
    assert error.cause == Cause.SVSM_REFUSED
    assert "manifest version 1" in error.reason


def test_a_number_that_is_no_manifest_version(bench: Bench) -> None:
    before = bench.knobs.get("calls")
    assert failure(new_backend(bench), version=1 << 32).cause == Cause.SVSM_REFUSED
    assert bench.knobs.get("calls") == before


@pytest.mark.parametrize("service", Service)
def test_kernels_with_the_development_names(development_kernel: Bench, service: Service) -> None:
    for bench in checked(development_kernel):
        evidence = collect(new_backend(bench), service)
        assert bench.knobs.get("last") == ASKED[service]
        assert evidence.manifest is not None
        assert evidence.manifest[:4].hex() == MANIFESTS[service][1]


def test_a_manifest_version_in_the_development_dialect(development_kernel: Bench) -> None:
    for bench in checked(development_kernel):
        assert failure(new_backend(bench), version=1).cause == Cause.SVSM_REFUSED
        assert bench.knobs.get("last").endswith("sp=svsm guid=c476f1eb-0123-45a5-9641-b4e7dde5bfe3 ver=1")


def test_a_kernel_that_cannot_ask_for_a_manifest_version(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    attributes = ReportEntry.attributes
    monkeypatch.setattr(
        ReportEntry, "attributes", lambda entry: attributes(entry) - {"service_manifest_version"}
    )
    backend = new_backend(bench)
    assert collect(backend).report
    assert failure(backend, version=1).cause == Cause.NO_SVSM


def test_a_machine_without_a_boot_id(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.evidence.configfs.BOOT_ID", Path("/nowhere"))
    assert collect(new_backend(bench)).boot_id is None


# What looks like success to the kernel


@pytest.mark.parametrize(
    ("knob", "value", "cause"),
    [
        ("wrong_report_data", b"Y", Cause.REPORT_NOT_BOUND),
        ("report_vmpl", 2, Cause.REPORT_NOT_VMPL0),
        ("report_vmpl", 0xFFFFFFFF, Cause.REPORT_NOT_VMPL0),
        ("report_vmpl", 0x100, Cause.REPORT_NOT_VMPL0),  # zero in its low byte
        ("wrong_manifest", b"Y", Cause.MANIFEST_UNEXPECTED),
        ("manifest_size", 0, Cause.MANIFEST_MALFORMED),
        ("manifest_size", 313, Cause.MANIFEST_MALFORMED),
        ("manifest_size", 315, Cause.MANIFEST_MALFORMED),
        ("outblob_size", 1183, Cause.REPORT_MALFORMED),
        ("outblob_size", 1185, Cause.REPORT_MALFORMED),
        ("outblob_size", 32768, Cause.REPORT_MALFORMED),
        ("report_version", 0, Cause.REPORT_MALFORMED),
        ("report_version", 9, Cause.REPORT_MALFORMED),
    ],
)
def test_evidence_that_no_verifier_would_take_stays_inside(
    bench: Bench, knob: str, value: int | bytes, cause: Cause
) -> None:
    bench.knobs.set(knob, value)
    error = failure(new_backend(bench))
    assert error.cause == cause
    assert error.remedy


# Others in the same entry


@pytest.fixture
def intruder(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Another process writes to our entry between two blobs, as often as the one number says."""
    visits = [0]
    read_blob = ReportEntry.blob

    def blob(entry: ReportEntry, attribute: str) -> bytes:
        content = read_blob(entry, attribute)
        if attribute == "outblob" and visits[0]:
            visits[0] -= 1
            write(entry.path / "privlevel", b"2")
        return content

    monkeypatch.setattr(ReportEntry, "blob", blob)
    yield visits
    assert visits == [0]


def test_a_disturbed_request_is_repeated_once(bench: Bench, intruder: list[int]) -> None:
    intruder[0] = 1
    with structlog.testing.capture_logs() as logs:
        evidence = collect(new_backend(bench))
    assert evidence.manifest is not None
    assert evidence.report[0x50:0x90] == hashlib.sha512(NONCE + evidence.manifest).digest()
    assert [log["event"] for log in logs] == ["report_request_disturbed"]


def test_a_request_disturbed_twice_fails_as_busy(bench: Bench, intruder: list[int]) -> None:
    intruder[0] = 2
    error = failure(new_backend(bench))
    assert isinstance(error, BackendBusyError)
    assert error.cause == Cause.INTERFERENCE


def test_a_write_behind_the_report_is_noticed(bench: Bench) -> None:
    bench.knobs.set("disturb", 100)
    assert isinstance(failure(new_backend(bench)), BackendBusyError)


def test_an_intruder_who_makes_the_report_fail_is_no_refusal(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_blob = ReportEntry.blob

    def blob(entry: ReportEntry, attribute: str) -> bytes:
        if attribute == "manifestblob":
            write(entry.path / "inblob", bytes(63))  # any further read is EINVAL
        return read_blob(entry, attribute)

    monkeypatch.setattr(ReportEntry, "blob", blob)
    assert failure(new_backend(bench)).cause == Cause.INTERFERENCE


def test_an_entry_that_somebody_removes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    read_blob = ReportEntry.blob

    def blob(entry: ReportEntry, attribute: str) -> bytes:
        if attribute == "manifestblob":
            entry.path.rmdir()
        return read_blob(entry, attribute)

    monkeypatch.setattr(ReportEntry, "blob", blob)
    assert isinstance(failure(new_backend(bench)), BackendBusyError)


def test_a_provider_that_says_try_again(bench: Bench) -> None:
    # A file object would read None here, without an exception.
    bench.knobs.set("fail_errno", 11)
    bench.knobs.set("fail_count", 1)
    assert collect(new_backend(bench)).report
    bench.knobs.set("fail_count", 2)
    assert isinstance(failure(new_backend(bench)), BackendBusyError)


# What processes leave behind


def test_entries_of_dead_processes_are_removed_at_the_start(bench: Bench) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    alive = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    stale = [f"{PREFIX}{dead.pid}-0011", f"{PREFIX}{1 << 70}-0011", f"{PREFIX}{os.getpid()}-0011"]
    kept = [f"{PREFIX}{alive.pid}-0011", f"{PREFIX}1-0011", f"{PREFIX}x-0011", "somebody-elses", "svsm"]
    try:
        for name in (*stale, *kept):
            (bench.report / name).mkdir()
        with structlog.testing.capture_logs() as logs:
            backend = new_backend(bench)
            collect(backend)
        assert {path.name for path in bench.report.iterdir()} == set(kept)
        (log,) = logs
        assert log["event"] == "stale_report_entries_removed"
        assert set(log["entries"]) == set(stale)

        (bench.report / stale[0]).mkdir()
        collect(backend)  # only at the start
        assert (bench.report / stale[0]).exists()
    finally:
        alive.kill()
        alive.wait()
        for path in bench.report.iterdir():
            path.rmdir()


HOLDER = """
import os, sys, time
from pathlib import Path
from app.evidence.configfs_entry import PREFIX, ReportEntry
os.getpid = lambda: int(sys.argv[2])  # a number that nobody has here: as from another PID namespace
with ReportEntry.fresh(Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(60)
"""


def test_an_entry_that_is_in_use_in_another_pid_namespace_is_kept(bench: Bench) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, bench.report, str(dead.pid)], cwd=REPOSITORY, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        try:
            collect(new_backend(bench))
            (entry,) = bench.report.iterdir()
            assert entry.name.startswith(f"{PREFIX}{dead.pid}-")
        finally:
            holder.kill()
    collect(new_backend(bench))
    assert list(bench.report.iterdir()) == []


def test_an_entry_that_cannot_be_removed_does_not_spoil_the_evidence(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = Path.rmdir

    def rmdir(path: Path) -> None:
        remove(path)
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "rmdir", rmdir)
    with structlog.testing.capture_logs() as logs:
        assert collect(new_backend(bench)).report
    monkeypatch.undo()
    assert [log["event"] for log in logs] == ["report_entry_not_removed"]


# Rights

ORDINARY_USER = """
import asyncio, os, sys
from pathlib import Path
from app.errors import BackendError
from app.evidence.configfs import ConfigfsBackend
from app.wire.evidence import Service

os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
backend = ConfigfsBackend(Path(sys.argv[1]), tpm_device=None)
probe = asyncio.run(backend.probe())
print([(check.name, check.ok) for check in probe.checks])
try:
    asyncio.run(backend.collect(bytes(64), Service.VTPM))
except BackendError as error:
    print(error.cause, error.errno, error.remedy)
"""


def as_ordinary_user(bench: Bench) -> list[str]:
    child = subprocess.run(
        [sys.executable, "-c", ORDINARY_USER, bench.report, str(NOBODY)],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    return child.stdout.splitlines()


def failed_checks(line: str) -> list[str]:
    checks: list[tuple[str, bool]] = eval(line, {})  # noqa: S307  # our own child's list
    return [name for name, ok in checks if not ok]


def test_an_ordinary_user_is_told_to_be_root(bench: Bench) -> None:
    before = bench.knobs.get("calls")
    probe, error = as_ordinary_user(bench)
    assert failed_checks(probe)[0] == "entry"
    assert error.startswith("permission-denied 13 Run the attester as root")
    assert bench.knobs.get("calls") == before


def test_giving_a_user_the_directory_is_not_enough(bench: Bench) -> None:
    os.chown(bench.report, NOBODY, NOBODY)
    try:
        probe, error = as_ordinary_user(bench)
    finally:
        os.chown(bench.report, 0, 0)
    assert failed_checks(probe) == ["permission"]
    assert error.startswith("permission-denied 13 Run the attester as root")


def test_nothing_secret_or_large_is_logged(bench: Bench) -> None:
    bench.knobs.set("auxblob_size", 1000)
    with structlog.testing.capture_logs() as logs:
        evidence = collect(new_backend(bench, fetch_certificates=True))
    assert evidence.manifest is not None
    for blob in (NONCE, evidence.report[0x50:0x90], evidence.manifest):
        assert blob.hex() not in repr(logs)
        assert repr(blob)[2:-1] not in repr(logs)


def test_a_text_attribute_that_takes_only_a_part(bench: Bench) -> None:
    bench.knobs.set("text_limit", 3)
    error = failure(new_backend(bench))
    assert error.cause == Cause.PLATFORM
    assert "selecting the SVSM" in error.reason
    assert "3 of 4 bytes" in error.reason


def test_requests_keep_their_distance(bench: Bench) -> None:
    backend = new_backend(bench, interval_s=1.0)
    start = time.monotonic()
    collect(backend)
    assert 0 < backend.wait_s() <= 1.0
    collect(backend)
    assert time.monotonic() - start >= 1.0
