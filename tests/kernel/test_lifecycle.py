"""What only a real kernel does: modules that go away, processes that die, one lock for all."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

import pytest

from app.errors import BackendError
from app.evidence.backend import Cause
from app.evidence.configfs import REPORT_DIRECTORY, ConfigfsBackend
from app.evidence.configfs_entry import PREFIX
from app.wire.evidence import Evidence, Service
from tests.kernel.loadable import Provider

PATIENCE_S = 60  # the guest is emulated, and its host may be busy


def new_backend() -> ConfigfsBackend:
    return ConfigfsBackend(interval_s=0, tpm_device=None)


def collect(backend: ConfigfsBackend) -> Evidence:
    return asyncio.run(backend.collect(os.urandom(64), Service.VTPM))


def failure(backend: ConfigfsBackend) -> str:
    with pytest.raises(BackendError) as caught:
        collect(backend)
    return caught.value.cause


def is_ready(backend: ConfigfsBackend) -> bool:
    return asyncio.run(backend.probe()).ready


def entries() -> set[str]:
    return {path.name for path in REPORT_DIRECTORY.iterdir()}


def collect_often(times: int) -> None:
    for _ in range(times):
        collect(new_backend())  # checks that the evidence is for its own nonce


@contextmanager
def collecting_process(times: int = 1) -> Iterator[BaseProcess]:
    process = multiprocessing.get_context("fork").Process(target=collect_often, args=(times,))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join(PATIENCE_S)


def wait_for_call(provider: Provider, number: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while provider.calls < number:
        assert time.monotonic() < deadline, "no request reached the provider"
        time.sleep(0.02)


def kill_in_mid_request(provider: Provider) -> str:
    """A process that is killed while the kernel makes its report; the name of the entry that it leaves."""
    provider.set(delay_ms=500)
    before = entries()
    with collecting_process() as process:
        wait_for_call(provider, provider.calls + 1)
        process.kill()
        process.join(PATIENCE_S)  # the kernel lets it die only with its report
        assert process.exitcode == -signal.SIGKILL
    provider.set(delay_ms=0)
    (left,) = entries() - before
    assert left.startswith(f"{PREFIX}{process.pid}-")
    return left


def test_evidence_stops_with_the_provider_and_comes_back_with_it(provider: Provider) -> None:
    backend = new_backend()
    collect(backend)
    provider.unload()
    assert failure(backend) == Cause.NO_PROVIDER
    assert not is_ready(backend)
    provider.load()
    assert is_ready(backend)
    collect(backend)
    assert entries() == set()


def test_a_provider_that_is_unloaded_in_mid_request(provider: Provider) -> None:
    provider.set(delay_ms=500)
    with ThreadPoolExecutor(1) as other:
        pending = other.submit(collect, new_backend())
        wait_for_call(provider, 1)
        provider.unload()  # waits in the kernel until the report is made
        assert pending.result(PATIENCE_S).report
    assert failure(new_backend()) == Cause.NO_PROVIDER
    assert entries() == set()


def test_what_a_killed_process_left_is_removed_at_the_next_start(provider: Provider) -> None:
    stale = kill_in_mid_request(provider)
    foreign = REPORT_DIRECTORY / "someone-else"
    foreign.mkdir()
    try:
        backend = new_backend()
        assert is_ready(backend)
        assert entries() == {foreign.name}
        collect(backend)
    finally:
        foreign.rmdir()
    assert stale not in entries()


def test_what_a_killed_process_left_keeps_no_provider_out(provider: Provider) -> None:
    # The kernel registers a provider only where there is no entry: one that nobody removes would
    # keep sev-guest from coming back.
    stale = kill_in_mid_request(provider)
    provider.unload()
    with pytest.raises(subprocess.CalledProcessError):
        provider.load()
    assert entries() == {stale}

    backend = new_backend()
    assert failure(backend) == Cause.NO_PROVIDER
    assert entries() == set()
    provider.load()
    collect(backend)


def test_the_entry_of_a_living_process_stays(provider: Provider) -> None:
    provider.set(delay_ms=500)
    with collecting_process() as process:
        wait_for_call(provider, 1)
        assert is_ready(new_backend())
        process.join(PATIENCE_S)
        assert process.exitcode == 0
    assert entries() == set()


def test_certificates_that_come_and_go(provider: Provider) -> None:
    # In an entry whose earlier report had certificates and whose latest has none, reading auxblob
    # makes this kernel follow a null pointer: the guest would not survive an entry used again.
    backend = new_backend()
    for size in (16384, 0, 16384, 0):
        provider.set(auxblob_size=size)
        assert collect(backend).certificates is None  # a table that lists nothing


def test_two_processes_get_evidence_of_their_own(provider: Provider) -> None:
    times = 50
    with collecting_process(times) as one, collecting_process(times) as other:
        for process in (one, other):
            process.join(PATIENCE_S)
            assert process.exitcode == 0
    assert provider.calls >= 2 * times
    assert entries() == set()


def test_a_slow_request_of_somebody_else_only_delays(provider: Provider) -> None:
    provider.set(delay_ms=1000)
    with collecting_process() as process:
        wait_for_call(provider, 1)
        provider.set(delay_ms=0)
        started = time.monotonic()
        collect(new_backend())
        assert time.monotonic() - started > 0.3
        process.join(PATIENCE_S)
        assert process.exitcode == 0
