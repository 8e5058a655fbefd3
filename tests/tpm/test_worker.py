"""The queue in front of a TPM: its bounds, its deadlines, and what it does about a TPM that hangs."""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from app.errors import RateLimitedError, TpmRefusedError, TpmUnavailableError
from app.tpm import handles, worker
from app.tpm.causes import TpmCause, unavailable
from app.tpm.client import Tpm
from app.tpm.transport import SocketTransport, Transport
from app.tpm.worker import TpmWorker
from tests.interop.software_tpm import bare_tpm
from tests.tpm.peer import Canned, answer, playing

LONG_S = 30.0
SHORT_S = 0.05


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario; nothing may go wrong where nobody looks."""
    complaints: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        await asyncio.wait_for(scenario(), 60)

    asyncio.run(main())
    assert complaints == []


class Fake:
    """Opens channels to nothing, and knows which are open."""

    def __init__(self) -> None:
        self.opened = 0
        self.closed = 0

    def open(self) -> Transport:
        self.opened += 1
        fake = self

        class Channel(Canned):
            def close(self) -> None:
                fake.closed += 1

        return Channel(answer())


@contextlib.asynccontextmanager
async def working(
    open_transport: Callable[[], Transport], *, timeout_s: float = LONG_S, max_waiting: int = 10
) -> AsyncIterator[TpmWorker]:
    tpm = TpmWorker(open_transport, timeout_s=timeout_s, max_waiting=max_waiting)
    yield tpm
    await tpm.aclose()


class Blocker:
    """A job that is in the TPM until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.gate = threading.Event()

    def __call__(self, _tpm: Tpm) -> str:
        self.entered.set()
        assert self.gate.wait(LONG_S)
        return "let go"

    async def start(self, tpm: TpmWorker) -> "asyncio.Task[str]":
        task = asyncio.create_task(tpm.run(self))
        await asyncio.to_thread(self.entered.wait, LONG_S)
        return task


@contextlib.contextmanager
def raises(cause: TpmCause, reason: str = "") -> Iterator[None]:
    with pytest.raises(TpmUnavailableError) as caught:
        yield
    assert caught.value.cause == cause
    assert reason in caught.value.reason


def nothing(_tpm: Tpm) -> None:
    pass


def test_what_a_job_returns_or_raises() -> None:
    def fail(_tpm: Tpm) -> None:
        raise LookupError("mine")

    async def scenario() -> None:
        fake = Fake()
        async with working(fake.open) as tpm:
            assert await tpm.run(lambda _: 42) == 42
            with pytest.raises(LookupError, match="mine"):
                await tpm.run(fail)
            assert await tpm.run(lambda _: "again") == "again"
            assert (fake.opened, fake.closed) == (1, 0)
        assert (fake.opened, fake.closed) == (1, 1)

    play(scenario)


def test_jobs_run_one_at_a_time_in_their_order() -> None:
    present = 0
    order = []

    def job(number: int, _tpm: Tpm) -> None:
        nonlocal present
        present += 1
        assert present == 1
        order.append((number, threading.current_thread().name))
        present -= 1

    async def scenario() -> None:
        async with working(Fake().open, max_waiting=100) as tpm:
            await asyncio.gather(*(tpm.run(partial(job, number)) for number in range(100)))

    play(scenario)
    assert order == [(number, "tpm") for number in range(100)]


def test_a_job_knows_the_context_of_its_caller() -> None:
    request_id = contextvars.ContextVar("request_id", default="none")

    async def scenario() -> None:
        async with working(Fake().open) as tpm:
            request_id.set("mine")
            assert await tpm.run(lambda _: request_id.get()) == "mine"

    play(scenario)


