"""One request at a time, never in the way of the event loop, and never lost without a word."""

import asyncio
import secrets
import time

import pytest
import structlog

from app.errors import BackendError
from app.evidence.backend import Cause
from app.evidence.configfs import ConfigfsBackend
from app.wire.evidence import Service
from tests.evidence.replay.bench import Bench
from tests.evidence.rig import NONCE, new_backend, run


async def until_in_flight(bench: Bench, calls: int) -> None:
    while int(bench.knobs.get("calls")) <= calls:  # noqa: ASYNC110  # another process counts
        await asyncio.sleep(0.005)


def start(backend: ConfigfsBackend) -> "asyncio.Task[object]":
    return asyncio.ensure_future(backend.collect(NONCE, Service.VTPM))


async def cause_of(task: "asyncio.Task[object]") -> str:
    with pytest.raises(BackendError) as caught:
        await task
    return caught.value.cause


def test_the_event_loop_goes_on_meanwhile(bench: Bench) -> None:
    async def scenario() -> None:
        bench.knobs.set("delay_ms", 300)
        task = start(new_backend(bench))
        turns = 0
        while not task.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert turns > 10  # some 250 on a quiet machine, 2 where the request holds the loop

    run(scenario())


def test_concurrent_requests_get_their_own_answers(bench: Bench) -> None:
    async def scenario() -> None:
        backend = new_backend(bench)
        nonces = [secrets.token_bytes(64) for _ in range(20)]
        found = await asyncio.gather(*(backend.collect(nonce, Service.VTPM) for nonce in nonces))
        assert [evidence.nonce for evidence in found] == nonces
        assert len({evidence.report for evidence in found}) == 20

    run(scenario())


def test_a_cancelled_caller_leaves_nothing_behind(bench: Bench) -> None:
    async def scenario() -> None:
        bench.knobs.set("delay_ms", 200)
        backend = new_backend(bench)
        before = int(bench.knobs.get("calls"))
        task = start(backend)
        await until_in_flight(bench, before)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(list(bench.report.iterdir())) == 1  # the kernel is still at it
        started = time.monotonic()
        await backend.collect(NONCE, Service.VTPM)  # waits for it
        assert time.monotonic() - started > 0.2
        assert int(bench.knobs.get("calls")) == before + 2
        assert list(bench.report.iterdir()) == []

    run(scenario())


def test_a_caller_who_leaves_the_queue_asks_for_nothing(bench: Bench) -> None:
    async def scenario() -> None:
        bench.knobs.set("delay_ms", 100)
        backend = new_backend(bench)
        before = int(bench.knobs.get("calls"))
        tasks = [start(backend) for _ in range(3)]
        await until_in_flight(bench, before)
        tasks[1].cancel()
        await tasks[0]
        await tasks[2]
        assert int(bench.knobs.get("calls")) == before + 2

    run(scenario())


def test_a_lost_request_is_named_and_survived(bench: Bench) -> None:
    async def scenario() -> None:
        backend = new_backend(bench, timeout_s=0.2)
        before = int(bench.knobs.get("calls"))
        bench.knobs.set("delay_ms", 1000)
        lost = start(backend)
        await until_in_flight(bench, before)
        queued = [start(backend) for _ in range(3)]
        with structlog.testing.capture_logs() as logs:
            assert await cause_of(lost) == Cause.TIMEOUT
        assert [log["event"] for log in logs] == ["report_request_lost"]
        assert [await cause_of(task) for task in queued] == [Cause.STALLED] * 3

        started = time.monotonic()
        assert await cause_of(start(backend)) == Cause.STALLED
        probe = await backend.probe()
        assert time.monotonic() - started < 0.4  # neither waited for the kernel
        assert [check.name for check in probe.checks if check.ok] == []
        assert probe.checks[-1].name == "device"
        assert "in the kernel for" in probe.checks[-1].detail
        assert probe.checks[-1].remedy
        assert int(bench.knobs.get("calls")) == before + 1

        bench.knobs.set("delay_ms", 0)
        while list(bench.report.iterdir()):  # noqa: ASYNC110  # the kernel says when
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert (await backend.probe()).ready
        assert (await backend.collect(NONCE, Service.VTPM)).report

    run(scenario())


def test_closing_waits_for_the_request_in_flight(bench: Bench) -> None:
    async def scenario() -> None:
        backend = new_backend(bench)
        before = int(bench.knobs.get("calls"))
        bench.knobs.set("delay_ms", 150)
        flying = start(backend)
        await until_in_flight(bench, before)
        queued = start(backend)
        await asyncio.sleep(0)
        await backend.aclose()
        assert list(bench.report.iterdir()) == []
        assert await flying
        assert await cause_of(queued) == Cause.CLOSED
        assert await cause_of(start(backend)) == Cause.CLOSED

    run(scenario())


def test_closing_does_not_wait_for_a_lost_request(bench: Bench) -> None:
    async def scenario() -> None:
        backend = new_backend(bench, timeout_s=0.1)
        before = int(bench.knobs.get("calls"))
        bench.knobs.set("delay_ms", 700)
        request = start(backend)
        await until_in_flight(bench, before)
        assert await cause_of(request) == Cause.TIMEOUT
        started = time.monotonic()
        await backend.aclose()
        assert time.monotonic() - started < 0.3

    run(scenario())
    while list(bench.report.iterdir()):  # the thread goes on and cleans up, loop or no loop
        time.sleep(0.01)


def test_closing_an_idle_backend(bench: Bench) -> None:
    async def scenario() -> None:
        backend = new_backend(bench)
        await backend.probe()
        await backend.aclose()

    run(scenario())
