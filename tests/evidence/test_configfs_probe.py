"""Readiness: which prerequisite is missing, found without asking the device for anything."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from app.evidence.backend import ProbeCheck, ProbeReport
from app.evidence.configfs import ConfigfsBackend
from app.wire.evidence import Service
from tests.evidence.replay.bench import NOBODY, Bench, NotAvailableError
from tests.evidence.rig import NONCE, new_backend, run

NAMES = ["configfs", "entry", "provider", "svsm", "permission", "device"]


def outcome(report: ProbeReport) -> list[str]:
    """Names of the checks in order, those that failed in brackets."""
    return [check.name if check.ok else f"({check.name})" for check in report.checks]


def test_all_is_well_and_nothing_was_asked(bench: Bench) -> None:
    before = bench.knobs.get("calls")
    report = run(new_backend(bench).probe())
    assert report.ready
    assert (report.backend, report.simulated) == ("configfs", False)
    assert outcome(report) == NAMES
    assert all(check.detail and check.remedy is None for check in report.checks)
    assert "VMPL 2" in report.checks[3].detail
    assert bench.knobs.get("calls") == before
    assert list(bench.report.iterdir()) == []


def test_the_first_failure_has_the_remedy_and_the_rest_was_not_reached(tmp_path: Path) -> None:
    report = run(ConfigfsBackend(tmp_path / "tsm" / "report").probe())
    assert not report.ready
    first, *rest, device = report.checks
    assert (first.name, first.ok) == ("configfs", False)
    assert "mount -t configfs" in (first.remedy or "")
    assert [check.name for check in rest] == NAMES[1:-1]
    assert all(check.detail == "not reached: configfs comes first" for check in rest)
    assert not any(check.ok or check.remedy for check in rest)
    assert device.ok


def test_no_provider(bench: Bench) -> None:
    try:
        with bench.without_provider():
            report = run(new_backend(bench).probe())
    except NotAvailableError as lack:
        pytest.skip(str(lack))
    assert outcome(report) == ["configfs", "(entry)", "(provider)", "(svsm)", "(permission)", "device"]
    assert "modprobe sev-guest" in (report.checks[1].remedy or "")


def test_no_svsm(bench: Bench) -> None:
    try:
        with bench.at_vmpl(0):
            report = run(new_backend(bench).probe())
    except NotAvailableError as lack:
        pytest.skip(str(lack))
    assert outcome(report) == ["configfs", "entry", "provider", "(svsm)", "(permission)", "device"]
    assert "Linux 6.11" in (report.checks[3].remedy or "")


def test_requests_that_cannot_be_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, _mode, **_: path.name != "inblob")
    report = run(new_backend(bench).probe())
    assert outcome(report) == ["configfs", "entry", "provider", "svsm", "(permission)", "device"]
    assert report.checks[4].remedy


def test_the_effective_user_is_the_one_who_counts(bench: Bench) -> None:
    os.chown(bench.report, NOBODY, NOBODY)  # so that it may make entries, and yet not write to them
    os.seteuid(NOBODY)
    try:
        report = run(new_backend(bench).probe())
    finally:
        os.seteuid(0)
        os.chown(bench.report, 0, 0)
    assert outcome(report) == ["configfs", "entry", "provider", "svsm", "(permission)", "device"]


def test_nobody_waits_long_while_the_kernel_is_busy(bench: Bench) -> None:
    async def scenario() -> None:
        backend = new_backend(bench, probe_timeout_s=0.1)
        before = int(bench.knobs.get("calls"))
        bench.knobs.set("delay_ms", 500)
        request = asyncio.ensure_future(backend.collect(NONCE, Service.VTPM))
        while int(bench.knobs.get("calls")) == before:  # noqa: ASYNC110  # another process counts
            await asyncio.sleep(0.005)
        started = time.monotonic()
        reports = await asyncio.gather(*(backend.probe() for _ in range(5)))
        assert time.monotonic() - started < 0.3
        for report in reports:
            assert not report.ready
            assert report.checks[0].detail == "the kernel did not answer within 0.1 s"
        assert len(list(bench.report.iterdir())) <= 2  # one request, and one probe for all who asked
        await request
        bench.knobs.set("delay_ms", 0)
        while not (await backend.probe()).ready:  # noqa: ASYNC110  # the kernel says when
            await asyncio.sleep(0.01)

    run(scenario())


def test_a_probe_without_checks_proves_nothing() -> None:
    good = ProbeCheck(name="a", ok=True, detail="")
    bad = ProbeCheck(name="b", ok=False, detail="")
    assert not ProbeReport(backend="x", simulated=True, checks=()).ready
    assert ProbeReport(backend="x", simulated=True, checks=(good,)).ready
    assert not ProbeReport(backend="x", simulated=True, checks=(good, bad)).ready
