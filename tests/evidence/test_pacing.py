"""The queue in front of the device, on a clock that the test moves."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from app.evidence.pacing import DevicePacer, DeviceStalledError, PacerClosedError, RequestOverdueError

LONG_S = 60.0


class Time:
    """A clock that sleeping moves on, and that counts no other time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)
        self.now += seconds


class Device:
    """Requests that take time, and a record of when which of them was there."""

    def __init__(self, time: Time, pacer: DevicePacer) -> None:
        self._time = time
        self._pacer = pacer
        self.log: list[tuple[str, float]] = []
        self.present = 0

    async def _request(self, name: str, took_s: float) -> str:
        self.present += 1
        assert self.present == 1, "two requests at once"
        self.log.append((name, self._time.now))
        await asyncio.sleep(0)
        self._time.now += took_s
        self.present -= 1
        return name

    async def ask(self, name: str, took_s: float = 1.0) -> str:
        return await self._pacer.run(lambda: self._request(name, took_s), timeout_s=LONG_S)


def play(scenario: Callable[[Time, DevicePacer, Device], Coroutine[Any, Any, None]]) -> None:
    complaints: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        time = Time()
        pacer = DevicePacer(2.0, clock=time.clock, sleep=time.sleep)
        await asyncio.wait_for(scenario(time, pacer, Device(time, pacer)), 10)

    asyncio.run(main())
    assert complaints == []


def test_the_first_request_waits_for_nothing() -> None:
    async def scenario(time: Time, pacer: DevicePacer, device: Device) -> None:
        assert pacer.wait_s() == 0
        assert await device.ask("a") == "a"
        assert time.slept == []

    play(scenario)


def test_the_distance_counts_from_the_end_of_the_last_request() -> None:
    async def scenario(time: Time, _: DevicePacer, device: Device) -> None:
        await device.ask("a", took_s=7)
        await device.ask("b", took_s=1)
        time.now += 0.5
        await device.ask("c")
        assert device.log == [("a", 100), ("b", 109), ("c", 112)]
        assert time.slept == [2, 1.5]

    play(scenario)


def test_no_pause_where_time_has_passed_anyway() -> None:
    async def scenario(time: Time, _: DevicePacer, device: Device) -> None:
        await device.ask("a")
        time.now += 2
        await device.ask("b")
        assert time.slept == []

    play(scenario)


def test_a_sleep_that_ends_early_is_continued() -> None:
    async def scenario(time: Time, _: DevicePacer, device: Device) -> None:
        honest = time.sleep

        async def impatient(seconds: float) -> None:
            await honest(seconds / 2 if seconds > 0.5 else seconds)

        device._pacer._sleep = impatient
        await device.ask("a")
        await device.ask("b")
        assert device.log[1] == ("b", 103)
        assert len(time.slept) > 1

    play(scenario)


def test_first_come_first_served() -> None:
    async def scenario(_time: Time, _: DevicePacer, device: Device) -> None:
        await asyncio.gather(*(device.ask(name) for name in "abcdef"))
        assert "".join(name for name, _ in device.log) == "abcdef"
        assert [start for _, start in device.log] == [100, 103, 106, 109, 112, 115]

    play(scenario)


def test_a_failed_request_keeps_its_distance_too() -> None:
    async def scenario(_time: Time, pacer: DevicePacer, device: Device) -> None:
        async def broken() -> None:
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await pacer.run(broken, timeout_s=LONG_S)
        await device.ask("b")
        assert device.log == [("b", 102)]

    play(scenario)


def test_whoever_leaves_the_queue_leaves_no_gap() -> None:
    async def scenario(_time: Time, pacer: DevicePacer, device: Device) -> None:
        tasks = [asyncio.ensure_future(device.ask(name)) for name in "abcd"]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.wait(tasks)
        assert device.log == [("a", 100), ("c", 103), ("d", 106)]
        assert tasks[1].cancelled()
        await asyncio.sleep(0)
        assert pacer.wait_s() == 2

    play(scenario)


def test_whoever_leaves_during_the_pause_passes_the_turn_on() -> None:
    async def scenario(time: Time, _: DevicePacer, device: Device) -> None:
        await device.ask("a")
        pausing = asyncio.ensure_future(device.ask("b"))
        await asyncio.sleep(0)
        assert time.slept == [2]
        pausing.cancel()
        await asyncio.wait([pausing])
        await device.ask("c")
        assert device.log == [("a", 100), ("c", 103)]

    play(scenario)


def test_a_cancelled_caller_does_not_free_the_device() -> None:
    async def scenario(time: Time, pacer: DevicePacer, device: Device) -> None:
        leave = asyncio.Event()

        async def held() -> None:
            await leave.wait()
            time.now += 5

        caller = asyncio.ensure_future(pacer.run(held, timeout_s=LONG_S))
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait([caller])
        follower = asyncio.ensure_future(device.ask("b"))
        for _ in range(5):
            await asyncio.sleep(0)
        assert device.log == []
        leave.set()
        await follower
        assert device.log == [("b", 107)]

    play(scenario)


