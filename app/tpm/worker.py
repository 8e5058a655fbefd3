"""A TPM for many: a queue in front of one thread that talks to it.

The TPM does one thing at a time, and a thread that waits for it may be lost in the kernel. So the
queue is bounded, every request has a deadline that waiting counts towards, and a request that does
not come back costs the others an error at once, not their deadline.
"""

import asyncio
import contextlib
import contextvars
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from app.errors import RateLimitedError, TpmUnavailableError
from app.tpm.causes import TpmCause, unavailable
from app.tpm.client import Tpm
from app.tpm.transport import Transport

T = TypeVar("T")

_GRACE_S = 0.5  # in which a job that missed its deadline says why, and takes out what it loaded
_LEAST_TURN_S = 0.05
# What these are about is not the channel.
_KEEPS_CHANNEL = frozenset({TpmCause.BANK_MISSING, TpmCause.UNSETTLED})


@dataclass(slots=True, eq=False)
class _Request(Generic[T]):
    """A job, until when it may take (monotonic clock), and who waits for it."""

    job: Callable[[Tpm], T]
    deadline: float
    outcome: "asyncio.Future[T]"
    watchdog: asyncio.TimerHandle = field(init=False)
    # so that the job's log lines carry the request id
    context: contextvars.Context = field(default_factory=contextvars.copy_context)

    def fail(self, error: BaseException) -> None:
        """Tell the caller, if it still listens."""
        self.watchdog.cancel()
        if not self.outcome.done():
            self.outcome.set_exception(error)


