"""When the device may be asked: one request at a time, and never too soon after the last.

A host allows a VM few guest requests (two in two seconds on one public cloud), and an SVSM
that is throttled twice in a row wipes the key it reaches the security processor with, for
the rest of the VM's life. So the device gets one request at a time, spaced from the *end* of
the one before: however long that took, the host has had a pause.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class RequestOverdueError(Exception):
    """The request did not come back in time. It is not cancelled: it still occupies the device."""


class DeviceStalledError(Exception):
    """An overdue request still occupies the device."""

    def __init__(self, occupied_s: float) -> None:
        super().__init__(f"a request has occupied the device for {occupied_s:.0f} s")
        self.occupied_s = occupied_s


class PacerClosedError(Exception):
    """No more requests are taken."""


@dataclass(slots=True)
class _Flight:
    started_at: float
    timeout_s: float
    overdue: bool = False


class DevicePacer:
    """A FIFO queue in front of a device.

    Args:
        interval_s: least time between the end of a request and the start of the next.
        clock: a monotonic clock in seconds.
        sleep: waits for that many seconds of `clock`.
    """

    def __init__(
        self,
        interval_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._sleep = sleep
        self._turn = asyncio.Lock()  # first come, first served; held from waiting out the pause to landing
        self._flight: _Flight | None = None
        self._landed = asyncio.Event()
        self._landed.set()
        self._waiting = 0
        self._free_at = float("-inf")
        self._last_took_s = 0.0
        self._closed = False

    async def run(self, request: Callable[[], Coroutine[Any, Any, T]], *, timeout_s: float) -> T:
        """Wait for a turn, then start `request` and give back what it gives, or raise what it raises.

        Cancelling the caller withdraws a request that has not started. One that has started
        cannot be called back: it runs on, and the device stays taken until it ends.

        Raises:
            RequestOverdueError: not done `timeout_s` after its start; the device is stalled from
                then until the request ends by itself.
            DeviceStalledError: so it was with an earlier request. Also raised in everyone who
                waits in the queue at that moment.
            PacerClosedError: after `close`.
        """
        await self._take_turn()
        loop = asyncio.get_running_loop()
        flight = self._flight = _Flight(self._clock(), timeout_s)
        self._landed.clear()
        outcome: asyncio.Future[T] = loop.create_future()
        watchdog = loop.call_later(timeout_s, self._give_up, flight, outcome)
        task = loop.create_task(request())
        task.add_done_callback(partial(self._land, flight, outcome, watchdog))
        return await outcome

    def wait_s(self) -> float:
        """About how long a request made now would wait for its start, in seconds: for Retry-After."""
        each = self._interval_s + self._last_took_s
        return self._until_free_s() + self._waiting * each

    @property
    def stalled_for_s(self) -> float | None:
        """How long an overdue request has occupied the device; None when none does."""
        if self._flight is None or not self._flight.overdue:
            return None
        return self._clock() - self._flight.started_at

    def close(self) -> None:
        """Refuse every request that has not started."""
        self._closed = True

    async def drain(self) -> None:
        """Return when nothing is in flight, or what is in flight is overdue."""
        while self._flight is not None and not self._flight.overdue:
            await self._landed.wait()

    async def _take_turn(self) -> None:
        self._demand_open()
        self._waiting += 1
        try:
            await self._turn.acquire()
            try:
                self._demand_open()
                while (pause := self._free_at - self._clock()) > 0:
                    await self._sleep(pause)
                self._demand_open()
            except BaseException:
                self._turn.release()
                raise
        finally:
            self._waiting -= 1

    def _demand_open(self) -> None:
        if self._closed:
            raise PacerClosedError
        if (occupied_s := self.stalled_for_s) is not None:
            raise DeviceStalledError(occupied_s)

    def _give_up(self, flight: _Flight, outcome: "asyncio.Future[Any]") -> None:
        flight.overdue = True
        self._landed.set()
        if not outcome.done():
            outcome.set_exception(RequestOverdueError())
        self._turn.release()  # the queue wakes up one by one, sees the stall, and leaves

    def _land(
        self,
        flight: _Flight,
        outcome: "asyncio.Future[Any]",
        watchdog: asyncio.TimerHandle,
        task: "asyncio.Future[Any]",
    ) -> None:
        watchdog.cancel()
        now = self._clock()
        self._free_at = now + self._interval_s
        self._last_took_s = now - flight.started_at
        self._flight = None
        self._landed.set()
        if not flight.overdue:
            self._turn.release()
        error = None if task.cancelled() else task.exception()  # retrieved even where nobody listens
        if outcome.done():
            return
        if task.cancelled():
            outcome.cancel()
        elif error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(task.result())

    def _until_free_s(self) -> float:
        now = self._clock()
        if self._flight is None:
            return max(0.0, self._free_at - now)
        if self._flight.overdue:
            return self._flight.timeout_s
        return max(0.0, self._flight.started_at + self._last_took_s - now) + self._interval_s
