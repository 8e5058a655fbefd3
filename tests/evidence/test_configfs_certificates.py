"""Certificates: the SVSM's if it has any, the host's if asked to, and evidence in any case."""

import errno
from typing import Any

import pytest
import structlog

from app.wire import guid
from app.wire.certificate_table import CertificateEntry, CertificateTable
from app.wire.evidence import Service
from tests.evidence.replay.bench import Bench
from tests.evidence.rig import collect, new_backend

TABLE = CertificateTable(
    (CertificateEntry(guid.VCEK, b"a VCEK"), CertificateEntry(guid.ASK, b"an ASK"))
).encode()
DIGITS = TABLE.hex().encode()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def events(logs: list[Any]) -> list[str]:
    return [log["event"] for log in logs]


def test_a_table_from_the_svsm_is_passed_on_as_it_is(bench: Bench) -> None:
    bench.knobs.set("svsm_certificates", DIGITS)
    bench.knobs.set("auxblob_size", 16384)
    before = int(bench.knobs.get("calls"))
    assert collect(new_backend(bench, fetch_certificates=True)).certificates == TABLE.ljust(16384, b"\0")
    assert int(bench.knobs.get("calls")) == before + 1


def test_a_table_that_lists_nothing_is_none(bench: Bench) -> None:
    bench.knobs.set("auxblob_size", 16384)
    with structlog.testing.capture_logs() as logs:
        assert collect(new_backend(bench)).certificates is None
    assert logs == []


def test_a_table_that_is_none_is_left_out(bench: Bench) -> None:
    bench.knobs.set("svsm_certificates", b"ff" * 100)
    with structlog.testing.capture_logs() as logs:
        assert collect(new_backend(bench)).certificates is None
    assert events(logs) == ["certificates_unreadable"]


def test_a_table_beyond_what_the_kernel_hands_out(bench: Bench) -> None:
    bench.knobs.set("auxblob_size", 32769)
    with structlog.testing.capture_logs() as logs:
        assert collect(new_backend(bench)).certificates is None
    assert events(logs) == ["certificates_too_large"]


def test_no_second_report_unless_configured(bench: Bench) -> None:
    before = int(bench.knobs.get("calls"))
    assert collect(new_backend(bench)).certificates is None
    assert int(bench.knobs.get("calls")) == before + 1


def test_the_host_is_asked_once(bench: Bench) -> None:
    bench.knobs.set("plain_certificates", DIGITS)
    before = int(bench.knobs.get("calls"))
    backend = new_backend(bench, fetch_certificates=True)
    assert collect(backend).certificates == TABLE
    assert int(bench.knobs.get("calls")) == before + 2
    asked = bench.knobs.get("last")
    assert asked.startswith("inlen=64 priv=2 sp=(null) guid=00000000-")  # at the floor, without the SVSM
    assert collect(backend).certificates == TABLE
    assert collect(backend, Service.ALL).certificates == TABLE
    assert int(bench.knobs.get("calls")) == before + 4


def test_a_host_without_certificates_is_asked_once_as_well(bench: Bench) -> None:
    before = int(bench.knobs.get("calls"))
    backend = new_backend(bench, fetch_certificates=True)
    with structlog.testing.capture_logs() as logs:
        assert collect(backend).certificates is None
        assert collect(backend).certificates is None
    assert logs == []
    assert int(bench.knobs.get("calls")) == before + 3


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EINVAL, "refused a report"),
        (errno.EIO, "larger than 16 KiB"),
        (errno.ENOTTY, "VMPCK"),
        (errno.ETIMEDOUT, "60 s"),
        (errno.ENXIO, "knows no such request"),
    ],
)
def test_a_failure_leaves_the_evidence_alone_and_the_host_in_peace(
    bench: Bench, number: int, words: str
) -> None:
    bench.knobs.set("plain_certificates", DIGITS)
    bench.knobs.set("plain_fail_errno", number)
    clock = Clock()
    backend = new_backend(bench, fetch_certificates=True, clock=clock)
    before = int(bench.knobs.get("calls"))
    with structlog.testing.capture_logs() as logs:
        assert collect(backend).certificates is None
        assert collect(backend).certificates is None
    assert events(logs) == ["certificates_not_fetched"]
    assert words in logs[0]["reason"]
    assert int(bench.knobs.get("calls")) == before + 3

    bench.knobs.set("plain_fail_errno", 0)
    clock.now += 599
    assert collect(backend).certificates is None
    clock.now += 1
    assert collect(backend).certificates == TABLE


def test_certificates_for_another_chip_are_not_given_away(bench: Bench) -> None:
    bench.knobs.set("plain_certificates", DIGITS)
    bench.knobs.set("plain_chip_id", 0xC2)
    backend = new_backend(bench, fetch_certificates=True)
    with structlog.testing.capture_logs() as logs:
        assert collect(backend).certificates is None
    assert "another chip or TCB" in logs[0]["reason"]


def test_another_tcb_is_another_question(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    tcb = [b"old"]
    monkeypatch.setattr("app.evidence.configfs._certificate_key", lambda _: (b"chip", tcb[0]))
    bench.knobs.set("plain_certificates", DIGITS)
    backend = new_backend(bench, fetch_certificates=True)
    before = int(bench.knobs.get("calls"))
    assert collect(backend).certificates == TABLE
    tcb[0] = b"new"  # a firmware update under a running VM
    bench.knobs.set("plain_certificates", b"\n")
    assert collect(backend).certificates is None
    assert int(bench.knobs.get("calls")) == before + 4


def test_a_plain_report_that_is_none(bench: Bench) -> None:
    bench.knobs.set("plain_certificates", DIGITS)
    bench.knobs.set("plain_version", 9)
    with structlog.testing.capture_logs() as logs:
        assert collect(new_backend(bench, fetch_certificates=True)).certificates is None
    assert "version 9" in logs[0]["reason"]


def test_a_privilege_floor_out_of_reach(bench: Bench) -> None:
    # A floor that the kernel names but does not accept: only a broken or hostile one would.
    bench.knobs.set("floor", 4)
    with structlog.testing.capture_logs() as logs:
        assert collect(new_backend(bench, fetch_certificates=True)).certificates is None
    assert "VMPL that it named as its floor" in logs[0]["reason"]
