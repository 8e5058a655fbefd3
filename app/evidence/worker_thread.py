"""Run one blocking call beside the event loop, in a thread that cannot hold up the exit.

asyncio.to_thread would not do: its executor is joined when the loop ends, so that a thread
lost in the kernel would keep the process from ever leaving.
"""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")


async def run_in_daemon_thread(call: Callable[[], T], *, name: str) -> T:
    """The result of `call`, or its exception.

    Cancelling the caller only stops it from listening: the thread runs to its end.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def deliver(settle: Callable[[], None]) -> None:
        if not outcome.done():  # nobody may be listening any more
            settle()

    def work() -> None:
        try:
            result = call()
        except Exception as error:  # noqa: BLE001  # handed to the caller as it is
            settle = partial(outcome.set_exception, error)
        else:
            settle = partial(outcome.set_result, result)
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is leaving
            loop.call_soon_threadsafe(deliver, settle)

    context = contextvars.copy_context()  # so that its log lines carry the request id
    threading.Thread(target=context.run, args=(work,), name=name, daemon=True).start()
    return await outcome