def test_the_queue_is_bounded() -> None:
    async def scenario() -> None:
        async with working(Fake().open, max_waiting=2) as tpm:
            blocker = Blocker()
            running = await blocker.start(tpm)
            waiting = [asyncio.create_task(tpm.run(nothing)) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(RateLimitedError, match="2 requests wait for the TPM already") as caught:
                await tpm.run(nothing)
            assert caught.value.retry_after_s > 0
            blocker.gate.set()
            assert await running == "let go"
            await asyncio.gather(*waiting)
            await tpm.run(nothing)

    play(scenario)


def test_one_may_run_where_none_may_wait() -> None:
    async def scenario() -> None:
        async with working(Fake().open, max_waiting=0) as tpm:
            await tpm.run(nothing)
            blocker = Blocker()
            running = await blocker.start(tpm)
            with pytest.raises(RateLimitedError):
                await tpm.run(nothing)
            blocker.gate.set()
            await running

    play(scenario)


def test_a_caller_that_leaves_frees_its_place() -> None:
    started = []

    async def scenario() -> None:
        async with working(Fake().open, max_waiting=1) as tpm:
            blocker = Blocker()
            running = await blocker.start(tpm)
            leaving = asyncio.create_task(tpm.run(lambda _: started.append("leaving")))
            await asyncio.sleep(0)
            leaving.cancel()
            await asyncio.wait([leaving])
            staying = asyncio.create_task(tpm.run(lambda _: started.append("staying")))
            await asyncio.sleep(0)
            blocker.gate.set()
            await asyncio.gather(running, staying)
            assert leaving.cancelled()

    play(scenario)
    assert started == ["staying"]


def test_a_caller_that_leaves_at_its_turn() -> None:
    started = []

    async def scenario() -> None:
        async with working(Fake().open) as tpm:
            blocker = Blocker()
            running = await blocker.start(tpm)
            leaving = asyncio.create_task(tpm.run(lambda _: started.append("leaving")))
            staying = asyncio.create_task(tpm.run(lambda _: started.append("staying")))
            await asyncio.sleep(0)
            assert len(tpm._waiting) == 2
            blocker.gate.set()
            threading.Event().wait(SHORT_S)  # the end of the first job is reported to the loop, and then
            leaving.cancel()
            await asyncio.gather(running, staying)
            await asyncio.wait([leaving])
            assert leaving.cancelled()

    play(scenario)
    assert started == ["staying"]


def test_a_job_whose_caller_left_runs_to_its_end() -> None:
    async def scenario() -> None:
        async with working(Fake().open) as tpm:
            blocker = Blocker()
            running = await blocker.start(tpm)
            running.cancel()
            await asyncio.wait([running])
            after = asyncio.create_task(tpm.run(nothing))
            await asyncio.sleep(SHORT_S)
            assert not after.done()
            blocker.gate.set()
            await after

    play(scenario)


# Deadlines


async def recovered(tpm: TpmWorker) -> str:
    """Ask until the TPM is no longer stalled."""
    while True:
        with contextlib.suppress(TpmUnavailableError):
            return await tpm.run(lambda _: "back")
        await asyncio.sleep(0.001)


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_GRACE_S", SHORT_S)


@pytest.mark.usefixtures("short_grace")
def test_a_job_that_does_not_come_back() -> None:
    async def scenario() -> None:
        async with working(Fake().open) as tpm:
            blocker = Blocker()
            running = await blocker.start(tpm)
            waiting = [asyncio.create_task(tpm.run(nothing)) for _ in range(3)]
            await asyncio.sleep(0)
            tpm._overdue(tpm._waiting[0])  # as if thirty seconds had passed
            with raises(TpmCause.OVERLOADED, "the TPM was busy for 30 s"):
                await waiting.pop(0)
            assert tpm.stalled_for_s is None
            assert tpm._running is not None
            tpm._overdue(tpm._running)
            for task in waiting:
                with raises(TpmCause.STALLED, "a request has occupied the TPM for 0 s"):
                    await task
            with raises(TpmCause.TIMEOUT, "the TPM was not done within 30 s"):
                await running
            assert tpm.stalled_for_s is not None
            for _ in range(3):
                with raises(TpmCause.STALLED):
                    await tpm.run(nothing)
            blocker.gate.set()
            assert await recovered(tpm) == "back"
            assert tpm.stalled_for_s is None

    play(scenario)


@pytest.mark.usefixtures("short_grace")
def test_deadlines_that_pass_at_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_GRACE_S", 0.0)

    async def scenario() -> None:
        async with working(Fake().open, timeout_s=SHORT_S, max_waiting=50) as tpm:
            blocker = Blocker()
            running = await blocker.start(tpm)
            waiting = [asyncio.create_task(tpm.run(nothing)) for _ in range(50)]
            await asyncio.sleep(0)
            threading.Event().wait(3 * SHORT_S)  # the loop sees all of them pass in one turn
            done = await asyncio.gather(running, *waiting, return_exceptions=True)
            assert {type(one) for one in done} == {TpmUnavailableError}
            blocker.gate.set()

    play(scenario)


@pytest.mark.usefixtures("short_grace")
def test_a_stall_whose_caller_left() -> None:
    async def scenario() -> None:
        async with working(Fake().open, timeout_s=SHORT_S) as tpm:
            blocker = Blocker()
            running = await blocker.start(tpm)
            running.cancel()
            with pytest.raises(TpmUnavailableError):  # waited for its turn in vain
                await tpm.run(nothing)
            await asyncio.sleep(2 * SHORT_S)
            with raises(TpmCause.STALLED):
                await tpm.run(nothing)
            blocker.gate.set()
            await recovered(tpm)

    play(scenario)


# The channel


def test_the_channel_is_opened_again_after_it_failed() -> None:
    fake = Fake()

    def fail(cause: TpmCause) -> Callable[[Tpm], None]:
        def job(_tpm: Tpm) -> None:
            raise unavailable(cause, "why")

        return job

    def refuse(_tpm: Tpm) -> None:
        raise TpmRefusedError("TPM2_Quote", 0x101, "TPM_RC_FAILURE")

    async def scenario() -> None:
        async with working(fake.open) as tpm:
            for number, cause in enumerate((TpmCause.TIMEOUT, TpmCause.GONE, TpmCause.MALFORMED_ANSWER), 1):
                with raises(cause, "why"):
                    await tpm.run(fail(cause))
                assert (fake.opened, fake.closed) == (number, number)
            for cause in (TpmCause.BANK_MISSING, TpmCause.UNSETTLED):
                with raises(cause, "why"):
                    await tpm.run(fail(cause))
            with pytest.raises(TpmRefusedError):
                await tpm.run(refuse)
            await tpm.run(nothing)
            assert (fake.opened, fake.closed) == (4, 3)

    play(scenario)


def test_each_job_looks_for_a_tpm_that_is_missing() -> None:
    fake = Fake()
    there = False

    def open_transport() -> Transport:
        if not there:
            raise unavailable(TpmCause.MISSING, "no such device")
        return fake.open()

    async def scenario() -> None:
        nonlocal there
        async with working(open_transport) as tpm:
            for _ in range(2):
                with raises(TpmCause.MISSING, "no such device"):
                    await tpm.run(nothing)
            there = True
            await tpm.run(nothing)

    play(scenario)
    assert (fake.opened, fake.closed) == (1, 1)


# The end


def test_closing() -> None:
    async def scenario() -> None:
        fake = Fake()
        tpm = TpmWorker(fake.open, timeout_s=LONG_S, max_waiting=10)
        blocker = Blocker()
        running = await blocker.start(tpm)
        waiting = asyncio.create_task(tpm.run(nothing))
        await asyncio.sleep(0)
        closing = [asyncio.create_task(tpm.aclose()) for _ in range(2)]
        with raises(TpmCause.CLOSED, "the service stopped while a request waited for the TPM"):
            await waiting
        with raises(TpmCause.CLOSED, "the TPM is not asked any more"):
            await tpm.run(nothing)
        assert not any(task.done() for task in closing)
        blocker.gate.set()
        await asyncio.gather(*closing)
        assert await running == "let go"
        assert fake.closed == 1
        await tpm.aclose()

    play(scenario)


def test_closing_what_was_never_used() -> None:
    async def scenario() -> None:
        fake = Fake()
        await TpmWorker(fake.open, timeout_s=LONG_S, max_waiting=10).aclose()
        assert fake.opened == 0

    play(scenario)


@pytest.mark.usefixtures("short_grace")
def test_closing_does_not_wait_for_a_job_that_hangs() -> None:
    blocker = Blocker()
    fake = Fake()

    async def scenario() -> None:
        tpm = TpmWorker(fake.open, timeout_s=SHORT_S, max_waiting=10)
        running = await blocker.start(tpm)
        closing = asyncio.create_task(tpm.aclose())
        with raises(TpmCause.TIMEOUT):
            await running
        await closing
        assert fake.closed == 0

    play(scenario)
    threads = [thread for thread in threading.enumerate() if thread.name == "tpm"]
    assert all(thread.daemon for thread in threads)  # the process may end
    blocker.gate.set()  # after the loop was closed
    for thread in threads:
        thread.join(LONG_S)
    assert fake.closed == 1


# A software TPM


class Ticker:
    """Counts how often the loop comes round."""

    def __init__(self) -> None:
        self.ticks = 0
        self._task = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.005)
            self.ticks += 1

    def stop(self) -> int:
        self._task.cancel()
        return self.ticks