class TpmWorker:
    """Runs jobs on a TPM, one at a time, in the order in which they came. For one event loop.

    Args:
        open_transport: opens a channel to the TPM; called in the worker's thread, at the first job and
            after every failure of the channel.
        timeout_s: how long a job may take, waiting for its turn included.
        max_waiting: how many jobs may wait while one runs.
    """

    def __init__(
        self, open_transport: Callable[[], Transport], *, timeout_s: float, max_waiting: int
    ) -> None:
        self._timeout_s = timeout_s
        self._max_waiting = max_waiting
        self._waiting: deque[_Request[Any]] = deque()
        self._running: _Request[Any] | None = None
        self._started_at = 0.0
        self._last_took_s = 0.0
        self._stalled = False
        self._closed = False
        self._at_rest = asyncio.Event()  # nothing runs, or nothing that is worth waiting for
        self._at_rest.set()
        self._thread = _TpmThread(open_transport, timeout_s)
        self._ended: Future[None] | None = None

    async def run(self, job: Callable[[Tpm], T]) -> T:
        """What `job` returns, or raises, with the TPM to itself.

        A job that has not started when its caller is cancelled never starts. One that has started
        runs to its end: nothing takes a command back.

        Raises:
            RateLimitedError: too many jobs wait.
            TpmUnavailableError: the turn did not come in time (tpm-overloaded), the job was not done
                in time (tpm-timeout), an earlier one still occupies the TPM past its deadline
                (tpm-stalled), the worker is closed (tpm-closed), and whatever the channel raises.
        """
        self._admit()
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()
        request = _Request(job, time.monotonic() + self._timeout_s, outcome)
        request.watchdog = loop.call_later(self._timeout_s, self._overdue, request)
        self._waiting.append(request)
        self._next()
        try:
            return await outcome
        finally:
            if request in self._waiting:  # the caller was cancelled
                self._waiting.remove(request)
            if request is not self._running:
                request.watchdog.cancel()

    @property
    def stalled_for_s(self) -> float | None:
        """How long a job that missed its deadline has occupied the TPM; None when none does."""
        return time.monotonic() - self._started_at if self._stalled else None

    async def aclose(self) -> None:
        """Take no more jobs, fail those that wait, let the one that runs end, and close the channel.

        A job that stalls the TPM is left behind: its thread does not outlive the process.
        """
        self._closed = True
        self._fail_waiting(TpmCause.CLOSED, "the service stopped while a request waited for the TPM")
        await self._at_rest.wait()
        if self._ended is None:
            self._ended = self._thread.end()
        if not self._stalled:
            await asyncio.shield(asyncio.wrap_future(self._ended))

    def _admit(self) -> None:
        if self._closed:
            raise unavailable(TpmCause.CLOSED, "the TPM is not asked any more")
        if self._stalled:
            raise unavailable(TpmCause.STALLED, self._stall())
        count = len(self._waiting)
        if self._running is not None and count >= self._max_waiting:
            retry_after_s = max(self._last_took_s, _LEAST_TURN_S) * (count + 1)
            raise RateLimitedError(f"{count} requests wait for the TPM already", retry_after_s)

    def _next(self) -> None:
        """Start the job that waits longest, if none runs."""
        while self._waiting and self._waiting[0].outcome.done():  # its caller is just being cancelled
            self._waiting.popleft().watchdog.cancel()
        if self._running is not None or not self._waiting:
            return
        request = self._running = self._waiting.popleft()
        self._started_at = time.monotonic()
        self._at_rest.clear()
        done = self._thread.do(lambda tpm: request.context.run(request.job, tpm), request.deadline)
        done.add_done_callback(partial(self._report, asyncio.get_running_loop(), request))

    def _report(self, loop: asyncio.AbstractEventLoop, request: _Request[Any], done: "Future[Any]") -> None:
        """In the TPM's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is leaving
            loop.call_soon_threadsafe(self._landed, request, done)

    def _landed(self, request: _Request[T], done: "Future[T]") -> None:
        self._last_took_s = time.monotonic() - self._started_at
        self._running = None
        self._stalled = False
        self._at_rest.set()
        request.watchdog.cancel()
        error = done.exception()
        if error is not None:
            request.fail(error)
        elif not request.outcome.done():
            request.outcome.set_result(done.result())
        self._next()

    def _overdue(self, request: _Request[Any]) -> None:
        if request is self._running:
            request.watchdog = asyncio.get_running_loop().call_later(_GRACE_S, self._lost, request)
        else:
            self._waiting.remove(request)
            request.fail(unavailable(TpmCause.OVERLOADED, f"the TPM was busy for {self._timeout_s:g} s"))

    def _lost(self, request: _Request[Any]) -> None:
        """The job that runs does not even give up: whoever waits behind it need not."""
        self._stalled = True
        self._at_rest.set()
        request.fail(unavailable(TpmCause.TIMEOUT, f"the TPM was not done within {self._timeout_s:g} s"))
        self._fail_waiting(TpmCause.STALLED, self._stall())

    def _fail_waiting(self, cause: TpmCause, reason: str) -> None:
        while self._waiting:
            self._waiting.popleft().fail(unavailable(cause, reason))

    def _stall(self) -> str:
        return f"a request has occupied the TPM for {time.monotonic() - self._started_at:.0f} s"


class _TpmThread:
    """The one thread that talks to the TPM, and the channel that it keeps open between jobs."""

    def __init__(self, open_transport: Callable[[], Transport], timeout_s: float) -> None:
        self._open_transport = open_transport
        self._timeout_s = timeout_s
        self._channel: Transport | None = None
        self._work: queue.SimpleQueue[Callable[[], bool]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def do(self, job: Callable[[Tpm], T], deadline: float) -> "Future[T]":
        """Have a job done, after those before it."""
        return self._put(partial(self._perform, job, deadline), last=False)

    def end(self) -> "Future[None]":
        """Close the channel and let the thread end, after what it does now."""
        return self._put(self._drop_channel, last=True)

    def _put(self, call: Callable[[], T], *, last: bool) -> "Future[T]":
        done: Future[T] = Future()

        def work() -> bool:
            try:
                done.set_result(call())
            except BaseException as error:  # noqa: BLE001  # for the caller
                done.set_exception(error)
            return not last

        self._work.put(work)
        if self._thread is None:
            # A daemon: asyncio's own executor would hold up the exit for a thread that is lost in the kernel.
            self._thread = threading.Thread(target=self._loop, name="tpm", daemon=True)
            self._thread.start()
        return done

    def _loop(self) -> None:
        while self._work.get()():
            pass

    def _perform(self, job: Callable[[Tpm], T], deadline: float) -> T:
        try:
            if self._channel is None:
                self._channel = self._open_transport()
            return job(Tpm(self._channel, timeout_s=self._timeout_s, deadline=deadline))
        except TpmUnavailableError as error:
            if error.cause not in _KEEPS_CHANNEL:
                self._drop_channel()
            raise

    def _drop_channel(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