def test_nobody_has_to_fetch_the_error_of_an_abandoned_request() -> None:
    async def scenario(_time: Time, pacer: DevicePacer, device: Device) -> None:
        async def broken() -> None:
            await asyncio.sleep(0)
            raise ValueError("nobody listens")

        caller = asyncio.ensure_future(pacer.run(broken, timeout_s=LONG_S))
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait([caller])
        await device.ask("b")

    play(scenario)


def test_a_request_that_is_itself_cancelled() -> None:
    async def scenario(_time: Time, pacer: DevicePacer, device: Device) -> None:
        async def gives_up() -> None:
            raise asyncio.CancelledError

        caller = asyncio.ensure_future(pacer.run(gives_up, timeout_s=LONG_S))
        await asyncio.wait([caller])
        assert caller.cancelled()
        await device.ask("b")

    play(scenario)


def test_an_overdue_request_fails_everybody_fast_until_it_ends() -> None:
    async def scenario(time: Time, pacer: DevicePacer, device: Device) -> None:
        leave = asyncio.Event()

        async def lost() -> None:
            await leave.wait()

        assert pacer.stalled_for_s is None
        caller = asyncio.ensure_future(pacer.run(lost, timeout_s=0.01))
        await asyncio.sleep(0)
        queue = [asyncio.ensure_future(device.ask(name)) for name in "bcd"]
        with pytest.raises(RequestOverdueError):
            await caller
        for task in queue:
            with pytest.raises(DeviceStalledError):
                await task
        time.now += 33
        with pytest.raises(DeviceStalledError, match="33 s"):
            await device.ask("e")
        assert pacer.stalled_for_s == 33
        assert pacer.wait_s() == 0.01
        assert device.log == []

        leave.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert pacer.stalled_for_s is None
        await device.ask("f")
        assert device.log == [("f", 135)]

    play(scenario)


def test_an_overdue_request_whose_caller_has_left_is_noticed_as_well() -> None:
    async def scenario(_time: Time, pacer: DevicePacer, device: Device) -> None:
        leave = asyncio.Event()

        async def lost() -> None:
            await leave.wait()

        caller = asyncio.ensure_future(pacer.run(lost, timeout_s=0.01))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(DeviceStalledError):
            await device.ask("b")
        leave.set()
        await pacer.drain()

    play(scenario)


def test_how_long_a_newcomer_would_wait() -> None:
    async def scenario(time: Time, pacer: DevicePacer, device: Device) -> None:
        await device.ask("a", took_s=3)
        assert pacer.wait_s() == 2
        time.now += 1.5
        assert pacer.wait_s() == 0.5
        time.now += 1.5
        assert pacer.wait_s() == 0

        leave = asyncio.Event()

        async def held() -> None:
            await leave.wait()

        flying = asyncio.ensure_future(pacer.run(held, timeout_s=LONG_S))
        await asyncio.sleep(0)
        assert pacer.wait_s() == 5  # as long as the last one took, and the pause
        time.now += 2
        queue = [asyncio.ensure_future(device.ask(name)) for name in "bc"]
        await asyncio.sleep(0)
        assert pacer.wait_s() == 1 + 2 + 2 * 5
        time.now += 10
        assert pacer.wait_s() == 2 + 2 * 5
        leave.set()
        await asyncio.gather(flying, *queue)

    play(scenario)


def test_closing_refuses_whatever_has_not_started() -> None:
    async def scenario(time: Time, pacer: DevicePacer, device: Device) -> None:
        leave = asyncio.Event()

        async def held() -> str:
            await leave.wait()
            return "done"

        flying = asyncio.ensure_future(pacer.run(held, timeout_s=LONG_S))
        await asyncio.sleep(0)
        queued = asyncio.ensure_future(device.ask("b"))
        await asyncio.sleep(0)
        pacer.close()
        drained = asyncio.ensure_future(pacer.drain())
        await asyncio.sleep(0)
        assert not drained.done()
        leave.set()
        await drained
        assert await flying == "done"
        for late in (queued, device.ask("c")):
            with pytest.raises(PacerClosedError):
                await late
        assert device.log == []
        assert time.slept == []  # and does not let it wait for the refusal

    play(scenario)


def test_closing_during_the_pause() -> None:
    async def scenario(_time: Time, pacer: DevicePacer, device: Device) -> None:
        await device.ask("a")
        pausing = asyncio.ensure_future(device.ask("b"))
        await asyncio.sleep(0)
        pacer.close()
        with pytest.raises(PacerClosedError):
            await pausing

    play(scenario)