def manufacturer(tpm: Tpm) -> int:
    return tpm.properties(0x105)[0x105]


def test_a_software_tpm_that_hangs(tmp_path: Path) -> None:
    with bare_tpm(tmp_path, listening=True) as peer:

        async def scenario() -> None:
            async with working(lambda: SocketTransport.unix(peer.path), timeout_s=0.2) as tpm:
                expected = await tpm.run(manufacturer)
                peer.freeze()
                ticker = Ticker()
                asked = await asyncio.gather(
                    *(tpm.run(manufacturer) for _ in range(5)), return_exceptions=True
                )
                assert {type(one) for one in asked} == {TpmUnavailableError}
                assert ticker.stop() > 1
                peer.thaw()
                await recovered(tpm)
                assert await tpm.run(manufacturer) == expected

        play(scenario)


def test_a_software_tpm_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        peer = stack.enter_context(bare_tpm(tmp_path, listening=True))

        async def scenario() -> None:
            async with working(lambda: SocketTransport.unix(tmp_path / "data")) as tpm:
                expected = await tpm.run(manufacturer)
                peer.freeze()
                asking = asyncio.create_task(tpm.run(manufacturer))
                await asyncio.sleep(SHORT_S)
                peer.kill()
                with raises(TpmCause.GONE):
                    await asking
                with raises(TpmCause.MISSING, "Connection refused"):
                    await tpm.run(manufacturer)
                (tmp_path / "data").unlink()
                with raises(TpmCause.MISSING, "No such file or directory"):
                    await tpm.run(manufacturer)
                stack.enter_context(bare_tpm(tmp_path, listening=True))
                assert await tpm.run(manufacturer) == expected

        play(scenario)


def test_a_tpm_that_wants_to_be_asked_again_for_ever() -> None:
    with playing(repeat(answer(code=0x922))) as (channel, _):

        async def scenario() -> None:
            async with working(lambda: channel, timeout_s=0.2) as tpm:
                ticker = Ticker()
                with raises(TpmCause.TIMEOUT, "the TPM said 0x922 TPM_RC_RETRY last"):
                    await tpm.run(lambda it: it.handles(handles.TRANSIENT))
                assert ticker.stop() > 1
                assert tpm.stalled_for_s is None

        play(scenario)
