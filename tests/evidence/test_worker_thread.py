"""A blocking call beside the event loop."""

import asyncio
import contextvars
import threading
import time

import pytest

from app.evidence.worker_thread import run_in_daemon_thread

WHO = contextvars.ContextVar("WHO", default="nobody")


def test_result_error_name_and_context() -> None:
    async def scenario() -> None:
        WHO.set("request 7")
        assert await run_in_daemon_thread(WHO.get, name="x") == "request 7"
        assert await run_in_daemon_thread(lambda: threading.current_thread().name, name="x") == "x"
        assert await run_in_daemon_thread(lambda: threading.current_thread().daemon, name="x")
        with pytest.raises(ZeroDivisionError):
            await run_in_daemon_thread(lambda: 1 // 0, name="x")

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [None, ValueError("nobody listens")])
def test_nobody_listens_any_more(error: Exception | None) -> None:
    async def scenario() -> None:
        complaints: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        leave = threading.Event()

        def call() -> None:
            leave.wait(10)
            if error is not None:
                raise error

        task = asyncio.ensure_future(run_in_daemon_thread(call, name="x"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        leave.set()
        await asyncio.sleep(0.05)
        assert complaints == []

    asyncio.run(scenario())


def test_the_loop_is_gone_when_the_call_returns() -> None:
    leave = threading.Event()

    async def scenario() -> None:
        asyncio.ensure_future(run_in_daemon_thread(lambda: leave.wait(10), name="late")).cancel()
        task = asyncio.ensure_future(run_in_daemon_thread(lambda: leave.wait(10), name="late"))
        await asyncio.sleep(0)
        task.cancel()

    started = time.monotonic()
    asyncio.run(scenario())
    assert time.monotonic() - started < 1  # the thread does not hold it up
    leave.set()
    for thread in threading.enumerate():
        if thread.name == "late":
            thread.join(10)
            assert not thread.is_alive()
